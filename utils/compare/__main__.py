"""Compare arms of an experiment, several seeds each: `python -m utils.compare --help`."""

from pathlib import Path

from options.parser import OneLineParser
from options.values import whole_number
from utils.compare.arms import read_arms
from utils.compare.tables import write_comparison
from utils.system.process import program, run_stage


def main() -> None:
    parser = OneLineParser(
        "Write a table and a plot of validation PCK by arm, from the log.jsonl of each run, including its "
        "--eval_grid and --eval_occlusion results at the last epoch. Runs with the same seed form a pair. "
        "It is an error if runs differ in people, initial checkpoint or number of updates, or if the runs "
        "of an arm were trained with different options.",
        prog=program(),
    )
    add = parser.add_argument
    add(
        "--arm",
        action="append",
        nargs="+",
        required=True,
        metavar=("NAME", "FOLDER"),
        help="name of an arm and folders of its runs; repeat for each arm",
    )
    add("--out", type=Path, required=True, help="output folder for compare.txt, .md and .png")
    add("--reference", metavar="NAME", help="arm that the others are compared with; default: the first")
    add("--from_epoch", type=whole_number(0), default=0, help="first epoch to compare")
    add("--to_epoch", type=whole_number(0), help="last epoch to compare; default: the last of all runs")
    add("--from_checkpoint", type=Path, metavar="FILE", help="require that all runs started from this file")
    opt = parser.parse_args()
    named = [(name, [Path(folder) for folder in folders]) for name, *folders in opt.arm]
    comparison = read_arms(named, opt.reference, opt.from_epoch, opt.to_epoch, opt.from_checkpoint)
    write_comparison(comparison, opt.out)


if __name__ == "__main__":
    run_stage(main)
