"""Checks of people against their photographs, whose headers are read for it."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import DataError
from data.geometry import PIXELS_PER_SCALE
from data.loading.orientation import AS_STORED, exif_orientation, fitting_orientation, upright_size
from data.loading.photographs import UNREADABLE, map_files, open_lazily
from data.people import People, annotated

log = logging.getLogger(__name__)

_SMALLEST = 8  # px: the unit of a smaller box is probably wrong
_COINCIDENT = 3  # joints at least: two may well coincide in a small person


@dataclass(frozen=True)
class _Header:
    """The header of a photograph.

    size: width and height in px as the photograph is used; (0, 0) if the header cannot be read. misfit: a
    message if the size differs from the annotation file's; size is then (0, 0). turned: whether the
    photograph is turned upright. undecided: it is not turned, but might have to be: the annotation file gives
    no size to decide it.
    """

    size: tuple[int, int] = (0, 0)
    misfit: str = ""
    turned: bool = False
    undecided: bool = False


def people_that_fit(people: People, root: Path, skip_bad: bool) -> People:
    """The people, checked against their photographs, `root / image`.

    One warning counts, by kind, people whose photograph has another size than the annotation file gives,
    whose box misses the photograph or is very small, and whose joints are far outside it or all on one point.
    The log also counts photographs that are turned upright, and those that might have to be.

    Raises:
        DataError: a person cannot be trained on: the photograph has another size, the box misses it, or all
            joints are on one point. With `skip_bad` such people are skipped; it is an error if none are left.
    """
    given = list(zip(people.image.tolist(), map(tuple, people.size.tolist()), strict=True))
    photographs = {photograph: number for number, photograph in enumerate(dict.fromkeys(given))}
    headers = map_files(lambda photograph: _read_header(root / photograph[0], photograph[1]), photographs)
    _log_orientations(list(photographs), headers)
    numbers = np.array([photographs[photograph] for photograph in given])
    size = np.array([header.size for header in headers])[numbers]

    unusable = {
        "a photograph of another size": np.array([bool(header.misfit) for header in headers])[numbers],
        "a box that misses the photograph": _box_misses(people, size),
        "all joints on one point": _on_one_point(people),
    }
    odd = {
        f"a box of less than {_SMALLEST} px": PIXELS_PER_SCALE * people.scale < _SMALLEST,
        "a joint more than half a box outside the photograph": _joint_is_far(people, size),
    }

    def count(kinds: dict[str, np.ndarray]) -> str:
        return ", ".join(
            f"{np.count_nonzero(rows)} with {kind} (first: {describe(int(np.argmax(rows)))})"
            for kind, rows in kinds.items()
            if rows.any()
        )

    def describe(row: int) -> str:
        if misfit := headers[numbers[row]].misfit:
            return misfit
        (x, y), side = people.center[row], PIXELS_PER_SCALE * people.scale[row]
        width, height = size[row]
        of = f", annotation {people.id[row]}" if people.id[row] else ""
        return f"{root / people.image[row]}{of}: {side:.4g} px around ({x:g}, {y:g}) of {width} x {height} px"

    skipped = np.any(list(unusable.values()), axis=0)
    if skipped.any() and not skip_bad:
        raise DataError(
            f"{skipped.sum()} of {len(people)} people cannot be trained on: {count(unusable)}; "
            "correct the annotations, or skip these people with --skip_bad true"
        )
    if counted := count(unusable | odd):
        log.warning("skipped %d of %d people; there are %s", skipped.sum(), len(people), counted)
    if skipped.all():
        raise DataError(f"none of {len(people)} people can be trained on: {counted}; correct the annotations")
    return people[~skipped]


def _read_header(path: Path, given: tuple[int, int]) -> _Header:
    """Read the header of a photograph, without decoding it; given: its size in the annotation file."""
    try:
        with open_lazily(path) as photo:
            tag = exif_orientation(photo)
            orientation = fitting_orientation(photo, given)
            size = upright_size(photo.size, orientation)
            undecided = tag != AS_STORED and not (all(given) and upright_size(photo.size, tag) != photo.size)
    except UNREADABLE:  # decoding reports it
        return _Header()
    except DataError as error:
        return _Header(misfit=str(error))
    return _Header(size, turned=orientation != AS_STORED, undecided=undecided)


def _log_orientations(photographs: list[tuple[str, tuple[int, int]]], headers: list[_Header]) -> None:
    """Log how many photographs are turned upright, and how many might have to be."""
    pairs = list(zip((name for name, _ in photographs), headers, strict=True))
    if turned := [name for name, header in pairs if header.turned]:
        log.info(
            "%d of %d photographs are turned upright by their EXIF orientation, as their sizes in the "
            "annotation file require; first: %s",
            *(len(turned), len(photographs), turned[0]),
        )
    if undecided := [name for name, header in pairs if header.undecided]:
        log.warning(
            "%d of %d photographs have an EXIF orientation, and no size in the annotation file tells whether "
            "they were turned when annotated: they are not turned; first: %s",
            *(len(undecided), len(photographs), undecided[0]),
        )


def _box_misses(people: People, size: np.ndarray) -> np.ndarray:
    """Bool [N]: whether the box is outside the photograph of size [N, 2] px, (0, 0) if unknown."""
    half = PIXELS_PER_SCALE / 2 * people.scale[:, None]
    outside = (people.center + half <= 0) | (people.center - half >= size)
    return outside.any(axis=1) & size.all(axis=1)


def _joint_is_far(people: People, size: np.ndarray) -> np.ndarray:
    """Bool [N]: whether a joint is more than half a box outside the photograph of size [N, 2] px."""
    outside = np.maximum(-people.points, people.points - size[:, None]).max(axis=-1)
    far = outside > PIXELS_PER_SCALE / 2 * people.scale[:, None]
    return (far & annotated(people.points)).any(axis=1) & size.all(axis=1)


def _on_one_point(people: People) -> np.ndarray:
    """Bool [N]: whether all joints, at least `_COINCIDENT`, are on one point."""
    known = annotated(people.points)
    low = np.where(known[..., None], people.points, np.inf).min(axis=1)
    high = np.where(known[..., None], people.points, -np.inf).max(axis=1)
    return (low == high).all(axis=1) & (known.sum(axis=1) >= _COINCIDENT)
