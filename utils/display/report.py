"""The reports of a training run: log, event log, summary, visdom curves and HTML pages."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from utils.display.sections import Section
from utils.display.visdom import VisdomDisplay, default_environment
from utils.evaluation.evaluate import Evaluation
from utils.records.epochs import KeptEpochs, epoch_files
from utils.records.events import EVENTS, EventLog
from utils.records.history import format_value
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError
from utils.system.files import write_file
from utils.system.process import batch_log
from utils.training import Learner

if TYPE_CHECKING:
    from utils.display.pages import Pages

log = logging.getLogger(__name__)


class Report:
    """Reports the batches and epochs of one training run; a context that closes it however the run ends.

    Of several ranks only rank 0 reports.

    Args:
        run, stage: the run, and its stage's name.
        learner: the network in training, whose history's last row `epoch` reports.
        kept: decides which epochs' files stay.
        summary: the file that gets the history as a table.
    """

    def __init__(
        self,
        run: Run,
        stage: str,
        learner: Learner,
        kept: KeptEpochs,
        summary: str = "training-summary.txt",
    ) -> None:
        self.run, self.history, self.summary = run, learner.history, run.folder / summary
        self._learner, self._kept = learner, kept
        self.pages: Pages | None = None
        self._reports = ranks.rank() == 0
        if not self._reports:
            return
        self._log = EventLog(run.folder / EVENTS)
        self._visdom, opt = None, run.opt
        if opt.use_visdom:
            env = opt.vis_env or default_environment(opt.exp_id, run.folder)
            self._visdom = VisdomDisplay(run.folder / EVENTS, env, opt.vis_server, opt.vis_port)
        self._event(
            kind="start",
            time=time.time(),
            stage=stage,
            measure=run.dataset.metric_name,
            epoch=learner.epoch,
            epochs=run.opt.nEpochs,
            people=run.people,
            pose=run.pose_identity if run.pose_path else None,
            options={name: str(value) for name, value in vars(run.opt).items() if name in run.opt.defaults},
        )
        self._stage, self._first, self._shown = stage, learner.epoch, False
        # What another way to these epochs has left is not touched before one of this run's is saved.
        if all(file.epoch < learner.epoch for file in epoch_files(run.folder) if not file.beside):
            self._show_this_run()

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            self.close(done=kind is None)
        except UserError as problem:
            if kind is None:
                raise
            log.warning("%s", problem)  # what ended the run is the error to show

    def batch(self, bar: tqdm, epoch: int, batch: int, read: Callable[[], Mapping[str, float]]) -> None:
        """The means of an epoch up to a batch (from 0): logged and drawn every so many batches.

        bar: the epoch's. read: returns the means; called only for those batches, since it waits for GPUs
        and for all ranks.
        """
        done, opt = batch + 1, self.run.opt
        due = [done % every == 0 for every in (opt.print_freq, opt.display_freq)]
        if not any(due):
            return
        means = read()
        bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()}, refresh=False)
        if due[0]:
            batch_log.info("epoch %d, batch %d of %d: %s", epoch, done, bar.total, listed(means))
        if due[1]:
            self._event(kind="batch", epoch=epoch, batch=done, batches=bar.total, **means)

    def end_epoch(
        self,
        row: dict,
        save: Callable[[bool], list[Path]],
        gallery: Callable[[], list[Section]],
        evaluation: Evaluation | None = None,
    ) -> None:
        """An epoch has ended: it is reported, saved and shown, and the learner goes on to the next.

        Args:
            row: for the history. save: writes the files and returns them, told whether the epoch is the best
                so far. gallery: makes the page's pictures. evaluation: of the pose network, if that is
                in training.
        """
        self.history.append(row)
        self._tell(evaluation)
        best = self.history.improved()
        self._kept.add(save(best), best)
        self._show(gallery, evaluation)
        self._learner.epoch += 1

    def _tell(self, evaluation: Evaluation | None) -> None:
        """The history's last row and, of a stage that trains the pose network, its evaluation.

        Before the epoch is saved: should the run be killed in between, resuming tells of the epoch anew.
        """
        if not self._reports:
            return
        row = self.history.rows[-1]
        log.info("%s", listed(row))
        table = {}
        if evaluation is not None:
            log.info("%s", evaluation.table)
            table = {"pck": evaluation.table.pck, "auc": evaluation.table.auc}
        self._event(kind="epoch", **row, **table, updates=self._learner.updates)
        write_file(self.summary, self.history.table())

    def _show(self, gallery: Callable[[], list[Section]], evaluation: Evaluation | None) -> None:
        """The epoch's HTML page, once it is saved; `gallery` makes its pictures, if there are pages."""
        if not self._reports:
            return
        if not self._shown:
            self._show_this_run()
        if self.pages:
            self.pages.epoch(self.history.rows, evaluation and evaluation.table, gallery)

    def close(self, done: bool = True) -> None:
        """The run has ended: done, or not."""
        if not self._reports:
            return
        self._event(kind="end", time=time.time())
        self._log.close()
        if self._visdom is not None:
            self._visdom.close()
        if self.pages:
            self.pages.close()
            if self.pages.index.exists():
                log.info("pages: %s", self.pages.index)
        if done:
            log.info("done: %s", self.run.folder)

    def _show_this_run(self) -> None:
        """The folder's options and pages become those of this run."""
        self._shown = True
        write_file(self.run.folder / "opt.txt", self.run.options_text() + "\n")
        if self.run.opt.use_html:
            self.pages = self._pages()

    def _pages(self) -> "Pages | None":
        try:
            from utils.display.pages import Pages
        except ImportError as error:  # of dominate, which nothing but pages needs
            log.warning("no HTML pages: %s", error)
            return None
        run, opt = self.run, self.run.opt
        options = {
            name: (str(getattr(opt, name)), getattr(opt, name) != opt.defaults[name]) for name in opt.defaults
        }
        return Pages(
            run.folder,
            opt.exp_id,
            self._stage,
            run.dataset.metric_name,
            options,
            self._first,
            opt.nEpochs,
            self.history.rows,
        )

    def _event(self, **event: object) -> None:
        if not self._reports:
            return
        self._log.add(event)
        if self._visdom is not None:
            self._visdom.add(event)


def listed(values: dict) -> str:
    """Names and values on one line."""
    return "  ".join(f"{name} {format_value(value)}" for name, value in values.items())
