"""A comparison as files: its tables and its plot."""

import logging
from collections.abc import Sequence
from pathlib import Path

from utils.compare.arms import Comparison, pair_values
from utils.compare.tables import epoch_table, markdown
from utils.display.plots import plot_arms
from utils.system.errors import UserError
from utils.system.files import write_file

log = logging.getLogger("compare")

TERMINAL = 110  # characters of a line


def write_comparison(comparison: Comparison, out: Path, foot: Sequence[str] = ()) -> None:
    """Log a comparison, and write it to `compare.txt`, `.md` and `.png` in a folder, made if need be.

    foot: more lines below the table. In the log the table is in parts that fit a terminal.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
    table, epochs = "\n".join([markdown(comparison), *foot]), epoch_table(comparison)
    log.info("%s", "\n".join([markdown(comparison, TERMINAL), *foot, "", epochs]))
    write_file(out / "compare.txt", f"{table}\n\n{epochs}\n")
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
