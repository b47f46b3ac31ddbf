"""Collecting the distributions of a kind: their files, a summary and a plot."""

import argparse
import logging

from data.kinds import KINDS
from utils.agents.collect import collect
from utils.display.plots import plot_distributions
from utils.run import Run

log = logging.getLogger(__name__)


def report_collection(opt: argparse.Namespace, name: str) -> None:
    """Collect the kind of this name ("scale" or "rotation") and plot it beside its distributions.

    Raises:
        UserError, DataError: what the run needs is missing, or a file does not fit the run.
    """
    run, kind = Run(opt, *opt.agent_folders.values()), KINDS[name]
    plot = run.folder / f"{name}-distributions.png"
    plot_distributions(plot, collect(run, kind), kind)
    log.info("plot: %s", plot)
