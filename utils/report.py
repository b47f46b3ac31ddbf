"""What a training run tells while it goes on: the log, `log.jsonl` and the summary file."""

import json
import logging

from utils.files import write_file
from utils.history import History, format_value
from utils.metrics import PckTable
from utils.runs import Run

log = logging.getLogger(__name__)


class Report:
    """Reports the batches and epochs of one training run from its history."""

    def __init__(self, run: Run, history: History) -> None:
        self.run, self.history = run, history
        self._events = (run.folder / "log.jsonl").open("a", encoding="utf-8")

    def batch(self, epoch: int, batch: int, batches: int, **values: float) -> None:
        """Every `--print_freq` batches: the epoch's means so far."""
        if (batch + 1) % self.run.opt.print_freq == 0:
            self._event({"epoch": epoch, "batch": batch + 1, "batches": batches, **values})
            log.debug("epoch %d, batch %d of %d: %s", epoch, batch + 1, batches, _listed(values))

    def epoch(self, table: PckTable) -> None:
        """The history's last row, and the per-joint table."""
        row = self.history.rows[-1]
        log.info("%s", _listed(row))
        log.info("%s", table)
        self._event({**row, "pck": table.pck, "auc": table.auc})
        write_file(self.run.folder / "training-summary.txt", self.history.table())

    def close(self) -> None:
        """The run has ended."""
        self._events.close()
        log.info("done: %s", self.run.folder)

    def _event(self, values: dict) -> None:
        self._events.write(json.dumps(values) + "\n")
        self._events.flush()


def _listed(values: dict) -> str:
    return "  ".join(f"{name} {format_value(value)}" for name, value in values.items())
