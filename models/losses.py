"""Losses of the pose network and of the agent, and the distributions the agent learns from.

Source, but of `pose_loss` and `policy_loss`: Peng, Tang et al., CVPR 2018, arXiv:1805.09707.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

REWARD = 0.2  # a drawn bin grows by this share of itself if the agent's draw was harder
PENALTY = 0.5  # otherwise it loses this share of itself
ROUNDING = 1e-6  # relative tolerance for shares at their limit


def pose_loss(outputs: Sequence[Tensor], heatmap: Tensor) -> Tensor:
    """Sum over the stacks of the mean squared error to the target heatmaps, a scalar.

    outputs: heatmaps of every stack, [N, K, H, W] float. heatmap: the target, [N, K, H, W] float.

    Source: Newell et al., ECCV 2016, arXiv:1603.06937.
    """
    return sum(F.mse_loss(output, heatmap) for output in outputs)


def distribution_loss(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax(logits)) of one head of the agent, averaged over people: nats, a scalar.

    Bins whose target is 0 contribute 0.

    logits: [N, K] float. target: [N, K] float, each row a distribution.
    """
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="batchmean")


def hardness_distribution(pckh: Tensor) -> Tensor:
    """How hard each bin is for a person: the PCKh lost under it, as a distribution.

    Args:
        pckh: [N, K] float, PCKh in 0..1 of each person under the augmentation of each bin.

    Returns:
        [N, K], each row a distribution; uniform if no bin loses anything.
    """
    lost = 1 - pckh
    lost = torch.where(lost.sum(dim=1, keepdim=True) == 0, 1.0, lost)
    return lost / lost.sum(dim=1, keepdim=True)


class Reward(NamedTuple):
    """The targets of an agent for N people, and how they came about.

    target: [N, K], each row a distribution. rewarded: bool [N], whether the draw was harder; otherwise it was
    penalized. limited: bool [N], whether a bin of the target is at the limit 2/K, or above.
    """

    target: Tensor
    rewarded: Tensor
    limited: Tensor


def reward(predicted: Tensor, drawn: Tensor, pck_reference: Tensor, pck_agent: Tensor) -> Reward:
    """Reward or penalize the draws of an agent.

    If PCK is strictly higher under the reference augmentation, the agent's draw was harder, and the drawn
    bin grows by `REWARD` of itself; otherwise it loses `PENALTY` of itself. The other bins lose or gain the
    difference in equal parts. Then all bins are clamped once to 0..2/K, and the excess (or deficit) is
    distributed equally over the bins that were not cut (or not raised).

    Args:
        predicted: [N, K] float, each row a distribution, K >= 2; it is detached.
        drawn: [N] int64, the bin drawn for each person; or [N, M] with M < K, bins that grow or shrink
            by their own shares.
        pck_reference: [N] float, PCK under the augmentation that the agent's is compared with.
        pck_agent: [N] float, PCK under the agent's augmentation.

    Raises:
        RuntimeError: a drawn bin is not in 0..K-1.
    """
    bins = predicted.detach().double()
    is_drawn = torch.zeros_like(bins, dtype=torch.bool)
    is_drawn.scatter_(1, drawn.reshape(len(drawn), -1), True)
    rewarded = pck_reference > pck_agent
    change = torch.where(rewarded[:, None], REWARD * bins, -PENALTY * bins) * is_drawn
    bins = bins + change - _share(change.sum(dim=1, keepdim=True), ~is_drawn)
    # rounded to the stored precision first, which decides which bins are above the limit
    target = _clamp(bins.to(predicted.dtype).double()).to(predicted.dtype)
    limited = target.amax(dim=1) >= (1 - ROUNDING) * 2 / target.shape[1]
    return Reward(target, rewarded, limited)


def rewarded_distribution(
    predicted: Tensor, drawn: Tensor, pckh_random: Tensor, pckh_agent: Tensor
) -> Tensor:
    """Only the targets [N, K] of `reward`."""
    return reward(predicted, drawn, pckh_random, pckh_agent).target


def policy_loss(logits: Tensor, drawn: Tensor, lost: Tensor) -> Tensor:
    """REINFORCE: minus the log-probability of each draw, weighted by the PCK that it cost; mean over people.

    Its gradient is an unbiased estimate of that of the expected PCK, if `lost` is a baseline minus the PCK of
    the draw, and the baseline does not depend on the draw.

    Args:
        logits: [N, K] float.
        drawn: [N] int64, the bin drawn for each person; or [N, M], different bins in the order in which they
            were drawn without replacement.
        lost: [N] float, PCK that the draw cost, compared with the baseline; it is detached.

    Returns:
        a scalar; its value has no meaning, only its gradient.

    Source: Williams, Machine Learning 8, 1992.
    """
    log_probability = torch.zeros_like(logits[:, 0])
    for bins in drawn.to(logits.device).reshape(len(drawn), -1).unbind(1):
        log_probability = log_probability + logits.log_softmax(dim=1).gather(1, bins[:, None])[:, 0]
        logits = logits.scatter(1, bins[:, None], -torch.inf)  # it cannot be drawn again
    return -(lost.detach().to(logits.device) * log_probability).mean()


def _clamp(bins: Tensor) -> Tensor:
    """Rows clamped to 0..2/K once; distributing the rest can raise a bin above 2/K again."""
    clamped = bins.clamp(0, 2 / bins.shape[1])
    gap = (bins - clamped).sum(dim=1, keepdim=True)
    sharing = torch.where(gap > 0, bins <= clamped, bins >= clamped)
    clamped = (clamped + _share(gap, sharing)).clamp(min=0)
    return clamped / clamped.sum(dim=1, keepdim=True)


def _share(total: Tensor, among: Tensor) -> Tensor:
    """Each row's total [N, 1] in equal parts over the bins marked in `among` [N, K]; 0 elsewhere."""
    return total / among.sum(dim=1, keepdim=True) * among
