"""Stage 1 as users run it: training, resuming, signals, evaluation, and one line for what goes wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from support.experiment import (
    assert_same_state,
    enlarge_heads,
    rate_of,
    refusal,
    run_here,
    unscored,
    with_epoch,
)
from support.stages import (
    TRAIN,
    VALID,
    assert_user_error,
    command,
    demo_data,
    environment,
    run_printed,
    run_stage,
)

from data.demo import ANNOTATIONS
from utils.records.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

SCRIPT = "stack-hg.py"
EPOCHS, NAME = 3, "lr-0.00025-{}"
TRAIN_FLAGS = ("--is_train", "true", "--nEpochs", EPOCHS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = demo_data(tmp_path_factory.mktemp("data"))
    enlarge_heads(folder / "demo" / ANNOTATIONS)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A whole training: (its folder, what it printed)."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    place = ("--data_dir", data, "--exp_dir", checkpoints, "--exp_id", "whole")
    return checkpoints / "whole", run_here(SCRIPT, *place, *TRAIN_FLAGS)


@pytest.fixture
def flags(data, tmp_path):
    """Flags of an experiment of the test's own, `tmp_path/a`."""
    (tmp_path / "a").mkdir()
    return ("--data_dir", data, "--exp_dir", tmp_path, "--exp_id", "a")


def preds(path):
    return scipy.io.loadmat(path)["preds"]


def last_table(printed):
    """The lines of the last per-joint table in what a stage printed."""
    lines = printed.splitlines()
    head = max(k for k, line in enumerate(lines) if line.split()[:2] == ["Head", "Shoulder"])
    return lines[head : head + 3]


