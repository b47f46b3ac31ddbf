"""The reports of a training run: log, event log, summary, visdom windows and HTML pages."""

import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from utils.display.epoch_text import epoch_text
from utils.display.sections import Section
from utils.display.stages import experiment_folder, run_title
from utils.display.visdom import VisdomDisplay, default_environment
from utils.evaluation.evaluate import Evaluation
from utils.evaluation.metrics import PckTable
from utils.records.epochs import Retention, epoch_files
from utils.records.events import EVENTS, EventLog
from utils.records.history import format_value
from utils.run import Run, option_text
from utils.system import ranks
from utils.system.errors import UserError
from utils.system.files import write_file
from utils.system.process import Interrupted, batch_log
from utils.training import Learner

if TYPE_CHECKING:
    from utils.display.pages import Pages

log = logging.getLogger(__name__)


class Report:
    """Reports the batches and epochs of one training run; a context manager, which closes the reports.

    With several ranks only rank 0 reports.

    Args:
        run: the run. stage: the name of its stage. learner: the network in training.
        files: deletes the files of earlier epochs. summary: name of the file with the history as a table.
    """

    def __init__(
        self, run: Run, stage: str, learner: Learner, files: Retention, summary: str = "training-summary.txt"
    ) -> None:
        self.run, self.history, self.summary = run, learner.history, run.folder / summary
        self._learner, self._files = learner, files
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
        self._cautioned = False
        if opt.use_html and run.pose_path is None and not learner.epoch:  # stage 1, from the start
            self._show_data()
        # The options and pages of an earlier run with later epochs stay until this run has saved an epoch.
        if all(file.epoch < learner.epoch for file in epoch_files(run.folder) if not file.companion):
            self._show_this_run()

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *trace: object) -> None:
        if self._reports and error and (isinstance(error, Interrupted) or ranks.peer_lost(error)):
            error.add_note(f"to resume: {self._resuming()}")
        try:
            self.close(done=kind is None)
        except UserError as problem:
            if kind is None:
                raise
            log.warning("%s", problem)  # not raised: it would hide the error that ended the run

    def batch(self, bar: tqdm, epoch: int, batch: int, read: Callable[[], Mapping[str, float]]) -> None:
        """Report the means of an epoch up to a batch: to the log and, as an event, to visdom, as flags say.

        bar: the progress bar of the epoch. batch: counted from 0. read: returns the means; called only for
        batches that are reported, since it waits for the GPU and for all ranks.
        """
        done, opt = batch + 1, self.run.opt
        due = [done % every == 0 for every in (opt.print_freq, opt.display_freq)]
        if not any(due):
            return
        means = read()
        bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()}, refresh=False)
        if due[0]:
            batch_log.info("epoch %d, batch %d of %d: %s", epoch, done, bar.total, format_row(means))
        if due[1]:
            self._event(kind="batch", epoch=epoch, batch=done, batches=bar.total, **means)

    def end_epoch(
        self,
        row: dict,
        save: Callable[[bool], list[Path]],
        gallery: Callable[[], list[Section]],
        evaluation: Evaluation | None = None,
    ) -> None:
        """Report, save and show a finished epoch, and advance the learner to the next one.

        Args:
            row: the epoch's row of the history. save: writes the epoch's files and returns their paths; its
            argument: whether the epoch is the best
                so far.
            gallery: makes the sections of the epoch's page.
            evaluation: of the pose network, if the stage trains it.
        """
        self.history.append(row)
        # Before saving: if the run is killed in between, the resumed run repeats the epoch and its report.
        self._report_epoch(row, evaluation)
        best = self.history.improved()
        self._files.add(save(best), best)
        if self._reports and not self._shown:
            self._show_this_run()
        if self.pages:
            self.pages.epoch(self.history.rows, evaluation and evaluation.table, gallery)
        self._learner.epoch += 1

    def _report_epoch(self, row: dict, evaluation: Evaluation | None) -> None:
        if not self._reports:
            return
        log.info("%s", epoch_text(row, self.run.dataset.metric_name))
        table = {}
        if evaluation is not None:
            log.info("%s", evaluation)
            table = {"pck": evaluation.table.pck, "auc": evaluation.table.auc}
            self._caution(evaluation.table)
        self._event(kind="epoch", **row, **table, updates=self._learner.updates)
        write_file(self.summary, self.history.table())

    def _caution(self, table: PckTable) -> None:
        """Warn of few validation people, once: when PCK has an interval, or else in the last epoch."""
        known = not math.isnan(table.interval[0]) or self._learner.epoch + 1 == self.run.opt.nEpochs
        if known and table.caution and not self._cautioned:
            log.warning("validation: %s", table.caution)
            self._cautioned = True

    def close(self, done: bool = True) -> None:
        """Close all reports; done: whether the run has reached its last epoch."""
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

    def _resuming(self) -> str:
        """The command line that resumes this run; its own one, if it has not saved an epoch."""
        arguments = sys.argv[1:]
        if self._files.newest is not None:
            flag, _, value = self._files.resume_flag.removeprefix("--").partition(" ")
            value = value or self._files.newest.name
            arguments = self.run.opt.resuming(flag, value)
        return shlex.join([*ranks.launcher(), sys.argv[0], *arguments])

    def _show_data(self) -> None:
        """Write the page of the data."""
        try:
            from utils.display.data_page import write_data_page
            from utils.display.pages import warn_of
        except ImportError:  # `_show_this_run` says so
            return
        try:
            log.info("the data on a page, to check before training goes on: %s", write_data_page(self.run))
        except Exception as error:  # noqa: BLE001  # a bug in pages must not prevent training
            warn_of(error)

    def _show_this_run(self) -> None:
        """Replace the folder's options and pages by those of this run."""
        self._shown = True
        run, opt = self.run, self.run.opt
        write_file(run.folder / "opt.txt", run.options_text() + "\n")
        if not opt.use_html:
            return
        try:
            from utils.display.pages import Pages
        except ImportError as error:  # dominate, which only pages need
            log.warning("no HTML pages: %s", error)
            return
        values = {name: getattr(opt, name) for name in opt.defaults}
        options = {name: (option_text(value), value != opt.defaults[name]) for name, value in values.items()}
        title = run_title(self._stage, opt, run.folder)
        self.pages = Pages(
            *(run.folder, experiment_folder(opt), title, self._stage, run.dataset.metric_name, options),
            *(self._first, opt.nEpochs, self.history.rows),
        )

    def _event(self, **event: object) -> None:
        if not self._reports:
            return
        self._log.add(event)
        if self._visdom is not None:
            self._visdom.add(event)


def format_row(values: dict) -> str:
    """Names and values in one line."""
    return "  ".join(f"{name} {format_value(value)}" for name, value in values.items())
