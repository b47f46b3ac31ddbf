"""One rank of several stages, one after another, which is quicker than a torchrun for each.

torchrun ... rank_worker.py '[["/path/stack-hg.py", "--flag", ...], ...]'
"""

import json
import runpy
import sys

from utils.system import ranks


def main():
    ranks.shutdown = lambda: None  # they stay connected for the next stage
    for command in json.loads(sys.argv[1]):
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
