"""Compare arms of an experiment, several seeds each: `python -m utils.compare --help`."""

if __name__ == "__main__":
    from utils.signals import end_at_once

    end_at_once()  # the imports below take seconds

import logging
from collections.abc import Sequence
from pathlib import Path

from options.parser import OneLineParser
from options.values import whole_number
from utils.comparison.arms import Comparison, pair_values, read_arms
from utils.comparison.tables import epoch_table, markdown
from utils.display.plots import plot_arms
from utils.errors import UserError
from utils.files import write_file
from utils.process import Terminal, run_stage

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


def write_comparison(comparison: Comparison, out: Path, foot: Sequence[str] = ()) -> None:
    """Log a comparison, and write it to `compare.txt`, `.md` and `.png` in a folder, made if need be.

    foot: more lines below the table.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
    table = "\n".join([markdown(comparison), *foot])
    text = f"{table}\n\n{epoch_table(comparison)}"
    log.info("%s", text)
    write_file(out / "compare.txt", text + "\n")
    write_file(out / "compare.md", table + "\n")
    reference = comparison.reference
    plot_arms(
        out / "compare.png",
        comparison.metric_name,
        comparison.epochs,
        {arm.name: arm.pck[:, :, -1] for arm in comparison.arms},
        reference.name,
        {arm.name: pair_values(reference, arm, lambda one: one.pck[:, :, -1]) for arm in comparison.others},
        comparison.updates,
    )
    log.info("written: %s", out / "compare.txt, .md, .png")


if __name__ == "__main__":
    run_stage(main)
