"""A world with a known answer: what is hard for whom is a rule, which the stages must find."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.datasets import load_dataset
from data.demo import write_demo
from data.demo.discs import paint_discs
from data.kinds import KINDS
from data.loading.patches import Patches
from models.known_answer import KnownAnswer, read
from models.masks import cell_mask
from utils.evaluation.metrics import person_pckh

PEOPLE = 48
ALWAYS, OWN, EXTREME = KnownAnswer.ALWAYS, KnownAnswer.OWN, KnownAnswer.EXTREME


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with a small set of the control."""
    folder = tmp_path_factory.mktemp("data")
    write_demo(folder / "control", PEOPLE, PEOPLE, paint_discs, ".png")
    return folder


@pytest.fixture(scope="module")
def people(data):
    """Some of its people, in patches that hold all draws."""
    dataset = load_dataset("control", data)
    return Patches(dataset.valid, dataset.root, 64, MARGINS["drawn"])[list(range(PEOPLE))]


@pytest.fixture(scope="module")
def sides(people):
    """Left -1 or right 1 and above -1 or below 1, where the mark is in the photograph: [N], [N]."""
    red = people.patch[:, 0].float()
    places = torch.linspace(-1, 1, red.shape[-1])
    return (red.sum(1) * places).sum(1).sign(), (red.sum(2) * places).sum(1).sign()


def crops(people, augmentation):
    return augment(people, augmentation, 64, 16)


@pytest.mark.parametrize(("log2_scale", "rotation"), [(0.0, 0.0), (0.65, 65.0), (-0.65, -65.0), (0.3, -20.0)])
def test_it_reads_from_the_image_how_the_crop_was_made(people, sides, log2_scale, rotation):
    sample = crops(people, Augmentation.fixed(PEOPLE, log2_scale, rotation))
    values, side = read(sample.image)
    assert_close(values[:, 0], torch.full((PEOPLE,), log2_scale), atol=0.03, rtol=0)
    assert_close(values[:, 1], torch.full((PEOPLE,), rotation), atol=1.5, rtol=0)
    right, below = sides
    assert_close(side, torch.stack((below, right), dim=1))
    assert len({(x, y) for x, y in side.tolist()}) == 4  # somebody of each


@torch.no_grad()
@pytest.mark.parametrize("mirrored", [False, True])
def test_hard_is_what_the_rule_says(people, sides, mirrored):
    right, below = sides
    right = -right if mirrored else right  # the mark is on the other side of the mirrored person
    network, threshold = KnownAnswer(8), 0.5
    for kind, side in (("scale", below), ("rotation", right)):
        bins = Augmentation.bins(kind, PEOPLE)
        bins.flip[:] = mirrored
        sample = crops(people, bins)
        pred = sample.predict(network(sample.image)[0])
        pck = person_pckh(pred, sample.points, sample.normalizer, sample.heatmap, threshold)
        expected = torch.stack(
            [
                1 - ALWAYS - EXTREME * abs(mean) / KINDS[kind].means[-1] - OWN * (side * mean > 0)
                for mean in KINDS[kind].means
            ]
        ).flatten()
        assert_close(1 - network.lost(sample.image), expected, atol=0.02, rtol=0)
        for hard in (expected < 0.5, expected > 0.5):
            assert pck[hard].mean().item() == pytest.approx(expected[hard].mean().item(), abs=0.05)
            assert pck[hard].unique().numel() > 3  # one draw is noisy


@torch.no_grad()
def test_gains_of_colors_change_nothing(people):
    network, draws = KnownAnswer(8), torch.Generator().manual_seed(0)
    colored = Augmentation.random(PEOPLE, draws)
    plain = replace(colored, color=Augmentation.identity(PEOPLE).color)
    samples = [crops(people, one).image for one in (colored, plain)]
    assert not torch.equal(*samples)
    assert_close(*(network.lost(image) for image in samples), atol=0.02, rtol=0)


@torch.no_grad()
def test_a_mask_over_the_mark_is_hard(people, sides):
    network, (right, below) = KnownAnswer(8), sides
    image = crops(people, Augmentation.identity(PEOPLE)).image
    cell = ((below + 1) + (right + 1) / 2).long()  # of 2 x 2
    for masked in range(4):
        mask = cell_mask(torch.full((PEOPLE, 1), masked), 2)
        assert_close(network.lost(image, mask), ALWAYS + OWN * (cell == masked), atol=0.02, rtol=0)
        assert network(image, mask)[0].shape == (PEOPLE, 16, 16, 16)
