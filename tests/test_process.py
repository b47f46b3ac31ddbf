"""How scripts end: signals at any moment, terminals of few characters, paths that the system refuses."""

import errno
import signal
import subprocess
import sys

import pytest
from support.experiment import kept_logging, load_script, tiny_experiment
from support.stages import REPOSITORY, command, demo_data, environment

from utils import process

pytestmark = pytest.mark.slow

SCRIPTS = (
    "stack-hg.py",
    "collect-scale-distri.py",
    "collect-rotation-distri.py",
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


@pytest.mark.parametrize("script", [*SCRIPTS, "utils.compare", "utils.visdom_display"])
@pytest.mark.parametrize("number", process.SIGNALS, ids=lambda number: number.name)
def test_a_signal_amid_the_imports_is_one_line(tmp_path, script, number):
    for package in ("numpy", "torch"):  # either takes for ever
        (tmp_path / f"{package}.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    started = [REPOSITORY / script] if script.endswith(".py") else ["-m", script]
    child = subprocess.Popen(
        [sys.executable, *map(str, started)],
        cwd=REPOSITORY,
        env=environment() | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "here\n"
        child.send_signal(number)
        _, line = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 128 + number
    assert f": stopped by {number.name}: " in line and line.count("\n") == 1


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
def refusal(tmp_path, monkeypatch, caplog, capsys):
    """`refusal(script, *flags)`: the one line with which a script, run in this process, ends."""
    experiment = tiny_experiment(tmp_path.parent / "experiment").copy(tmp_path / "checkpoints")
    handlers = {number: signal.getsignal(number) for number in (*process.SIGNALS, signal.SIGCHLD)}

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", command(script, *experiment.flags, *flags)[1:])
        with kept_logging(), pytest.raises(SystemExit) as end:
            process.run_stage(load_script(script).main)
        assert end.value.code == 2
        (line,) = [*capsys.readouterr().err.splitlines(), *caplog.messages[-1:]]
        return line

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


TRAIN = ("--is_train", "true", "--overwrite", "true", "--nEpochs", 2)
PRETRAIN, JOINT = SCRIPTS[3:]


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


def test_a_file_that_may_not_be_read_is_one_line(refusal, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    assert "lr-0.00025-0.pth.tar: Permission denied" in refusal("stack-hg.py")


def test_errors_of_ours_keep_their_traceback(refusal, monkeypatch):
    def missing(path):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr("pathlib.Path.is_file", missing)
    with pytest.raises(FileNotFoundError):
        refusal("stack-hg.py")
