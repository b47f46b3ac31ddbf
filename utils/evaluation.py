"""Evaluating a checkpoint of the pose network: its table, predictions, grid and page."""

import logging
from pathlib import Path

from torch import Tensor, nn

from utils.checkpoint import write_predictions
from utils.errors import UserError
from utils.gallery import grid_section, pose_gallery
from utils.grid import report_grid
from utils.loops import Evaluation, evaluate
from utils.runs import Run

log = logging.getLogger(__name__)


def report_evaluation(run: Run, network: nn.Module, stem: Path) -> None:
    """Evaluate on the validation people: log the per-joint table and write `<stem>-preds.mat`.

    With --eval_grid true also `<stem>-grid.txt` and `.png`; with --use_html true a page in `web/`.

    Raises:
        UserError: a file cannot be written.
    """
    result = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    log.info("%d people, loss %.6f\n%s", result.table.people, result.loss, result.table)
    some = f"-first-{run.opt.limit}" if run.opt.limit else ""  # must not replace everyone's predictions
    path = stem.with_name(f"{stem.name}-preds{some}.mat")
    write_predictions(path, result.preds)
    log.info("predictions: %s", path)
    grid = report_grid(run, network, stem) if run.opt.eval_grid else None
    if run.opt.use_html:
        _write_page(run, network, stem, result, grid)


def _write_page(run: Run, network: nn.Module, stem: Path, result: Evaluation, grid: Tensor | None) -> None:
    """The page of an evaluation and its grid [7, 7], if there is one."""
    try:
        from utils.pages import write_evaluation
    except ImportError as error:  # of dominate, which nothing but pages needs
        log.warning("no HTML page: %s", error)
        return
    sections = pose_gallery(run, network, result)
    if grid is not None:
        sections = [*grid_section(run, grid), *sections]
    try:
        page = write_evaluation(
            stem.parent, run.opt.exp_id, stem.name, run.dataset.score, result.table, sections
        )
    except OSError as error:
        raise UserError(f"{stem.parent / 'web'} cannot be written to: {error.strerror}") from error
    log.info("page: %s", page)
