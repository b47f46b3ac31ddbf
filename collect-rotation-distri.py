"""Stage 2: collect, for every person, how hard each rotation bin is for the pose network of stage 1."""

if __name__ == "__main__":
    from utils.signals import end_at_once

    end_at_once()  # the imports below take seconds

from options.parser import StageParser
from utils.collect import collect
from utils.process import run_stage


def main() -> None:
    collect(StageParser(__doc__, "pose", "agent_folder", "overwrite").parse(), "rotation")


if __name__ == "__main__":
    run_stage(main)
