"""Ctrl-C and SIGTERM: one line, at any moment. Imported before all else, so it imports nothing slow."""

import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """Until `run_stage` takes over, a signal ends the process with a line and no traceback.

    For a script that is run, before its other imports: they take seconds, and nothing has begun yet.
    """
    for number in SIGNALS:
        signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    os.write(2, f"{stop_line(number)}\n".encode(errors="backslashreplace"))
    os._exit(128 + number)  # an exception amid an import can turn into another


def stop_line(number: int) -> str:
    """What a script that a signal has stopped says."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 - `pathlib` takes its time to import
    stopped = f"{name}: stopped by {signal.Signals(number).name}"
    return f"{stopped}: what was finished is on disk, nothing is half written"
