"""Measures of an agent's pretraining: its loss, its expected PCK, and how often it finds the hardest bin.

The hardest bin is the one with the largest share of a person's row. If h bins are equally hard, each counts 1
/ h, so guessing hits 1 / bins of the people. A uniform row has no hardest bin, and its person does not count.
"""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from models.losses import distribution_loss
from utils.agents.ceiling import MEASURES, ceiling
from utils.evaluation.meters import Meters

log = logging.getLogger(__name__)

UNIFORM = 1e-6  # a row is uniform if no share differs from their mean by more than this
NEARLY_ALL = 0.9  # a share of uniform rows from which on the others are too few to learn from


def agent_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """The sum over choices of KL(target || softmax(logits)), averaged over people; choice -> [N, bins]."""
    return sum(distribution_loss(prediction, targets[name]) for name, prediction in logits.items())


def constant_loss(rows: dict[str, Tensor], constants: dict[str, Tensor]) -> float:
    """The loss, for rows [N, bins], of predicting the same distribution [bins] for everyone; by choice."""
    logits = {name: constants[name].clamp(min=1e-12).log().expand_as(row) for name, row in rows.items()}
    return agent_loss(logits, rows).item()


def baselines(split: str, rows: dict[str, Tensor], scored: np.ndarray) -> dict[str, float]:
    """Baselines of a split: losses and hits of predicting the same for everyone who can be scored.

    `mean_row` is the loss of the mean row, the best constant prediction, and `uniform` that of 1 / bins.
    `<choice>_mean_row_hit` is the share of people whose hardest bin is the largest of the mean row;
    `<choice>_constant_hit` is the largest share that any fixed bin reaches. All are computed on the split
    itself, so they are not available for new people.

    Args:
        split: first part of the names. rows: choice -> [N, bins]. scored: bool [N], who can be scored.
    """
    rows = {name: row[torch.from_numpy(scored)] for name, row in rows.items()}
    mean_row = {name: row.mean(dim=0) for name, row in rows.items()}
    uniform = {name: torch.full_like(mean, 1 / len(mean)) for name, mean in mean_row.items()}
    return {
        f"{split}_mean_row": constant_loss(rows, mean_row),
        f"{split}_uniform": constant_loss(rows, uniform),
        **{f"{split}_{name}_mean_row_hit": constant_hits(mean_row[name], row) for name, row in rows.items()},
        **{f"{split}_{name}_constant_hit": best_constant_hits(row) for name, row in rows.items()},
    }


def hardest_bins(rows: Tensor) -> Tensor:
    """How much each bin of rows [N, bins] counts as the hardest: [N, bins]; 0 in uniform rows."""
    uniform = (rows - rows.mean(dim=1, keepdim=True)).abs().amax(dim=1, keepdim=True) < UNIFORM
    hardest = (rows == rows.amax(dim=1, keepdim=True)).float()
    return torch.where(uniform, 0, hardest / hardest.sum(dim=1, keepdim=True))


def uniform_share(rows: Tensor) -> float:
    """The share of people with a uniform row, of rows [N, bins]."""
    return (hardest_bins(rows).sum(dim=1) == 0).double().mean().item()


def warn_of_uniform_rows(rows: dict[str, Tensor]) -> None:
    """Log a warning if nearly all rows of a choice are uniform; rows: choice -> [N, bins]."""
    shares = {name: uniform_share(row) for name, row in rows.items()}
    found = [f"{100 * share:.1f} % for {name}" for name, share in shares.items() if share >= NEARLY_ALL]
    if found:
        log.warning(
            "nearly all people have a uniform row (%s): no bin changes their PCK, so the agent has nothing "
            "to learn: check that the kind changes crops by itself, and train the pose network until it "
            "finds joints",
            ", ".join(found),
        )


def constant_hits(row: Tensor, rows: Tensor) -> float:
    """The share of people, with rows [N, bins], whose hardest bin is the largest bin of `row` [bins].

    NaN if nobody counts.
    """
    hardest = hardest_bins(rows)
    return (hardest[:, row.argmax()].sum() / hardest.sum()).item()


def best_constant_hits(rows: Tensor) -> float:
    """The largest share of people with the same hardest bin, of rows [N, bins]; NaN if nobody counts."""
    hardest = hardest_bins(rows)
    return (hardest.sum(dim=0).max() / hardest.sum()).item()


def ceilings(split: str, pck: dict[str, Tensor], scored: np.ndarray) -> dict[str, float]:
    """`ceiling` of the people of a split: `<split>_<choice>_pck_<measure>`, `<split>_<choice>_repeatability`.

    Args:
        split: first part of the names. pck: choice -> [R, N, bins]. scored: bool [N], who can be scored.
    """
    row = {}
    for name, one in pck.items():
        found = ceiling(one[:, torch.from_numpy(scored)].cpu())
        row |= {f"{split}_{name}_pck_{how}": found[how] for how in MEASURES}
        row[f"{split}_{name}_repeatability"] = found["repeatability"]
    return row


class ExpectedPck:
    """For each choice, PCK as collected, if bins are drawn from the agent's distributions."""

    def __init__(self, *choices: str) -> None:
        self._means = Meters(*(f"{choice}_pck{how}" for choice in choices for how in ("", "_likeliest")))

    def add(self, people: float, logits: dict[str, Tensor], pck: dict[str, Tensor]) -> None:
        """Add a batch that counts as `people` people: its logits and PCK, choice -> [N, bins]."""
        found = {}
        for choice, one in pck.items():
            found[f"{choice}_pck"] = (logits[choice].softmax(dim=1) * one).sum(dim=1).mean()
            likeliest = logits[choice].argmax(dim=1, keepdim=True)
            found[f"{choice}_pck_likeliest"] = one.gather(1, likeliest).mean()
        self._means.add(people, **found)

    def read(self) -> Mapping[str, float]:
        """`<choice>_pck`, and `<choice>_pck_likeliest` at the most probable bin; each rank must call this."""
        return self._means.read()


class Hits:
    """For each choice, the share of people in an epoch whose hardest bin is the agent's most probable one."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds
        self._means = Meters(*(f"{kind} {what}" for kind in kinds for what in ("hit", "counts")))

    def add(self, people: float, logits: dict[str, Tensor], rows: dict[str, Tensor]) -> None:
        """Add a batch that counts as `people` people: its logits and rows, choice -> [N, bins]."""
        found = {}
        for kind in self._kinds:
            hardest = hardest_bins(rows[kind])
            found[f"{kind} hit"] = hardest.gather(1, logits[kind].argmax(dim=1, keepdim=True)).mean()
            found[f"{kind} counts"] = hardest.sum(dim=1).mean()
        self._means.add(people, **found)

    def read(self) -> dict[str, float]:
        """`<choice>_hit` over all ranks, each of which must call this; NaN if nobody counts."""
        means = self._means.read()
        hits = {kind: torch.tensor(means[f"{kind} hit"]) / means[f"{kind} counts"] for kind in self._kinds}
        return {f"{kind}_hit": share.item() for kind, share in hits.items()}
