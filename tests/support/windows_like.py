"""Run a script as on Windows: `python windows_like.py SCRIPT FLAG ...`.

What Unix alone has is taken away, before the project is imported, and processes are spawned; those come here
too, without running the script.
"""

import multiprocessing
import os
import runpy
import signal
import sys

sys.modules["fcntl"] = None

from torch.utils.data._utils import signal_handling  # noqa: E402 - after fcntl

signal_handling.IS_WINDOWS = True  # it would look for SIGCHLD
for module, names in (
    (os, ("fork", "register_at_fork")),
    (signal, ("SIGALRM", "SIGBUS", "SIGCHLD", "SIGHUP", "alarm", "pause", "setitimer")),
):
    for name in names:
        delattr(module, name)

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])  # noqa: PTH120 - as Python does
    runpy.run_path(sys.argv[0], run_name="__main__")
