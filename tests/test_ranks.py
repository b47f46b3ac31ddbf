"""Several ranks, as torchrun starts them: the same draws, gradients and files as from one process."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.experiment import POSE, run_here
from support.rank_training import train
from support.stages import REPOSITORY, command, environment
from torch.testing import assert_close

from data.datasets import load_dataset
from data.demo import write_demo
from data.kinds import KINDS
from data.loading.loader import BatchRows
from utils.agents.base import Record
from utils.records.checkpoint import load_checkpoint
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError

STAGE_1, PRETRAIN, JOINT = "stack-hg.py", "pretrain-s-r-agent.py", "joint-train-pose-s-r-agent.py"
COLLECT = (("collect-scale-distri.py",), ("collect-rotation-distri.py", "--repeats", 2))


def shares(count, batch_size, world, seed=None):
    """Batches of each rank: lists of (rows, share)."""
    each = []
    for rank in range(world):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        rows = BatchRows(np.arange(count), batch_size, generator, rank, world)
        batches = list(rows)
        assert len(batches) == len(rows)
        each.append([(batch, rows.share(number)) for number, batch in enumerate(batches)])
    return each


@pytest.mark.parametrize(("count", "batch_size"), [(24, 8), (23, 8), (19, 8), (18, 8), (17, 8), (5, 6)])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_each_shuffled_batch(count, batch_size, world):
    (whole,) = shares(count, batch_size, 1, seed=3)
    parts = shares(count, batch_size, world, seed=3)
    for number, (rows, alone) in enumerate(whole):
        assert alone == {"before": 0, "after": 0, "counted": 1.0}
        mine = [batches[number] for batches in parts]
        for part, share in mine:
            assert part == rows[share["before"] : len(rows) - share["after"]]
            assert len(part) >= 2
        counted = sum(share["counted"] * len(part) for part, share in mine)
        assert counted == pytest.approx(len(rows))
        if len(rows) >= 2 * world:
            assert [row for part, _ in mine for row in part] == rows
            sizes = [len(part) for part, _ in mine]
            assert max(sizes) - min(sizes) <= 1
        else:
            assert all(part == rows for part, _ in mine)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_batches_in_order_are_dealt_out_whole(world):
    (whole,) = shares(11, 3, 1)
    parts = shares(11, 3, world)
    assert [batch for batch, _ in whole] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]
    for rank, batches in enumerate(parts):
        assert batches == whole[rank::world]


def torchrun(world, *arguments):
    """A process of torchrun with so many ranks on this machine."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", world]
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    return subprocess.Popen(
        [*map(str, (*launch, *arguments))],
        env=environment() | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process, timeout=300):
    """What the ranks have printed in the end, and their errors."""
    with process:
        return process.communicate(timeout=timeout)


def run_ranks(world, *stages):
    """Run stages, (script, flags...) each, one after another in so many ranks; what rank 0 printed."""
    commands = json.dumps([command(*stage)[1:] for stage in stages])
    process = torchrun(world, REPOSITORY / "tests" / "support" / "rank_worker.py", commands)
    printed, errors = finished(process)
    assert process.returncode == 0, printed + errors
    return printed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a demo set whose people do not divide: batches of 6, 6 and 2, and 5 for validation."""
    root = tmp_path_factory.mktemp("ranks")
    write_demo(root / "data" / "demo", 14, 5)
    return root


@pytest.mark.slow
def test_ranks_learn_as_one_process(root):
    script = REPOSITORY / "tests" / "support" / "rank_training.py"
    process = torchrun(3, script, root / "data", root / "ranks.pt")
    printed, errors = finished(process)
    assert process.returncode == 0, printed + errors
    there, here = torch.load(root / "ranks.pt", weights_only=True), train(root / "data")
    assert_close(there.pop("streams"), here.pop("streams"), atol=0, rtol=0)
    assert_close(there, here, atol=1e-5, rtol=1e-4)
    assert here["row"]["train_pck"] > 0
    assert here["agent_row"]["reward_share"] > 0
    assert here["occlusion_row"]["occlusion_reward_share"] > 0
    assert here["occlusion"]["weight"].std() > 0


def place(root, name):
    return ("--data_dir", root / "data", "--exp_dir", root / name, "--exp_id", "tiny", "--bs", 6)


def later_stages(root, name):
    """What follows stage 1: its evaluation, both collections, the agent, and joint training."""
    pose = (*place(root, name), "--load_prefix_pose", POSE)
    joint = ("--is_train", "true", "--nEpochs", 2, "--load_prefix_sr", "lr-0.00025-0")
    return [
        (STAGE_1, *pose, "--bs", 2, "--eval_grid", "true"),
        *((*script, *pose, "--bs", 2) for script in COLLECT),
        (PRETRAIN, *pose, "--nEpochs", 1),
        (JOINT, *pose, *joint),
    ]


@pytest.fixture(scope="module")
def alone(root):
    """The experiment's folder of all stages in one process."""
    run_here(STAGE_1, *place(root, "one"), "--is_train", "true", "--nEpochs", 1)
    for stage in later_stages(root, "one"):
        run_here(*stage)
    return root / "one" / "tiny"


def steps(checkpoint):
    """How many updates the optimiser has made of each parameter."""
    return {number: int(state["step"]) for number, state in checkpoint["optimizer"]["state"].items()}


