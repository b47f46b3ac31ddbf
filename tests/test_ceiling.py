"""What agents can reach: by hand, where all is repeatable, and where nothing is."""

import math

import pytest
import torch
from torch.testing import assert_close

from utils.agents.ceiling import MEASURES, ceiling, ceiling_lines, hardest_bin, limited_shares

# Of two people and four bins; both halves agree on the first person, and on the second they do not.
PCK = torch.tensor(
    [[[0.2, 0.6, 0.8, 0.8], [0.5, 0.3, 0.9, 0.7]], [[0.2, 0.6, 0.8, 0.8], [0.1, 0.5, 0.9, 0.7]]]
)


def test_ceiling_by_hand():
    first, second = PCK.double()
    expected = {
        "uniform": PCK.mean().item(),
        "same_limited": (0.4 + 0.4 + 0.4 + 0.3) / 4,  # bins 0 and 1 in either half
        "same_bin": (0.2 + 0.1 + 0.2 + 0.5) / 4,  # bin 0
        "own_limited": (0.4 + 0.3 + 0.4 + 0.4) / 4,
        "own_bin": (0.2 + 0.5 + 0.2 + 0.5) / 4,
        "hindsight": (0.2 + 0.3 + 0.2 + 0.1) / 4,
    }
    profiles = torch.stack([first, second])
    profiles = profiles - profiles.mean(dim=1, keepdim=True)
    profiles = profiles - profiles.mean(dim=2, keepdim=True)
    expected["repeatability"] = torch.corrcoef(profiles.flatten(1))[0, 1].item()
    assert ceiling(PCK) == pytest.approx(expected)
    assert [*expected] == [*MEASURES, "repeatability"]
    lines = ceiling_lines(PCK, "PCK@0.2")
    assert lines[0].startswith("expected PCK@0.2, %, each bin measured 2 times; repeatability 0.")
    assert [float(line.split()[0]) for line in lines[1:]] == pytest.approx(
        [100 * expected[name] for name in MEASURES], abs=0.06
    )


def test_the_halves_are_means_of_every_other_measurement():
    four = torch.stack([PCK[0] - 0.1, PCK[1] + 0.1, PCK[0] + 0.1, PCK[1] - 0.1])
    assert ceiling(four) == pytest.approx(ceiling(PCK))


def test_what_is_repeatable_and_what_is_luck():
    draws = torch.Generator().manual_seed(0)
    true = torch.rand(2000, 7, generator=draws)
    sure = ceiling(torch.stack([true, true]))
    assert sure["own_bin"] == pytest.approx(sure["hindsight"], abs=1e-6) == pytest.approx(1 / 8, abs=0.01)
    assert sure["repeatability"] == pytest.approx(1)
    luck = ceiling(torch.rand(2, 2000, 7, generator=draws))
    assert luck["own_bin"] == pytest.approx(luck["uniform"], abs=0.02)
    assert luck["hindsight"] == pytest.approx(1 / 8, abs=0.01)
    assert abs(luck["repeatability"]) < 0.05
    noisy = ceiling((true + 0.3 * torch.randn(2, 2000, 7, generator=draws)).clamp(0, 1))
    assert sure["own_bin"] < noisy["own_bin"] < noisy["own_limited"] < noisy["uniform"]


def test_ties_go_to_the_bin_that_is_harder_for_everyone():
    pck = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.5]])
    found = ceiling(torch.stack([pck, pck]))
    assert found["own_bin"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["same_bin"] == pytest.approx(0.5)
    with_ties = ceiling(torch.stack([pck, pck.flip(1)]))  # the third person's bins 1 and 2 tie, then 0 and 1
    assert with_ties["own_bin"] == pytest.approx((1 + 0 + 0.5) / 3)


def test_nothing_to_choose_has_no_repeatability():
    found = ceiling(torch.full((2, 5, 7), 0.5))
    assert math.isnan(found.pop("repeatability"))
    assert [*found.values()] == pytest.approx([0.5] * len(MEASURES))


def test_choices_are_distributions():
    pck = torch.rand(50, 7, generator=torch.Generator().manual_seed(0))
    for shares in (limited_shares(pck), hardest_bin(pck).float()):
        assert_close(shares.sum(dim=1), torch.ones(50))
    assert limited_shares(pck).amax() == pytest.approx(2 / 7)
    assert_close(
        (limited_shares(pck)[:, None] @ pck[..., None])[:, 0, 0] * 7 / 2,
        pck.sort(dim=1)[0] @ torch.tensor([1, 1, 1, 0.5, 0, 0, 0]),
    )
