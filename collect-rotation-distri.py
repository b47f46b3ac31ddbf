"""Stage 2: collect, for every person, how hard each rotation bin is for the pose network of stage 1."""

from options.parser import StageParser

if __name__ == "__main__":
    opt = StageParser(__doc__, "pose", "agent_folder", "overwrite").parse()  # first: imports take seconds

from utils.agents.collect import collect
from utils.system.process import run_stage

if __name__ == "__main__":
    run_stage(lambda: collect(opt, "rotation"))
