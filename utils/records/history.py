"""The history of a run: a row of numbers per epoch, for its checkpoints, log and summary file."""

import math


class History:
    """One row per epoch: a dict of numbers, or of short lists of numbers, by name.

    Checkpoints hold the rows as `train_history`, so that a resumed run continues its curves.
    """

    def __init__(self, rows: list[dict] | None = None) -> None:
        self.rows = list(rows or [])

    @classmethod
    def of_checkpoint(cls, checkpoint: dict) -> "History":
        """The history in a checkpoint; empty if its format is another one (that of the 2018 release)."""
        rows = checkpoint.get("train_history")
        known = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
        return cls(rows if known else None)

    def append(self, row: dict) -> None:
        self.rows.append(row)

    def improved(self) -> bool:
        """Whether the last row is better than all earlier ones."""
        return best_epoch(self.rows) == self.rows[-1]["epoch"]

    def table(self) -> str:
        """The rows as text, with one column per name."""
        if not self.rows:
            return ""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        cells = [names] + [[format_value(row.get(name, "")) for name in names] for row in self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
        ]
        return "\n".join(lines) + "\n"


def best_epoch(rows: list[dict]) -> int | None:
    """The epoch with the best scores of validation people.

    That is the highest average precision, with the higher PCK where it is equal; without it the highest PCK;
    for an agent the lowest loss. The first of equal ones; None if no row has such a number. NaN is ignored.
    """
    for name, sign in (("valid_ap", 1), ("valid_pck", 1), ("valid_loss", -1)):
        known = [row for row in rows if not math.isnan(row.get(name, math.nan))]
        if known:
            return max(known, key=lambda row: (sign * row[name], row.get("valid_pck", 0)))["epoch"]
    return None


def format_value(value: object) -> str:
    """A number with six significant digits; lists of numbers with commas and no blanks."""
    if isinstance(value, list):
        return ",".join(f"{item:.4f}" for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
