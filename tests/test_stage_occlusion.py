"""The occlusion agent through the stages: evaluation under masks, pretraining, joint training."""

import shutil
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from support.experiment import (
    POSE,
    Experiment,
    assert_same_state,
    differences,
    enlarge_heads,
    refusal,
    run_here,
)
from support.stages import VALID, assert_user_error, demo_data, run_stage

from data.augmentation import Augmentation
from data.demo import ANNOTATIONS
from data.kinds import KINDS
from data.skeleton import MPII
from models.masks import joint_votes
from utils.agents import AGENTS
from utils.display.drawing import cross_out, label_cells, shade_cells
from utils.evaluation.metrics import pck_counts
from utils.records.checkpoint import load_checkpoint
from utils.records.epochs import epoch_files
from utils.records.events import read_events
from utils.records.history import best_epoch

pytestmark = pytest.mark.slow

STAGE_1, PRETRAIN, JOINT = "stack-hg.py", "pretrain-s-r-agent.py", "joint-train-pose-s-r-agent.py"
AGENT, OCCLUSION = "lr-0.00025-1.pth.tar", ("--occlusion", "true")
TRAINING = ("--load_prefix_occ", AGENT, "--is_train", "true")
GRID = ("--in_res", 128, "--num_stacks", 1)  # 2 x 2 cells


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    """Stage 1 for an epoch; not to be changed."""
    root = tmp_path_factory.mktemp("occlusion")
    made = Experiment(demo_data(root / "data"), root / "checkpoints", {})
    enlarge_heads(made.data / "demo" / ANNOTATIONS)
    run_here(STAGE_1, *made.place, *GRID, "--is_train", "true", "--nEpochs", 1)
    return made


def test_evaluation_with_each_cell_masked(stage_1, tmp_path):
    made = stage_1.copy(tmp_path / "checkpoints")
    printed = run_here(STAGE_1, *made.flags, *GRID, "--eval_occlusion", "true", "--use_html", "true")
    text = (made.folder / f"{POSE}-occlusion.txt").read_text()
    assert text in printed
    assert "2 x 2" in text.splitlines()[0]
    table = torch.tensor([[float(number) for number in line.split()] for line in text.splitlines()[1:3]])
    run = made.run(*GRID)
    network = run.pose_network()
    run.load_pose(network)
    network.eval()
    (people,) = run.loader(run.dataset.valid, "identity")
    sample = run.augment(people, Augmentation.identity(VALID))
    masks = {(y, x): torch.ones(VALID, 1, 2, 2) for y in range(2) for x in range(2)}
    for (y, x), mask in masks.items():
        mask[:, :, y, x] = 0
    found, heatmaps = {}, {}
    for cell, mask in {**masks, None: torch.ones(VALID, 1, 2, 2)}.items():
        with torch.no_grad():
            heatmaps[cell] = network(sample.image, mask)[-1]
        pred = sample.predict(heatmaps[cell])
        correct, annotated = pck_counts(pred, sample.points, sample.normalizer, run.dataset.threshold)
        found[cell] = 100 * (correct[[*MPII.scored]].sum() / annotated[[*MPII.scored]].sum()).item()
    assert {cell: table[cell].item() for cell in masks} == pytest.approx(
        {cell: found[cell] for cell in masks}, abs=0.01
    )
    for first, second in combinations(heatmaps.values(), 2):
        assert not torch.allclose(first, second)  # masks matter, each in its way
    assert text.splitlines()[3].endswith(f"without a mask {found[None]:.2f}")
    event = read_events(made.folder / "log.jsonl")[-1]
    assert (event["kind"], event["epoch"], event["plain"]) == (
        "occlusion",
        0,
        pytest.approx(found[None] / 100),
    )
    torch.testing.assert_close(100 * torch.tensor(event["shares"]), table, atol=0.00501, rtol=0)
    with Image.open(made.folder / f"{POSE}-occlusion.png") as plot:
        plot.load()
        assert min(plot.size) > 300
    page = (made.folder / "web" / f"evaluation-{POSE}.html").read_text()
    assert "With one cell masked" in page and f"{table[0, 0]:.1f}" in page
    written = {file.path.name for file in epoch_files(made.folder)}
    assert {f"{POSE}-occlusion.txt", f"{POSE}-occlusion.png"} <= written  # a later run may replace them


