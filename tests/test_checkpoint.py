"""Checkpoints and other files of an experiment: whole or not at all, and no code from them is run."""

import hashlib
import multiprocessing
import os
import random
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from models.hourglass import StackedHourglass
from utils.records.checkpoint import (
    checkpoint_identity,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
)
from utils.records.epochs import checkpoint_name, save_epoch
from utils.records.history import History
from utils.system.errors import UserError
from utils.system.files import link_file, write_file
from utils.training import Learner

SIZE = {"network": "hourglass", "num_stacks": 1, "num_modules": 1, "chan": 8, "in_res": 64}


def pose_network(chan=8, seed=0):
    torch.manual_seed(seed)
    return StackedHourglass(1, 1, chan=chan)


def trained(seed=0):
    """A learner after two steps, so that its optimiser has a state."""
    learner = Learner(pose_network(seed=seed), 1e-3)
    for _ in range(2):
        learner.step(learner.network(torch.rand(2, 3, 64, 64))[-1].square().mean())
    return learner


@pytest.fixture(scope="module")
def checkpoint():
    learner = trained()
    return {
        "state_dict": learner.network.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "train_history": [{"epoch": 3, "valid_pck": 0.25, "shares": [0.5, 0.5]}],
        "epoch": 3,
        "generator": torch.Generator().manual_seed(4).get_state(),
        "seed": 4,
        "network": SIZE,
    }


def released(checkpoint):
    """The same weights as the 2018 release saved them."""
    weights = OrderedDict(
        (f"module.{name}", value)
        for name, value in checkpoint["state_dict"].items()
        if not name.endswith("num_batches_tracked")
    )
    history = OrderedDict((name, OrderedDict(value=[0.1])) for name in ("epoch", "lr", "loss", "pckh"))
    group = checkpoint["optimizer"]["param_groups"][0]
    kept = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "params")
    state = {
        key: {"step": 2, "square_avg": value["square_avg"]}
        for key, value in checkpoint["optimizer"]["state"].items()
    }
    optimizer = {"state": state, "param_groups": [{name: group[name] for name in kept}]}
    return {"train_history": history, "state_dict": weights, "optimizer": optimizer}


def assert_equal_weights(network, weights):
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, weights[name]), name


