"""What an agent is worth at the end of a joint training: its numbers and its picture."""

import io
import subprocess
import sys

import pytest
import torch
from PIL import Image
from support.experiment import run_here
from support.stages import QUIET, SMALL, VALID, assert_user_error, environment

from utils.agents import build_agent
from utils.show_agent import hardness, hardness_text


def show_agent(experiment, *flags):
    words = ["-m", "utils.show_agent", *SMALL, *QUIET, *experiment.flags, *flags]
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_numbers_and_a_picture_of_a_joint_training(experiment, tmp_path):
    trained = experiment.copy(tmp_path / "checkpoints")
    flags = ("--load_prefix_sr", "lr-0.00025-1", "--is_train", "true", "--nEpochs", 2, "--agent_iters", 1)
    run_here("joint-train-pose-s-r-agent.py", *trained.flags, *flags)
    done = show_agent(trained)
    assert (done.returncode, done.stderr) == (0, "")
    text = (trained.joint_folder / "agent.txt").read_text()
    assert text in done.stdout and [line.split(":")[0] for line in text.splitlines()] == ["scale", "rotation"]
    jpeg = (trained.joint_folder / "agent.jpg").read_bytes()
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG" and picture.width >= 600
    assert len(jpeg) < 150_000


@pytest.mark.slow
def test_without_a_joint_training_one_line_says_so(experiment):
    done = show_agent(experiment, "--joint_dir", "nowhere")
    assert_user_error(done, experiment.folder / "nowhere-lr-0.00025-0")
    assert not (experiment.folder / "nowhere-lr-0.00025-0").exists()


@pytest.mark.slow
def test_every_validation_person_has_its_bins(experiment):
    run = experiment.run()
    network = run.pose_network().eval()
    found = hardness(run, network, build_agent(run, network).eval())
    assert list(found) == ["scale", "rotation"]
    for pckh, shares in found.values():
        assert pckh.shape == shares.shape == (VALID, 7)
        assert shares.sum(dim=1) == pytest.approx(1, abs=1e-5)
        assert ((pckh >= 0) & (pckh <= 1)).all()


def test_an_agent_that_knows_its_people_is_harder_than_its_mean():
    hard, sure = 1 - torch.eye(2), torch.eye(2)  # each of two people has another hard bin, and it is drawn
    text = hardness_text("PCKh@0.5", {"scale": (hard, sure), "rotation": (torch.ones(2, 2), sure)})
    scale, rotation = text.splitlines()
    assert [word for word in scale.split() if "." in word] == ["PCKh@0.5", "50.0", "50.0", "0.0"]
    assert rotation.count("100.0 %") == 3