@pytest.fixture(scope="module")
def pretrained(stage_1, tmp_path_factory):
    """Stage 1 and two epochs of the occlusion agent's pretraining, with pages; not to be changed."""
    made = stage_1.copy(tmp_path_factory.mktemp("pretrained") / "checkpoints")
    run_here(PRETRAIN, *made.flags, *GRID, *OCCLUSION, "--nEpochs", 2, "--use_html", "true")
    return made


def occlusion_folder(made):
    return made.folder / f"occ-dir-{POSE}"


def vote_rows(run, split):
    """What the occlusion agent is pretrained to predict of a split's people."""
    people = run.dataset.train if split == "train" else run.dataset.valid
    agent = AGENTS["occlusion"].build(run, run.pose_network(), 1e-3)
    return agent.targets(split, people)["occlusion"]


def test_votes_are_those_of_the_crops(stage_1):
    """The rows are made from annotations alone, but they are of the crops that the agent sees."""
    run = stage_1.run("--in_res", 256)
    rows = vote_rows(run, "train")
    for people in run.loader(run.dataset.train, "identity"):
        sample = run.augment(people, Augmentation.identity(len(people)))
        points = sample.in_crop(sample.points, 64) * (sample.points > 0).all(dim=-1, keepdim=True)
        assert torch.equal(rows[people.index], joint_votes(points, 64, 4))
    assert (rows.sum(dim=1) - 1).abs().max() < 1e-6
    assert rows.std(dim=0).max() > 0.01  # people differ


def test_pretraining_tells_what_constants_would_reach(pretrained):
    history = load_checkpoint(occlusion_folder(pretrained) / AGENT)["train_history"]
    run = pretrained.run(*GRID)
    for split, name in (("train", "train"), ("val", "valid")):
        rows = vote_rows(run, split).double()
        mean_row = torch.special.xlogy(rows, rows / rows.mean(dim=0)).nansum(dim=1).mean().item()
        uniform = torch.special.xlogy(rows, 4 * rows).sum(dim=1).mean().item()
        for row in history:
            assert row[f"{name}_mean_row"] == pytest.approx(mean_row, abs=1e-5)
            assert row[f"{name}_uniform"] == pytest.approx(uniform, abs=1e-5)
            assert 0 < row[f"{name}_loss"] < 5
            assert 0 <= row[f"{name}_occlusion_hit"] <= 1
            assert row[f"{name}_occlusion_mean_row_hit"] <= row[f"{name}_occlusion_constant_hit"] <= 1
    assert [row["epoch"] for row in history] == [0, 1]
    page = (occlusion_folder(pretrained) / "web" / "epoch-1.html").read_text()
    assert "the agent's distribution" in page and " lost<" in page


def test_resumed_pretraining_equals_the_uninterrupted_one(pretrained, tmp_path):
    made = pretrained.copy(tmp_path / "checkpoints")
    folder = occlusion_folder(made)
    for path in folder.glob("lr-0.00025-1*"):
        path.unlink()
    flags = (*made.flags, *GRID, *OCCLUSION)
    run_here(PRETRAIN, *flags, "--nEpochs", 2, "--load_prefix_occ", "lr-0.00025-0")
    assert_same_state(folder / AGENT, occlusion_folder(pretrained) / AGENT)


def test_an_agent_of_the_wrong_kind_is_one_line(pretrained, experiment, tmp_path):
    made = pretrained.copy(tmp_path / "checkpoints")
    shutil.copy(experiment.agent_folder / AGENT, occlusion_folder(made) / "lr-0.1-0.pth.tar")
    flags = (*made.flags, *GRID, *OCCLUSION, "--load_prefix_occ")
    assert "is a checkpoint of the scale-rotation agent" in refusal(PRETRAIN, *flags, "lr-0.1-0")
    other = experiment.copy(tmp_path / "other")
    shutil.copy(occlusion_folder(made) / AGENT, other.agent_folder / "lr-0.1-0.pth.tar")
    assert "is a checkpoint of the occlusion agent" in refusal(
        PRETRAIN, *other.flags, "--load_prefix_sr", "lr-0.1-0"
    )
    assert "lr-0.00025-0.pth.tar" in refusal(PRETRAIN, *flags, "lr-0.00025-7")  # what there is


