"""Whose hardest bin is found: by hand, with bins that are hardest alike and people who have none."""

import math

import pytest
import torch
from torch.testing import assert_close

from utils.agents.pretraining import Hits, best_constant_hits, constant_hits, hardest_bins

ROWS = torch.tensor(
    [
        [0.4, 0.3, 0.2, 0.1],
        [0.1, 0.4, 0.4, 0.1],  # two
        [0.3, 0.3, 0.1, 0.3],  # three
        [0.25, 0.25, 0.25, 0.25],  # none
    ]
)


def test_bins_that_are_hardest_alike_share_the_person():
    third = 1 / 3
    expected = [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [third, third, 0, third], [0, 0, 0, 0]]
    assert_close(hardest_bins(ROWS), torch.tensor(expected))


def test_a_constant_answer_hits_those_whose_hardest_bin_it_names():
    mean_row = ROWS.mean(dim=0)  # bin 1
    assert constant_hits(mean_row, ROWS) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert constant_hits(torch.tensor([2.0, 0, 0, 1]), ROWS) == pytest.approx((1 + 0 + 1 / 3) / 3)
    everyone = sum(constant_hits(torch.eye(4)[k], ROWS) for k in range(4)) / 4
    assert everyone == pytest.approx(1 / 4)  # whoever guesses
    assert math.isnan(constant_hits(mean_row, ROWS[3:]))


def test_the_best_constant_need_not_be_the_mean_rows_largest_bin():
    rows = torch.tensor([[0.9, 0.1, 0], [0.3, 0.4, 0.3], [0.3, 0.4, 0.3], [1 / 3, 1 / 3, 1 / 3]])
    assert best_constant_hits(rows) == pytest.approx(2 / 3)
    assert constant_hits(rows.mean(dim=0), rows) == pytest.approx(1 / 3)
    assert best_constant_hits(ROWS) == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert math.isnan(best_constant_hits(ROWS[3:]))


def test_hits_of_an_epoch_count_people_not_batches():
    answers = torch.eye(4)[torch.tensor([0, 2, 2, 3])]
    hits = Hits("scale", "rotation")
    for part in (slice(0, 1), slice(1, 4)):
        logits = {"scale": answers[part], "rotation": answers.flip(1)[part]}
        hits.add(len(answers[part]), logits, dict.fromkeys(logits, ROWS[part]))
    found = hits.read()
    assert list(found) == ["scale_hit", "rotation_hit"]
    assert found["scale_hit"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["rotation_hit"] == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_hits_of_people_without_a_hardest_bin_are_not_known():
    hits = Hits("scale")
    hits.add(1, {"scale": ROWS[:1]}, {"scale": ROWS[3:]})
    assert math.isnan(hits.read()["scale_hit"])
