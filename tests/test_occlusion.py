"""Occlusion: how cells are drawn and masked, and where joints vote."""

import math

import pytest
import torch

from models.hourglass import StackedHourglass
from models.masks import cell_mask, draw_cells, joint_votes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_of(people, cells):
    """As `utils.agents.base.exponential_noise` of a whole batch."""
    return torch.empty(people, cells).exponential_(generator=seeded())


@pytest.mark.parametrize("cells", [4, 16])
def test_cells_are_those_of_multinomial_without_putting_back(cells):
    shares = (3 * torch.randn(200, cells, generator=seeded(1))).softmax(dim=1)
    drawn = draw_cells(shares, noise_of(len(shares), cells))
    assert torch.equal(drawn, torch.multinomial(shares, 2, generator=seeded()))
    assert (drawn[:, 0] != drawn[:, 1]).all()


def test_part_of_a_batch_draws_what_it_draws_in_the_whole():
    shares, noise = torch.rand(6, 16, generator=seeded(1)), noise_of(6, 16)
    assert torch.equal(draw_cells(shares[2:5], noise[2:5]), draw_cells(shares, noise)[2:5])


def test_mask_has_a_hole_at_each_cell():
    mask = cell_mask(torch.tensor([[1, 14], [15, 0]]), 4)
    assert mask.shape == (2, 1, 4, 4)
    assert (mask == 0).nonzero().tolist() == [[0, 0, 0, 1], [0, 0, 3, 2], [1, 0, 0, 0], [1, 0, 3, 3]]
    assert mask.sum() == 28


def test_mask_fits_the_network():
    network = StackedHourglass(num_stacks=1, chan=8).eval()
    image = torch.rand(2, 3, 128, 128, generator=seeded())
    plain, masked = network(image)[0], network(image, cell_mask(torch.tensor([[0, 1], [2, 3]]), 2))[0]
    assert plain.shape == masked.shape
    assert not torch.equal(plain, masked)


def test_joints_vote_for_their_cells():
    points = torch.tensor([[[0.5, 0.5], [15.9, 15.9], [16.0, 0.1], [63.9, 63.9], [20.0, 40.0]]])
    votes = joint_votes(points, 64, 4)
    expected = torch.zeros(1, 16)
    expected[0, [0, 1, 15, 4 * 2 + 1]] = torch.tensor([0.4, 0.2, 0.2, 0.2])
    torch.testing.assert_close(votes, expected)


@pytest.mark.parametrize(
    "outside", [(0.0, 5.0), (5.0, 0.0), (-3.0, 5.0), (64.0, 5.0), (5.0, 64.0), (5.0, 90.0)]
)
def test_joints_outside_do_not_vote(outside):
    votes = joint_votes(torch.tensor([[outside, (40.0, 5.0)], [outside, outside]]), 64, 4)
    assert votes[0].argmax() == 2
    assert votes[0].max() == 1
    assert (votes[1] == 1 / 16).all()


@pytest.mark.parametrize("side", [2, 3, 4])
def test_cells_are_as_large_as_the_necks(side):
    """Whatever the crop's size, a cell is 1/64 of the image and 16 px of the heatmaps."""
    res = 16 * side
    for row, column in ((0, side - 1), (side - 1, 0)):
        point = torch.tensor([[[16 * column + 8.0, 16 * row + 8.0]]])
        assert joint_votes(point, res, side).argmax() == row * side + column
    assert math.isclose(
        joint_votes(torch.rand(1, 9, 2, generator=seeded()) * res, res, side).sum(), 1, abs_tol=1e-6
    )


@torch.no_grad()
def test_masks_keep_the_precision_of_features():
    """A mask of ones changes nothing, with bf16 arithmetic either."""
    network = StackedHourglass(num_stacks=1, chan=8).eval()
    image, mask = torch.rand(2, 3, 128, 128, generator=seeded()), torch.ones(2, 1, 2, 2)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert torch.equal(network(image, mask)[0], network(image)[0])
    features = [torch.ones(2, 8, 16 >> level, 16 >> level, dtype=torch.bfloat16) for level in range(5)]
    network.hg[0].encode = lambda x: features
    network.hg[0].decode = lambda masked: [feature.dtype for feature in masked]
    assert network.hg[0](image, mask) == [torch.bfloat16] * 5
