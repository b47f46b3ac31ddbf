"""A run on people of another skeleton: everything has as many joints as the data set says."""

import argparse
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.stages import assert_user_error, demo_data, run_stage

from data.augmentation import Augmentation
from data.kinds import KINDS
from data.skeleton import MPII, skeleton_of_names
from models import NETWORKS
from utils.agents import AGENTS
from utils.display.gallery import pose_gallery
from utils.display.photograph import predict_pose, report_photograph
from utils.evaluation.evaluate import evaluate, flip_tested_heatmaps
from utils.evaluation.metrics import PckCounter
from utils.records.checkpoint import checkpoint_skeleton, load_checkpoint
from utils.records.epochs import save_epoch
from utils.run import Run
from utils.system.errors import UserError
from utils.training import Learner

DOG = skeleton_of_names("dog", ["nose", "left_paw", "tail", "right_paw", "l_ear", "r_ear"], [(0, 2), (1, 3)])
ROWS = [9, 15, 6, 10, 13, 12]  # of MPII's joints, which stand for the dog's


@pytest.fixture
def run(nasty_run, tmp_path):
    """A run whose data set has dogs."""
    dogs = Run(nasty_run.opt, tmp_path)
    people = nasty_run.dataset.people
    people = replace(people, points=people.points[:, ROWS])
    dogs.dataset = replace(nasty_run.dataset, people=people, skeleton=DOG)
    return dogs


def saved(run):
    """The path of a checkpoint after one step on dogs."""
    pose = Learner(run.pose_network(), 1e-3)
    people = next(iter(run.loader(run.dataset.train, "random", run.streams["order"])))
    sample = run.augment(people, Augmentation.random(len(people), run.streams["random"]))
    pose.step(run.forward(pose.network, sample.image)[-1].square().mean())
    pose.history.append({"epoch": 0})
    return save_epoch(run.folder, "lr-1-0", pose.checkpoint(run), best=False)[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_as_many_outputs_as_joints(name, run):
    run.opt = argparse.Namespace(**vars(run.opt) | {"network": name})
    network = run.pose_network().eval()
    assert run.forward(network, torch.rand(1, 3, 64, 64))[-1].shape == (1, 6, 16, 16)


def test_a_mirrored_person_has_left_and_right_exchanged(run):
    people = run.batch(run.dataset.valid, np.array([0]), "identity")
    flip = replace(Augmentation.identity(1), flip=torch.tensor([True]))
    plain, mirrored = run.augment(people, Augmentation.identity(1)), run.augment(people, flip)
    assert plain.heatmap.shape == (1, 6, 16, 16)
    points, order = plain.points.clone(), [0, 3, 2, 1, 5, 4]
    points[..., 0] = people.width - points[..., 0]
    assert torch.equal(mirrored.points, points[:, order])


def test_the_flip_test_exchanges_left_and_right(run):
    def network(image):
        return [torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 4, 4)]

    _, heatmaps = flip_tested_heatmaps(run, network, torch.rand(1, 3, 16, 16))
    assert heatmaps[0, :, 0, 0].tolist() == [0, 2, 2, 2, 4.5, 4.5]


def test_an_epochs_results(run):
    network = run.pose_network()
    result = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    assert result.preds.shape == (6, 6, 2)
    assert list(result.table.pck) == ["Nose", "Paw", "Tail", "Ear", "Mean"]
    counter = PckCounter(run.dataset.threshold, run.skeleton)
    for people in run.loader(run.dataset.valid, "identity"):
        sample = run.augment(people, Augmentation.identity(len(people)))
        counter.add(sample.heatmap, sample)
    assert counter.read() > 0.9  # the targets' own peaks
    pictures = [picture for section in pose_gallery(run, network, result) for picture in section.people]
    assert len(pictures) > 4
    agent = AGENTS["agent"].build(run, network, 1e-3)
    trial = agent.trial(next(iter(run.loader(run.dataset.train, "drawn", scored=True))))
    assert trial.pck.shape[:2] == (3, len(KINDS)) and ((trial.pck >= 0) & (trial.pck <= 1)).all()


