"""Evaluating a checkpoint of the pose network: its table, predictions, grid and page."""

import logging
from contextlib import closing
from pathlib import Path

from torch import nn

from utils.display.gallery import grid_section, pose_gallery
from utils.display.plots import plot_cells, plot_grid
from utils.display.sections import Section, cell_grid
from utils.evaluation.evaluate import Evaluation, evaluate, evaluation_grid, occlusion_grid
from utils.evaluation.grids import format_cells, format_grid
from utils.records.events import EVENTS, EventLog
from utils.records.predictions import encode_predictions, refuse_other_people
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError
from utils.system.files import write_file

log = logging.getLogger(__name__)


def report_evaluation(run: Run, network: nn.Module, checkpoint: dict, stem: Path) -> None:
    """Evaluate on the validation people: log the per-joint table and write `<stem>-preds.mat`.

    With --eval_grid true also `<stem>-grid.txt` and `.png`, with --eval_occlusion true
    `<stem>-occlusion.txt` and `.png`, and the same as numbers in `log.jsonl`; with --use_html true a page in
    `web/`. Names end in the data set if the checkpoint is of another one, and in `-first-N` where --limit N
    leaves validation people out.

    Raises:
        UserError: a file cannot be written, or the predictions there are of other people.
    """
    trained_on = checkpoint.get("people", {}).get("dataset", run.dataset.name)
    whose = "" if trained_on == run.dataset.name else f"-{run.dataset.name}"
    if run.dataset.limited:
        whose += f"-first-{run.opt.limit}"
    path = stem.with_name(f"{stem.name}-preds{whose}.mat")
    refuse_other_people(path, run.dataset.valid, run.opt.overwrite)
    result = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    log.info("%d people scored, loss %.6f\n%s", result.table.people, result.loss, result.table)
    write_file(path, encode_predictions(result.preds, run.dataset.valid))
    log.info("predictions: %s", path)
    grids = []
    for asked, name, report_grid in (
        (run.opt.eval_grid, "grid", _report_grid),
        (run.opt.eval_occlusion, "occlusion", _report_cells),
    ):
        if asked:
            numbers, sections = report_grid(run, network, stem.with_name(f"{stem.name}-{name}{whose}.txt"))
            grids += sections
            if ranks.rank() == 0:
                of = {"checkpoint": stem.name, "epoch": checkpoint["epoch"], "of": whose.removeprefix("-")}
                with closing(EventLog(stem.with_name(EVENTS))) as events:
                    events.add({"kind": name, **of, "people": run.people, **numbers})
    if run.opt.use_html and ranks.rank() == 0:
        _write_page(run, network, stem.with_name(stem.name + whose), result, grids)


def _write_page(run: Run, network: nn.Module, stem: Path, result: Evaluation, grids: list[Section]) -> None:
    """The page of an evaluation and its grids; its name ends in the stem's."""
    try:
        from utils.display.pages import write_evaluation
    except ImportError as error:  # of dominate, which nothing but pages needs
        log.warning("no HTML page: %s", error)
        return
    sections = [*grids, *pose_gallery(run, network, result)]
    try:
        page = write_evaluation(
            stem.parent, run.opt.exp_id, stem.name, run.dataset.metric_name, result.table, sections
        )
    except OSError as error:
        raise UserError(f"{stem.parent / 'web'} cannot be written to: {error.strerror}") from error
    log.info("page: %s", page)


def _report_grid(run: Run, network: nn.Module, path: Path) -> tuple[dict, list[Section]]:
    """Log the grid [7, 7], and return it as numbers for the event log, and for a page.

    Its text goes to `path`, a picture to its `.png` twin.

    Raises:
        UserError: a file cannot be written.
    """
    grid = evaluation_grid(run, network)
    text = format_grid(grid, run.dataset.metric_name)
    log.info("%s", text)
    write_file(path, text + "\n")
    plot_grid(path.with_suffix(".png"), grid, run.dataset.metric_name)
    return {"shares": grid.tolist()}, grid_section(run, grid)


def _report_cells(run: Run, network: nn.Module, path: Path) -> tuple[dict, list[Section]]:
    """Log PCK with each single cell masked, and return it as numbers for the event log, and for a page.

    Its text goes to `path`, a picture to its `.png` twin.

    Raises:
        UserError: a file cannot be written.
    """
    grid, plain = occlusion_grid(run, network)
    title, rows, means = format_cells(grid, plain, run.dataset.metric_name)
    text = "\n".join([title, rows, means])
    log.info("%s", text)
    write_file(path, text + "\n")
    plot_cells(path.with_suffix(".png"), grid, f"{title}\n{means}")
    note = f"{title}; in %, without the flip test; {means}."
    section = Section("With one cell masked", note, grid=cell_grid(grid.tolist()))
    return {"shares": grid.tolist(), "plain": plain}, [section]
