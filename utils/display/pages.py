"""HTML pages of a training run: an index and one gallery per epoch, in `web/` of the experiment's folder.

A page is one self-contained file, written whole, so a browser never finds a picture missing or half a page.
The galleries of the newest `NEWEST` epochs and of the best one are kept. A gallery shows a fixed number of
people; the index grows by one point per curve and epoch. An epoch has no page while the earlier ones have
taken more than `SHARE` of the time; the first of a run and its last one always have.
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
from utils.display.markup import Overview, evaluations_page, gallery_page, index_page
from utils.display.sections import Section
from utils.evaluation.metrics import PckTable
from utils.records.history import best_epoch
from utils.system.errors import UserError
from utils.system.files import natural, write_file

log = logging.getLogger(__name__)

NEWEST = 10
SHARE = 0.02  # of a run's time
_FILES = (
    "../training-summary.txt",
    "../pose-training-summary.txt",
    "../log.txt",
    "../opt.txt",
    "../log.jsonl",
)
# A page of its own: evaluations come when a run's index is not written any more.
EVALUATIONS = "evaluations.html"


class Pages:
    """The pages of one training run. Whatever goes wrong with them is one warning: the training goes on.

    Args:
        folder: of the experiment. title: its id. stage: its stage's name.
        metric_name: how joints are scored, such as "PCKh@0.5".
        options: name -> (value as text, whether it differs from its default).
        epoch: the first one to come; galleries of it and later ones, of an earlier run, go. epochs: in all.
        rows: the history before it.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        stage: str,
        metric_name: str,
        options: dict[str, tuple[str, bool]],
        epoch: int,
        epochs: int,
        rows: list[dict],
    ) -> None:
        self.folder, self.title, self.stage, self.metric_name = folder / "web", title, stage, metric_name
        self.options, self.epochs, self.rows = options, epochs, rows
        self.table: PckTable | None = None
        # The number of rows that the curves were last drawn from, and the curves.
        self._kept_curves: tuple[int, list[tuple[str, bytes]]] | None = None
        self._began, self._first, self._warned = time.monotonic(), epoch, False
        self._spent = 0.0  # seconds on epochs' pages
        self._earlier = sum(_seconds(row) for row in rows)
        self._guarded(self._start)

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.folder / "index.html"

    def epoch(
        self, rows: list[dict], table: PckTable | None = None, gallery: Callable[[], list[Section]] = list
    ) -> None:
        """Write the pages of the epoch in the last row of the history, if there is time for them.

        Args:
            rows: the history. table: the epoch's results joint by joint. gallery: makes what its page shows.
        """
        self.rows, self.table = rows, table
        began = time.monotonic()
        last = rows[-1]["epoch"] + 1 == self.epochs
        if last or self._spent <= SHARE * (began - self._began):
            self._guarded(lambda: self.write_epoch(gallery()))
            self._spent += time.monotonic() - began

    def close(self) -> None:
        """The run has ended, at its last epoch or before: the index stops reloading itself."""
        self._guarded(lambda: self.write_index(running=False))

    def write_epoch(self, sections: list[Section]) -> None:
        """Write the last epoch's gallery, if it shows anything, and the index; drop galleries too many.

        Raises:
            OSError, UserError: the folder cannot be written to.
        """
        epoch = self.rows[-1]["epoch"]
        if sections:
            heading = f"Epoch {epoch}{self._score(self.rows[-1])}"
            page = gallery_page(self.title, heading, sections, joint_rows(self.metric_name, self.table))
            write_file(self._gallery(epoch), page)
        keep = kept(self._galleries(), best_epoch(self.rows))
        self.write_index(running=True, galleries=keep)
        for old in set(self._galleries()) - keep:
            self._gallery(old).unlink()

    def write_index(self, running: bool, galleries: Iterable[int] | None = None) -> None:
        """Write the index, with links to these epochs' galleries (default: to those that are there).

        Raises:
            OSError, UserError: the folder cannot be written to.
        """
        shown = sorted(self._galleries() if galleries is None else galleries, reverse=True)
        overview = Overview(
            title=self.title,
            stage=self.stage,
            state=self._state(running),
            running=running,
            cards=self._cards(running),
            curves=self._curves(),
            table=joint_rows(self.metric_name, self.table),
            galleries=[(self._gallery(epoch).name, self._label(epoch)) for epoch in shown],
            galleries_note=f"The newest {NEWEST} and the best are kept. Epochs have none while pages take "
            f"more than {100 * SHARE:.0f} % of the time.",
            evaluations=EVALUATIONS,
            files=[file for file in _FILES if (self.folder / file).exists()],
            options=[(name, *value) for name, value in sorted(self.options.items())],
        )
        write_file(self.index, index_page(overview))

    def _curves(self) -> list[tuple[str, bytes]]:
        """The curves; drawing them takes longest of an index, so they are kept until there is a new row."""
        if self._kept_curves is None or self._kept_curves[0] != len(self.rows):
            self._kept_curves = len(self.rows), draw_curves(self.rows, self.metric_name)
        return self._kept_curves[1]

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for epoch in self._galleries():
            if epoch >= self._first:
                self._gallery(epoch).unlink()
        list_evaluations(self.folder, self.title)
        self.write_index(running=True)

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001  # nor may an error of ours cost anyone days of training
            if not self._warned:
                ours = not isinstance(error, (OSError, UserError, DataError))
                log.warning("HTML pages are incomplete, training continues: %s", error, exc_info=ours)
            self._warned = True

    def _gallery(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch}.html"

    def _galleries(self) -> list[int]:
        """Epochs that have a gallery."""
        found = (re.fullmatch(r"epoch-(\d+)\.html", path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in found if name)

    def _state(self, running: bool) -> str:
        if running:
            return "running"
        done = bool(self.rows) and self.rows[-1].get("epoch", -1) + 1 >= self.epochs
        return "finished" if done else "ended before its last epoch"

    def _cards(self, running: bool) -> dict[str, str]:
        done = self.rows[-1]["epoch"] + 1 if self.rows else 0
        used = time.monotonic() - self._began
        cards = {"Epochs done": f"{done} of {self.epochs}"}
        best = best_epoch(self.rows)
        if best is not None:
            row = next(row for row in self.rows if row.get("epoch") == best)
            cards["Best epoch"] = f"{best}{self._score(row)}"
        cards["Time used"] = _duration(self._earlier + used)
        if running:
            here = done - self._first
            cards["Time left"] = (
                _duration(used / here * (self.epochs - done)) if here > 0 else "not known yet"
            )
        cards["Written"] = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        return cards

    def _score(self, row: dict) -> str:
        pck = row.get("valid_pck", math.nan)
        return "" if math.isnan(pck) else f": {self.metric_name} {100 * pck:.1f}\u00a0%"

    def _label(self, epoch: int) -> str:
        row = next((row for row in self.rows if row.get("epoch") == epoch), {})
        best = ", the best" if epoch == best_epoch(self.rows) else ""
        return f"Epoch {epoch}{self._score(row)}{best}"


def write_evaluation(
    folder: Path, title: str, name: str, metric_name: str, table: PckTable, sections: list[Section]
) -> Path:
    """Write the page of one checkpoint's evaluation, `web/evaluation-<name>.html` in the experiment's folder.

    Raises:
        OSError, UserError: the folder cannot be written to.
    """
    web = folder / "web"
    web.mkdir(parents=True, exist_ok=True)
    path = web / f"evaluation-{name}.html"
    index = (web / "index.html").exists()
    write_file(
        path, gallery_page(title, f"Evaluation of {name}", sections, joint_rows(metric_name, table), index)
    )
    if index:
        list_evaluations(web, title)
    return path


def list_evaluations(web: Path, title: str) -> None:
    """Write the page with links to the evaluations' pages, which the index links to."""
    files = sorted((path.name for path in web.glob("evaluation-*.html")), key=natural)
    write_file(web / EVALUATIONS, evaluations_page(title, files))


def joint_rows(metric_name: str, table: PckTable | None) -> list[list[str]]:
    """Results joint by joint as rows of cells, in per cent, a head first; none without results."""
    if table is None:
        return []

    def row(name: str, shares: dict[str, float]) -> list[str]:
        return [name, *("–" if math.isnan(share) else f"{100 * share:.1f}" for share in shares.values())]

    return [["", *table.pck], row(metric_name, table.pck), row("AUC", table.auc)]


def kept(epochs: Iterable[int], best: int | None) -> set[int]:
    """Which of the epochs keep their gallery."""
    ordered = sorted(epochs)
    return {*ordered[-NEWEST:], best} & set(ordered)


def _seconds(row: dict) -> float:
    return row.get("train_seconds", 0.0) + row.get("valid_seconds", 0.0)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
