"""The stages as users run them: processes of their own, on a small demo set."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from data.demo import write_demo

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN, VALID = 12, 4  # people of the demo set
NETWORK = ("--in_res", 64, "--chan", 16)
SMALL = (*NETWORK, "--dataset", "demo", "--bs", 4, "--gpu_id", -1, "--nThreads", 0)
QUIET = ("--use_visdom", "false", "--use_html", "false")


def demo_data(folder):
    """A data folder with a demo set of `TRAIN` + `VALID` people."""
    write_demo(folder / "demo", TRAIN, VALID)
    return folder


def command(script, *flags):
    """The command line of a stage with a tiny network, no displays and `flags`, which win."""
    return [sys.executable, str(REPOSITORY / script), *map(str, (*SMALL, *QUIET, *flags))]


def environment():
    """The environment of a stage: one thread, so that sums have one order."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def run_stage(script, *flags, check=True, timeout=300):
    """A stage's finished process; with `check`, its success and silence on stderr are asserted."""
    done = subprocess.run(
        command(script, *flags),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:] + done.stderr
    return done


def run_printed(stderr, epochs):
    """Run the command that an interrupted stage has printed to resume it, up to `epochs` epochs."""
    _, printed = stderr.split("to resume: ")
    words = shlex.split(printed)
    words[words.index("--nEpochs") + 1] = str(epochs)
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:] + done.stderr


def assert_user_error(done, *named):
    """The process ended with code 2 and one line on stderr, which contains `named`."""
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"[^\n]+: error: [^\n]+\n", done.stderr), done.stderr
    for text in named:
        assert str(text) in done.stderr, done.stderr
