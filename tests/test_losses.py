"""Losses and the agent's targets: against golden numbers, by hand, and as properties."""

import numpy as np
import pytest
import torch

from models.losses import (
    distribution_loss,
    hardness_distribution,
    policy_loss,
    pose_loss,
    reward,
    rewarded_distribution,
)


@pytest.fixture
def losses(golden):
    return {name: torch.from_numpy(array) for name, array in golden("i_losses").items()}


@pytest.fixture
def targets(golden):
    return {name: torch.from_numpy(array) for name, array in golden("f_agent_targets").items()}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, atol: float):
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=atol)


def test_pose_loss_and_its_gradients_are_golden(losses):
    outputs = [losses[f"in_pose_out{stack}"].requires_grad_() for stack in (0, 1)]
    loss = pose_loss(outputs, losses["in_pose_target"])
    loss.backward()
    assert_close(loss, losses["out_pose_loss"], atol=2e-6)
    for stack, output in enumerate(outputs):
        assert_close(output.grad, losses[f"out_pose_grad{stack}"], atol=2e-6)


@pytest.mark.parametrize("head", ["scale", "rotation"])
def test_distribution_loss_and_its_gradient_are_golden(losses, head):
    logits = losses[f"in_logits_{head}"].requires_grad_()
    loss = distribution_loss(logits, losses[f"in_target_{head}"])
    loss.backward()
    assert_close(loss, losses[f"out_pretrain_loss_{head}"], atol=2e-6)
    assert_close(logits.grad, losses[f"out_pretrain_grad_{head}"], atol=2e-6)


def test_distribution_loss_is_zero_where_the_prediction_is_the_target():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert_close(distribution_loss(logits, logits.softmax(dim=1)), torch.tensor(0.0), atol=1e-6)


