"""The report of a checkpoint's evaluation: tables, predictions, plots and an HTML page."""

import logging
from contextlib import closing
from pathlib import Path

from torch import nn

from data.boxes import load_boxes
from utils.display.gallery import grid_section, pose_gallery
from utils.display.plots import plot_cells, plot_grid
from utils.display.sections import Section, cell_grid
from utils.evaluation.average_precision import average_precision, keypoint_results
from utils.evaluation.evaluate import Evaluation, evaluate, evaluation_grid, find_joints, occlusion_grid
from utils.evaluation.grids import format_cells, format_grid
from utils.records.events import EVENTS, EventLog
from utils.records.predictions import encode_results, refuse_other_boxes, refuse_other_people
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError
from utils.system.files import write_file

log = logging.getLogger(__name__)


def report_evaluation(run: Run, network: nn.Module, checkpoint: dict, stem: Path) -> None:
    """Evaluate on the validation people: log the per-joint table and write `<stem>-preds.mat`.

    A data set in COCO's format adds average precision and `<stem>-preds.json`. With --boxes these two are all
    there is, of the detected boxes, and the file is `<stem>-preds-boxes.json`.

    --eval_grid true adds `<stem>-grid.txt` and `.png`, --eval_occlusion true `<stem>-occlusion.txt` and
    `.png`; their numbers also go to `log.jsonl`. --use_html true adds a page in `web/`. File names end in the
    data set if the checkpoint was trained on another one, and in `-first-N` if --limit N leaves out
    validation people.

    Raises:
        UserError: a file cannot be written, or the existing predictions are for other people.
        DataError: the file of boxes is invalid.
    """
    trained_on = checkpoint.get("people", {}).get("dataset", run.dataset.name)
    whose = "" if trained_on == run.dataset.name else f"-{run.dataset.name}"
    if run.dataset.limited:
        whose += f"-first-{run.opt.limit}"
    if run.opt.boxes is not None:
        _report_boxes(run, network, stem.with_name(f"{stem.name}-preds{whose}-boxes.json"))
        return
    path = stem.with_name(f"{stem.name}-preds{whose}.mat")
    refuse_other_people(path, run.dataset.valid, run.opt.overwrite)
    result = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    log.info("%d people scored, loss %.6f\n%s", result.table.people, result.loss, result)
    if result.table.caution:
        log.warning("%s", result.table.caution)
    files = {path.with_suffix(suffix): one for suffix, one in result.files(run.dataset.valid).items()}
    for file, content in files.items():
        write_file(file, content)
    log.info("predictions: %s", ", ".join(map(str, files)))
    grids = []
    measures = ((run.opt.eval_grid, "grid", _grid), (run.opt.eval_occlusion, "occlusion", _cells))
    for requested, name, measure in measures:
        if requested:
            path = stem.with_name(f"{stem.name}-{name}{whose}.txt")
            text, numbers, section = measure(run, network, path.with_suffix(".png"))
            log.info("%s", text)
            write_file(path, text + "\n")
            grids.append(section)
            if ranks.rank() == 0:
                of = {"checkpoint": stem.name, "epoch": checkpoint["epoch"], "of": whose.removeprefix("-")}
                with closing(EventLog(stem.with_name(EVENTS))) as events:
                    events.add({"kind": name, **of, "people": run.people, **numbers})
    if run.opt.use_html and ranks.rank() == 0:
        _write_page(run, network, stem.with_name(stem.name + whose), result, grids)


def _report_boxes(run: Run, network: nn.Module, path: Path) -> None:
    """Log the average precision of the poses in detected boxes, and write them in COCO's results format."""
    if run.dataset.coco is None:
        raise UserError("--boxes needs validation people: add --annotations_valid with their file")
    boxes = load_boxes(run.opt.boxes, run.dataset, run.opt.skip_missing)
    refuse_other_boxes(path, boxes.image_ids, run.opt.overwrite)
    loader = run.loader(boxes.people, "identity")
    found, _ = find_joints(run, network, boxes.people, loader, "boxes")
    results = keypoint_results(found.numpy(), boxes.image_ids, boxes.category_ids, boxes.scores)
    scores = average_precision(run.dataset.coco, results, run.skeleton)
    log.info("%d boxes scored\n%s", len(results), scores)
    write_file(path, encode_results(results))
    log.info("predictions: %s", path)


def _write_page(run: Run, network: nn.Module, stem: Path, result: Evaluation, grids: list[Section]) -> None:
    """Write the HTML page of an evaluation: its table, the grids, and galleries of people."""
    try:
        from utils.display.pages import write_evaluation
    except ImportError as error:  # dominate, which only pages need
        log.warning("no HTML page: %s", error)
        return
    sections = [*grids, *pose_gallery(run, network, result)]
    page = write_evaluation(stem.parent, run.opt.exp_id, stem.name, run.dataset.metric_name, result, sections)
    log.info("page: %s", page)


def _grid(run: Run, network: nn.Module, plot: Path) -> tuple[str, dict, Section]:
    """PCK by scale and rotation, plotted to a PNG file: as text, for the event log, and for the page."""
    grid, metric_name = evaluation_grid(run, network), run.dataset.metric_name
    plot_grid(plot, grid, metric_name)
    return format_grid(grid, metric_name), {"shares": grid.tolist()}, grid_section(grid, metric_name)


def _cells(run: Run, network: nn.Module, plot: Path) -> tuple[str, dict, Section]:
    """PCK with each cell masked in turn, plotted to a PNG file: as text, for the log, and for the page."""
    grid, plain = occlusion_grid(run, network)
    title, rows, means = format_cells(grid, plain, run.dataset.metric_name)
    plot_cells(plot, grid, f"{title}\n{means}")
    note = f"{title}; in %, without the flip test; {means}."
    section = Section("With one cell masked", note, grid=cell_grid(grid.tolist()))
    return "\n".join([title, rows, means]), {"shares": grid.tolist(), "plain": plain}, section
