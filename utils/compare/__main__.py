"""Compare arms of an experiment, several seeds each: `python -m utils.compare --help`."""

import logging
from pathlib import Path

from options.parser import OneLineParser
from options.values import whole_number
from utils.compare.arms import read_arms
from utils.compare.tables import write_comparison
from utils.system.process import Terminal, run_stage

log = logging.getLogger("compare")


def main() -> None:
    parser = OneLineParser(
        "A table and a plot of validation PCK by arm, from the log.jsonl of each run, and from what "
        "--eval_grid and --eval_occlusion have found at the last epoch. Runs of the same seed are a pair. "
        "Runs that differ in people, in the checkpoint that they went on from or in the number of updates "
        "are refused, and arms whose epochs were trained with different options.",
        prog="python -m utils.compare",
    )
    add = parser.add_argument
    add(
        "--arm",
        action="append",
        nargs="+",
        required=True,
        metavar=("NAME", "FOLDER"),
        help="an arm's name and the folders of its runs; once for each arm",
    )
    add("--out", type=Path, required=True, help="folder for compare.txt, .md and .png")
    add("--reference", metavar="NAME", help="the arm with which the others are compared; default: the first")
    add("--from_epoch", type=whole_number(0), default=0, help="leave earlier epochs out")
    add("--to_epoch", type=whole_number(0), help="leave later epochs out")
    add(
        "--from_checkpoint", type=Path, metavar="FILE", help="refuse runs that have not gone on from this one"
    )
    opt = parser.parse_args()
    logging.basicConfig(level=logging.INFO, handlers=[Terminal()], format="%(message)s")
    named = [(name, [Path(folder) for folder in folders]) for name, *folders in opt.arm]
    comparison = read_arms(named, opt.reference, opt.from_epoch, opt.to_epoch, opt.from_checkpoint)
    write_comparison(comparison, opt.out)


if __name__ == "__main__":
    run_stage(main)
