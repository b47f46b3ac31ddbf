"""A tiny experiment that tests of the later stages share, and stages run in the tests' own process."""

import argparse
import functools
import importlib.util
import io
import json
import logging
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from data import DataError
from data.demo import ANNOTATIONS
from data.kinds import KINDS
from data.skeleton import MPII, UPPER_NECK
from models import NetworkError
from options.parser import StageParser
from support.stages import QUIET, REPOSITORY, SMALL, command, demo_data
from utils.records.checkpoint import load_checkpoint
from utils.run import Run
from utils.system.errors import UserError

POSE = "lr-0.00025-0"  # stage 1's only epoch
MEASURED = {
    *(f"{part}_seconds" for part in ("train", "agent", "valid")),
    *("images_per_second", "waiting_share", "gpu_memory"),
}
"""Fields of an epoch's row that differ from run to run."""


@dataclass(frozen=True)
class Experiment:
    """A demo set and the folder of its experiment; printed: what each stage wrote to the terminal."""

    data: Path
    checkpoints: Path
    printed: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.checkpoints / "tiny"

    @property
    def agent_folder(self) -> Path:
        return self.folder / f"sr-dir-{POSE}"

    @property
    def joint_folder(self) -> Path:
        return self.folder / f"joint-{POSE}"

    @property
    def place(self) -> tuple:
        """Flags that name the data set and the experiment."""
        return ("--data_dir", self.data, "--exp_dir", self.checkpoints, "--exp_id", "tiny")

    @property
    def flags(self) -> tuple:
        """Flags of a stage that starts from stage 1's result."""
        return (*self.place, "--load_prefix_pose", f"{POSE}.pth.tar")

    def copy(self, checkpoints: Path) -> "Experiment":
        """The same experiment in another folder, to be changed."""
        shutil.copytree(self.checkpoints, checkpoints)
        return replace(self, checkpoints=checkpoints)

    def run(self, *flags) -> Run:
        """A `Run` of stage 2 or 3 in this process."""
        flags = (*SMALL, *QUIET, *self.flags, *flags)
        with kept_logging():
            opt = StageParser("test", "pose", "agents", "joint", "ranks").parse([str(flag) for flag in flags])
            return Run(opt, self.agent_folder)


@functools.cache
def tiny_experiment(root: Path) -> Experiment:
    """Stage 1 for an epoch, all collections, and two epochs of the agent, made once; not to be changed."""
    made = Experiment(demo_data(root / "data"), root / "checkpoints", {})
    enlarge_heads(made.data / "demo" / ANNOTATIONS)
    stages = {
        "stack-hg.py": (*made.place, "--is_train", "true", "--nEpochs", 1),
        **{f"collect-{kind}-distri.py": made.flags for kind in KINDS},
        "pretrain-s-r-agent.py": (*made.flags, "--nEpochs", 2),
    }
    for script, flags in stages.items():
        made.printed[script] = run_here(script, *flags)
    return made


def enlarge_heads(annotations: Path) -> None:
    """With heads this large, even a network that has learned next to nothing finds some joints."""
    rows = json.loads(annotations.read_text())
    for row in rows:
        row["normalizer"] *= 12
    annotations.write_text(json.dumps(rows))


def unscored(data: Path, copy: Path, *rows: int) -> Path:
    """A copy of a demo set's annotations in which these people have no PCK; all else is as it was.

    By turns a person has no reference length, or no joint but those that are not scored.
    """
    people = json.loads((data / "demo" / ANNOTATIONS).read_text())
    for k, row in enumerate(rows):
        for joint, point in enumerate(people[row]["joint_self"]):
            if joint == UPPER_NECK if k % 2 == 0 else joint in MPII.scored:
                point[:2] = 0, 0
        if k % 2 == 0:
            people[row]["normalizer"] = 0
    copy.write_text(json.dumps(people))
    return copy


@contextmanager
def kept_logging() -> Iterator[None]:
    """A stage's log goes to its own files; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def load_script(name: str):
    """A stage's script as a module, in spite of its name's hyphens."""
    spec = importlib.util.spec_from_file_location(
        name.removesuffix(".py").replace("-", "_"), REPOSITORY / name
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Parsed(Exception):  # noqa: N818
    """Ends a stage once its options are known."""


def parsed(script: str, *flags) -> argparse.Namespace:
    """The options that a stage would run with."""
    parse, arguments = StageParser.parse, [str(flag) for flag in flags]

    def parse_and_stop(parser: StageParser) -> None:
        raise _Parsed(parse(parser))

    with (
        mock.patch.object(sys, "argv", [script, *arguments]),
        mock.patch.object(StageParser, "parse", parse_and_stop),
        pytest.raises(_Parsed) as stopped,
    ):
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    return stopped.value.args[0]


def run_here(script: str, *flags) -> str:
    """What a stage prints, run in this process, which is quicker than `run_stage`; its errors are raised."""
    printed, argv = io.StringIO(), command(script, *flags)[1:]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch("utils.system.process.run_stage", lambda stage: stage()),
        redirect_stdout(printed),
        kept_logging(),
    ):
        runpy.run_path(argv[0], run_name="__main__")
    return printed.getvalue()


def refusal(script: str, *flags) -> str:
    """The one-line error that ends a stage, run in this process."""
    said = io.StringIO()
    with redirect_stderr(said), pytest.raises((UserError, DataError, NetworkError, SystemExit)) as error:
        run_here(script, *flags)
    message = said.getvalue() if error.type is SystemExit else str(error.value)
    assert len(message.splitlines()) == 1
    return message


def change_weights(path: Path) -> None:
    """Make a checkpoint that of another network of the same size."""
    checkpoint = load_checkpoint(path)
    for value in checkpoint["state_dict"].values():
        if value.is_floating_point():
            value.mul_(1.01)
    torch.save(checkpoint, path)


def rate_of(path: Path) -> float:
    """The learning rate with which a checkpoint's last step was made."""
    (group,) = load_checkpoint(path)["optimizer"]["param_groups"]
    return group["lr"]


def with_epoch(path: Path, epoch: int) -> Path:
    """A copy of a checkpoint that says it has finished another epoch."""
    copy = path.with_name(re.sub(r"\d+\.pth", f"{epoch}.pth", path.name))
    torch.save(load_checkpoint(path) | {"epoch": epoch}, copy)
    return copy


def assert_same_state(path: Path, other: Path) -> None:
    """Both checkpoints go on in the same way, bit for bit; only times may differ."""
    left, right = (torch.load(file, weights_only=True) for file in (path, other))
    for checkpoint in (left, right):
        checkpoint["train_history"] = [
            {name: value for name, value in row.items() if name not in MEASURED}
            for row in checkpoint["train_history"]
        ]
    assert differences(left, right) == []


def differences(left, right, name: str = "") -> list[str]:
    """Where two nests of dicts, lists, tensors and plain values differ."""
    if type(left) is not type(right):
        return [name]
    if isinstance(left, torch.Tensor):
        return [] if torch.equal(left, right) else [name]
    if isinstance(left, (list, tuple)):
        left, right = dict(enumerate(left)), dict(enumerate(right))
    if not isinstance(left, dict):
        same = left == right or (left != left and right != right)  # NaN, where nobody counts, is itself
        return [] if same else [name]
    if left.keys() != right.keys():
        return [f"{name}: keys"]
    return [found for key in left for found in differences(left[key], right[key], f"{name}/{key}")]