def test_distribution_loss_ignores_empty_bins_and_stays_finite():
    logits = torch.tensor([[0.0, 0.0, -1e4]], requires_grad=True)
    loss = distribution_loss(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    loss.backward()
    assert_close(loss, torch.tensor(2.0).log(), atol=1e-6)
    assert_close(logits.grad, torch.tensor([[-0.5, 0.5, 0.0]]), atol=1e-6)


def test_hardness_distribution_is_golden(golden):
    arrays = golden("g_collect")
    batches = np.split(arrays["in_pckh"], np.cumsum(7 * arrays["in_unique"])[:-1])
    pckh = np.concatenate([batch.reshape(7, -1).T for batch in batches])
    expected = torch.from_numpy(arrays["out_distri"])
    assert_close(hardness_distribution(torch.from_numpy(pckh)), expected, atol=1e-6)


def test_hardness_distribution_by_hand():
    pckh = torch.tensor([[1.0, 0.5, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.0, 0.25, 0.5, 0.25], [0.25] * 4, [0.25] * 4])
    assert_close(hardness_distribution(pckh), expected, atol=1e-7)


@pytest.mark.parametrize("case", ["", "k16_"], ids=["one of 7 bins", "two of 16 bins"])
def test_rewarded_distribution_is_golden(targets, case):
    names = ("distri", "index", "pckh_regular", "pckh_agent")
    actual = rewarded_distribution(*(targets[f"in_{case}{name}"] for name in names))
    assert_close(actual, targets[f"out_{case}target"], atol=1e-6)


@pytest.mark.parametrize(
    ("row", "drawn", "harder", "expected"),
    [
        # the drawn bin grows by 20 % or loses 50 %, the others pay or receive
        ([0.25, 0.25, 0.25, 0.25], 0, True, [0.3, 0.7 / 3, 0.7 / 3, 0.7 / 3]),
        ([0.25, 0.25, 0.25, 0.25], 0, False, [0.125, 0.875 / 3, 0.875 / 3, 0.875 / 3]),
        # 0.48 grows to 0.576; the excess over 0.5 goes to the other three
        ([0.48, 0.2, 0.2, 0.12], 0, True, [0.5, 0.58 / 3, 0.58 / 3, 0.34 / 3]),
        # an empty bin would fall to -0.02; the other three pay for it
        ([0.3, 0.4, 0.3, 0.0], 0, True, [0.36 - 0.02 / 3, 0.38 - 0.02 / 3, 0.28 - 0.02 / 3, 0.0]),
        # all in one of two bins stays so: the limit is 1
        ([1.0, 0.0], 0, True, [1.0, 0.0]),
        ([1.0, 0.0], 0, False, [0.5, 0.5]),
    ],
)
def test_rewarded_distribution_by_hand(row, drawn, harder, expected):
    actual = rewarded_distribution(
        torch.tensor([row]), torch.tensor([drawn]), torch.tensor([float(harder)]), torch.zeros(1)
    )
    assert_close(actual, torch.tensor([expected]), atol=1e-6)


def test_a_reward_says_who_was_rewarded_and_whose_target_is_at_its_limit():
    """The limit is 2/K: of four bins 0.5, which 0.48 reaches by its reward, and 0.4 does not."""
    row = [[0.48, 0.2, 0.2, 0.12], [0.48, 0.2, 0.2, 0.12], [0.4, 0.2, 0.2, 0.2], [0.9, 0.1, 0.0, 0.0]]
    reference, agent = torch.tensor([1.0, 0.5, 0.6, 0.0]), torch.tensor([0.0, 0.5, 0.5, 1.0])
    found = reward(torch.tensor(row), torch.tensor([0, 0, 0, 2]), reference, agent)
    assert found.rewarded.tolist() == [True, False, True, False]  # a tie is a penalty
    assert found.limited.tolist() == [True, False, False, True]
    assert found.target.amax(dim=1).tolist() == pytest.approx([0.5, 0.28, 0.48, 0.5])


def test_an_equal_pckh_is_a_penalty():
    bins, drawn, half = torch.full((1, 5), 0.2), torch.tensor([3]), torch.tensor([0.5])
    equal = rewarded_distribution(bins, drawn, half, half)
    assert_close(equal[0, 3], torch.tensor(0.1), atol=1e-6)


@pytest.mark.parametrize("bins", [2, 3, 7, 20])
@pytest.mark.parametrize("sharpness", [0.1, 3.0, 30.0])
def test_rewarded_rows_are_distributions(bins, sharpness):
    generator = torch.Generator().manual_seed(bins)
    logits = sharpness * torch.randn(200, bins, generator=generator)
    drawn = torch.randint(bins, (200,), generator=generator)
    pckh = torch.randint(4, (2, 200), generator=generator) / 3
    logits.requires_grad_()
    target = rewarded_distribution(logits.softmax(dim=1), drawn, *pckh)
    assert target.dtype == torch.float32
    assert not target.requires_grad
    assert (target >= 0).all()
    assert_close(target.sum(dim=1), torch.ones(200), atol=1e-6)


def policy_gradient(logits, pck, baseline, drawn, probability):
    """The expected gradient of the rule in a world with these draws, PCK under each, and probabilities."""
    logits = logits.detach().clone().requires_grad_()
    losses = [
        policy_loss(logits[None], one[None], baseline - cost) for one, cost in zip(drawn, pck, strict=True)
    ]
    torch.stack(losses).mul(probability.detach()).sum().backward()
    return logits.grad


@pytest.mark.parametrize("baseline", [0.0, 0.6])
def test_the_policy_gradient_is_on_average_that_of_the_expected_pck(baseline):
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(5, generator=draws, dtype=torch.float64).requires_grad_()
    shares, pck = logits.softmax(dim=0), torch.rand(5, generator=draws, dtype=torch.float64)
    (exact,) = torch.autograd.grad((shares * pck).sum(), logits)
    found = policy_gradient(logits, pck, baseline, torch.arange(5), logits.softmax(dim=0))
    assert_close(found, exact, atol=1e-12)


def test_so_is_that_of_two_bins_without_replacement():
    draws = torch.Generator().manual_seed(1)
    logits = torch.randn(4, generator=draws, dtype=torch.float64).requires_grad_()
    pairs = torch.tensor([(a, b) for a in range(4) for b in range(4) if a != b])
    pck = torch.rand(len(pairs), generator=draws, dtype=torch.float64)
    first, second = logits.softmax(dim=0)[pairs].unbind(1)
    probability = first * second / (1 - first)
    assert_close(probability.sum(), torch.tensor(1.0, dtype=torch.float64), atol=1e-12)
    (exact,) = torch.autograd.grad((probability * pck).sum(), logits, retain_graph=True)
    assert_close(policy_gradient(logits, pck, 0.3, pairs, probability), exact, atol=1e-12)


def test_the_policy_gradient_raises_what_was_harder_and_averages_over_people():
    logits = torch.zeros(3, 2, requires_grad=True)
    policy_loss(logits, torch.tensor([0, 0, 1]), torch.tensor([0.6, -0.3, 0.0])).backward()
    assert_close(logits.grad, torch.tensor([[-0.1, 0.1], [0.05, -0.05], [0.0, 0.0]]), atol=1e-7)


def test_drawn_may_be_a_column():
    bins = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    drawn, pckh = torch.tensor([1, 2]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.equal(
        rewarded_distribution(bins, drawn, *pckh),
        rewarded_distribution(bins, drawn[:, None], *pckh),
    )