def test_training_leaves_its_files(run):
    folder, printed = run
    rows = load_checkpoint(folder / f"{NAME.format(EPOCHS - 1)}.pth.tar")["train_history"]
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    expected = {"opt.txt", "log.txt", "log.jsonl", "training-summary.txt"}
    for epoch, row in enumerate(rows):
        best = row["valid_pck"] > max([other["valid_pck"] for other in rows[:epoch]], default=-1)
        for kind, model in (("", ""), ("-best", "-model-best"))[: 1 + best]:
            expected |= {f"{NAME.format(epoch)}{model}.pth.tar", f"{NAME.format(epoch)}-preds{kind}.mat"}
    assert {path.name for path in folder.iterdir()} == expected

    for epoch in range(EPOCHS):
        found = preds(folder / f"{NAME.format(epoch)}-preds.mat")
        assert found.shape == (VALID, 16, 2) and np.ptp(found, axis=1).min() > 0
    assert "* nEpochs: 3\n" in (folder / "opt.txt").read_text()
    assert len((folder / "training-summary.txt").read_text().splitlines()) == 1 + EPOCHS
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events if event["kind"] != "batch"] == [
        "start",
        *EPOCHS * ["epoch"],
        "end",
    ]
    trained = [event for event in events if event["kind"] == "epoch"]
    assert [event["valid_pck"] for event in trained] == [r["valid_pck"] for r in rows]
    assert [event["updates"] for event in trained] == [TRAIN // 4 * (epoch + 1) for epoch in range(EPOCHS)]
    assert f"{100 * rows[-1]['valid_pck']:.2f}" == last_table(printed)[1].split()[-1] != "0.00"


def test_resuming_equals_going_on(run, flags, tmp_path):
    """From the first epoch's checkpoint, bit for bit, though photographs are decoded elsewhere."""
    folder, _ = run
    shutil.copy(folder / f"{NAME.format(0)}.pth.tar", tmp_path / "a")
    run_here(SCRIPT, *flags, *TRAIN_FLAGS, "--load_prefix_pose", NAME.format(0), "--nThreads", 2)
    for epoch in range(1, EPOCHS):
        assert_same_state(*(place / f"{NAME.format(epoch)}.pth.tar" for place in (folder, tmp_path / "a")))
        name = f"{NAME.format(epoch)}-preds.mat"
        np.testing.assert_array_equal(preds(folder / name), preds(tmp_path / "a" / name))


@pytest.mark.parametrize(("last", "lr"), [(98, 2.5e-4), (99, 5e-5), (150, 2.5e-5)])
def test_an_epoch_has_its_own_rate(run, flags, tmp_path, last, lr):
    """As the schedule says, also where a run is resumed right there."""
    shutil.copy(run[0] / f"{NAME.format(0)}.pth.tar", tmp_path / "a")
    start = with_epoch(tmp_path / "a" / f"{NAME.format(0)}.pth.tar", last)
    run_here(SCRIPT, *flags, "--is_train", "true", "--nEpochs", last + 2, "--load_prefix_pose", start.name)
    trained = tmp_path / "a" / f"{NAME.format(last + 1)}.pth.tar"
    assert rate_of(trained) == pytest.approx(lr)
    assert load_checkpoint(trained)["train_history"][-1]["lr"] == pytest.approx(lr)


def test_resuming_says_which_epochs_it_replaces(run, flags, tmp_path):
    for epoch in (0, 1):
        shutil.copy(run[0] / f"{NAME.format(epoch)}.pth.tar", tmp_path / "a")
    go_on = ("--is_train", "true", "--nEpochs", 2, "--load_prefix_pose", NAME.format(0))
    said = f"{NAME.format(1)}.pth.tar already exists: it and later epochs will be replaced"
    assert said in run_here(SCRIPT, *flags, *go_on)


def test_evaluation_repeats_the_trainings_table_and_predictions(run, flags, tmp_path):
    folder, printed = run
    name = NAME.format(EPOCHS - 1)
    shutil.copy(folder / f"{name}.pth.tar", tmp_path / "a")
    done = run_stage(SCRIPT, *flags, "--load_prefix_pose", f"{name}.pth.tar")
    assert last_table(done.stdout) == last_table(printed)
    written = f"{name}-preds.mat"
    np.testing.assert_array_equal(preds(folder / written), preds(tmp_path / "a" / written))
    assert {path.name for path in (tmp_path / "a").iterdir()} == {f"{name}.pth.tar", written, "log.txt"}


def assert_group_ends(group, seconds=10):
    """No process that loads photographs is left; a dead one may have to be collected by the system."""
    for _ in range(20 * seconds):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process of the stage is left over")


@pytest.mark.parametrize("sent", ["SIGINT to the group", "SIGTERM alone", "SIGTERM to the group, twice"])
def test_a_signal_ends_a_run_cleanly(flags, tmp_path, sent):
    number = signal.Signals[sent.split()[0]]
    process = subprocess.Popen(
        command(SCRIPT, *flags, "--is_train", "true", "--nEpochs", 10_000, "--nThreads", 2),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "a" / f"{NAME.format(1)}.pth.tar").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        send = os.killpg if "group" in sent else os.kill
        send(process.pid, number)
        if "twice" in sent:
            time.sleep(0.03)
            send(process.pid, number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert re.fullmatch(rf"{SCRIPT}: stopped by {number.name}: [^\n]*\nto resume: [^\n]*\n", errors)
    assert_group_ends(process.pid)
    checkpoints = list((tmp_path / "a").glob("*.pth.tar"))
    newest = max(load_checkpoint(path)["epoch"] for path in checkpoints)
    assert newest >= 1
    assert not list((tmp_path / "a").glob(".*"))
    run_printed(errors, newest + 2)
    assert (tmp_path / "a" / f"{NAME.format(newest + 1)}.pth.tar").exists()


def test_a_full_disk_behind_the_output_ends_nothing(flags, tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(SCRIPT, *flags, "--is_train", "true", "--nEpochs", 1),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a" / f"{NAME.format(0)}.pth.tar").exists()


def test_a_reader_that_goes_away_ends_nothing(flags, tmp_path):
    """As with `| head -1`."""
    process = subprocess.Popen(
        command(SCRIPT, *flags, "--is_train", "true", "--nEpochs", 1),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(timeout=120), process.stderr.read()) == (0, "")
    process.stderr.close()
    assert (tmp_path / "a" / f"{NAME.format(0)}.pth.tar").exists()


def cut_off(rows):
    return json.dumps(rows)[:-40]


def without_a_joint(rows):
    rows[2]["joint_self"].pop()
    return json.dumps(rows)


def with_nan_scale(rows):
    rows[3]["scale_provided"] = float("nan")
    return json.dumps(rows)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut_off, ["JSON"]),
        (without_a_joint, ["row 2 ", "joint_self", "16 joints"]),
        (with_nan_scale, ["row 3 ", "scale_provided", "nan"]),
    ],
)
def test_bad_annotations_are_named(data, flags, tmp_path, damage, named):
    path = tmp_path / "people.json"
    path.write_text(damage(json.loads((data / "demo" / ANNOTATIONS).read_text())))
    message = refusal(SCRIPT, *flags, *TRAIN_FLAGS, "--annotations", path)
    assert all(text in message for text in (str(path), *named))


