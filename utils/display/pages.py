"""HTML pages of a training run: an index and one gallery per epoch, in `web/` of the experiment's folder.

Each page is one self-contained file, written atomically: a browser never loads an incomplete page. The
galleries of the newest `NEWEST` epochs and of the best one are retained. A gallery shows a fixed number of
people; the index grows by one point per curve and epoch. An epoch gets no gallery if pages have taken more
than `SHARE` of the run's time so far; the first and the last epoch of a run always get one.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from data import DataError
from utils.display.curves import draw_curves
from utils.display.data_page import DATA_PAGE
from utils.display.markup import evaluations_page, gallery_page, index_page
from utils.display.sections import Curve, Section
from utils.display.stages import INDEX, joint_start, link, other_stages, page_title, update_list
from utils.evaluation.evaluate import Evaluation
from utils.evaluation.metrics import PckTable
from utils.records.history import best_epoch
from utils.system.errors import UserError
from utils.system.files import natural, write_file

log = logging.getLogger(__name__)

NEWEST = 10
SHARE = 0.02  # of a run's time
# Evaluations have a page to themselves: after a run, its index is no longer written.
EVALUATIONS = "evaluations.html"
_FILES = ("training-summary.txt", "pose-training-summary.txt", "log.txt", "opt.txt", "log.jsonl")


class Pages:
    """The pages of one training run. Any error in them is logged as one warning, and training continues.

    Args:
        folder: of the run. experiment: the folder with the entry, which may be the same. title: of the stage
        and the run. script: the name of the stage's script.
        metric_name: how joints are scored, such as "PCKh@0.5".
        options: name -> (value as text, whether it differs from its default).
        epoch: the first epoch to train; galleries of an earlier run from there on are deleted.
        epochs: the total number of epochs. rows: the history before `epoch`.

    index: the path of the index.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Path,
        title: str,
        script: str,
        metric_name: str,
        options: dict[str, tuple[str, bool]],
        epoch: int,
        epochs: int,
        rows: list[dict],
    ) -> None:
        self.folder, self.experiment, self.metric_name = folder / "web", experiment, metric_name
        self.index = self.folder / "index.html"
        self.title, self.script = title, script
        self.options, self.epochs, self.rows = options, epochs, rows
        self.table: PckTable | None = None
        # The curves as last drawn, and from how many rows: drawing them takes most of an index's time.
        self._curves: tuple[int, list[Curve]] = -1, []
        self._began, self._first, self._warned = time.monotonic(), epoch, False
        self._spent = 0.0  # seconds taken by the pages of epochs
        self._earlier = sum(row.get("train_seconds", 0.0) + row.get("valid_seconds", 0.0) for row in rows)
        self._guarded(self._start)

    def epoch(
        self, rows: list[dict], table: PckTable | None = None, gallery: Callable[[], list[Section]] = list
    ) -> None:
        """Write the pages of the epoch in the last row of the history, if `SHARE` leaves time for them.

        Args:
            rows: the history. table: the epoch's results by joint. gallery: makes the sections of its page.
        """
        self.rows, self.table = rows, table
        began = time.monotonic()
        last = rows[-1]["epoch"] + 1 == self.epochs
        if last or self._spent <= SHARE * (began - self._began):
            self._guarded(lambda: self.write_epoch(gallery()))
            self._spent += time.monotonic() - began

    def close(self) -> None:
        """Write the index of a run that has ended, which no longer reloads itself."""
        self._guarded(lambda: self._list(running=False))

    def write_epoch(self, sections: list[Section]) -> None:
        """Write the last epoch's gallery, if it has sections, and the index; delete superseded galleries.

        Raises:
            OSError, UserError: the folder cannot be written to.
        """
        epoch = self.rows[-1]["epoch"]
        if sections:
            heading = f"Epoch {epoch}{scores(self.rows[-1], self.metric_name)}"
            joints, back = joint_section(self.metric_name, self.table), (self.index.name, self.title)
            sections = sections if joints is None else [joints, *sections]
            page = gallery_page(self.title, heading, sections, back)
            write_file(self._gallery(epoch), page)
        for old in set(self._galleries()) - retained_galleries(self._galleries(), best_epoch(self.rows)):
            self._gallery(old).unlink()
        self.write_index(running=True)

    def write_index(self, running: bool) -> None:
        """Write the index, with links to all galleries.

        Raises:
            OSError, UserError: the folder cannot be written to.
        """
        shown = reversed(self._galleries())
        if self._curves[0] != len(self.rows):
            self._curves = len(self.rows), draw_curves(self.rows, self.metric_name)
        page = index_page(
            title=self.title,
            script=self.script,
            state=self._state(running),
            running=running,
            cards=self._cards(running),
            joints=joint_section(self.metric_name, self.table),
            curves=self._curves[1],
            galleries=[(self._gallery(epoch).name, self._label(epoch)) for epoch in shown],
            galleries_note=f"The newest {NEWEST} and the best are retained. Epochs are skipped while pages "
            f"take more than {100 * SHARE:.0f} % of the time.",
            options=self.options,
            data=DATA_PAGE if (self.folder / DATA_PAGE).exists() else None,
            files=[EVALUATIONS, *(f"../{name}" for name in _FILES if (self.folder.parent / name).exists())],
            entry=self._entry,
            stages=[] if self._entry else other_stages(self.experiment),
        )
        write_file(self.index, page)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for epoch in self._galleries():
            if epoch >= self._first:
                self._gallery(epoch).unlink()
        list_evaluations(self.folder, self.title)
        self._list(running=True)

    def _list(self, running: bool) -> None:
        """Write the index, and list this stage on the experiment's entry."""
        self.write_index(running)
        if self._entry:
            update_list(self.experiment)

    @property
    def _entry(self) -> tuple[str, str] | None:
        """URL and name of the experiment's entry; None if this index is the entry."""
        if self.experiment == self.folder.parent:
            return None
        return link(self.experiment / INDEX, self.folder), f"All stages of {self.experiment.name}"

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001  # a bug in pages must not end days of training, either
            if not self._warned:
                warn_of(error)
            self._warned = True

    def _gallery(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch}.html"

    def _galleries(self) -> list[int]:
        """The epochs that have a gallery."""
        found = (re.fullmatch(r"epoch-(\d+)\.html", path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in found if name)

    def _state(self, running: bool) -> str:
        if running:
            return "running"
        done = bool(self.rows) and self.rows[-1].get("epoch", -1) + 1 >= self.epochs
        return "finished" if done else "ended before its last epoch"

    def _cards(self, running: bool) -> dict[str, tuple[str, str]]:
        """Label -> (URL or "", value)."""
        done, start = self.rows[-1]["epoch"] + 1 if self.rows else 0, joint_start(self.rows)
        used = time.monotonic() - self._began
        of_stage_1 = f", {start} of stage 1" if start else ""
        cards = {"Epochs done": ("", f"{done} of {self.epochs}{of_stage_1}")}
        best = best_epoch(self.rows)
        if best is not None:
            row = next(row for row in self.rows if row.get("epoch") == best)
            cards["Best epoch"] = self._best(best, start, scores(row, self.metric_name))
        cards["Time used"] = "", _duration(self._earlier + used)
        if running:
            new = done - self._first
            left = _duration(used / new * (self.epochs - done)) if new > 0 else "not known yet"
            cards["Time left"] = "", left
        cards["Written"] = "", f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        return cards

    def _best(self, epoch: int, start: int | None, text: str) -> tuple[str, str]:
        """(URL of its gallery or "", the best epoch with its stage and scores); start: of joint training."""
        stage, gallery = "", self._gallery(epoch)
        if start is not None:
            stage = " of joint training" if epoch >= start else " of stage 1"
            if epoch < start:  # joint training has a folder in that of stage 1
                gallery = self.folder.parent.parent / "web" / gallery.name
        return link(gallery, self.folder) if gallery.exists() else "", f"{epoch}{stage}{text}"

    def _label(self, epoch: int) -> str:
        row = next((row for row in self.rows if row.get("epoch") == epoch), {})
        best = ", the best" if epoch == best_epoch(self.rows) else ""
        return f"Epoch {epoch}{scores(row, self.metric_name)}{best}"


def warn_of(error: Exception) -> None:
    """Log an error in pages, with its traceback if it is a bug."""
    ours = not isinstance(error, (OSError, UserError, DataError))
    log.warning("HTML pages are incomplete, training continues: %s", error, exc_info=ours)


def write_evaluation(
    folder: Path, title: str, name: str, metric_name: str, evaluation: Evaluation, sections: list[Section]
) -> Path:
    """Write the page of one checkpoint's evaluation, `web/evaluation-<name>.html` in the run's folder.

    title: of the run, if the folder has no index.

    Raises:
        OSError, UserError: the folder cannot be written to.
    """
    web = folder / "web"
    web.mkdir(parents=True, exist_ok=True)
    path = web / f"evaluation-{name}.html"
    heading = f"Evaluation of {name}{scores(evaluation.row(), metric_name)}"
    index, back = folder / INDEX, None
    if index.exists():
        title = page_title(index)
        back = index.name, title
    sections = [joint_section(metric_name, evaluation.table), *sections]
    write_file(path, gallery_page(title, heading, sections, back))
    if back:
        list_evaluations(web, title)
    return path


def list_evaluations(web: Path, title: str) -> None:
    """Write the page that lists all evaluations; the index links to it."""
    files = sorted((path.name for path in web.glob("evaluation-*.html")), key=natural)
    write_file(web / EVALUATIONS, evaluations_page(title, files))


def scores(row: dict, metric_name: str) -> str:
    """The scores in a row of the history, to follow the name of what was scored; empty if it has none."""
    known = {"AP": row.get("valid_ap", math.nan), metric_name: row.get("valid_pck", math.nan)}
    texts = [f"{name} {100 * share:.1f}\u00a0%" for name, share in known.items() if not math.isnan(share)]
    return f": {', '.join(texts)}" if texts else ""


def joint_section(metric_name: str, table: PckTable | None) -> Section | None:
    """Results by joint in per cent; None without results."""
    if table is None:
        return None

    def row(name: str, shares: dict[str, float]) -> list[str]:
        return [name, *("–" if math.isnan(share) else f"{100 * share:.1f}" for share in shares.values())]

    rows = [["", *table.pck], row(metric_name, table.pck), row("AUC", table.auc)]
    note = f"{table.caution[0].upper()}{table.caution[1:]}." if table.caution else ""
    return Section("Joint by joint (%)", note, table=rows)


def retained_galleries(epochs: Iterable[int], best: int | None) -> set[int]:
    """The epochs, of those that have a gallery, whose gallery is retained: the newest and the best."""
    ordered = sorted(epochs)
    return {*ordered[-NEWEST:], best} & set(ordered)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
