"""Processes that load: however they fail, a line says so, and nothing hangs."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch
from support.stages import REPOSITORY, assert_user_error, command, demo_data, environment
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from data import DataError
from data.loading.workers import loaded, prepare


class Failing(Dataset):
    """Items 0 to 7, the fifth of which ends in what `fail` does."""

    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 8

    def __getitem__(self, item):
        return self.fail() if item == 4 else torch.tensor(item)


class Unsendable:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.fixture
def loader():
    """`loader(fail)` -> a loader with two processes, which have ended after the test."""
    made = []

    def make(fail):
        made.append(
            DataLoader(
                Failing(fail), batch_size=None, num_workers=2, persistent_workers=True, worker_init_fn=prepare
            )
        )
        return made[-1]

    yield make
    for one in made:
        for process in getattr(one._iterator, "_workers", ()):
            process.kill()
            process.join()


@pytest.fixture
def hurried(monkeypatch):
    """PyTorch looks every 0.2 s, not every 5 s, whether its processes live."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("fail", "cause", "remedy"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "one was ended by SIGKILL", "memory"),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), "one was ended by SIGBUS", "--shm-size"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "one was ended by SIGSEGV", "decoder"),
        (lambda: os._exit(3), "one ended with exit code 3", ""),
        (
            lambda: Unsendable(RuntimeError("unable to allocate: No space left on device (28)")),
            "unable to allocate: No space left on device (28)",
            "--shm-size",
        ),
        (lambda: Unsendable(OSError(errno.EMFILE, "Too many open files")), "Too many open files", "ulimit"),
        (  # what a process's thread for file descriptors does
            lambda: sys.excepthook(OSError, OSError(errno.EMFILE, "Too many open files"), None),
            "one ended with exit code 24, Too many open files",
            "ulimit",
        ),
    ],
)
def test_a_process_that_fails_is_one_line(fail, cause, remedy, loader, hurried, capfd):
    with pytest.raises(DataError) as error:
        for item in loaded(loader(fail)):
            if isinstance(item, DataError):  # `PatchLoader` raises it
                raise item
    line = str(error.value)
    assert line.startswith(f"the processes that load photographs failed ({cause}")
    assert remedy in line and "--nThreads 0" in line and "\n" not in line
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [OSError(5, "a disk"), RuntimeError("a bug"), ValueError("a bug")])
def test_an_exception_of_a_dataset_keeps_its_traceback(error, loader):
    with pytest.raises(type(error), match=r"Caught [\s\S]* line \d+, in raises"):
        list(loaded(loader(lambda: raises(error))))


@pytest.mark.parametrize(
    ("broken", "number"),
    [
        ("torch.multiprocessing.Queue", errno.EROFS),
        ("torch.multiprocessing.Event", errno.EMFILE),
        ("os.fork", errno.EAGAIN),
    ],
)
def test_processes_that_cannot_start_are_one_line(broken, number, loader, monkeypatch, capfd):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(broken, refuse)
    with pytest.raises(DataError) as error:
        list(loaded(loader(None)))
    assert f"failed ({os.strerror(number)}): " in str(error.value)
    del error
    assert capfd.readouterr() == ("", "")


def test_a_second_epoch_sees_that_a_process_has_ended(loader, hurried):
    epochs = loader(lambda: torch.tensor(4))
    assert [int(item) for item in loaded(epochs)] == [*range(8)]
    epochs._iterator._workers[0].kill()
    with pytest.raises(DataError, match="SIGKILL"):
        list(loaded(epochs))


def test_handlers_of_signals_stay_what_they_were(loader):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    list(loaded(loader(lambda: torch.tensor(4))))
    assert [signal.getsignal(number) for number in numbers] == before


SMALL_SHM = "mount -t tmpfs -o size=300k none /dev/shm"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "remedy", "flags"),
    [
        (SMALL_SHM, "--shm-size", ()),
        (SMALL_SHM, "--shm-size", ("--cache", "cache")),
        ("mount -t tmpfs -o ro none /dev/shm", "mount /dev/shm writable", ()),
        ("ulimit -n 24", "ulimit -n", ()),
    ],
    ids=["small", "small, cache", "read-only", "files"],
)
def test_a_stage_within_limits_is_one_line(tmp_path, limit, remedy, flags):
    data = demo_data(tmp_path / "data")
    shell = ["bash", "-c", f'{limit} && exec "$@"', "bash"]
    if "mount" in limit:
        shell = ["unshare", "--mount", *shell]
        if subprocess.run([*shell, "true"], capture_output=True, check=False).returncode:
            pytest.skip("a file system cannot be mounted here: no right to `unshare --mount`")
    places = ("--data_dir", data, "--exp_dir", tmp_path, "--exp_id", "a")
    train = ("--is_train", "true", "--nEpochs", 1, "--nThreads", 2, "--bs", 12)
    done = subprocess.run(
        [*shell, *command("stack-hg.py", *places, *train, *flags)],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert_user_error(done, "the processes that load photographs failed", remedy, "--nThreads 0")
