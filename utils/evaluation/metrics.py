"""PCK: the share of joints found within a fraction of a person's reference length.

PCKh takes the head size as reference (Andriluka et al., CVPR 2014), at 0.5; PCK on Leeds Sports Pose the
torso (Yang and Ramanan, TPAMI 2013), at 0.2. A distance exactly at the threshold counts as correct.
Everything is counted over people and joints, so that no figure depends on the batch size.
"""

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from data.crops import Sample
from data.heatmap import decode_heatmaps
from data.people import annotated
from data.skeleton import MEAN, MPII, Skeleton
from utils.system import ranks

AUC_STEPS = 50
LINE = 110  # characters per line of a table
FEW = 50  # people: of fewer, PCK is reported with its interval


def normalized_distances(pred: Tensor, points: Tensor, normalizer: Tensor) -> Tensor:
    """Distances in reference lengths.

    Args:
        pred, points: [N, K, 2] px. normalizer: [N] px; 0 where a person's reference length is unknown.

    Returns:
        f64 [N, K]; NaN where the joint is not annotated or the reference length not known.
    """
    reference = normalizer.double().view(-1, 1)
    distance = torch.linalg.vector_norm(pred.double() - points.double(), dim=-1) / reference
    return distance.masked_fill(~annotated(points) | (reference <= 0), torch.nan)


