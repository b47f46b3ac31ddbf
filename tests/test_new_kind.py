"""A third kind of augmentation: an entry, a field and a line of the warp are all that it takes."""

import numpy as np
import pytest
from support.changed_program import copied_program, make_shown_changes, run_code, run_stages
from support.stages import TRAIN

from utils.records.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

RANDOM = """
import torch
from data.augmentation import MARGINS, Augmentation, reach

drawn = Augmentation.random(20_000, torch.Generator().manual_seed(0))
sheared = drawn.shear != 0
assert sheared.all()
assert drawn.shear.abs().max() == torch.tensor(0.6) and abs(drawn.shear.std() - 0.2) < 0.01
assert 2.3 < reach(drawn).max() <= MARGINS["random"] * 1.001
assert MARGINS["random"] <= MARGINS["drawn"]  # joint training draws both from the same patches
"""

# White dots on black: the brightest place of the crop and the peak of the heatmap say where each of them is.
PROBE = """
import torch
from dataclasses import replace
from data.crops import PersonBatch, augment
from data.augmentation import MARGINS, Augmentation

assert MARGINS["drawn"] > MARGINS["shear"] > 1.29
places = torch.tensor([[40.0, 50.0], [150.0, 60.0], [60.0, 140.0]])
patch = torch.zeros(3, 3, 200, 200, dtype=torch.uint8)
points = torch.zeros(3, 16, 2)
for k, (x, y) in enumerate(places.int().tolist()):
    patch[k, :, y - 2 : y + 3, x - 2 : x + 3] = 255
    points[k, 0] = places[k] + 0.5
box = torch.tensor([[100.0, 100.0, 120.0]]).repeat(3, 1)
people = PersonBatch(patch, box, torch.full((3, 2), 100.0), torch.full((3,), 0.6), points, torch.ones(3),
                     torch.full((3,), 200.0), torch.arange(3), 200 / 120)
shear = torch.tensor([0.3, -0.3, 0.2])
turned = replace(Augmentation.identity(3), shear=shear, rotation=torch.tensor([0.0, 20.0, -10.0]))
sample = augment(people, turned, 128, 32)
plain = augment(people, replace(turned, shear=torch.zeros(3)), 128, 32)
for maps in (sample.image[:, 0], sample.heatmap[:, 0]):
    assert maps.amax() > 0.5
dots = sample.image[:, 0].flatten(1).argmax(1)
at = torch.stack((dots % 128, dots // 128), 1) / 4
there = sample.in_crop(points[:, :1], 32)[:, 0]
assert (at - there).abs().max() < 1.5, (at, there)
assert (there - plain.in_crop(points[:, :1], 32)[:, 0]).abs().max() > 2
assert (sample.predict(sample.heatmap)[:, 0] - points[:, 0]).abs().max() < 3
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The program with a third kind, and a script that collects its rows."""
    root = copied_program(tmp_path_factory.mktemp("tree"))
    make_shown_changes(root, "A kind of augmentation for the agent")
    return root


def test_crops_points_and_predictions_agree(tree):
    run_code(tree, PROBE)


def test_random_augmentation_draws_it(tree):
    run_code(tree, RANDOM)


def test_it_goes_through_all_stages(tree, changeable):
    joint = ("--load_prefix_sr", "lr-0.00025-0", "--is_train", "true", "--nEpochs", 2, "--use_html", "true")
    run_stages(
        tree,
        changeable,
        ("collect-shear-distri.py",),
        ("pretrain-s-r-agent.py", "--nEpochs", 1, "--overwrite", "true"),
        ("joint-train-pose-s-r-agent.py", *joint),
    )
    rows = np.loadtxt(changeable.agent_folder / "train_shears.txt")
    assert rows.shape == (TRAIN, 5) and np.allclose(rows.sum(axis=1), 1, atol=1e-5)
    agent = load_checkpoint(changeable.agent_folder / "lr-0.00025-0.pth.tar")["state_dict"]
    assert agent["fc_shear.weight"].shape[0] == 5
    history = load_checkpoint(changeable.joint_folder / "pose-lr-0.00025-1.pth.tar")["train_history"]
    assert len(history[-1]["shear_distribution"]) == 5 and "shear_gap" in history[-1]
    assert "shear" in (changeable.joint_folder / "web" / "epoch-1.html").read_text()
