"""Reader of the MPII annotation files that HRNet, SimpleBaseline and MMPose are published with."""

import logging
from pathlib import Path

import numpy as np

from data import DataError
from data.people import People, annotated
from data.readers import mpii
from data.readers.checks import RowChecks, read_matlab

log = logging.getLogger(__name__)

# Names of the training file, the validation file and the validation people's head boxes.
_FILES = (
    ("train.json", "valid.json", "gt_valid.mat"),
    ("mpii_train.json", "mpii_val.json", "mpii_gt_val.mat"),
)
_EDGE = 0.01  # px: where annotated joints stay that lie at most 1 px from the left or the upper edge
_STRANGERS = 0.1  # part of the people whose missing joints may differ between a file and its head boxes


def read_mpii_json(path: Path, images: str, skip_bad: bool = False) -> People:
    """Any of MPII's JSON files, plain or gzipped: `read_json`'s, or HRNet's, which have `joints`.

    HRNet's: a list of people, one file per split; given one, its sibling is read too, and training people
    come first. Fields read: image (below the folder `images`), center, joints (16 x 2, px counted from 1),
    scale and joints_vis (16; a joint with 0 is not annotated). As HRNet's loader does, the `person_box` is
    taken where center[0] is not -1, then 1 px is subtracted from center and joints. Joints that this puts on
    or beyond the edge stay annotated; those that lay there before are not, as in all of MPII's files. Head
    boxes of validation people are those of `gt_valid.mat` beside the file (headboxes_src, 2 corners x 2 x N,
    in the order of the file), else of the official .mat there or in the folder above. Training people have
    the estimate of `head_size`, and without these files all people, which is logged.

    Raises DataError for an unreadable file, another file name, head boxes of other people or a bad row;
    `skip_bad` leaves bad rows out.
    """
    entries = mpii.load_entries(path)
    if not any(entry.keys() & {"joints", "joints_vis"} for entry in entries):
        return mpii.people_of_json(path, entries, images, skip_bad)
    files = next((files for files in _FILES if path.name in files[:2]), None)
    if files is None:
        names = " or ".join(name for files in _FILES for name in files[:2])
        raise DataError(f"{path}: expected a name that tells the split, {names}")
    train, valid, boxes = files
    splits = []
    for name in (train, valid):
        file = path.with_name(name)
        if file == path or file.exists():
            found = entries if file == path else mpii.load_entries(file)
            splits.append(_read_split(file, found, images, skip_bad, boxes if name == valid else None))
    return People.concatenate(splits)


def _read_split(path: Path, entries: list[dict], images: str, skip_bad: bool, boxes: str | None) -> People:
    """The people of one file; boxes: name of the file of head boxes of a validation file."""
    checks = RowChecks(path, range(len(entries)), skip_bad)

    def column(field: str) -> list:
        return [entry.get(field) for entry in entries]

    image = checks.names("image", column("image"), images)
    position = checks.numbers("center", column("center"), (2,), mpii.POINT)
    scale = checks.numbers("scale", column("scale"), (), mpii.SCALE, mpii.is_scale)
    joints = checks.numbers("joints", column("joints"), (16, 2), mpii.JOINTS)
    visible = checks.numbers("joints_vis", column("joints_vis"), (16,), "16 numbers") > 0
    placed = position[:, 0] != -1
    center, side = mpii.person_box(position, scale)
    center, scale = np.where(placed[:, None], center, position), np.where(placed, side, scale)
    known = visible & annotated(joints)
    points = np.where(known[..., None], np.maximum(joints - 1, _EDGE), 0)
    valid = np.full(len(entries), boxes is not None)
    normalizer = mpii.head_size(points, np.zeros(len(points)))
    if boxes is not None:
        sizes = _head_sizes(path.with_name(boxes), images, image, position, visible)
        normalizer = np.where(sizes > 0, sizes, normalizer)
    return checks.good_rows(People(image, center - 1, scale, points, normalizer, valid))


def _head_sizes(
    path: Path, images: str, image: np.ndarray, position: np.ndarray, visible: np.ndarray
) -> np.ndarray:
    """Head size [N] px of each validation person, 0 if no file has it.

    path: `gt_valid.mat`. image: [N] str, in the folder `images`. position: [N, 2] px. visible: bool [N, 16].
    """
    if path.exists():
        return mpii.HEAD_SIZE * _head_diagonals(path, visible)
    places = (folder / mpii.OFFICIAL for folder in path.parents[:2])
    official = next(filter(Path.exists, places), None)
    if official is None:
        log.warning("%s does not exist: head sizes of all people are estimated from neck and head top", path)
        return np.zeros(len(image))
    sizes = mpii.official_head_sizes(official, images, image, position)
    count = f"{np.count_nonzero(sizes)} of {len(sizes)}"
    log.info("head sizes of %s validation people are those of %s, of others estimates", count, official)
    return sizes


def _head_diagonals(path: Path, visible: np.ndarray) -> np.ndarray:
    """Diagonal [N] px of each validation person's head box in `gt_valid.mat`; visible: bool [N, 16]."""
    count, content = len(visible), read_matlab(path)
    corners, missing = content.get("headboxes_src"), content.get("jnt_missing")
    if np.shape(corners) != (2, 2, count) or corners.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: expected headboxes_src of 2 x 2 x {count}, the head boxes of the validation people, "
            f"found {_sides(corners)}"
        )
    if missing is not None:
        if missing.shape != (16, count):
            raise DataError(f"{path}: expected jnt_missing of 16 x {count}, found {_sides(missing)}")
        others = (visible == (missing.T > 0)).any(axis=1)
        if others.mean() > _STRANGERS:
            raise DataError(
                f"{path} is of other people: joints are missing (jnt_missing) of {others.sum()} of {count} "
                "people unlike in the annotation file; expected the same people in the same order"
            )
    diagonal = np.linalg.norm(corners[1] - corners[0], axis=0)
    if not (np.isfinite(diagonal) & (diagonal >= 0)).all():
        raise DataError(f"{path}: headboxes_src has numbers that are not finite")
    return diagonal


def _sides(array: np.ndarray | None) -> str:
    return " x ".join(map(str, np.shape(array))) or "none"
