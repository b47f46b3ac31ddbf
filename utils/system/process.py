"""A stage as a process: its log, and how it ends on errors and signals."""

import errno
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

from data import DataError
from utils.system import ranks
from utils.system.errors import UserError

log = logging.getLogger(__name__)
batch_log = logging.getLogger("batches")
"""For lines about single batches: they go to the file alone, a terminal has the progress bar."""

_made: list[Path] = []  # folders that `start_log` has made, the innermost first
SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOG = "log.txt"
GRACE = 10  # s that another rank waits for rank 0's line before it says its own
PATH_ERRORS = (errno.EACCES, errno.ENAMETOOLONG)  # of paths that users name, wherever the system objects


def progress(batches: Iterable, title: str, people: int, total: int | None = None) -> tqdm:
    """The batches, with a bar in people and the time left where there is a terminal; rank 0 has it.

    people: how many a batch has. total: the number of batches, where `batches` does not know it.
    """
    off = ranks.rank() > 0 or None  # None: where there is no terminal
    return tqdm(batches, title, total, disable=off, leave=False, unit=" people", unit_scale=people)


class Interrupted(BaseException):
    """A signal asked the run to end."""


def run_stage(stage: Callable[[], None]) -> None:
    """Run a script's `main` and end the process as users expect.

    A user's error is one line and exit code 2, a path that is too long or may not be read among them;
    Ctrl-C and SIGTERM are one line and 128 + the signal's number; an error of ours keeps its traceback.
    """
    name = Path(sys.argv[0]).name
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed
        stream.reconfigure(errors="backslashreplace")  # a character that it lacks must not end a training
    try:
        stage()
        ranks.part()
    except (UserError, DataError) as error:
        _fail(f"{name}: error: {error}")
    except OSError as error:
        if error.errno not in PATH_ERRORS or error.filename is None:
            raise
        _fail(f"{name}: error: {error.filename}: {error.strerror}")
    except torch.OutOfMemoryError:
        _fail(f"{name}: error: the GPU's memory is full: try a smaller --bs")
    except Interrupted as stop:
        if ranks.rank() == 0:
            by = signal.Signals(stop.args[0]).name
            log.error("%s: stopped by %s: finished epochs are saved; no file is incomplete", name, by)
        sys.exit(128 + stop.args[0])
    except RuntimeError as error:
        if not ranks.lost(error):
            raise
        if ranks.rank() == 0:
            log.error("%s: another rank has ended: finished epochs are saved; no file is incomplete", name)
        sys.exit(1)
    finally:
        _end_quietly()


def _fail(line: str) -> None:
    """Say why in a line, and end with exit code 2."""
    _end_quietly()
    if ranks.rank():  # where rank 0 fails for the same reason, it says so, and torchrun ends this one
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(GRACE)
    log.error("%s", line)
    for folder in _made:  # a run that is refused leaves no folder behind
        with suppress(OSError):  # there is more than its log
            if [path.name for path in folder.iterdir()] == [LOG]:
                (folder / LOG).unlink()
            folder.rmdir()
    sys.exit(2)


def _interrupt(number: int, frame: object) -> None:
    _end_quietly()
    raise Interrupted(number)


def _end_quietly() -> None:
    """From here on a second SIGTERM does not disturb this process's end; a second Ctrl-C ends it at once.

    Processes that load leave signals to this one, and are of no more use.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        worker.kill()


class Terminal(logging.Handler):
    """Log lines on the terminal, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        try:
            tqdm.write(self.format(record), file=stream)
            stream.flush()  # a pipe's reader watches, too
        except OSError:  # nobody reads on, as after `| head`, or a full disk: a training must not end of it
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def start_log(folder: Path) -> None:
    """Send the log to the terminal and, with times, to `log.txt` in the folder; of other ranks only errors.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    terminal = Terminal()
    if ranks.rank():
        logging.basicConfig(level=logging.ERROR, handlers=[terminal], format="%(message)s", force=True)
        return
    try:
        _made[:] = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / LOG, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}") from error
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal.addFilter(lambda record: record.name != batch_log.name)
    logging.basicConfig(level=logging.INFO, handlers=[terminal, file], format="%(message)s", force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line of the log
