"""The changes of the program that docs/extending.md shows: all stages run with each."""

import json

import pytest
from support.changed_program import STAGES, copied_program, make_shown_changes, run_code
from support.experiment import POSE, Experiment
from support.stages import QUIET, SMALL, demo_data

from data.kinds import KINDS
from utils.records.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("heading", "flags", "joint_flags"),
    [
        ("The reward rule", (), ()),
        ("The update", (), ("--agent_rule", "entropy")),
        ("The agent's input", (), ()),
        ("A pose network", ("--network", "plain"), ()),
    ],
)
def test_all_stages_run_with_it(heading, flags, joint_flags, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    make_shown_changes(copied_program(tree), heading)
    made = Experiment(demo_data(tmp_path / "data"), tmp_path / "checkpoints", {})
    train = ("--is_train", "true", "--nEpochs", 1)
    joint = ("--is_train", "true", "--nEpochs", 2, *joint_flags)
    stages = [
        ("stack-hg.py", *made.place, *train),
        *((f"collect-{kind}-distri.py", *made.flags) for kind in KINDS),
        ("pretrain-s-r-agent.py", *made.flags, "--nEpochs", 1),
        ("joint-train-pose-s-r-agent.py", *made.flags, "--load_prefix_sr", POSE, *joint),
    ]
    lines = [[script, *map(str, (*SMALL, *QUIET, *flags, *own))] for script, *own in stages]
    run_code(tree, STAGES, json.dumps(lines))
    (row,) = load_checkpoint(made.joint_folder / "pose-lr-0.00025-1.pth.tar")["train_history"][1:]
    assert row["train_pck_agent"] >= 0 and row["agent_loss"] == row["agent_loss"]
