"""Runs the commands of an experiment or a demo: prints each command line, and stops if one fails."""

import logging
import shlex
import subprocess
import sys

log = logging.getLogger("steps")


def run_step(heading: str, command: str) -> None:
    """Print a heading and a command line, and run it as a process; `python` stands for this interpreter.

    If the command fails, this process exits with the same code, without another message. If this process is
    ended by a signal, it terminates the command first.
    """
    log.info("\n=== %s\n$ %s", heading, command)
    words = shlex.split(command)
    words[0] = sys.executable if words[0] == "python" else words[0]
    code = run_process(words)
    if code:
        sys.exit(code)


def run_process(words: list[str]) -> int:
    """Run a command; returns its exit code, or 128 + the number of the signal that killed it."""
    process = subprocess.Popen(words)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return code if code >= 0 else 128 - code
