"""What a gallery shows, before it is HTML: pictures of people, distributions and grids, with their words."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Picture:
    """A JPEG file and what is to be said about it."""

    jpeg: bytes
    caption: str


@dataclass(frozen=True)
class Bars:
    """A distribution: shares in 0..1 with their labels, and which of them was drawn."""

    title: str
    labels: Sequence[str]
    shares: Sequence[float]
    drawn: int


@dataclass(frozen=True)
class Person:
    """Pictures of one person, side by side."""

    title: str
    pictures: list[Picture]
    bars: list[Bars] = field(default_factory=list)


@dataclass(frozen=True)
class Grid:
    """Shares in 0..1, a list a row; NaN where there is none. corner: what the row and column names are."""

    corner: str
    rows: list[str]
    columns: list[str]
    shares: list[list[float]]


def cell_grid(shares: list[list[float]]) -> Grid:
    """Shares over the cells of a crop, whose rows and columns count from 1."""
    names = [str(number + 1) for number in range(len(shares))]
    return Grid("", names, names, shares)


@dataclass(frozen=True)
class Section:
    """A part of an epoch's page."""

    title: str
    note: str
    people: list[Person] = field(default_factory=list)
    grid: Grid | None = None
