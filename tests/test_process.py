"""How scripts end: signals at any moment, terminals of few characters, paths that the system refuses."""

import errno
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from support.experiment import kept_logging, tiny_experiment
from support.stages import REPOSITORY, command, demo_data, environment

from data import DataError
from data.kinds import KINDS
from utils.system import process
from utils.system.errors import UserError

SCRIPTS = (
    "stack-hg.py",
    *(f"collect-{kind}-distri.py" for kind in KINDS),
    "pretrain-s-r-agent.py",
    "joint-train-pose-s-r-agent.py",
)
LONG = "x" * 300


def run(*arguments, **variables):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_terminal_of_few_characters_ends_nothing(tmp_path):
    data = demo_data(tmp_path / "data")
    name = "ü…"
    place = (
        "--data_dir",
        data,
        "--exp_dir",
        tmp_path,
        "--exp_id",
        name,
        "--is_train",
        "true",
        "--nEpochs",
        1,
    )
    done = run(*command("stack-hg.py", *place)[1:], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xfc\\u2026" in done.stdout
    arms = ("--arm", "größer", tmp_path / name, "--out", tmp_path / "out")
    done = run("-m", "utils.compare", *arms, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "größer" in (tmp_path / "out" / "compare.txt").read_text(encoding="utf-8")


@pytest.fixture
def kept_signals():
    """Handlers of signals are afterwards what they were."""
    handlers = {number: signal.getsignal(number) for number in process.SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def refusal(tmp_path, monkeypatch, caplog, capsys, kept_signals):
    """`refusal(script, *flags)`: the one line with which a script, run in this process, ends."""
    experiment = tiny_experiment(tmp_path.parent / "experiment").copy(tmp_path / "checkpoints")

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", command(script, *experiment.flags, *flags)[1:])
        with kept_logging(), pytest.raises(SystemExit) as end:
            runpy.run_path(sys.argv[0], run_name="__main__")
        assert end.value.code == 2
        (line,) = [*capsys.readouterr().err.splitlines(), *caplog.messages[-1:]]
        return line

    return run


TRAIN = ("--is_train", "true", "--overwrite", "true", "--nEpochs", 2)
PRETRAIN, JOINT = SCRIPTS[-2:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("stack-hg.py", ("--exp_id", LONG, *TRAIN)),
        ("stack-hg.py", ("--exp_id", LONG)),
        ("stack-hg.py", ("--load_prefix_pose", LONG)),
        ("stack-hg.py", ("--data_dir", LONG)),
        ("stack-hg.py", ("--data_dir", LONG, "--dataset", "lsp")),
        ("stack-hg.py", ("--annotations", f"{LONG}.json")),
        ("stack-hg.py", ("--annotations", f"{LONG}.h5", "--dataset", "mpii")),
        ("stack-hg.py", ("--annotations", f"{LONG}/valid.h5", "--dataset", "mpii")),
        ("stack-hg.py", ("--image", f"{LONG}.jpg")),
        (PRETRAIN, ("--sr_dir", LONG)),
        (PRETRAIN, ("--load_prefix_sr", LONG)),
        (JOINT, ("--joint_dir", LONG, "--load_checkpoint", "true")),
        (JOINT, ("--load_prefix_sr", LONG, *TRAIN)),
    ],
)
def test_a_name_that_is_too_long_is_one_line(refusal, script, flags):
    line = refusal(script, *flags)
    assert line.startswith(f"{script}: error: ") and LONG in line


@pytest.mark.slow
def test_a_file_that_may_not_be_read_is_one_line(refusal, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    assert "lr-0.00025-0.pth.tar: Permission denied" in refusal("stack-hg.py")


@pytest.mark.slow
def test_errors_of_ours_keep_their_traceback(refusal, monkeypatch):
    def missing(path):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr("pathlib.Path.is_file", missing)
    with pytest.raises(FileNotFoundError):
        refusal("stack-hg.py")


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("stage", "code", "line"),
    [
        (lambda: raises(UserError("what it was")), 2, "a.py: error: what it was"),
        (lambda: raises(DataError("bad row")), 2, "a.py: error: bad row"),
        (lambda: raises(PermissionError(errno.EACCES, "No", "/x")), 2, "a.py: error: /x: No"),
        (lambda: raises(OSError(errno.ENAMETOOLONG, "Long", "/x")), 2, "a.py: error: /x: Long"),
        (lambda: raises(FileExistsError(errno.EEXIST, "Exists", "/x")), 2, "a.py: error: /x: Exists"),
        (lambda: raises(OSError(errno.EROFS, "Read-only", "/x")), 2, "a.py: error: /x: Read-only"),
        (
            lambda: raises(torch.OutOfMemoryError()),
            2,
            "a.py: error: the GPU is out of memory: try a smaller --bs",
        ),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130, "a.py: stopped by SIGINT: "),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "a.py: stopped by SIGTERM: "),
    ],
)
def test_a_stage_ends_in_one_line(stage, code, line, monkeypatch, caplog, kept_signals):
    monkeypatch.setattr(sys, "argv", ["/some/where/a.py"])
    monkeypatch.setattr(sys, "stdout", None)  # closed
    with pytest.raises(SystemExit) as end:
        process.run_stage(stage)
    (told,) = caplog.messages
    assert end.value.code == code and told.startswith(line)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # a second one does not disturb
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_a_run_that_is_refused_leaves_no_folder(tmp_path, monkeypatch, kept_signals):
    (tmp_path / "there").mkdir()
    (tmp_path / "more").mkdir()

    def stage(folder, content=()):
        process.start_log(folder)
        logging.getLogger().info("options")
        for name in content:
            (folder / name).touch()
        raise UserError("what it was")

    for folder, *content in (("a/b",), ("there",), ("more/c", "lr-1-0.pth.tar")):
        with kept_logging(), pytest.raises(SystemExit):
            process.run_stage(lambda folder=folder, content=content: stage(tmp_path / folder, content))
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert names == {"there", "there/log.txt", "more", "more/c", "more/c/log.txt", "more/c/lr-1-0.pth.tar"}


