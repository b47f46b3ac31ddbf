"""An experiment's files from run to run: nothing is lost, mixed or of others unsaid."""

import json
import os
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
from support.experiment import POSE, kept_logging, load_script, parsed, refusal, run_here
from support.stages import VALID, command, environment

from data import DataError
from data.demo import ANNOTATIONS
from utils.compare.run_logs import read_run
from utils.records.checkpoint import load_checkpoint
from utils.records.epochs import Retention, epoch_files, save_epoch
from utils.records.events import read_events
from utils.system.files import ABANDONED, locked, remove_abandoned, write_file

pytestmark = pytest.mark.slow

STAGE_1, PRETRAIN, JOINT = "stack-hg.py", "pretrain-s-r-agent.py", "joint-train-pose-s-r-agent.py"
TRAIN = ("--is_train", "true")
AGENT = "lr-0.00025-1.pth.tar"


@pytest.fixture(scope="module")
def three_epochs(experiment, tmp_path_factory):
    """Stage 1 for three epochs, with pages; not to be changed."""
    made = experiment.copy(tmp_path_factory.mktemp("three") / "checkpoints")
    run_here(STAGE_1, *made.place, *TRAIN, "--nEpochs", 3, "--load_prefix_pose", POSE, "--use_html", "true")
    return made


@pytest.fixture
def trained(three_epochs, tmp_path):
    return three_epochs.copy(tmp_path / "checkpoints")


