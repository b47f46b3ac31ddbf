"""The ceiling of agents: how much of what collecting measures is repeatable, if it measures bins twice.

A choice made on one half of the measurements and measured on the other, both ways, contains no luck: it is
what an agent reaches that knows one half. Hindsight, chosen and measured on the same half, is out of reach;
an agent that knew the expected PCK of each bin would be between the two.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MEASURES = {
    "uniform": "uniform draws of the bins",
    "same_limited": "the same distribution for everyone, at most 2 / bins each",
    "same_bin": "the same bin for everyone",
    "own_limited": "each person's own distribution, at most 2 / bins each",
    "own_bin": "each person's own hardest bin",
    "hindsight": "hindsight",
}
"""Each expected PCK of `ceiling`: how bins are chosen."""
TIES = 1e-4  # far less than a joint


def ceiling(pck: Tensor) -> dict[str, float]:
    """What agents can reach: the expected PCK of `MEASURES`, lower is harder, and `repeatability`.

    Where bins are equal for a person, the one that is harder for everyone is chosen. `repeatability` is the
    correlation between the halves of people's own profiles, which lack the means of bins and of people; NaN
    if nothing is left.

    Args:
        pck: [R, N, bins], R >= 2 measurements of N people under each bin.
    """
    halves = [pck[start::2].double().mean(dim=0) for start in (0, 1)]

    def expected(choose: Callable[[Tensor], Tensor]) -> float:
        pairs = zip(halves, reversed(halves), strict=True)
        return sum((choose(half) * other).sum(dim=1).mean().item() for half, other in pairs) / 2

    def same(half: Tensor) -> Tensor:
        return half.mean(dim=0).expand_as(half)

    def own(half: Tensor) -> Tensor:
        return half + TIES * half.mean(dim=0)

    profiles = [half - half.mean(dim=0) - half.mean(dim=1, keepdim=True) + half.mean() for half in halves]
    first, second = (profile / profile.norm() for profile in profiles)
    return {
        "uniform": pck.mean().item(),
        "same_limited": expected(lambda half: limited_shares(same(half))),
        "same_bin": expected(lambda half: hardest_bin(same(half))),
        "own_limited": expected(lambda half: limited_shares(own(half))),
        "own_bin": expected(lambda half: hardest_bin(own(half))),
        "hindsight": sum(half.amin(dim=1).mean().item() for half in halves) / 2,
        "repeatability": (first * second).sum().item(),
    }


def ceiling_lines(pck: Tensor, metric_name: str) -> list[str]:
    """`ceiling` of [R, N, bins] as text."""
    found = ceiling(pck)
    title = f"expected {metric_name}, %, each bin measured {len(pck)} times"
    lines = [f"{100 * found[name]:>8.1f}  {how}" for name, how in MEASURES.items()]
    return [f"{title}; repeatability {found['repeatability']:.2f}:", *lines]


def limited_shares(pck: Tensor) -> Tensor:
    """The distributions [N, bins] with the lowest expected PCK under the limit of 2 / bins for a bin."""
    bins = pck.shape[1]
    left = 1 - 2 / bins * torch.arange(bins)
    return left.clamp(0, 2 / bins)[pck.argsort(dim=1).argsort(dim=1)]


def hardest_bin(pck: Tensor) -> Tensor:
    """The distributions [N, bins] that choose each person's bin with the lowest PCK, of [N, bins]."""
    return F.one_hot(pck.argmin(dim=1), pck.shape[1])
