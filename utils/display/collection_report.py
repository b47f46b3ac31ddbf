"""The report of stage 2's collection: files of distributions, a summary, a plot and a page."""

import argparse
import logging

from torch import Tensor

from data.kinds import KINDS, Kind
from utils.agents.ceiling import MEASURES, ceiling
from utils.agents.collect import Collected, collect
from utils.agents.pretraining import hardest_bins, uniform_share
from utils.display.plots import plot_distributions
from utils.display.sections import Grid, Section
from utils.display.stages import experiment_folder, folder_name, write_stage_page
from utils.run import Run
from utils.system import ranks

log = logging.getLogger(__name__)

_NOTE = (
    "A person's row shares out the PCK that each bin alone costs this person: the taller a bin, the harder. "
    "Equal bars: it makes no difference, and the agent has nothing to learn."
)


def report_collection(opt: argparse.Namespace, name: str) -> None:
    """Collect the distributions of a kind, by its name, and plot them into the same folder.

    With --use_html true also a page, `web/collection-<kind>.html`.

    Raises:
        UserError, DataError: a checkpoint or the data set is missing, an existing file does not fit the run,
        or a file cannot be written.
    """
    run, kind = Run(opt, *opt.agent_folders.values()), KINDS[name]
    plot, collected = run.folder / f"{name}-distributions.png", collect(run, kind)
    rows = {split: one.rows for split, one in collected.items()}
    plot_distributions(plot, rows, kind)
    log.info("plot: %s", plot)
    if opt.use_html and ranks.rank() == 0:
        title = f"Stage 2, collection of {name}s: {folder_name(opt, run.folder)}"
        uniform = (f"{100 * uniform_share(one):.1f} % of {split}" for split, one in rows.items())
        note = f"By {kind.label}. Rows that are uniform teach nothing: {', '.join(uniform)}."
        grid = Section("In numbers, %", note, grid=_grid(rows, kind))
        sections = [Section(f"How hard is each {name}?", _NOTE, plot=plot.read_bytes()), grid]
        if opt.repeats > 1:
            sections.append(_ceiling(collected, run.dataset.metric_name))
        path = run.folder / "web" / f"collection-{name}.html"
        write_stage_page(path, experiment_folder(opt), title, sections)


def _ceiling(collected: dict[str, Collected], metric_name: str) -> Section:
    found = {split: ceiling(one.pck) for split, one in collected.items()}
    repeatable = ", ".join(f"{one['repeatability']:.2f} of {split}" for split, one in found.items())
    note = (
        f"Expected {metric_name} by how bins are chosen; lower is harder. Choices are made on one half of "
        "the measurements and measured on the other, but for hindsight. Correlation of people's own "
        f"profiles between the halves: {repeatable}."
    )
    shares = [[one[name] for one in found.values()] for name in MEASURES]
    return Section("What an agent can reach, %", note, grid=Grid([*MEASURES.values()], [*found], shares))


def _grid(rows: dict[str, Tensor], kind: Kind) -> Grid:
    shares = {
        title: values.tolist()
        for split, one in rows.items()
        for hardest in [hardest_bins(one).sum(dim=0)]
        for title, values in (
            (f"{split}: mean row", one.mean(dim=0)),
            (f"{split}: people for whom it is the hardest", hardest / hardest.sum().clamp(min=1)),
        )
    }
    return Grid([*shares], [f"{mean:g}" for mean in kind.means], [*shares.values()])