def pck_counts(
    pred: Tensor, points: Tensor, normalizer: Tensor, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """How many joints are correct, and how many are annotated.

    Args:
        pred, points: [N, K, 2] px of the photograph. normalizer: [N] px.
        threshold: in reference lengths; a distance equal to it is correct.

    Returns:
        (correct, annotated), int64 [K] each.
    """
    distance = normalized_distances(pred, points, normalizer)
    return (distance <= threshold).sum(dim=0), (~distance.isnan()).sum(dim=0)


def person_pckh(
    pred: Tensor,
    points: Tensor,
    normalizer: Tensor,
    target_heatmaps: Tensor,
    threshold: float = 0.5,
    skeleton: Skeleton = MPII,
) -> Tensor:
    """PCK of each person, over the scored joints that lie in the crop: what the agent learns from.

    Args:
        pred, points: [N, K, 2] px of the photograph. normalizer: [N] px.
        target_heatmaps: [N, K, H, W]; a joint counts if its target's 1-based peak has x > 1 and y > 1.

    Returns:
        f32 [N] in 0..1; 0 where no joint counts.
    """
    distance = normalized_distances(pred, points, normalizer)
    in_crop = (decode_heatmaps(target_heatmaps) > 1).all(dim=-1)
    counted = (in_crop & ~distance.isnan())[:, skeleton.scored]
    correct = counted & (distance[:, skeleton.scored] <= threshold)
    return correct.sum(dim=1) / counted.sum(dim=1).clamp(min=1)


class PckCounter:
    """PCK over the scored joints of an epoch's crops, counted on their device without waiting for it."""

    def __init__(self, threshold: float, skeleton: Skeleton = MPII) -> None:
        self.threshold, self.skeleton = threshold, skeleton
        self._correct = self._annotated = 0

    def add(self, heatmaps: Tensor, sample: Sample, counted: float = 1.0) -> None:
        """Count a batch: the network's maps [M, K, H, H] for the crops of `sample`.

        counted: the weight of each crop (`PersonBatch.counted`).
        """
        counts = pck_counts(sample.predict(heatmaps), sample.points, sample.normalizer, self.threshold)
        correct, total = (counted * count[[*self.skeleton.scored]].sum() for count in counts)
        self._correct, self._annotated = self._correct + correct, self._annotated + total

    def __add__(self, other: "PckCounter") -> "PckCounter":
        """The counts of both."""
        both = PckCounter(self.threshold, self.skeleton)
        both._correct, both._annotated = self._correct + other._correct, self._annotated + other._annotated
        return both

    def read(self) -> float:
        """Share of correct joints over all ranks, each of which must call this; NaN before any is counted."""
        counts = torch.stack([torch.as_tensor(count).double() for count in (self._correct, self._annotated)])
        correct, annotated = ranks.total(counts).tolist()
        return correct / annotated if annotated else math.nan


@dataclass(frozen=True)
class PckTable:
    """Per-joint results over a data set, as papers print them.

    pck: share correct at `threshold`, by title of the skeleton's columns, with `MEAN` for all scored joints.
    auc: mean of the shares at thresholds from 0 to `threshold` in equal steps. Both are NaN where no joint of
    the column is annotated. people: how many were scored; those without a reference length, or without a
    scored joint, are not. interval: see `pck_interval`.
    """

    metric: str
    threshold: float
    people: int
    pck: dict[str, float]
    auc: dict[str, float]
    interval: tuple[float, float] = (math.nan, math.nan)

    @property
    def mean(self) -> float:
        return self.pck[MEAN]

    @property
    def caution(self) -> str:
        """What `FEW` people mean for the mean; empty where there are more."""
        if self.people >= FEW:
            return ""
        low, high = (100 * end for end in self.interval)
        scored = f"only {self.people} {'person is' if self.people == 1 else 'people are'} scored"
        name = f"{self.metric}@{self.threshold:g}"
        if math.isnan(low):
            return f"{scored}, too few to say how uncertain {name} is"
        return f"{scored}: the 95 % interval of {name} is {low:.1f} to {high:.1f} %"

    def __str__(self) -> str:
        width = max(9, *(len(name) + 1 for name in self.pck))
        columns = [
            (f"{name:>{width}}", f"{100 * self.pck[name]:>{width}.2f}", f"{100 * self.auc[name]:>{width}.2f}")
            for name in self.pck
        ]
        titles = [f"{title:<10}" for title in ("", f"{self.metric}@{self.threshold:g}", "AUC")]
        fit = max(1, (LINE - len(titles[0])) // width)
        parts = (zip(titles, *columns[k : k + fit], strict=True) for k in range(0, len(columns), fit))
        return "\n".join("".join(line) for part in parts for line in part)


def pck_table(
    pred: Tensor,
    points: Tensor,
    normalizer: Tensor,
    metric: str,
    threshold: float,
    skeleton: Skeleton = MPII,
) -> PckTable:
    """Score predictions [N, K, 2] against joints [N, K, 2], both px, with normalizer [N] px."""
    distance = normalized_distances(pred, points, normalizer)
    steps = torch.linspace(0, threshold, AUC_STEPS + 1, dtype=torch.float64)
    steps[-1] = threshold
    pck, auc = {}, {}
    for name, joints in (*skeleton.columns.items(), (MEAN, skeleton.scored)):
        scored = distance[:, joints]
        scored = scored[~scored.isnan()]
        curve = (scored[:, None] <= steps).double().mean(dim=0)
        pck[name], auc[name] = curve[-1].item(), curve.mean().item()
    annotated_joints = (~distance[:, skeleton.scored].isnan()).sum(dim=1)
    correct = (distance[:, skeleton.scored] <= threshold).sum(dim=1)
    interval = pck_interval(correct, annotated_joints)
    return PckTable(metric, threshold, (annotated_joints > 0).sum().item(), pck, auc, interval)


def pck_interval(correct: Tensor, annotated: Tensor) -> tuple[float, float]:
    """The 95 % interval of PCK, from the spread over people: a person's joints are not independent.

    PCK is the mean of the people's own PCK, weighted by their annotated joints: a ratio of two sums. The
    error is that of the linearized ratio, with Student's t (Cochran, Sampling Techniques, 1977, section 6.3).

    Args:
        correct, annotated: [N], joints per person; people without an annotated one do not count.

    Returns:
        Its ends in 0..1; NaN with fewer than two people, or if all of them have the same PCK.
    """
    correct, annotated = (joints[annotated > 0].double() for joints in (correct, annotated))
    people, pck = len(annotated), correct.sum() / annotated.sum()
    deviation = correct - pck * annotated
    if people < 2 or not deviation.any():
        return math.nan, math.nan
    error = (people / (people - 1) * deviation.square().sum()).sqrt() / annotated.sum()
    half = stdtrit(people - 1, 0.975) * error.item()
    return max(0.0, pck.item() - half), min(1.0, pck.item() + half)