def test_a_checkpoint_says_its_skeleton(run):
    path = saved(run)
    assert checkpoint_skeleton(load_checkpoint(path)) == DOG
    run.pose_path = path
    run.load_pose(run.pose_network())
    Image.new("RGB", (80, 60), "gray").save(run.folder / "photo.png")
    fields = {"image": run.folder / "photo.png", "center": None, "scale": None}
    alone = Run(argparse.Namespace(**vars(run.opt) | fields), run.folder)  # without a data set
    alone.pose_path = path
    network = alone.pose_network()
    alone.load_pose(network)
    report_photograph(alone, network)
    assert tuple(json.loads((run.folder / "photo-pose.json").read_text())["joints"]) == DOG.joints


def test_a_checkpoint_says_which_joints_it_was_trained_to_find(run):
    whole, points = run.dataset, run.dataset.people.points.copy()
    points[~whole.people.valid, 2] = 0
    run.dataset = replace(whole, people=replace(whole.people, points=points))
    path, paws = saved(run), [True, True, False, True, True, True]
    assert load_checkpoint(path)["trained_joints"] == paws
    fields = {"image": None, "is_train": False}
    for changed, trained in (
        ({}, paws),  # on other people, who have tails
        ({"is_train": True}, [True] * 6),
        ({"image": path}, paws),
    ):
        later = Run(argparse.Namespace(**vars(run.opt) | fields | changed), run.folder)
        later.dataset, later.pose_path = whole, path
        assert later.trained_joints.tolist() == trained
    older = load_checkpoint(path)
    del older["trained_joints"]
    torch.save(older, path)
    for people, image, trained in ((run.dataset, None, paws), (run.dataset, path, [True] * 6)):
        later = Run(argparse.Namespace(**vars(run.opt) | fields | {"image": image}), run.folder)
        later.dataset, later.pose_path = people, path
        assert later.trained_joints.tolist() == trained


def test_a_photograph_shows_no_joint_that_was_never_trained(run):
    Image.new("RGB", (80, 60), "gray").save(run.folder / "photo.png")
    run.trained_joints = np.array([True, True, False, True, True, True])
    network = SimpleNamespace(eval=lambda: None)
    run.forward = lambda network, image: [torch.ones(1, 6, 16, 16)]
    _, confidence = predict_pose(run, network, run.folder / "photo.png", np.array([40.0, 30.0]), 0.4)
    assert confidence.tolist() == [1, 1, 0, 1, 1, 1]


def test_another_skeleton_is_refused_in_one_line(run, nasty_run, tmp_path):
    run.pose_path = saved(run)
    ours = Run(run.opt, tmp_path)
    ours.dataset, ours.pose_path = nasty_run.dataset, run.pose_path
    message = "has the 6 joints of 'dog', this run the 16 of 'mpii' (joint 0: 'nose', not 'right ankle')"
    with pytest.raises(UserError) as error:
        ours.load_pose(ours.pose_network())
    assert message in str(error.value) and "\n" not in str(error.value)
    more = skeleton_of_names("dogs", [*DOG.joints, "belly"])
    run.dataset = replace(run.dataset, skeleton=more)
    del run.skeleton
    with pytest.raises(UserError, match=r"the 7 of 'dogs' \(joint 6: None, not 'belly'\)"):
        run.load_pose(run.pose_network())


def test_checkpoints_without_the_word_are_of_mpii():
    assert checkpoint_skeleton({"epoch": 3}) is MPII


@pytest.mark.slow
def test_a_stage_refuses_another_skeletons_checkpoint(run, tmp_path):
    (tmp_path / "exp").mkdir()
    path = saved(run)
    path.rename(tmp_path / "exp" / path.name)
    places = ("--exp_dir", tmp_path, "--exp_id", "exp", "--data_dir", demo_data(tmp_path / "data"))
    done = run_stage("stack-hg.py", *places, "--load_prefix_pose", "lr-1-0", check=False)
    assert_user_error(done, "6 joints of 'dog'", "16 of 'mpii'")
