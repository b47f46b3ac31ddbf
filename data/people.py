"""The table of annotated people."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data.skeleton import MPII, Skeleton

Points = TypeVar("Points")


@dataclass(frozen=True, eq=False)
class People:
    """Annotated people, one row per person.

    image       [N] str             the photograph's path relative to the data folder
    center      f32 [N, 2] px       middle of the person's box, a square
    scale       f32 [N]             side of the box / 200 px
    points      f32 [N, K, 2] px    joints in the order of the skeleton, (0, 0) where not annotated
    normalizer  f32 [N] px          the length that PCK divides errors by, 0 where unknown
    valid       bool [N]            True: validation split, False: training split
    size        int32 [N, 2] px     width and height of the photograph, as the annotation file gives them;
                                    0 where it does not, as by default
    id          int64 [N]           the annotation's id in a file of COCO's format; 0 in others, as by default
    """

    image: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    points: np.ndarray
    normalizer: np.ndarray
    valid: np.ndarray
    size: np.ndarray = None
    id: np.ndarray = None

    def __post_init__(self) -> None:
        if self.size is None:
            object.__setattr__(self, "size", np.zeros((len(self), 2), np.int32))
        if self.id is None:
            object.__setattr__(self, "id", np.zeros(len(self), np.int64))

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: slice | np.ndarray) -> "People":
        """The people of a slice, of row numbers (int) or of a mask (bool [N])."""
        return People(*(column[rows] for column in vars(self).values()))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the people, their order and annotations; not `size` or `id`."""
        digest = hashlib.sha256("\0".join(self.image.tolist()).encode())
        for column in (self.center, self.scale, self.points, self.normalizer, self.valid):
            digest.update(np.ascontiguousarray(column))
        return digest.hexdigest()[:16]

    @staticmethod
    def concatenate(tables: Sequence["People"]) -> "People":
        """One table of the rows of one or more tables, in order."""
        columns = zip(*(vars(table).values() for table in tables), strict=True)
        return People(*map(np.concatenate, columns))


def annotated(points: Points) -> Points:
    """Whether joints are annotated: bool [..., K] of points [..., K, 2] px, an array or a tensor.

    A joint with x <= 0 or y <= 0 is not. That is the rule of the training code published for MPII Human Pose;
    it also leaves out the few joints that were annotated beyond the left or the upper edge.
    """
    return (points > 0).all(-1)


def scorable(people: People, skeleton: Skeleton = MPII) -> np.ndarray:
    """Bool [N]: who has PCK at all, with a known reference length and a scored joint that is annotated."""
    return (people.normalizer > 0) & annotated(people.points)[:, skeleton.scored].any(axis=1)


def fixed_rows(people: People, skeleton: Skeleton = MPII, count: int = 4) -> np.ndarray:
    """Rows of a few people who have PCK, evenly spread over the table."""
    known = np.flatnonzero(scorable(people, skeleton))
    return known[evenly_spread(len(known), count)]


def evenly_spread(total: int, count: int) -> np.ndarray:
    """`count` of the numbers below `total`, evenly spread; all of them if there are fewer."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def joint_distance(points: np.ndarray, first: int, second: int) -> np.ndarray:
    """Distance [N] px between two joints of points [N, K, 2], 0 where either is not annotated."""
    distance = np.linalg.norm(points[:, first] - points[:, second], axis=-1)
    return np.where(annotated(points[:, [first, second]]).all(axis=-1), distance, 0.0)
