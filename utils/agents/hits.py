"""How often one bin, that of an answer, is the hardest that was collected for a person.

Where h bins of a row are hardest alike, each of them counts 1 / h: whoever guesses hits 1 / bins of the
people. A uniform row has no hardest bin, and its person is left out.
"""

import torch
from torch import Tensor

from utils.evaluation.meters import Means

UNIFORM = 1e-6  # a row whose shares all lie within this of their mean is uniform


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
        self._means = Means(*(f"{kind} {what}" for kind in kinds for what in ("hit", "counts")))

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
