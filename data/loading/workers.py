"""The processes that decode photographs: their start, their signals, and a line where one of them fails."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Process
from multiprocessing.connection import wait
from multiprocessing.queues import Queue

from torch.utils.data import DataLoader

from data import DataError

CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE")  # PyTorch's handlers of these would write lines of their own
GRACE = 2  # s that a process goes on after SIGTERM, and within which one that cut its connection has ended
REMEDIES = {
    "SIGBUS": "give /dev/shm more room (docker run --shm-size 8g)",
    "No space left": "give /dev/shm more room (docker run --shm-size 8g)",
    "Read-only": "mount /dev/shm writable",
    "Too many open files": "raise ulimit -n",
    "SIGKILL": "it may have been killed for memory: try fewer with --nThreads",
    "SIGSEGV": "a photograph may crash its decoder",
}
"""What helps, by a word of the cause."""


def loaded(loader: DataLoader) -> Iterator:
    """The items of a `DataLoader` that decodes in processes; a `DataError` for what cannot be handed over.

    Raises:
        DataError: the processes cannot start, or one of them has ended. An exception of the dataset is raised
            as PyTorch passes it on, with its traceback.
    """
    hook = sys.unraisablehook
    try:
        with _undisturbed():
            batches = iter(loader)
        yield from batches
    except (OSError, EOFError, RuntimeError) as error:
        sys.unraisablehook = lambda unraisable: None  # a half-made iterator's, at its end
        workers = getattr(loader._iterator, "_workers", ())
        line = _line(_cause(error, workers))
        for worker in workers:
            worker.kill()
            worker.join()
        if str(error).startswith("Caught "):  # PyTorch's word for an exception of the dataset
            raise
    else:
        return
    finally:
        sys.unraisablehook = hook
    raise DataError(line)


def prepare(number: int) -> None:
    """Let a process that loads leave signals and errors to the main process; a `DataLoader` calls this in it.

    Job systems signal a whole process group: a process that loads outlives the main one's handling of that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_soon)
    for name in CRASHES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    Queue._on_queue_feeder_error = _send_error  # else it prints a traceback, and the batch never arrives
    sys.excepthook = _end  # else the thread that hands out file descriptors prints tracebacks for ever


def _send_error(queue: Queue, error: Exception, item: tuple) -> None:
    """Send in the place of a batch, whose number comes first, why it cannot be sent."""
    queue.put((item[0], DataError(_line(_words(error)))))


def _end_soon(number: int, frame: object) -> None:
    end = threading.Timer(GRACE, os._exit, (128 + number,))
    end.daemon = True
    end.start()


def _end(kind: type, error: BaseException, traceback: object) -> None:
    os._exit(getattr(error, "errno", None) or 1)


def _cause(error: Exception, workers: Sequence[Process]) -> str:
    """What an error comes from: the end of a process, if one has ended."""
    if isinstance(error, OSError | EOFError):  # of a connection that was cut, perhaps
        ended = wait([worker.sentinel for worker in workers], GRACE)
        for worker in workers:
            if worker.sentinel in ended:
                worker.join()
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if not codes:
        return _words(error)
    if codes[0] < 0:
        return f"one was ended by {signal.Signals(-codes[0]).name}"
    return f"one ended with exit code {codes[0]}, {os.strerror(codes[0])}"


def _words(error: Exception) -> str:
    """What an error says, in a line: of PyTorch's advice only the first sentence."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(words.split()).split(". ")[0]


def _line(cause: str) -> str:
    remedies = [remedy for word, remedy in REMEDIES.items() if word in cause]
    advice = ", or ".join([*remedies, "load without them (--nThreads 0)"])
    return f"the processes that load photographs failed ({cause}): {advice}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """SIGINT and SIGTERM arrive afterwards: what their handlers raise is lost in the midst of a fork.

    PyTorch's handler of SIGCHLD, which raises in the midst of anything, goes: that a process has ended shows
    where its batch is awaited.
    """
    arrived = []
    handlers = {
        number: signal.signal(number, lambda number, frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    if hasattr(signal, "SIGCHLD"):
        handlers[signal.SIGCHLD] = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in arrived:
        signal.raise_signal(number)