@pytest.mark.slow
def test_ranks_make_what_one_process_makes(root, alone):
    """From one checkpoint the same files of predictions, grid and distributions."""
    folder = root / "ranks" / "tiny"
    folder.mkdir(parents=True)
    (folder / f"{POSE}.pth.tar").write_bytes((alone / f"{POSE}.pth.tar").read_bytes())
    cached = ("--cache", root / "cache")
    printed = run_ranks(3, *((*stage, *cached) for stage in later_stages(root, "ranks")))
    files = list((root / "cache").iterdir())
    uses = 3  # of a split: plain, scale, drawn
    assert len(files) == printed.count("cache: writing") == 2 * uses
    assert printed.count("people scored") == 1
    assert (
        len(re.findall(r"^epoch \d+: loss", printed, re.MULTILINE)) == 2
    )  # an epoch of the agent, and one of joint training
    agent = f"sr-dir-{POSE}"
    same = [f"{POSE}-preds.mat", f"{POSE}-grid.txt"]
    collected = [f"{kind}s" for kind in KINDS] + ["rotations_pck"]
    same += [f"{agent}/{split}_{name}.txt" for split in ("train", "val") for name in collected]
    for name in same:
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
    for name in (f"{agent}/lr-0.00025-0.pth.tar", f"joint-{POSE}/pose-lr-0.00025-1.pth.tar"):
        there, here = load_checkpoint(folder / name), load_checkpoint(alone / name)
        row, expected = there["train_history"][-1], here["train_history"][-1]
        assert row.keys() == expected.keys()
        assert (row["epoch"], row["lr"]) == (expected["epoch"], expected["lr"])
        assert steps(there) == steps(here)
        # Losses are near, not equal: batch statistics are of a rank's own people.
        assert math.isfinite(row["train_loss"]) and math.isfinite(row["valid_loss"])
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(root):
    first = (STAGE_1, *place(root, "more"), "--is_train", "true", "--nEpochs", 1)
    go_on = (*first[:-1], 2, "--load_prefix_pose", POSE)
    run_ranks(2, first)
    run_here(*go_on)
    folder = root / "more" / "tiny"
    rows = load_checkpoint(folder / "lr-0.00025-1.pth.tar")["train_history"]
    assert [row["epoch"] for row in rows] == [0, 1]


def error_lines(errors):
    """What our own program says, without torchrun's report."""
    return [line for line in errors.splitlines() if line.startswith(STAGE_1)]


@pytest.mark.slow
def test_a_mistake_is_one_line_whichever_rank_meets_it(root, tmp_path):
    """Both ranks miss a checkpoint; only the second one has the photograph that does not decode."""
    _, errors = finished(torchrun(2, *command(STAGE_1, *place(root, "bad"), "--load_prefix_pose", "no")[1:]))
    (line,) = error_lines(errors)
    assert "error: --load_prefix_pose" in line
    shutil.copytree(root / "data", tmp_path / "data")
    last = load_dataset("demo", tmp_path / "data", None, None, False, False).valid.image[-1]
    (tmp_path / "data" / last).write_bytes(b"no photograph, but it ends like one\xff\xd9")
    flags = (*place(tmp_path, "bad"), "--bs", 4, "--is_train", "true", "--nEpochs", 1)
    _, errors = finished(torchrun(2, *command(STAGE_1, *flags)[1:]))
    assert any(
        f"{last}: the photograph of person 4 cannot be decoded" in line for line in error_lines(errors)
    )
    assert not list(tmp_path.glob("bad/tiny/*.pth.tar"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank", "all"])
def test_a_rank_that_dies_ends_all(root, victim):
    """SIGKILL of one rank, or Ctrl-C to all: one line, and the finished epoch stays whole."""
    name = f"ends-{victim}"
    folder = root / name / "tiny"
    process = torchrun(2, *command(STAGE_1, *place(root, name), "--is_train", "true", "--nEpochs", 999)[1:])
    try:
        deadline = time.monotonic() + 120
        while not (folder / f"{POSE}.pth.tar").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        if victim == "rank":
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGINT)
        _, errors = finished(process, 60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert len(error_lines(errors)) == 1, errors
    (resuming,) = [line for line in errors.splitlines() if line.startswith("to resume: ")]
    assert resuming.startswith(f"to resume: torchrun --nproc_per_node 2 {REPOSITORY / STAGE_1} ")
    assert re.search(r" --nEpochs 999 --load_prefix_pose lr-0.00025-\d+.pth.tar$", resuming)
    assert load_checkpoint(folder / f"{POSE}.pth.tar")["epoch"] == 0
    assert not list(folder.rglob("*.tmp")) and not (folder / ".lock").exists()


def test_a_rank_without_a_batch_joins_in(monkeypatch):
    """As where there are fewer batches than ranks: it has nothing, and gets what the others have."""
    seen = {"row": torch.tensor([4, 2]), "pck": torch.rand(2, 2)}
    monkeypatch.setattr(ranks, "gathered", lambda mine: [[seen], mine])
    assert_close(Record("agent").per_person, seen, atol=0, rtol=0)


def test_batch_statistics_of_all_ranks_need_gpus(monkeypatch, nasty_run):
    opt = SimpleNamespace(**vars(nasty_run.opt) | {"sync_bn": True})
    Run(opt, nasty_run.folder)  # a single process has them all
    monkeypatch.setattr(ranks, "world", lambda: 2)
    with pytest.raises(UserError, match="--sync_bn true needs GPUs"):
        Run(opt, nasty_run.folder)


def test_every_rank_takes_over_the_batch_statistics_of_rank_0(monkeypatch):
    def broadcast(flat, source):
        assert source == 0
        flat.copy_(torch.arange(10.0))  # what rank 0 has

    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks.dist, "broadcast", broadcast)
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    ranks.share_buffers(network)
    found = [getattr(network[k], name).tolist() for k in (0, 2) for name in ("running_mean", "running_var")]
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert network[0].num_batches_tracked == 0
