"""Which people have a photograph: it is there, under its name or its other usual one, and complete."""

import errno
import logging
import unicodedata
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from data import DataError
from data.loading.photographs import UNREADABLE, map_files, open_lazily, read_end, to_rgb
from data.people import People

log = logging.getLogger(__name__)

_MISSING = "missing"
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_END_MARKS = (b"\xff\xd9", b"IEND")  # of JPEG, in whose pixels it cannot occur, and of PNG


def with_photographs(people: People, root: Path, limit: int | None, skip_missing: bool) -> People:
    """The first `limit` people of each split, with the names under which their photographs are in `root`.

    Each photograph's last KB is read. One that lacks its format's end mark there, as an empty or a cut-off
    file does, is decoded; where that fails it is incomplete.

    Raises:
        DataError: a photograph is missing or incomplete; with `skip_missing` its people are left out, with a
            logged warning, and the error is that no people are left. Or a photograph cannot be read.
    """
    if not skip_missing:
        people = _first_of_each_split(people, limit)
    images = list(dict.fromkeys(people.image.tolist()))
    found = dict(zip(images, map_files(lambda image: _find(root, image), images), strict=True))
    flaws = {image: flaw for image, (name, end) in found.items() if (flaw := _flaw(root / name, end))}
    if flaws:
        first = f"{root / next(iter(flaws))} ({_describe(root, *next(iter(flaws.items())))})"
        message = f"{len(flaws)} of {len(images)} photographs are missing or incomplete; first: {first}"
        if not skip_missing:
            raise DataError(f"{message}: complete them, or leave out their people with skip_missing")
        present = ~np.isin(people.image, list(flaws))
        log.warning("left out %d of %d people: %s", (~present).sum(), len(people), message)
        people = people[present]
        if not len(people):
            raise DataError(f"no photograph of any annotated person is in {root}")
    renamed = [image for image in images if found[image][0] != image]
    if renamed:
        first = f"{found[renamed[0]][0]} for {renamed[0]}"
        log.info("%d photographs have another usual name; first: %s", len(renamed), first)
        people = replace(people, image=np.array([found[image][0] for image in people.image.tolist()]))
    return _first_of_each_split(people, limit)


def _first_of_each_split(people: People, limit: int | None) -> People:
    """The first `limit` people of either split, in their order."""
    rows = [np.flatnonzero(split)[:limit] for split in (people.valid, ~people.valid)]
    return people[np.sort(np.concatenate(rows))]


def _find(root: Path, image: str) -> tuple[str, bytes | None]:
    """Name and end of a photograph: under another usual name if only that is there; None if none is."""
    end = _end(root / image)
    if end is None:
        there = [(name, other) for name in _other_names(image) if (other := _end(root / name)) is not None]
        if len(there) == 1:
            return there[0]
    return image, end


def _other_names(image: str) -> list[str]:
    """Names that are usual for the same photograph.

    They are that of Leeds Sports Pose without the folders of its archive, and PNG, in which the
    high-resolution photographs of its extension come.
    """
    short = image.replace("/images/lsp_dataset/images/", "/images/")
    names = [short, *(name.removesuffix(".jpg") + ".png" for name in (image, short) if name.endswith(".jpg"))]
    return [name for name in dict.fromkeys(names) if name != image]


def _end(path: Path) -> bytes | None:
    """The last KB of a file, None if it is missing; raises DataError if it cannot be read."""
    try:
        return read_end(path)[2]
    except ValueError:  # a character that no path can have
        return None
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _flaw(path: Path, end: bytes | None) -> str:
    """What is wrong with a photograph that ends like this, in a few words; "" if nothing is."""
    if not end:
        return _MISSING if end is None else "empty"
    if any(mark in end for mark in _END_MARKS):
        return ""
    try:
        with open_lazily(path) as photo:
            to_rgb(photo)
    except UNREADABLE as error:
        return f"does not decode: {' '.join(str(error).split())}"
    return ""


def _describe(root: Path, image: str, flaw: str) -> str:
    """The flaw; of a missing photograph, what else was looked for, and what is nearly the same."""
    if flaw != _MISSING:
        return flaw
    near, others = _nearly(root, image), _other_names(image)
    if near == root / image:
        return f"{flaw}: a folder, or a link that leads nowhere"
    if others:
        there = sum(_end(root / name) is not None for name in others)
        flaw += f"; looked for {', '.join(others)}, too, and found {there} of them, expected 1"
    if near is not None:
        name = ascii(near.relative_to(root).as_posix())
        flaw += f"; nearly the same, but for case or how letters are composed: {name}"
    return flaw


def _nearly(root: Path, image: str) -> Path | None:
    """The path below `root` that is `image` but for case and Unicode normalisation; of several the first."""
    path = root
    for part in PurePath(image).parts:
        names = []
        with suppress(OSError, ValueError):
            names = sorted(entry.name for entry in path.iterdir())
        same = [name for name in names if _plain(name) == _plain(part)]
        if not same:
            return None
        path /= part if part in same else same[0]
    return path


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
