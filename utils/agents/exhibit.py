"""What an agent shows on an epoch's page, before `utils.display` draws it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from data.augmentation import Augmentation
from data.people import People


@dataclass(frozen=True)
class View:
    """N people under an augmentation and, if any, a mask f32 [N, 1, side, side]."""

    title: str
    augmentation: Augmentation
    mask: Tensor | None = None


@dataclass(frozen=True)
class Distribution:
    """What was predicted for N people: shares [N, bins], the bins' labels, and the bin drawn, int64 [N]."""

    title: str
    labels: Sequence[str]
    shares: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class Exhibit:
    """N people in several views.

    people, rows: the table, and whom it shows. margin: of their patches. remarks: a text behind each person's
    name. distributions: beside the views. cells: shares [N, side, side] over the cells of each crop, if any.
    heatmaps: whether the last view's are shown, too.
    """

    title: str
    note: str
    people: People
    rows: np.ndarray
    margin: str
    views: Sequence[View]
    remarks: Sequence[str] = ()
    distributions: Sequence[Distribution] = ()
    cells: Tensor | None = None
    heatmaps: bool = False


@dataclass(frozen=True)
class MeanDistribution:
    """Shares over the cells of a crop, a list per row of cells."""

    title: str
    note: str
    shares: list[list[float]]
