"""The content of an agent's part of a page, which `utils.display` draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from data.augmentation import Augmentation
from data.people import People


@dataclass(frozen=True)
class View:
    """N people under an augmentation and, if there is one, a mask f32 [N, 1, side, side]."""

    title: str
    augmentation: Augmentation
    mask: Tensor | None = None


@dataclass(frozen=True)
class Distribution:
    """Predicted distributions of N people: labels of bins, shares [N, bins], and bins drawn, int64 [N].

    targets: those of pretraining, [N, bins], shown beside the shares.
    """

    title: str
    labels: Sequence[str]
    shares: Tensor
    drawn: Tensor
    targets: Tensor | None = None


@dataclass(frozen=True)
class Exhibit:
    """N people in several views.

    people, rows: the table of people, and the rows to show. margin: of their patches. remarks: text after
    each person's name. distributions: shown below the views. cells: title -> shares [N, side, side] over the
    cells of each crop. heatmaps: whether to show those of the last view, too.
    """

    title: str
    note: str
    people: People
    rows: np.ndarray
    margin: str
    views: Sequence[View]
    remarks: Sequence[str] = ()
    distributions: Sequence[Distribution] = ()
    cells: Mapping[str, Tensor] = field(default_factory=dict)
    heatmaps: bool = False


@dataclass(frozen=True)
class MeanDistribution:
    """A mean distribution over the cells of a crop: shares, one list per row of cells."""

    title: str
    note: str
    shares: list[list[float]]
