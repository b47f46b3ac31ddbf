"""What a training run tells while it goes on: log lines, `log.jsonl`, the summary file."""

import json
import logging
import time

from utils.files import write_file
from utils.history import History, format_value
from utils.loops import Evaluation
from utils.process import batch_log
from utils.runs import Run

log = logging.getLogger(__name__)

EVENTS = "log.jsonl"
"""One JSON object a line. `kind` is
"start": stage, time, measure, epoch (the first one to come), epochs (all in all), options (name -> text);
"batch": epoch, batch and batches (of the epoch), and the epoch's means so far, by name;
"epoch": a row of the history, and for the pose network pck and auc (column -> share);
"end": time.
A run that was resumed has several starts: what comes after a start replaces earlier events of its epochs.
"""


class Report:
    """Reports the batches and epochs of one training run.

    Args:
        run, stage: the run, and its stage's name. history: whose last row `epoch` reports.
        epoch: the first one to come.
    """

    def __init__(self, run: Run, stage: str, history: History, epoch: int) -> None:
        self.run, self.history = run, history
        write_file(run.folder / "opt.txt", run.options_text() + "\n")
        self._file = (run.folder / EVENTS).open("a", encoding="utf-8")
        self._event(
            kind="start",
            time=time.time(),
            stage=stage,
            measure=f"{run.dataset.measure}@{run.dataset.threshold:g}",
            epoch=epoch,
            epochs=run.opt.nEpochs,
            options={name: str(value) for name, value in vars(run.opt).items() if name in run.opt.defaults},
        )

    def batch(self, epoch: int, batch: int, batches: int, **means: float) -> None:
        """The means of an epoch up to a batch (from 0): logged and drawn every so many batches."""
        done, opt = batch + 1, self.run.opt
        if done % opt.print_freq == 0:
            batch_log.info("epoch %d, batch %d of %d: %s", epoch, done, batches, listed(means))
        if done % opt.display_freq == 0:
            self._event(kind="batch", epoch=epoch, batch=done, batches=batches, **means)

    def epoch(self, evaluation: Evaluation | None = None) -> None:
        """The history's last row and, of a stage that trains the pose network, its evaluation."""
        row = self.history.rows[-1]
        log.info("%s", listed(row))
        table = {}
        if evaluation is not None:
            log.info("%s", evaluation.table)
            table = {"pck": evaluation.table.pck, "auc": evaluation.table.auc}
        self._event(kind="epoch", **row, **table)
        write_file(self.run.folder / "training-summary.txt", self.history.table())

    def close(self) -> None:
        """The run has ended."""
        self._event(kind="end", time=time.time())
        self._file.close()
        log.info("done: %s", self.run.folder)

    def _event(self, **event: object) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()


def listed(values: dict) -> str:
    """Names and values on one line."""
    return "  ".join(f"{name} {format_value(value)}" for name, value in values.items())
