"""The content of a page, before it is HTML: pictures of people, distributions and grids, with captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Picture:
    """A JPEG file and its caption."""

    jpeg: bytes
    caption: str


@dataclass(frozen=True)
class Bars:
    """A distribution as a bar chart: shares in 0..1 with their labels.

    drawn: the index of the bin drawn. targets: shares that should have been predicted, shown beside these.
    """

    title: str
    labels: Sequence[str]
    shares: Sequence[float]
    drawn: int | None = None
    targets: Sequence[float] | None = None


@dataclass(frozen=True)
class Person:
    """Pictures of one person, side by side."""

    title: str
    pictures: list[Picture]
    bars: list[Bars] = field(default_factory=list)


@dataclass(frozen=True)
class Grid:
    """A table of shares in 0..1, one list per row; NaN: no value. rows, columns: their names."""

    rows: list[str]
    columns: list[str]
    shares: list[list[float]]


def cell_grid(shares: list[list[float]]) -> Grid:
    """A grid of shares by cell of a crop; rows and columns are numbered from 1."""
    names = [str(number + 1) for number in range(len(shares))]
    return Grid(names, names, shares)


@dataclass(frozen=True)
class Curve:
    """A plot of the history as an SVG file. note: what it shows and which way is good."""

    title: str
    note: str
    svg: bytes


@dataclass(frozen=True)
class Section:
    """A part of a page: a title and a note, then what there is of lines, tables, plots and people.

    table: rows of cells, the first one the header. plot: a PNG file.
    """

    title: str
    note: str
    people: list[Person] = field(default_factory=list)
    grid: Grid | None = None
    lines: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()
    bars: Sequence[Bars] = ()
    plot: bytes = b""
