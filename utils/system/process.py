"""Runs a stage as a process: its log, exit codes, and handling of errors and signals."""

import errno
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from tqdm import tqdm

from data import DataError
from models import NetworkError
from utils.system import ranks
from utils.system.errors import UserError

log = logging.getLogger(__name__)
batch_log = logging.getLogger("batches")
"""Logger for single batches: its lines go only to the file, since a terminal has the progress bar."""

_made: list[Path] = []  # folders that `start_log` has created, the innermost first
SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOG = "log.txt"
GRACE = 10  # s that another rank waits for the error message of rank 0 before it prints its own
PATH_ERRORS = (errno.EACCES, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOSPC, errno.ENOTDIR, errno.EROFS)
"""Of paths that users name, wherever the system objects."""


def progress(batches: Iterable, title: str, people: int, total: int | None = None) -> tqdm:
    """The batches, with a progress bar on the terminal of rank 0, if there is one.

    people: people per batch. total: the number of batches, if `batches` has no length.
    """
    off = ranks.rank() > 0 or None  # None: where there is no terminal
    return tqdm(batches, title, total, disable=off, leave=False, unit=" people", unit_scale=people)


def program() -> str:
    """How this process is named on its command line, such as stack-hg.py or python -m utils.compare."""
    module = sys.modules["__main__"].__spec__
    if module is None or not module.name.startswith("utils."):
        return Path(sys.argv[0]).name
    return f"python -m {module.name.removesuffix('.__main__')}"


class Interrupted(BaseException):
    """The run was stopped by a signal."""


def run_stage(stage: Callable[[], None]) -> None:
    """Run the `main` of a script and end the process with the right message and exit code.

    Errors of the user, which include paths that are too long or not readable, print one line and exit with
    code 2. Ctrl-C and SIGTERM print one line and, in training, the command that resumes the run; the exit
    code is 128 + the number of the signal. Any other error keeps its traceback. The log goes to the terminal.
    """
    name = program()
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed
        stream.reconfigure(errors="backslashreplace")  # a character that it cannot encode must not end a run
    level = logging.ERROR if ranks.rank() else logging.INFO
    logging.basicConfig(level=level, handlers=[Terminal()], format="%(message)s")
    try:
        stage()
        ranks.shutdown()
    except (UserError, DataError, NetworkError) as error:
        _fail(f"{name}: error: {error}")
    except OSError as error:
        if error.errno not in PATH_ERRORS or error.filename is None:
            raise
        _fail(f"{name}: error: {error.filename}: {error.strerror}")
    except torch.OutOfMemoryError:
        _fail(f"{name}: error: the GPU is out of memory: try a smaller --bs")
    except Interrupted as stop:
        _log_end(f"{name}: stopped by {signal.Signals(stop.args[0]).name}", stop)
        sys.exit(128 + stop.args[0])
    except RuntimeError as error:
        if not ranks.peer_lost(error):
            raise
        _log_end(f"{name}: another rank has ended", error)
        sys.exit(1)
    finally:
        _end_quietly()


def _log_end(what: str, error: BaseException) -> None:
    """Say what ended a run that can be resumed, and the notes of the error, such as the command for that."""
    if ranks.rank() == 0:
        line = f"{what}: finished epochs are saved; no file is incomplete"
        log.error("%s", "\n".join([line, *getattr(error, "__notes__", ())]))


def _fail(line: str) -> None:
    """Print an error in one line, and exit with code 2."""
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
    """Ignore a second SIGTERM, let a second Ctrl-C end the process at once, and kill loader processes.

    Loader processes ignore signals, so this process must end them.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        worker.kill()


class Terminal(logging.Handler):
    """Prints log lines on the terminal, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        try:
            tqdm.write(self.format(record), file=stream)
            stream.flush()  # a pipe's reader watches, too
        except OSError:  # nobody reads on, as after `| head`, or a full disk: a training must not end of it
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


@contextmanager
def logged_lines() -> Iterator[list[str]]:
    """Collect the lines that are logged meanwhile."""
    lines, root, handler = [], logging.getLogger(), logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)


def start_log(folder: Path) -> None:
    """Send the log to the terminal and, with times, to `log.txt` in the folder; other ranks log only errors.

    Raises:
        UserError: the folder cannot be created or written to.
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