def refusal(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    line = str(error.value)
    assert "\n" not in line
    return line


def test_what_is_saved_is_loaded(checkpoint, tmp_path):
    name = checkpoint_name(2.5e-5, 3)
    assert name == "lr-0.000025-3"
    written = save_epoch(tmp_path, name, checkpoint, True, {".mat": b"predictions"})
    assert sorted(written) == sorted(tmp_path.iterdir())
    both = (f"{name}.pth.tar", f"{name}-model-best.pth.tar")
    mats = (f"{name}-preds.mat", f"{name}-preds-best.mat")
    assert {path.name for path in tmp_path.iterdir()} == {*both, *mats}
    for file in both:
        loaded = load_checkpoint(tmp_path / file)
        network = pose_network(seed=1)
        load_weights(network, loaded, tmp_path / file, SIZE)
        assert_equal_weights(network, checkpoint["state_dict"])
        assert loaded["epoch"] == 3
        assert History.of_checkpoint(loaded).rows == checkpoint["train_history"]
    for file in mats:
        assert (tmp_path / file).read_bytes() == b"predictions"
    save_epoch(tmp_path, "lr-1-4", checkpoint, False)
    assert {path.name for path in tmp_path.glob("lr-1-*")} == {"lr-1-4.pth.tar"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["", "-model-best"])
def test_released_files_load_and_go_on(checkpoint, tmp_path, zipped, kind):
    path = tmp_path / f"lr-0.00025-10{kind}.pth.tar"
    torch.save(released(checkpoint), path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)
    learner, reference = Learner(pose_network(seed=1), 1e-3), trained()
    load_weights(learner.network, loaded, path, SIZE)
    assert_equal_weights(learner.network, checkpoint["state_dict"])
    learner.restore(loaded, Path("released.pth.tar"))
    assert learner.epoch == 11 and learner.history.rows == []
    for each in (learner, reference):
        torch.manual_seed(2)
        each.step(each.network(torch.rand(2, 3, 64, 64))[-1].square().mean())
    assert_equal_weights(learner.network, reference.network.state_dict())


def test_a_checkpoint_is_told_by_its_weights(checkpoint, tmp_path):
    def identity(checkpoint):
        path = tmp_path / "lr-0.001-3.pth.tar"
        torch.save(checkpoint, path)
        return checkpoint_identity(path)

    found, state = identity(checkpoint), checkpoint["state_dict"]
    again = identity(checkpoint | {"train_history": [{"epoch": 3, "train_seconds": 7.0}]})
    assert found["weights"] == again["weights"] and found["sha256"] != again["sha256"]
    strided = {
        name: value.clone(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in reversed(state.items())
    }
    assert identity(checkpoint | {"state_dict": strided})["weights"] == found["weights"]
    first = next(iter(state))
    for other in (
        state | {first: state[first] + 1e-3},
        state | {first: state[first].unsqueeze(0)},
        state | {first: state[first].view(torch.int32)},
        {name + "x" * (name == first): value for name, value in state.items()},
    ):
        assert identity(checkpoint | {"state_dict": other})["weights"] != found["weights"]


def test_a_missing_file_lists_what_is_there(tmp_path):
    assert "no checkpoints" in refusal(find_checkpoint, tmp_path, "lr-1-2", "--load_prefix_pose")
    for epoch in (0, 2, 10):
        (tmp_path / f"lr-1-{epoch}.pth.tar").touch()
    line = refusal(find_checkpoint, tmp_path, "lr-1-7.pth.tar", "--load_prefix_pose")
    assert line.startswith("--load_prefix_pose lr-1-7") and str(tmp_path) in line
    assert "lr-1-0.pth.tar, lr-1-2.pth.tar, lr-1-10.pth.tar" in line
    assert find_checkpoint(tmp_path, "lr-1-2", "") == find_checkpoint(tmp_path, "lr-1-2.pth.tar", "")
    (tmp_path / "inside").mkdir()
    refusal(find_checkpoint, tmp_path / "inside", "../lr-1-2", "--load_prefix_pose")


def test_the_newest_is_that_of_the_latest_epoch(tmp_path):
    for name in ("pose-lr-1-9", "pose-lr-1-10", "pose-lr-1-11-model-best", "agent-lr-1-12", "pose-lr-1-x"):
        (tmp_path / f"{name}.pth.tar").touch()
    assert newest_checkpoint(tmp_path, "pose-", "--load_checkpoint true").name == "pose-lr-1-10.pth.tar"
    assert (
        refusal(newest_checkpoint, tmp_path, "run-", "--x y")
        == f"--x y: {tmp_path} has no checkpoint run-lr-….pth.tar"
    )


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_named(checkpoint, tmp_path, zipped):
    path, rng = tmp_path / "lr-1-0.pth.tar", random.Random(0)
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    cuts = [0, 1, 100, len(whole) // 2, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(20))]
    noise = [rng.randbytes(rng.randrange(2000)) for _ in range(100)]
    text = [b"version https://git-lfs.github.com/spec/v1\n", b"\n", b"<html>Not Found</html>"]
    for damaged in (*(whole[:cut] for cut in cuts), *noise, *text):
        path.write_bytes(damaged)
        assert str(path) in refusal(load_checkpoint, path)


@pytest.mark.parametrize("content", [[1], {"state": {}}, {"state_dict": [1]}, {"state_dict": {"a": 1}}])
def test_a_file_of_something_else_is_named(tmp_path, content):
    path = tmp_path / "lr-1-0.pth.tar"
    torch.save(content, path)
    assert "state_dict" in refusal(load_checkpoint, path)


def test_a_released_file_says_its_epoch_in_its_name(checkpoint, tmp_path):
    path = tmp_path / "best.pth.tar"
    torch.save(released(checkpoint), path)
    assert "epoch" in refusal(load_checkpoint, path)


class _Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(checkpoint, tmp_path, zipped):
    path, effect = tmp_path / "lr-1-0.pth.tar", tmp_path / "ran"
    torch.save(checkpoint | {"extra": _Code(effect)}, path, _use_new_zipfile_serialization=zipped)
    assert str(path) in refusal(load_checkpoint, path)
    assert not effect.exists()
    torch.load(path, weights_only=False)  # the file does hold code
    assert effect.exists()


def test_another_network_is_named_by_its_flags(checkpoint, tmp_path):
    path = tmp_path / "lr-1-0.pth.tar"
    ours = SIZE | {"chan": 16, "num_stacks": 2}
    line = refusal(load_weights, pose_network(16), checkpoint, path, ours)
    assert "use --num_stacks 1 --chan 8" in line and "--chan 16" in line and str(path) in line
    old = {"state_dict": checkpoint["state_dict"]}  # does not say its size
    network = pose_network(16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert str(path) in refusal(load_weights, network, old, path, ours)
    assert_equal_weights(network, before)


def test_files_that_name_no_network_are_of_the_hourglass(checkpoint, tmp_path):
    path = tmp_path / "lr-1-0.pth.tar"
    recorded = {name: value for name, value in SIZE.items() if name != "network"}
    earlier = checkpoint | {"network": recorded}
    network = pose_network(seed=1)
    load_weights(network, earlier, path, SIZE)
    assert_equal_weights(network, checkpoint["state_dict"])
    ours = {"network": "simple_baseline", "in_res": 64}
    line = refusal(load_weights, network, earlier, path, ours)
    assert "this run has --network simple_baseline: use --network hourglass --num_stacks 1" in line
    line = refusal(load_weights, network, checkpoint | {"network": ours}, path, SIZE)
    named = "--network simple_baseline --backbone resnet50 --chan 256"  # the only one that did not say so
    assert line.endswith(f"this run has --network hourglass --chan 8: use {named}")


@pytest.mark.parametrize("step", [(os, "fsync"), (Path, "replace")], ids=lambda step: step[1])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, step, error):
    path = tmp_path / "file"
    write_file(path, "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(*step, fail)
    expected = UserError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        write_file(path, "new")
    monkeypatch.undo()
    if expected is UserError:
        assert str(path) in str(caught.value) and "No space left" in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    there = []
    monkeypatch.setattr(os, "fsync", lambda file: there.append((os.fstat(file).st_size, path.exists())))
    path = tmp_path / "file"
    write_file(path, "text")
    assert there == [(4, False)]


def test_a_file_goes_into_a_folder_that_is_there(tmp_path):
    path = tmp_path / "none" / "file"
    assert str(path) in refusal(write_file, path, "text")
    write_file(tmp_path / "file", "grün")
    assert (tmp_path / "file").read_bytes() == "grün".encode()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_rights_that_the_user_wants(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_file(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_second_name_keeps_its_content(tmp_path, monkeypatch, links):
    first, second = tmp_path / "first", tmp_path / "second"
    write_file(first, "old")
    write_file(second, "older")
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(95, "no links")))
    link_file(second, first)
    assert second.read_text() == "old" and second.samefile(first) == links
    write_file(first, "new")
    assert second.read_text() == "old" and sorted(tmp_path.iterdir()) == [first, second]


@pytest.mark.slow
def test_a_killed_process_leaves_a_whole_file(tmp_path):
    path, size = tmp_path / "file", 3_000_000
    write_file(path, size * b"z")
    fork = multiprocessing.get_context("fork")

    def write_for_ever(begun):
        write_file(path, size * b"a")
        begun.set()
        while True:
            for letter in (b"b", b"a"):
                write_file(path, size * letter)

    seen = set()
    for kill in range(16):
        begun = fork.Event()
        writer = fork.Process(target=write_for_ever, args=(begun,), daemon=True)
        writer.start()
        assert begun.wait(60)
        time.sleep(0.02 + 0.0065 * kill)
        writer.kill()
        writer.join()
        content = path.read_bytes()
        assert len(content) == size and len(set(content)) == 1
        seen.add(content[:1])
    assert seen & {b"a", b"b"}


def test_the_hash_of_weights_is_what_it_was(tmp_path):
    """Agents and logs hold it: another one would make each of them that of a network which is not there."""
    path = tmp_path / "lr-1-0.pth.tar"
    torch.save({"state_dict": {"b": torch.tensor([[1.0], [2.0]]), "a": torch.arange(3)}}, path)
    file = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert checkpoint_identity(path) == {
        "checkpoint": path.name,
        "weights": "44f8cdd74e5320cd",
        "sha256": file,
    }
