"""Mirrored people in the agent's pretraining: what their crops and their rows have to do with each other."""

from dataclasses import replace

import pytest
import torch
from support.experiment import load_script
from support.stand_ins import (
    Blind,
    Filter,
    Heart,
    Silent,
    Stubborn,
    agent_with,
    plain_run,
    random_rows,
    some_people,
)
from torch.testing import assert_close

from data.augmentation import Augmentation
from data.crops import augment
from data.heatmap import mirror_heatmaps
from data.kinds import KINDS
from data.skeleton import MPII
from models.losses import distribution_loss
from models.masks import joint_votes

PRETRAIN = load_script("pretrain-s-r-agent.py")
RES = 32


def flipped(augmentation):
    return replace(augmentation, flip=torch.ones(len(augmentation), dtype=torch.bool))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mirrored_persons_bins_are_the_mirror_images_of_these(kind):
    """Of an odd kind in reverse: picture, joints and heatmaps."""
    people, bins = some_people(3), Augmentation.bins(kind, 3)
    order = torch.arange(len(bins)).view(-1, 3)
    order = (order.flip(0) if KINDS[kind].odd else order).flatten()
    plain = augment(people, bins, RES, RES)
    mirrored = augment(people, flipped(bins), RES, RES)
    assert_close(mirrored.image, plain.image[order].flip(-1), atol=1e-4, rtol=0)
    expected = plain.in_crop(plain.points, RES)[order][:, MPII.mirror]
    there = mirrored.in_crop(mirrored.points, RES)
    assert_close(there, torch.stack((RES - expected[..., 0], expected[..., 1]), dim=-1), atol=1e-3, rtol=0)
    if KINDS[kind].odd:
        wrong = plain.image.flip(-1)
        assert (mirrored.image - wrong).abs().amax(dim=(1, 2, 3)).view(-1, 3)[[0, -1]].min() > 0.1


def test_a_mirrored_persons_crop_is_the_mirror_image_of_what_was_drawn():
    people, random = some_people(4), Augmentation.random(4, torch.Generator().manual_seed(0))
    drawn = Augmentation.fixed(4, -0.4, 40.0)
    flip = torch.tensor([True, False, True, False])
    merged = replace(random, flip=flip).with_draws(drawn)
    assert merged.rotation.tolist() == [-40, 40, -40, 40]
    assert torch.equal(merged.log2_scale, drawn.log2_scale) and torch.equal(merged.color, random.color)
    wanted = augment(people, replace(drawn, color=random.color), RES, RES)
    found = augment(people, merged, RES, RES)
    assert_close(found.image, torch.where(flip.view(4, 1, 1, 1), wanted.image.flip(-1), wanted.image))
    there, points = found.in_crop(found.points, RES), wanted.in_crop(wanted.points, RES)
    across = torch.stack((RES - points[..., 0], points[..., 1]), dim=-1)[:, MPII.mirror]
    assert_close(there, torch.where(flip.view(4, 1, 1), across, points), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.odd], ids=lambda kind: kind.name)
def test_bins_of_an_odd_kind_are_symmetric(kind):
    assert kind.means == tuple(-mean for mean in reversed(kind.means))


class Symmetric(Filter):
    """A pose network that answers a mirror image with the mirror image of its answer."""

    def forward(self, image):
        turned = super().forward(image.flip(-1))
        return [
            (one + mirror_heatmaps(two)) / 2 for one, two in zip(super().forward(image), turned, strict=True)
        ]


def test_rows_of_a_network_that_knows_no_side_are_mirrored_with_the_person():
    """How hard each bin is, by the network's distance to the target: in reverse for odd kinds alone."""
    people, network, rows = some_people(4), Symmetric(), {}
    for side in (False, True):
        for kind in KINDS:
            bins = Augmentation.bins(kind, 4)
            sample = augment(people, flipped(bins) if side else bins, RES, RES // 4)
            lost = (network(sample.image)[-1] - sample.heatmap).square().mean(dim=(1, 2, 3)).detach()
            rows[kind, side] = lost.view(-1, 4).T / lost.view(-1, 4).sum(dim=0)[:, None]
    plain = {kind: rows[kind, False] for kind in KINDS}
    found = agent_with(Stubborn(), "agent", plain_run(), Blind()).mirrored(plain)
    for kind in KINDS:
        assert_close(found[kind], rows[kind, True], atol=1e-5, rtol=0)
        if KINDS[kind].odd:
            assert (plain[kind] - plain[kind].flip(1)).abs().max() > 1e-3  # reversing them shows


def test_votes_of_a_mirrored_persons_joints_are_in_the_mirrored_cells():
    points = 16 * torch.rand(3, 16, 2, generator=torch.Generator().manual_seed(0))
    across = torch.stack((16 - points[..., 0], points[..., 1]), dim=-1)
    votes, expected = joint_votes(points, 16, 4), joint_votes(across, 16, 4)
    agent = agent_with(Heart(4), "occlusion", plain_run(in_res=4 * 64), Blind())
    assert torch.equal(agent.mirrored({"occlusion": votes})["occlusion"], expected)
    assert not torch.equal(votes[0], expected[0])


def test_pretraining_mirrors_half_of_the_people_with_their_rows(monkeypatch):
    run, used, targets = plain_run(in_res=RES), [], []
    run.opt.mirror = True

    def recorded_augment(people, augmentation):
        used.append(augmentation)
        return augment(people, augmentation, RES, RES // 4)

    def recorded_loss(logits, target):
        targets.append(target)
        return sum(distribution_loss(logits[kind], target[kind]) for kind in KINDS)

    run.augment = recorded_augment
    monkeypatch.setattr(PRETRAIN, "agent_loss", recorded_loss)
    draws = torch.Generator().manual_seed(0)
    rows = random_rows(60, draws)
    agent = agent_with(Stubborn(), "agent", run, Blind(), 1e-9)
    batches = [some_people(60), some_people(60)]
    PRETRAIN.train_epoch(run, agent, batches, rows, {}, Silent())
    assert not torch.equal(used[0].flip, used[1].flip)
    for augmentation, target in zip(used, targets, strict=True):
        flip = augmentation.flip
        assert 15 <= flip.sum() <= 45
        for kind in KINDS.values():
            mirrored = rows[kind.name].flip(1) if kind.odd else rows[kind.name]
            assert torch.equal(target[kind.name][flip], mirrored[flip])
            assert torch.equal(target[kind.name][~flip], rows[kind.name][~flip])
        unflipped = replace(augmentation, flip=torch.zeros(60, dtype=torch.bool))
        for name, value in vars(Augmentation.identity(60)).items():
            assert torch.equal(getattr(unflipped, name), value), name
    PRETRAIN.validate(run, agent, batches[:1], rows, {})
    assert not used[-1].flip.any() and torch.equal(targets[-1]["rotation"], rows["rotation"])


def test_a_part_of_a_batch_is_mirrored_as_in_the_whole():
    whole = Augmentation.mirrored(7, torch.Generator().manual_seed(2)).flip
    people = replace(some_people(3), before=2, after=2)
    assert torch.equal(
        people.local_rows(Augmentation.mirrored(7, torch.Generator().manual_seed(2))).flip, whole[2:5]
    )
