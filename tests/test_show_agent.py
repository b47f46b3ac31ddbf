"""What an agent is worth at the end of a joint training: its numbers and its picture."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.experiment import kept_logging, run_here
from support.stages import QUIET, SMALL, VALID, assert_user_error, environment

from data.augmentation import Augmentation
from data.kinds import KINDS
from data.people import fixed_rows
from utils import show_agent as show
from utils.agents import AGENTS
from utils.show_agent import draw_picture, hardness, hardness_text
from utils.system.errors import UserError


def show_agent(experiment, *flags):
    words = ["-m", "utils.show_agent", *SMALL, *QUIET, *experiment.flags, *flags]
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment(), capture_output=True, text=True, check=False
    )


def untrained(run):
    """The scale-rotation agent and a pose network in eval mode, which have learned nothing."""
    agent = AGENTS["agent"].build(run, run.pose_network().eval(), 1e-3)
    agent.learner.network.eval()
    return agent


@pytest.mark.slow
def test_numbers_and_a_picture_of_a_joint_training(experiment, tmp_path, monkeypatch):
    """With the command line of the training, which has flags that are of no use here, and without them."""
    trained = experiment.copy(tmp_path / "checkpoints")
    flags = ("--load_prefix_sr", "lr-0.00025-1", "--is_train", "true", "--nEpochs", 2, "--agent_iters", 1)
    run_here("joint-train-pose-s-r-agent.py", *trained.flags, *flags)
    modes = []

    def watched(agent):
        modes.append((agent.pose.training, agent.learner.network.training))
        return hardness(agent)

    monkeypatch.setattr(show, "hardness", watched)
    monkeypatch.setattr(sys, "argv", ["show_agent.py", *map(str, (*SMALL, *QUIET, *trained.flags, *flags))])
    with kept_logging():
        show.main()
    assert modes == [(False, False)]
    done = show_agent(trained)
    assert (done.returncode, done.stderr) == (0, "")
    text = (trained.joint_folder / "agent.txt").read_text()
    assert text in done.stdout and [line.split(":")[0] for line in text.splitlines()] == [*KINDS]
    jpeg = (trained.joint_folder / "agent.jpg").read_bytes()
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG" and picture.width >= 600
    assert len(jpeg) < 150_000

    (agent,) = trained.joint_folder.glob("agent-lr-*.pth.tar")
    agent.unlink()
    with kept_logging(), pytest.raises(UserError, match=r"^the agent of pose-lr-.*, agent-lr-"):
        show.main()


@pytest.mark.slow
def test_without_a_joint_training_one_line_says_so(experiment):
    done = show_agent(experiment, "--joint_dir", "nowhere")
    assert_user_error(done, "--joint_dir nowhere: ", experiment.folder / "nowhere-lr-0.00025-0")
    assert "--load_checkpoint" not in done.stderr
    assert not (experiment.folder / "nowhere-lr-0.00025-0").exists()


def test_several_processes_are_refused(monkeypatch):
    """Each would look at its part of the people, and one would write that as the whole."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["show_agent.py", "--exp_id", "x", "--load_prefix_pose", "lr-0.001-0"])
    with pytest.raises(UserError, match="torchrun"):
        show.main()


@pytest.mark.slow
def test_every_validation_person_who_has_pck_has_its_bins(experiment):
    run = experiment.run()
    run.dataset.people.normalizer[np.flatnonzero(run.dataset.people.valid)[1]] = 0
    found = hardness(untrained(run))
    assert list(found) == [*KINDS]
    for kind, (pckh, shares) in found.items():
        assert pckh.shape == shares.shape == (VALID - 1, len(KINDS[kind].means))
        assert shares.sum(dim=1) == pytest.approx(1, abs=1e-5)
        assert ((pckh >= 0) & (pckh <= 1)).all()


def test_a_picture_shows_people_draws_and_distributions(nasty_run, figures):
    agent = untrained(nasty_run)
    jpeg = draw_picture(agent)
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG" and picture.size == (800, 660 + 100 * len(KINDS))
    axes = figures[0].axes
    assert [len(panel.images) for panel in axes] == 12 * [1] + 4 * len(KINDS) * [0]
    assert all(panel.get_title().startswith("PCKh ") for panel in axes[:12])
    batch = nasty_run.batch(nasty_run.dataset.valid, fixed_rows(nasty_run.dataset.valid), "drawn")
    logits = agent.predict(nasty_run.augment(batch, Augmentation.identity(4)))
    for row, kind in enumerate(KINDS, start=3):
        for panel, answer in zip(axes[4 * row : 4 * row + 4], logits[kind].softmax(dim=1), strict=True):
            heights = [bar.get_height() for bar in panel.patches]
            assert heights == pytest.approx((100 * answer).tolist(), rel=1e-3)
            assert len({bar.get_facecolor() for bar in panel.patches}) == 2  # one bin is drawn
            assert list(panel.lines[0].get_ydata()) == pytest.approx([100 / len(answer)] * 2)


def test_an_agent_that_knows_its_people_is_harder_than_its_mean():
    hard, sure = 1 - torch.eye(2), torch.eye(2)  # each of two people has another hard bin, and it is drawn
    text = hardness_text("PCKh@0.5", {"scale": (hard, sure), "rotation": (torch.ones(2, 2), sure)})
    scale, rotation = text.splitlines()
    assert [word for word in scale.split() if "." in word] == ["PCKh@0.5", "50.0", "50.0", "0.0"]
    assert rotation.count("100.0 %") == 3