@pytest.mark.parametrize(
    "error",
    [ValueError("ours"), FileNotFoundError(errno.ENOENT, "", "/x"), PermissionError(errno.EACCES, "")],
)
def test_an_error_of_ours_goes_on(error, monkeypatch, kept_signals):
    with pytest.raises(type(error)):
        process.run_stage(lambda: raises(error))


def test_a_stage_that_ends_well_says_nothing(caplog, kept_signals):
    workers = []

    def stage():
        workers.append(multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)))
        workers[0].start()

    process.run_stage(stage)
    workers[0].join(10)
    assert not caplog.messages and workers[0].exitcode == -signal.SIGKILL


def test_a_log_is_for_the_terminal_and_the_file(tmp_path, capsys):
    logging.captureWarnings(False)  # a stage that ran in this process may have left it on
    with kept_logging():
        process.start_log(tmp_path / "a" / "b")
        logging.getLogger("x").info("a line")
        process.batch_log.info("a batch")
        logging.getLogger("x").error("an error")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("a warning", stacklevel=1)
    told, wrong = capsys.readouterr()
    assert told.startswith("a line\n") and "a batch" not in told and wrong == "an error\n"
    assert "a warning" in told
    lines = (tmp_path / "a" / "b" / "log.txt").read_text().splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines[:3]] == [
        "INFO a line",
        "INFO a batch",
        "ERROR an error",
    ]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"):
        process.start_log(tmp_path / "file")


def test_a_line_is_at_once_where_the_output_goes(tmp_path, monkeypatch):
    """Also into a pipe or a file, which Python gives whole blocks."""
    with (tmp_path / "output").open("w") as output, kept_logging():
        monkeypatch.setattr(sys, "stdout", output)
        process.start_log(tmp_path)
        logging.getLogger("x").info("a line")
        assert (tmp_path / "output").read_text() == "a line\n"


def test_a_log_file_on_a_full_disk_says_nothing(tmp_path, monkeypatch, capsys):
    def full(handler, record):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logging, "raiseExceptions", True)  # a stage that ran in this process turned it off
    monkeypatch.setattr(logging.FileHandler, "format", full)
    with kept_logging():
        process.start_log(tmp_path)
        logging.getLogger("x").info("a line")
    assert capsys.readouterr() == ("a line\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_stages_run_without_what_windows_lacks(changeable, tmp_path, script):
    """Signals, forks and `fcntl`; processes that load are spawned."""
    flags = {
        "stack-hg.py": (*changeable.place, *TRAIN[:-1], 1, "--nThreads", 1, "--cache", tmp_path / "cache"),
        **dict.fromkeys(SCRIPTS[1:-2], (*changeable.flags, "--overwrite", "true")),
        PRETRAIN: (*changeable.flags, "--nEpochs", 1, "--overwrite", "true"),
        JOINT: (*changeable.flags, "--load_prefix_sr", "lr-0.00025-1", *TRAIN, "--nThreads", 1),
    }[script]
    runner = REPOSITORY / "tests" / "support" / "windows_like.py"
    done = run(runner, *command(script, *flags)[1:])
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert not list(changeable.checkpoints.rglob(".*"))
