"""Stage 2: collect, for every person, how hard each scale bin is for the pose network of stage 1."""

from options.parser import StageParser

if __name__ == "__main__":
    opt = StageParser(__doc__, "pose", "collecting", "overwrite").parse()  # first: imports take seconds

import argparse
import logging

from data.kinds import KINDS
from utils.agents.collect import collect
from utils.display.plots import plot_distributions
from utils.run import Run
from utils.system.process import run_stage

log = logging.getLogger(__name__)


def main(opt: argparse.Namespace) -> None:
    run, kind = Run(opt, *opt.agent_folders.values()), KINDS["scale"]
    plot = run.folder / f"{kind.name}-distributions.png"
    plot_distributions(plot, collect(run, kind), kind)
    log.info("plot: %s", plot)


if __name__ == "__main__":
    run_stage(lambda: main(opt))
