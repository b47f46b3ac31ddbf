"""The skeleton that a file of COCO's format describes in its categories."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from data import DataError
from data.readers.checks import shorten
from data.skeleton import Pair, Skeleton, skeleton_of_names

log = logging.getLogger(__name__)

_LIMBS = (
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip "
    "left_knee right_knee left_ankle right_ankle"
)
_LIMB_SIGMAS = ".079 .079 .072 .072 .062 .062 .107 .107 .087 .087 .089 .089"
_PUBLISHED = {
    "coco": (
        f"nose left_eye right_eye left_ear right_ear {_LIMBS}",
        f".026 .025 .025 .035 .035 {_LIMB_SIGMAS}",
    ),
    "posetrack18": (
        f"nose head_bottom head_top left_ear right_ear {_LIMBS}",
        f".026 .025 .025 .035 .035 {_LIMB_SIGMAS}",
    ),
    "crowdpose": (f"{_LIMBS} head neck", f"{_LIMB_SIGMAS} .079 .079"),
    "ap10k": (
        "left_eye right_eye nose neck root_of_tail left_shoulder left_elbow left_front_paw right_shoulder "
        "right_elbow right_front_paw left_hip left_knee left_back_paw right_hip right_knee right_back_paw",
        ".025 .025 .026 .035 .035 .079 .072 .062 .079 .072 .062 .107 .087 .089 .107 .087 .089",
    ),
}
"""Joints and their constants of object keypoint similarity, from the evaluations of COCO (Lin et al., ECCV
2014), PoseTrack18, CrowdPose (Li et al., CVPR 2019) and AP-10K (Yu et al., NeurIPS 2021)."""


def read_skeleton(path: Path, categories: list[dict], sigmas: object = None) -> Skeleton:
    """The skeleton of the categories that have joints, which must be the same in all of them.

    Args:
        path: the file, for messages.
        categories: `keypoints`, the joints' names, and where present `skeleton`, the bones as pairs of joints
            counted from 1, and `sigmas`, constants of object keypoint similarity.
        sigmas: those of the file, where the category has none; else published ones, by the joints' names.

    Raises:
        DataError: names, bones or constants are not what they should be, or differ between categories.
    """
    first, *others = categories
    joints, where = first["keypoints"], f"{path}: category {first['name']!r}, field keypoints"
    if not isinstance(joints, list) or not all(isinstance(name, str) and name.strip() for name in joints):
        raise DataError(f"{where}: found {shorten(joints)}, expected a list of joints' names")
    if len(set(joints)) < len(joints):
        raise DataError(f"{where}: found {shorten(joints)}, expected a different name for each joint")
    other = next((category for category in others if category["keypoints"] != joints), None)
    if other is not None:
        raise DataError(
            f"{path}: categories {first['name']!r} and {other['name']!r} have different keypoints, expected "
            "the same names in all: write a file for each kind"
        )
    bones = next((category["skeleton"] for category in categories if category.get("skeleton")), [])
    name, published = _published(joints)
    sigmas = first.get("sigmas") or sigmas
    sigmas = published if sigmas is None else _checked_sigmas(path, sigmas, len(joints))
    return skeleton_of_names(name or first["name"], joints, _bones(path, bones, len(joints)), sigmas)


def with_pairs(skeleton: Skeleton, names: Sequence[str]) -> Skeleton:
    """The skeleton with the left-right pairs `left:right` of joints' names in place of those that names tell.

    Joints whose name tells a side but that have no partner are logged.

    Raises:
        DataError: the skeleton has no joint of such a name, or a joint is in two pairs.
    """
    if names:
        number = {name: joint for joint, name in enumerate(skeleton.joints)}
        pairs = [tuple(pair.split(":")) for pair in names]
        unknown = next((name for pair in pairs for name in pair if name not in number), None)
        if unknown is not None:
            raise DataError(
                f"--mirror_pairs: the data set has no joint {unknown!r}: expected two of "
                f"{', '.join(skeleton.joints)}"
            )
        pairs = [(number[left], number[right]) for left, right in pairs]
        skeleton = skeleton_of_names(skeleton.name, skeleton.joints, skeleton.bones, skeleton.sigmas, pairs)
    sides = zip(skeleton.joints, skeleton.sides, strict=True)
    lonely = [name for name, side in sides if side == "middle" and re.search(_SIDE, name)]
    if lonely:
        log.warning(
            "joints without a partner on the other side, which a mirror leaves as they are: %s; "
            "--mirror_pairs left:right names pairs",
            ", ".join(lonely),
        )
    return skeleton


_SIDE = r"(?i)left|right|(?<![a-z])[lr](?![a-z])"


def _published(joints: list[str]) -> tuple[str, list[float] | None]:
    """Name and constants of the published skeleton of these joints, in any order; else ("", None)."""
    words = [re.sub("[^a-z0-9]+", "_", name.lower()) for name in joints]
    for name, (known, sigmas) in _PUBLISHED.items():
        sigma = dict(zip(known.split(), map(float, sigmas.split()), strict=True))
        if sorted(sigma) == sorted(words):
            return name, [sigma[word] for word in words]
    return "", None


def _bones(path: Path, bones: object, count: int) -> list[Pair]:
    """Pairs of joints counted from 0; none, with a logged line, if one names a joint that does not exist."""
    if not isinstance(bones, list) or not all(_is_pair(bone) for bone in bones):
        found = shorten(bones)
        raise DataError(f"{path}: categories, field skeleton: found {found}, expected pairs of joints")
    other = next((joint for bone in bones for joint in bone if not 1 <= joint <= count), None)
    if other is not None:  # as in CrowdPose's file, whose bones are of COCO's joints
        log.warning(
            "%s: left out all %d bones: found joint %d, expected 1 to %d; drawings show joints alone",
            *(path, len(bones), other, count),
        )
        return []
    return [(inner - 1, outer - 1) for inner, outer in bones]


def _is_pair(bone: object) -> bool:
    return isinstance(bone, list) and len(bone) == 2 and all(type(joint) is int for joint in bone)


def _checked_sigmas(path: Path, sigmas: object, count: int) -> list[float]:
    numbers = isinstance(sigmas, list) and all(type(sigma) in (int, float) for sigma in sigmas)
    if not numbers or len(sigmas) != count or not all(0 < sigma < 1e6 for sigma in sigmas):
        found = shorten(sigmas)
        raise DataError(
            f"{path}: field sigmas: found {found}, expected {count} numbers above 0, one per joint"
        )
    return sigmas
