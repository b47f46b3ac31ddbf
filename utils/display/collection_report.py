"""The report of stage 2's collection: files of distributions, a summary and a plot."""

import argparse
import logging

from data.kinds import KINDS
from utils.agents.collect import collect
from utils.display.plots import plot_distributions
from utils.run import Run

log = logging.getLogger(__name__)


def report_collection(opt: argparse.Namespace, name: str) -> None:
    """Collect the distributions of a kind, by its name, and plot them into the same folder.

    Raises:
        UserError, DataError: a checkpoint or the data set is missing, or an existing file does not fit the
        run.
    """
    run, kind = Run(opt, *opt.agent_folders.values()), KINDS[name]
    plot = run.folder / f"{name}-distributions.png"
    plot_distributions(plot, collect(run, kind), kind)
    log.info("plot: %s", plot)
