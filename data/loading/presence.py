"""Checks that photographs exist, under their name or another usual one, and are complete."""

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
    """The first `limit` people of each split, with the names of their photographs as they are in `root`.

    The last KB of each photograph is read. If it lacks the end mark of the format, the photograph is decoded;
    it counts as incomplete if that fails.

    Raises:
        DataError: a photograph cannot be read, or is missing or incomplete. With `skip_missing`, people
            without a complete photograph are skipped with a warning; it is an error if nobody is left.
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
            raise DataError(f"{message}: add them, or skip their people with --skip_missing true")
        present = ~np.isin(people.image, list(flaws))
        log.warning("skipped %d of %d people: %s", (~present).sum(), len(people), message)
        people = people[present]
        if not len(people):
            raise DataError(f"{root} has no complete photograph of any annotated person: add photographs")
    renamed = [image for image in images if found[image][0] != image]
    if renamed:
        first = f"{found[renamed[0]][0]} for {renamed[0]}"
        log.info("found %d photographs under another usual name; first: %s", len(renamed), first)
        people = replace(people, image=np.array([found[image][0] for image in people.image.tolist()]))
    return _first_of_each_split(people, limit)


def _first_of_each_split(people: People, limit: int | None) -> People:
    """The first `limit` people of either split, in their order."""
    rows = [np.flatnonzero(split)[:limit] for split in (people.valid, ~people.valid)]
    return people[np.sort(np.concatenate(rows))]


def _find(root: Path, image: str) -> tuple[str, bytes | None]:
    """Name and last KB of a photograph, under another usual name if only that exists; None if none does."""
    end = _end(root / image)
    if end is None:
        there = [(name, other) for name in _other_names(image) if (other := _end(root / name)) is not None]
        if len(there) == 1:
            return there[0]
    return image, end


def _other_names(image: str) -> list[str]:
    """Other usual names of the same photograph.

    For Leeds Sports Pose that is the name without the folders of its archive; for its extension .png, the
    format of the high-resolution photographs.
    """
    short = image.replace("/images/lsp_dataset/images/", "/images/")
    names = [short, *(name.removesuffix(".jpg") + ".png" for name in (image, short) if name.endswith(".jpg"))]
    return [name for name in dict.fromkeys(names) if name != image]


def _end(path: Path) -> bytes | None:
    """The last KB of a file, or None if it is missing; raises a `DataError` if it cannot be read."""
    try:
        return read_end(path)[2]
    except ValueError:  # a character that no path can have
        return None
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _flaw(path: Path, end: bytes | None) -> str:
    """The flaw of a photograph whose last KB is `end`, in a few words; "" if it has none."""
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
    """The flaw in words; for a missing photograph also the other names tried, and similar names found."""
    if flaw != _MISSING:
        return flaw
    near, others = _nearly(root, image), _other_names(image)
    if near == root / image:
        return f"{flaw}: it is a folder or a broken link"
    if others:
        if there := sum(_end(root / name) is not None for name in others):
            flaw += f"; {there} of its other usual names exist, expected 1: {', '.join(others)}"
        else:
            flaw += f"; no {' or '.join(others)} either"
    if near is not None:
        name = ascii(near.relative_to(root).as_posix())
        flaw += f"; a similar name, which differs in case or Unicode form, exists: {name}"
    return flaw


def _nearly(root: Path, image: str) -> Path | None:
    """The first path below `root` that equals `image` up to case and Unicode normalization, or None."""
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