def test_masks_in_pictures_lie_where_they_are_in_the_network():
    """A dark cell is the masked one; crosses are at the joints."""
    image, hidden = np.full((96, 96, 3), 200, np.uint8), np.zeros((4, 4), bool)
    hidden[1, 2] = True
    dark = (shade_cells(image, hidden) < 190).all(axis=2)
    assert dark[24:48, 48:72].all()
    assert dark.sum() == 24 * 24
    crossed = (cross_out(image, np.array([[30.0, 70.0]])) != 200).any(axis=2)
    assert crossed[70, 30]
    assert np.abs(np.argwhere(crossed) - (70, 30)).max() < 8
    shares = np.full((2, 2), 0.1)
    shares[1, 0] = 0.7
    red = label_cells(np.zeros((96, 96, 3), np.uint8), shares)[..., 0].astype(int)
    assert red[52:60, 4:12].mean() > 2 * red[4:12, 52:60].mean()


# Joint training


@pytest.fixture(scope="module")
def joint(pretrained, tmp_path_factory):
    """Two epochs with the occlusion agent alone, without a break, with pages; not to be changed."""
    made = pretrained.copy(tmp_path_factory.mktemp("joint") / "checkpoints")
    run_here(JOINT, *made.flags, *GRID, *TRAINING, "--nEpochs", 3, "--use_html", "true")
    return made


def test_joint_files_history_and_pages(joint):
    folder = joint.joint_folder
    names = {path.name for path in folder.iterdir()}
    for epoch in (1, 2):
        occ = f"occ-lr-0.00005-{epoch + 1}.pth.tar"  # the pretrained one had finished epoch 1
        assert {f"pose-lr-0.00025-{epoch}.pth.tar", f"pose-lr-0.00025-{epoch}-preds.mat", occ} <= names
        checkpoint = load_checkpoint(folder / f"pose-lr-0.00025-{epoch}.pth.tar")
        assert checkpoint["occlusion"] + ".pth.tar" == occ
        assert "agent" not in checkpoint
    assert not [name for name in names if name.startswith("agent-")]
    assert {file.path.name for file in epoch_files(folder) if file.companion} == {
        f"occ-lr-0.00005-{epoch}.pth.tar" for epoch in (2, 3)
    }
    row = load_checkpoint(folder / "pose-lr-0.00025-2.pth.tar")["train_history"][-1]
    assert row["occlusion_gap"] == pytest.approx(row["occlusion_pck_uniform"] - row["occlusion_pck_agent"])
    assert row["occlusion_reward_share"] + row["occlusion_tie_share"] <= 1
    assert row["occlusion_gap_error"] > 0
    assert len(row["occlusion_distribution"]) == 4
    assert sum(row["occlusion_distribution"]) == pytest.approx(1, abs=1e-5)
    assert 0 < row["occlusion_entropy"] < 1.3863  # log 4
    assert 0 < row["occlusion_change"] < 1
    assert 0 < row["train_pck_random"] < 1 and 0 < row["train_pck_occlusion"] < 1
    assert not {"agent_loss", "agent_epoch", "train_pck_agent"} & row.keys()
    learned = load_checkpoint(folder / "occ-lr-0.00005-3.pth.tar")
    start = load_checkpoint(occlusion_folder(joint) / AGENT)
    assert len(differences(learned["state_dict"], start["state_dict"])) > 50
    assert learned["train_history"][-1]["train_loss"] == row["occlusion_loss"]
    page = (folder / "web" / "epoch-2.html").read_text()
    assert "masks against uniform ones" in page and "Hardest masks" in page


def test_resumed_joint_training_ends_where_the_uninterrupted_one_does(joint, tmp_path):
    made = joint.copy(tmp_path / "checkpoints")
    folder = made.joint_folder
    for path in folder.glob("*-lr-*"):
        if not path.name.startswith(("pose-lr-0.00025-1", "occ-lr-0.00005-2")):
            path.unlink()
    resume = ("--load_checkpoint", "true", "--is_train", "true", "--nEpochs", 3)
    run_here(JOINT, *made.flags, *GRID, *resume)
    for name in ("pose-lr-0.00025-2.pth.tar", "occ-lr-0.00005-3.pth.tar"):
        assert_same_state(folder / name, joint.joint_folder / name)
    for idle in (("--agent_draws", "learned"), ("--occ_draws", "uniform", "--agent_iters", 1)):
        message = refusal(JOINT, *made.flags, *GRID, *resume, *idle)
        assert message.startswith(f"{idle[-2]}: ") and "remove it" in message