def test_people_of_whom_nobody_has_pck_are_named(flags, data, tmp_path):
    """Of training people stage 1 needs none: it learns from their joints."""
    nobody = unscored(data, tmp_path / "nobody.json", *range(TRAIN, TRAIN + VALID))
    message = refusal(SCRIPT, *flags, *TRAIN_FLAGS, "--annotations", nobody)
    assert f"none of {VALID} validation people can be scored" in message
    assert not list((tmp_path / "a").glob("*.pth.tar"))
    some = unscored(data, tmp_path / "some.json", *range(TRAIN), TRAIN)
    on = ("--use_html", "true")
    run_here(SCRIPT, *flags, "--is_train", "true", "--nEpochs", 1, *on, "--annotations", some)
    prefix = ("--load_prefix_pose", NAME.format(0))
    printed = run_stage(SCRIPT, *flags, *prefix, "--annotations", some).stdout
    assert f"{VALID - 1} people" in printed
    assert preds(tmp_path / "a" / f"{NAME.format(0)}-preds.mat").shape == (VALID, 16, 2)
    assert_user_error(
        run_stage(SCRIPT, *flags, *prefix, "--annotations", nobody, check=False), "can be scored"
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_photograph_that_does_not_decode_is_named(data, flags, tmp_path, workers):
    shutil.copytree(data, tmp_path / "data")
    photo = tmp_path / "data" / "demo" / "images" / "train-0005.jpg"
    photo.write_bytes(b"no photograph, but it ends like one\xff\xd9")
    place = ("--data_dir", tmp_path / "data", "--nThreads", workers)
    assert_user_error(run_stage(SCRIPT, *flags, *TRAIN_FLAGS, *place, check=False), photo, "person 5 ")


def test_an_absent_data_set_is_named(flags, tmp_path):
    place = ("--dataset", "mpii", "--data_dir", tmp_path / "none")
    message = refusal(SCRIPT, *flags, *TRAIN_FLAGS, *place)
    assert str(tmp_path / "none" / "mpii") in message and ANNOTATIONS in message


def test_checkpoints_that_do_not_serve_are_named(run, flags, tmp_path):
    name = f"{NAME.format(0)}.pth.tar"
    path, evaluation = tmp_path / "a" / name, (*flags, "--load_prefix_pose", name)
    absent = refusal(SCRIPT, *evaluation)
    assert str(path) in absent and "no checkpoints" in absent
    shutil.copy(run[0] / name, path)
    other = refusal(SCRIPT, *evaluation, "--chan", 32)
    assert str(path) in other and "--chan 16" in other
    missing = refusal(SCRIPT, *flags, "--load_prefix_pose", NAME.format(7))
    assert NAME.format(7) in missing and name in missing
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert_user_error(run_stage(SCRIPT, *evaluation, check=False), path, "truncated")


def test_earlier_checkpoints_are_not_replaced_unasked(run, flags, tmp_path):
    name = f"{NAME.format(0)}.pth.tar"
    shutil.copy(run[0] / name, tmp_path / "a")
    before = (tmp_path / "a" / name).read_bytes()
    message = refusal(SCRIPT, *flags, *TRAIN_FLAGS)
    assert str(tmp_path / "a") in message and "--overwrite true" in message
    assert (tmp_path / "a" / name).read_bytes() == before
    again = ("--is_train", "true", "--nEpochs", 1, "--overwrite", "true", "--lr", "1e-3")
    run_here(SCRIPT, *flags, *again)
    assert {path.name for path in (tmp_path / "a").glob("*[0-9].pth.tar")} == {"lr-0.001-0.pth.tar"}


def test_a_loss_that_is_not_finite_stops_training(flags, tmp_path):
    message = refusal(SCRIPT, *flags, *TRAIN_FLAGS, "--lr", "1e30")
    assert all(text in message for text in ("loss", "epoch 0", "learning rate"))
    assert not list((tmp_path / "a").glob("*.pth.tar"))


def test_what_cannot_be_done_is_said(data, flags, tmp_path):
    nothing = refusal(SCRIPT, *flags)
    assert "--is_train true" in nothing and "--load_prefix_pose" in nothing
    (tmp_path / "file").touch()
    place = ("--data_dir", data, "--exp_dir", tmp_path / "file", "--exp_id", "a")
    assert_user_error(run_stage(SCRIPT, *place, *TRAIN_FLAGS, check=False), tmp_path / "file")
