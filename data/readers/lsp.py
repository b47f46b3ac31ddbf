"""Readers of Leeds Sports Pose and its extension: `joints.mat`."""

import logging
from pathlib import Path

import numpy as np

from data import DataError
from data.people import People, annotated, joint_distance
from data.readers.checks import FORMATS, RowChecks, finite, positive, read_matlab
from data.skeleton import HEAD_TOP, LEFT_SHOULDER, RIGHT_HIP, UPPER_NECK

log = logging.getLogger(__name__)

# LSP's joints: right ankle, knee, hip, left hip, knee, ankle, right wrist, elbow, shoulder, left
# shoulder, elbow, wrist, neck, head top. MPII's 6 and 7, pelvis and thorax, are not among them.
MPII_JOINTS = (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9)
BOX_MARGIN = 1.4375
TRAIN_PEOPLE = 1000
# Both hips, both shoulders, neck and head top: without them a person has no torso or no head.
_REQUIRED = (RIGHT_HIP, 3, UPPER_NECK, HEAD_TOP, 12, LEFT_SHOULDER)


def torso_length(points: np.ndarray) -> np.ndarray:
    """PCK reference length [N] px of points [N, 16, 2]: right hip to left shoulder, 0 if unknown.

    The measure of the LSP literature, used with a threshold of 0.2.
    """
    return joint_distance(points, RIGHT_HIP, LEFT_SHOULDER)


def read_lsp(path: Path, images: str, skip_bad: bool = False) -> People:
    """Leeds Sports Pose (S. Johnson and M. Everingham, BMVC 2010): `joints.mat`, 3 x 14 x 2000.

    Rows 1 and 2 are x and y in px; row 3 is 1 where a joint is occluded, its coordinates being good
    all the same. Photographs are `<images>/im0001.jpg` and so on, one person each: the first 1000
    are the training split, the others the validation (the literature's test) split. That split is
    kept although four pairs of photographs are byte-identical, three of them across it:
    im0483/im1211, im0492/im1436, im0575/im0970, im0670/im1805.

    `center` is the middle of the box of the 14 joints, `scale` its longer side / 200 px times
    1.4375, `normalizer` the torso length. Raises DataError for an unreadable file or a bad row;
    `skip_bad` leaves bad rows out.
    """
    xy = _load_joints(path, (3, 14)).transpose(2, 1, 0)[..., :2]
    rows = np.arange(len(xy))
    photographs = [f"{images}/im{row + 1:04d}.jpg" for row in rows]
    labelled = np.ones(xy.shape[:2], dtype=bool)
    return _people(RowChecks(path, rows, skip_bad), photographs, xy, labelled, valid=rows >= TRAIN_PEOPLE)


def read_lspet(path: Path, images: str, skip_bad: bool = False) -> People:
    """Leeds Sports Pose Extended Training (Johnson and Everingham, CVPR 2011): 14 x 3 x 10000.

    Columns 1 and 2 are x and y in px; column 3 is 1 where a joint is labelled, and the coordinates
    of the others mean nothing. Photographs are `<images>/im00001.jpg` and so on. Everyone is of the
    training split; people without both hips, both shoulders, neck and head top are left out.

    Box, normalizer and errors as `read_lsp`, the box around the labelled joints.
    """
    joints = _load_joints(path, (14, 3)).transpose(2, 0, 1)
    labelled = joints[..., 2] == 1
    xy = np.where(labelled[..., None], joints[..., :2], 0)
    # Unreadable numbers stay in: they are the checks' to report, not a joint that nobody labelled.
    known = annotated(xy) | ~finite(xy).all(axis=-1)
    rows = np.flatnonzero(known[:, [MPII_JOINTS.index(joint) for joint in _REQUIRED]].all(axis=1))
    log.info("%s: %d of %d people have hips, shoulders and head", path, len(rows), len(joints))
    photographs = [f"{images}/im{row + 1:05d}.jpg" for row in rows]
    valid = np.zeros(len(rows), dtype=bool)
    return _people(RowChecks(path, rows, skip_bad), photographs, xy[rows], labelled[rows], valid)


def _load_joints(path: Path, shape: tuple[int, int]) -> np.ndarray:
    joints = np.atleast_3d(read_matlab(path).get("joints", ()))
    if joints.shape[:2] != shape or joints.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: expected a numeric variable joints of {shape[0]} x {shape[1]} x N; {FORMATS}"
        )
    return joints.astype(np.float64)


def _people(
    checks: RowChecks, image: list[str], xy: np.ndarray, labelled: np.ndarray, valid: np.ndarray
) -> People:
    """The table from coordinates [N, 14, 2] px and whether each joint is labelled, bool [N, 14]."""
    xy = checks.numbers("joints", xy, (14, 2), "finite coordinates of 14 joints")
    low = np.where(labelled[..., None], xy, np.inf).min(axis=1)
    high = np.where(labelled[..., None], xy, -np.inf).max(axis=1)
    side = (high - low).max(axis=1)
    side = checks.numbers("joints", side, (), "joints that span a box with a side > 0", positive)
    points = np.zeros((len(xy), 16, 2))
    points[:, MPII_JOINTS] = xy
    image, scale = np.array(image, dtype=str), side / 200 * BOX_MARGIN
    return checks.good_rows(People(image, (low + high) / 2, scale, points, torso_length(points), valid))