def test_only_as_many_epochs_are_kept_as_asked_for(joint, tmp_path):
    made = joint.copy(tmp_path / "checkpoints")
    resume = ("--load_checkpoint", "true", "--is_train", "true", "--nEpochs", 5, "--keep", 1)
    run_here(JOINT, *made.flags, *GRID, *resume)
    kept = {path.name for path in made.joint_folder.glob("occ-*")}
    assert {f"occ-lr-0.00005-{epoch}.pth.tar" for epoch in (2, 3, 5)} <= kept
    best = load_checkpoint(made.joint_folder / "pose-lr-0.00025-4.pth.tar")["train_history"]
    assert ("occ-lr-0.00005-4.pth.tar" in kept) == (best_epoch(best) == 3)
    run_here(JOINT, *made.flags, *GRID, *TRAINING, "--nEpochs", 2, "--overwrite", "true")
    assert {path.name for path in made.joint_folder.glob("occ-*")} == {"occ-lr-0.00005-2.pth.tar"}


def test_control_arm_draws_uniformly_and_leaves_the_agent_alone(joint, pretrained, tmp_path):
    made = pretrained.copy(tmp_path / "checkpoints")
    flags = (*made.flags, *GRID, *TRAINING, "--nEpochs", 2)
    for draws in ("uniform", "pretrained"):
        run_here(JOINT, *flags, "--joint_dir", draws, "--occ_draws", draws)
        checkpoint = load_checkpoint(made.folder / f"{draws}-{POSE}" / "occ-lr-0.00005-2.pth.tar")
        start = load_checkpoint(occlusion_folder(made) / AGENT)
        assert differences(checkpoint["state_dict"], start["state_dict"]) == []
        row = load_checkpoint(made.folder / f"{draws}-{POSE}" / "pose-lr-0.00025-1.pth.tar")["train_history"][
            -1
        ]
        assert "occlusion_loss" not in row and "train_pck_occlusion" in row
    # In its first epoch the learning agent draws as the pretrained one does: it learns afterwards.
    learned, fixed = (
        load_checkpoint(folder / "pose-lr-0.00025-1.pth.tar")["state_dict"]
        for folder in (joint.joint_folder, made.folder / f"pretrained-{POSE}")
    )
    assert differences(learned, fixed) == []


def test_both_agents_together_resume_exactly(pretrained, tmp_path):
    made = pretrained.copy(tmp_path / "checkpoints")
    flags = (*made.flags, *GRID)
    for kind in KINDS:
        run_here(f"collect-{kind}-distri.py", *flags)
    run_here(PRETRAIN, *flags, "--nEpochs", 1)
    both = (*TRAINING, "--load_prefix_sr", "lr-0.00025-0", "--bs", 3)
    run_here(JOINT, *flags, *both, "--nEpochs", 3)
    folder = made.joint_folder
    row = load_checkpoint(folder / "pose-lr-0.00025-2.pth.tar")["train_history"][-1]
    assert {"train_pck_random", "train_pck_agent", "train_pck_occlusion", "pck_gap", "occlusion_gap"} <= set(
        row
    )
    names = ("pose-lr-0.00025-2.pth.tar", "agent-lr-0.00005-2.pth.tar", "occ-lr-0.00005-3.pth.tar")
    for name in names:
        (folder / name).rename(tmp_path / name)
    resume = ("--load_checkpoint", "true", "--is_train", "true", "--bs", 3, "--nEpochs", 3)
    run_here(JOINT, *flags, *resume)
    for name in names:
        assert_same_state(folder / name, tmp_path / name)


def test_joint_training_without_its_agent_is_one_line(pretrained, experiment):
    flags = (*pretrained.flags, *GRID, "--is_train", "true")
    assert "--load_prefix_occ" in refusal(JOINT, *flags)
    assert AGENT in refusal(JOINT, *flags, "--load_prefix_occ", "lr-0.00025-7")  # what there is
    done = run_stage(JOINT, *experiment.flags, "--load_prefix_occ", AGENT, "--is_train", "true", check=False)
    assert_user_error(done, "--load_prefix_occ", "--in_res 64")