def contents(folder):
    """What the files of a folder hold, less its logs, which tell of every run."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("log.txt", "log.jsonl")
    }


def reversed_people(experiment, tmp_path):
    """The demo set's annotations with each split's rows in reverse order."""
    rows = json.loads((experiment.data / "demo" / ANNOTATIONS).read_text())
    path = tmp_path / "reversed.json"
    path.write_text(json.dumps(rows[::-1]))
    return path


# Whose results


def test_rows_of_other_people_are_refused(experiment, tmp_path):
    """The same people in another order are other people, row by row."""
    changed = experiment.copy(tmp_path / "checkpoints")
    others = ("--annotations", reversed_people(experiment, tmp_path))
    before = contents(changed.agent_folder)
    assert "fingerprint" in refusal("collect-scale-distri.py", *changed.flags, *others)
    assert "fingerprint" in refusal(PRETRAIN, *changed.flags, *others, "--overwrite", "true")
    assert contents(changed.agent_folder) == before
    rows = []
    for people in ((), others):  # one by one, so that rounding is the same in either order
        run_here("collect-scale-distri.py", *changed.flags, *people, "--bs", 1, "--overwrite", "true")
        rows.append(np.loadtxt(changed.agent_folder / "train_scales.txt").tolist())
    assert rows[0] != rows[1] == rows[0][::-1]


def test_resuming_on_other_people_says_so(experiment, tmp_path):
    changed = experiment.copy(tmp_path / "checkpoints")
    go_on = (*changed.flags, *TRAIN, "--nEpochs", 2)
    run_here(STAGE_1, *go_on)
    assert "other people" not in (changed.folder / "log.txt").read_text()
    run_here(STAGE_1, *go_on, "--annotations", reversed_people(experiment, tmp_path))
    said = (changed.folder / "log.txt").read_text()
    assert f"{POSE}.pth.tar was trained or validated on other people" in said and "valid people" in said
    others = ("--annotations", reversed_people(experiment, tmp_path))
    run_here(JOINT, *changed.flags, "--load_prefix_sr", AGENT, *TRAIN, "--nEpochs", 2, *others)
    said = (changed.joint_folder / "log.txt").read_text()
    assert f"{POSE}.pth.tar was trained or validated on other people" in said


def test_the_last_epoch_has_its_page(three_epochs):
    pages = {path.name for path in (three_epochs.folder / "web").glob("epoch-*.html")}
    assert {"epoch-2.html"} <= pages <= {"epoch-1.html", "epoch-2.html"}


@pytest.mark.parametrize(
    ("script", "flags", "clock", "told"),
    [
        (STAGE_1, (*TRAIN, "--nEpochs", 2), (10, 13, 18), {"train_seconds": 3, "valid_seconds": 5}),
        (
            PRETRAIN,
            ("--load_prefix_sr", AGENT, "--nEpochs", 3),
            (10, 13, 18),
            {"train_seconds": 3, "valid_seconds": 5},
        ),
        (
            JOINT,
            ("--load_prefix_sr", AGENT, *TRAIN, "--nEpochs", 2),
            (10, 11, 13, 18),
            {"train_seconds": 3, "agent_seconds": 2, "valid_seconds": 5},
        ),
    ],
)
def test_an_epoch_tells_what_it_took(changeable, monkeypatch, script, flags, clock, told):
    module, ticks = load_script(script), iter(clock)
    opt = parsed(script, *command(script, *changeable.flags, *flags)[2:])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    with kept_logging():
        module.main(opt)
    folder = {STAGE_1: changeable.folder, PRETRAIN: changeable.agent_folder, JOINT: changeable.joint_folder}
    *_, row = (event for event in read_events(folder[script] / "log.jsonl") if event["kind"] == "epoch")
    assert {name: row[name] for name in told} == told


def test_predictions_say_whose_they_are(trained):
    people = trained.run().dataset.valid
    run_here(STAGE_1, *trained.flags, "--limit", 2)
    for name, count in (("lr-0.00025-2-preds", VALID), (f"{POSE}-preds-first-2", 2)):
        found = scipy.io.loadmat(trained.folder / f"{name}.mat")
        assert found["preds"].shape == (count, 16, 2)
        assert [image.item() for image in found["image"].ravel()] == people.image[:count].tolist()
        np.testing.assert_array_equal(found["center"], people.center[:count])
        np.testing.assert_array_equal(found["scale"].ravel(), people.scale[:count])
        assert found["people"].item() == people[:count].fingerprint


def test_evaluations_of_other_people_replace_nothing(experiment, trained, tmp_path):
    everyone = (*trained.flags, "--eval_grid", "true", "--use_html", "true")
    run_here(STAGE_1, *everyone)
    before = contents(trained.folder)
    run_here(STAGE_1, *everyone, "--limit", 2)
    after = contents(trained.folder)
    listed = {path for path in before if path.name == "evaluations.html"}
    assert {path: after[path] for path in before if path not in listed} == {
        path: before[path] for path in before if path not in listed
    }
    added = {str(path) for path in after.keys() - before.keys()}
    assert added == {
        *(f"{POSE}-{name}" for name in ("preds-first-2.mat", "grid-first-2.txt", "grid-first-2.png")),
        f"web/evaluation-{POSE}-first-2.html",
    }
    message = refusal(STAGE_1, *everyone, "--annotations", reversed_people(experiment, tmp_path))
    assert f"{POSE}-preds.mat" in message and "--overwrite true" in message
    assert contents(trained.folder) == after


def test_predictions_on_another_data_set_are_named_after_it(trained):
    path = trained.folder / f"{POSE}.pth.tar"
    checkpoint = load_checkpoint(path)
    checkpoint["people"]["dataset"] = "lsp"
    save_epoch(trained.folder, POSE, checkpoint, best=False)
    before = contents(trained.folder)
    run_here(STAGE_1, *trained.flags)
    after = contents(trained.folder)
    assert {path.name for path in after.keys() - before.keys()} == {f"{POSE}-preds-demo.mat"}
    assert {path: after[path] for path in before} == before


# Earlier results


def test_overwriting_removes_only_what_runs_have_written(trained):
    kept = ("my-grid.search.txt", "web/notes.html", "lr-0.1-mine.pth.tar", "my-preds.mat")
    for name in kept:
        (trained.folder / name).write_text("mine")
    run_here(STAGE_1, *trained.place, *TRAIN, "--nEpochs", 1, "--overwrite", "true", "--lr", "0.1")
    assert all((trained.folder / name).read_text() == "mine" for name in kept)
    assert {file.path.name for file in epoch_files(trained.folder)} <= {
        "lr-0.1-0.pth.tar",
        "lr-0.1-0-model-best.pth.tar",
        "lr-0.1-0-preds.mat",
        "lr-0.1-0-preds-best.mat",
    }
    assert (trained.agent_folder / AGENT).exists()


def test_results_without_checkpoints_are_not_replaced_unasked(trained):
    for path in trained.folder.glob("*.pth.tar"):
        path.unlink()
    before = contents(trained.folder)
    assert "--overwrite true" in refusal(STAGE_1, *trained.place, *TRAIN, "--nEpochs", 1)
    assert contents(trained.folder) == before


def without_a_photograph(trained, tmp_path):
    """Flags of the same data set, whose last photograph does not decode."""
    shutil.copytree(trained.data, tmp_path / "data")
    photo = max((tmp_path / "data" / "demo" / "images").glob("*"))
    photo.write_bytes(b"no photograph, but it ends like one\xff\xd9")
    return ("--data_dir", tmp_path / "data")


@pytest.mark.parametrize("html", ["true", "false"])
def test_overwriting_loses_nothing_before_its_first_epoch_is_saved(trained, tmp_path, html):
    before = contents(trained.folder)
    flags = ("--nEpochs", 1, "--overwrite", "true", "--use_html", html)
    with pytest.raises(DataError, match="cannot be decoded"):
        run_here(STAGE_1, *trained.place, *TRAIN, *flags, *without_a_photograph(trained, tmp_path))
    assert contents(trained.folder) == before


def test_a_rewind_that_trains_nothing_touches_nothing(trained, tmp_path):
    """As Ctrl-C right after it."""
    before, pck = contents(trained.folder), read_run(trained.folder).pck
    assert sorted(pck) == [0, 1, 2]
    flags = ("--load_prefix_pose", POSE, "--nEpochs", 3, "--use_html", "true", "--seed", 5)
    with pytest.raises(DataError, match="cannot be decoded"):
        run_here(STAGE_1, *trained.place, *TRAIN, *flags, *without_a_photograph(trained, tmp_path))
    assert contents(trained.folder) == before
    assert read_run(trained.folder).pck == pck and read_run(trained.folder).seed == "0"


def test_a_rewind_leaves_no_best_of_epochs_that_are_no_more(trained):
    for epoch in (1, 2):  # whether they improved or not
        name = f"lr-0.00025-{epoch}"
        checkpoint = load_checkpoint(trained.folder / f"{name}.pth.tar")
        predictions = {".mat": (trained.folder / f"{name}-preds.mat").read_bytes()}
        save_epoch(trained.folder, name, checkpoint, True, predictions)
    later = (trained.folder / "lr-0.00025-2.pth.tar").read_bytes()
    run_here(STAGE_1, *trained.place, *TRAIN, "--load_prefix_pose", POSE, "--nEpochs", 2, "--lr", "1e-8")
    history = load_checkpoint(trained.folder / "lr-0.00000001-1.pth.tar")["train_history"]
    improved = history[1]["valid_pck"] > history[0]["valid_pck"]
    best = {file.path.name for file in epoch_files(trained.folder) if file.best and file.epoch > 0}
    names = {"lr-0.00000001-1-model-best.pth.tar", "lr-0.00000001-1-preds-best.mat"}
    assert best == (names if improved else set())
    assert (trained.folder / "lr-0.00025-2.pth.tar").read_bytes() == later


def test_nothing_to_train_is_an_error_that_says_what_to_ask_for(trained, experiment):
    before = contents(trained.folder)
    for script, flags in (
        (STAGE_1, ("--load_prefix_pose", "lr-0.00025-2", *TRAIN)),
        (PRETRAIN, (*trained.flags[-2:], "--load_prefix_sr", AGENT)),
        (JOINT, (*trained.flags[-2:], "--load_prefix_sr", AGENT, *TRAIN)),
    ):
        message = refusal(script, *trained.place, *flags, "--nEpochs", 1, "--use_html", "true")
        assert "nothing to train" in message and "--nEpochs 1" in message
    assert contents(trained.folder) == before


def test_an_older_agent_does_not_hide_a_resumed_run(changeable):
    """The agent's epochs may be far beyond the pose network's: they are no later ones of the run."""
    run_here(JOINT, *changeable.flags, "--load_prefix_sr", AGENT, *TRAIN, "--nEpochs", 2)
    folder = changeable.joint_folder
    (folder / "agent-lr-0.00005-2.pth.tar").rename(folder / "agent-lr-0.00005-90.pth.tar")
    checkpoint = load_checkpoint(folder / "pose-lr-0.00025-1.pth.tar") | {"agent": "agent-lr-0.00005-90"}
    save_epoch(folder, "pose-lr-0.00025-1", checkpoint, best=False)
    go_on = (*TRAIN, "--load_checkpoint", "true", "--nEpochs", 3, "--seed", 7)
    with pytest.raises(DataError):
        run_here(JOINT, *changeable.flags, *go_on, *without_a_photograph(changeable, changeable.checkpoints))
    assert "* seed: 7" in (folder / "opt.txt").read_text()


def test_keep_leaves_the_newest_epochs_and_the_best(tmp_path):
    def save(epoch, best):
        kept.add(save_epoch(tmp_path, f"lr-1-{epoch}", {"epoch": epoch}, best, {".mat": b"preds"}), best)
        return {(file.epoch, file.best) for file in epoch_files(tmp_path)}

    save_epoch(tmp_path, "lr-1-0", {}, True, {".mat": b"before this run"})
    before = {(0, True), (0, False)}
    kept = Retention(2)
    assert save(1, True) == before | {(1, True), (1, False)}
    assert save(2, False) == before | {(1, True), (1, False), (2, False)}
    assert save(3, False) == before | {(1, True), (1, False), (2, False), (3, False)}
    assert save(4, True) == before | {(3, False), (4, True), (4, False)}
    assert save(5, False) == before | {(4, True), (4, False), (5, False)}


def test_keep_of_a_joint_run_keeps_the_agent_with_its_pose_network(experiment, tmp_path):
    changed = experiment.copy(tmp_path / "checkpoints")
    flags = (*changed.flags, "--load_prefix_sr", AGENT, *TRAIN, "--nEpochs", 4, "--keep", 1)
    run_here(JOINT, *flags)
    files = epoch_files(changed.joint_folder)
    poses = [
        load_checkpoint(file.path)
        for file in files
        if file.path.name.startswith("pose-") and file.path.name.endswith(".pth.tar")
    ]
    agents = {file.path.name for file in files if file.path.name.startswith("agent-")}
    assert {f"{pose['agent']}.pth.tar" for pose in poses} == agents
    assert max(pose["epoch"] for pose in poses) == 3 and len(agents) <= 2


# Runs at the same time, and killed ones


def test_a_second_run_in_a_folder_is_refused(experiment, tmp_path):
    changed = experiment.copy(tmp_path / "checkpoints")
    before = contents(changed.folder)
    with locked(changed.folder):
        message = refusal(STAGE_1, *changed.flags, *TRAIN, "--nEpochs", 2)
        assert f"process {os.getpid()}" in message and str(changed.folder) in message
        run_here(STAGE_1, *changed.flags, "--limit", 1)  # evaluating is allowed
    (changed.folder / f"{POSE}-preds-first-1.mat").unlink()
    assert contents(changed.folder) == before
    run_here(STAGE_1, *changed.flags, *TRAIN, "--nEpochs", 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_leaves_neither_lock_nor_temporary_files(experiment, tmp_path, workers):
    changed = experiment.copy(tmp_path / "checkpoints")
    training = command(STAGE_1, *changed.flags, *TRAIN, "--nEpochs", 10_000, "--nThreads", workers)
    process = subprocess.Popen(training, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not (changed.folder / "lr-0.00025-1.pth.tar").exists() and time.monotonic() < until:
        time.sleep(0.02)
    message = refusal(STAGE_1, *changed.flags, *TRAIN, "--nEpochs", 10_000)
    assert f"process {process.pid}" in message
    process.send_signal(signal.SIGKILL)
    process.communicate()
    half = changed.folder / ".lr-0.00025-9.pth.tar.0123abcd.tmp"
    half.write_text("half")
    long_ago = time.time() - ABANDONED - 1
    os.utime(half, (long_ago, long_ago))
    run_here(STAGE_1, *changed.flags, "--limit", 1)
    assert half.exists()  # an evaluation removes nothing
    written = changed.folder / ".opt.txt.89abcdef.tmp"
    written.write_text("half")  # just now: by another process, perhaps
    run_here(STAGE_1, *changed.flags, *TRAIN, "--nEpochs", 2)
    assert [path.name for path in changed.folder.glob(".*")] == [written.name]


def test_where_nothing_locks_a_run_says_so(experiment, tmp_path, monkeypatch, caplog):
    import fcntl

    def unsupported(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / "a"):
        write_file(tmp_path / "a" / "file", "text")
        (tmp_path / "a" / ".b.01234567.tmp").touch()  # perhaps another process writes it
        remove_abandoned(tmp_path / "a")
    assert (tmp_path / "a" / ".b.01234567.tmp").exists() and not (tmp_path / "a" / ".lock").exists()
    assert "No locks available" in caplog.text
