"""How well an agent predicts what it is pretrained on: its loss, and how often it finds the hardest bin.

The hardest bin is the one under which most joints of a person were lost. Where h bins of a row are hardest
alike, each of them counts 1 / h: whoever guesses hits 1 / bins of the people. A uniform row has no hardest
bin, and its person is left out.
"""

import numpy as np
import torch
from torch import Tensor

from models.losses import distribution_loss
from utils.evaluation.meters import Meters

UNIFORM = 1e-6  # a row whose shares all lie within this of their mean is uniform


def agent_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """The sum over choices of KL(target || softmax(logits)), averaged over people; [N, bins] each."""
    return sum(distribution_loss(answer, targets[name]) for name, answer in logits.items())


def constant_loss(rows: dict[str, Tensor], constants: dict[str, Tensor]) -> float:
    """The loss, over people with rows [N, bins], of predicting the same [bins] for everyone."""
    logits = {name: constants[name].clamp(min=1e-12).log().expand_as(row) for name, row in rows.items()}
    return agent_loss(logits, rows).item()


def baselines(split: str, rows: dict[str, Tensor], scored: np.ndarray) -> dict[str, float]:
    """What predicting the same for everyone is worth, of the people who have PCK, as in training.

    The losses of the mean row, which is the best constant, and of 1 / bins; and how often the mean row's
    largest bin is a person's hardest, `<choice>_mean_row_hit`, and the bin that most often is,
    `<choice>_constant_hit`. Both are of the split itself: of new people nobody knows them beforehand.

    Args:
        split: with which the names begin. rows: [N, bins] by choice. scored: bool [N], who has PCK.
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
    """What each bin of collected rows [N, bins] counts as the hardest: [N, bins], rows that sum to 1 or 0."""
    uniform = (rows - rows.mean(dim=1, keepdim=True)).abs().amax(dim=1, keepdim=True) < UNIFORM
    hardest = (rows == rows.amax(dim=1, keepdim=True)).float()
    return torch.where(uniform, 0, hardest / hardest.sum(dim=1, keepdim=True))


def constant_hits(row: Tensor, rows: Tensor) -> float:
    """The share of people, with collected rows [N, bins], whose hardest bin is the largest of one row [bins].

    NaN where nobody counts.
    """
    hardest = hardest_bins(rows)
    return (hardest[:, row.argmax()].sum() / hardest.sum()).item()


def best_constant_hits(rows: Tensor) -> float:
    """The largest share of people, with collected rows [N, bins], who have one and the same hardest bin.

    NaN where nobody counts.
    """
    hardest = hardest_bins(rows)
    return (hardest.sum(dim=0).max() / hardest.sum()).item()


class Hits:
    """The share of people whose hardest bin is the agent's most probable one, by kind, over an epoch."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds
        self._means = Meters(*(f"{kind} {what}" for kind in kinds for what in ("hit", "counts")))

    def add(self, people: float, logits: dict[str, Tensor], rows: dict[str, Tensor]) -> None:
        """A batch, which counts as so many people: its logits and its collected rows, [N, bins] by kind."""
        found = {}
        for kind in self._kinds:
            hardest = hardest_bins(rows[kind])
            found[f"{kind} hit"] = hardest.gather(1, logits[kind].argmax(dim=1, keepdim=True)).mean()
            found[f"{kind} counts"] = hardest.sum(dim=1).mean()
        self._means.add(people, **found)

    def read(self) -> dict[str, float]:
        """`<kind>_hit` of each kind over all ranks, each of which must call this; NaN where nobody counts."""
        means = self._means.read()
        hits = {kind: torch.tensor(means[f"{kind} hit"]) / means[f"{kind} counts"] for kind in self._kinds}
        return {f"{kind}_hit": share.item() for kind, share in hits.items()}
