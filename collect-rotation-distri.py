"""Stage 2: collect, for every person, how hard each rotation bin is for the pose network of stage 1."""

from options.parser import StageParser

if __name__ == "__main__":
    opt = StageParser(__doc__, "pose", "collecting", "overwrite").parse()  # first: imports take seconds

from utils.display.collection_report import report_collection
from utils.system.process import run_stage

if __name__ == "__main__":
    run_stage(lambda: report_collection(opt, "rotation"))
