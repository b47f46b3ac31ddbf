"""Stages with --cache: the same files to the bit as without, from photographs that are decoded once."""

import json

import pytest
from support.experiment import MEASURED, POSE, assert_same_state, refusal, run_here
from support.stages import assert_user_error, demo_data, run_stage

from data.kinds import KINDS
from utils.records.distributions import distribution_path

pytestmark = pytest.mark.slow

TRAINING = ("--is_train", "true", "--nEpochs", 2)
NEXT = POSE.removesuffix("0") + "1"
AGENT = "lr-0.00025-1.pth.tar"
USES = (
    *("train-random", "valid-identity", "valid-drawn"),  # stage 1, with a grid
    *(f"{split}-{kind}" for kind in KINDS for split in ("train", "valid")),
    *("train-identity", "train-drawn"),  # the agent's pretraining, and stage 3
)


def run_all(made, *flags):
    """Every stage in a copy of the tiny experiment: it starts, goes on, collects, evaluates."""
    fresh = ("--exp_id", "fresh", "--is_train", "true", "--nEpochs", 1)
    run_here("stack-hg.py", *made.place, *fresh, *flags)
    run_here("stack-hg.py", *made.flags, *TRAINING, *flags)
    printed = run_here("stack-hg.py", *made.flags, "--eval_grid", "true", *flags)
    for kind in KINDS:
        run_here(f"collect-{kind}-distri.py", *made.flags, "--overwrite", "true", *flags)
    run_here("pretrain-s-r-agent.py", *made.flags, "--overwrite", "true", "--nEpochs", 2, *flags)
    joint = (*made.flags, "--load_prefix_sr", AGENT, *TRAINING)
    run_here("joint-train-pose-s-r-agent.py", *joint, *flags)
    return [
        line for line in printed.splitlines() if "/" not in line and not line.startswith(("*", " ", "cache"))
    ]


@pytest.fixture(scope="module")
def plain(experiment, tmp_path_factory):
    """(The experiment, what its evaluation printed), without a cache."""
    made = experiment.copy(tmp_path_factory.mktemp("plain") / "checkpoints")
    return made, run_all(made)


def epochs(folder):
    """The rows of a run's log that are of epochs, without times."""
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [
        {name: value for name, value in row.items() if name not in MEASURED}
        for row in rows
        if row["kind"] == "epoch"
    ]


@pytest.mark.parametrize(("cache", "workers"), [("folder", 2), ("gpu", 0)])
def test_every_stage_ends_where_it_does_without(plain, changeable, tmp_path, monkeypatch, cache, workers):
    """A folder's files are one for each split and augmentation, and later runs decode nothing."""
    there, printed = plain
    place = tmp_path / "caches" if cache == "folder" else cache
    assert run_all(changeable, "--cache", place, "--nThreads", workers) == printed
    fresh = changeable.checkpoints / "fresh"
    assert epochs(fresh) == epochs(there.checkpoints / "fresh") != []
    assert_same_state(there.checkpoints / "fresh" / f"{POSE}.pth.tar", fresh / f"{POSE}.pth.tar")
    assert epochs(changeable.joint_folder) == epochs(there.joint_folder) != []
    names = [f"tiny/{NEXT}", f"tiny/sr-dir-{POSE}/lr-0.00025-1", f"tiny/joint-{POSE}/pose-lr-0.00025-1"]
    for name in names:
        assert_same_state(*(made.checkpoints / f"{name}.pth.tar" for made in (there, changeable)))
    for kind in KINDS:
        for split in ("train", "val"):
            ours, theirs = (
                distribution_path(m.agent_folder, split, kind).read_bytes() for m in (changeable, there)
            )
            assert ours == theirs
    if cache == "folder":
        found = sorted(path.name.rpartition("-")[0] for path in place.iterdir())
        assert found == sorted(f"demo-{what}-64px" for what in USES)

        def decoded(*arguments):
            raise AssertionError("a photograph was decoded")

        monkeypatch.setattr("data.loading.patches.read_patch", decoded)
        run_all(changeable, "--cache", place, "--overwrite", "true", "--seed", 1)


def test_what_goes_wrong_is_one_line(tmp_path):
    place = ("--data_dir", demo_data(tmp_path / "data"), "--exp_dir", tmp_path, "--exp_id", "a")
    train = (*place, "--is_train", "true", "--nEpochs", 1)
    (tmp_path / "file").touch()
    message = refusal("stack-hg.py", *train, "--cache", tmp_path / "file")
    assert f"{tmp_path / 'file'} cannot be written to" in message
    run_here("stack-hg.py", *train, "--cache", tmp_path / "caches")
    (path,) = (tmp_path / "caches").glob("*train*")
    path.write_bytes(path.read_bytes()[:-1])
    again = (*train, "--overwrite", "true", "--cache", tmp_path / "caches")
    assert_user_error(run_stage("stack-hg.py", *again, check=False), path, "delete it")
