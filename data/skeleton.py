"""Skeletons: the joints of a data set by name, and what follows from the names.

Left and right are the person's, not the photograph's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from data import DataError

Pair = tuple[int, int]
UNKNOWN_SIGMA = 0.05
"""The OKS constant of joints for which none was measured: between COCO's of the face, 0.025 to 0.035, and of
the body, 0.062 to 0.107."""
MEAN = "Mean"
"""The title of the results table's last column, the mean of the scored joints."""


@dataclass(frozen=True)
class Skeleton:
    """The joints that a data set annotates; K of them, known by their numbers.

    name       of the skeleton, such as mpii
    joints     K names, in the order of the annotation file
    pairs      (left, right) joints that change places in a mirror
    bones      (inner, outer) joints that drawings connect
    stand_ins  joint -> the joint that bones start at where this one is not drawn
    columns    the columns of the results table: title -> joints that are counted together
    scored     joints that the mean counts
    sigmas     COCO's constants of object keypoint similarity, one per joint; None where unknown
    """

    name: str
    joints: tuple[str, ...]
    pairs: tuple[Pair, ...]
    bones: tuple[Pair, ...]
    columns: dict[str, tuple[int, ...]]
    scored: tuple[int, ...]
    stand_ins: dict[int, int] = field(default_factory=dict)
    sigmas: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.joints)

    @cached_property
    def mirror(self) -> list[int]:
        """A permutation: `points[:, mirror]` exchanges left and right joints."""
        order = list(range(len(self.joints)))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return order

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """The side of each joint: left, right or middle."""
        side = {
            joint: name for pair in self.pairs for joint, name in zip(pair, ("left", "right"), strict=True)
        }
        return tuple(side.get(joint, "middle") for joint in range(len(self.joints)))

    def drawn_bones(self, drawn: Sequence[bool]) -> list[Pair]:
        """The bones between drawn joints; drawn: bool [K]. Stand-ins take the place of those that are not."""
        bones = []
        for inner, outer in self.bones:
            while not drawn[inner] and inner in self.stand_ins:
                inner = self.stand_ins[inner]
            if drawn[inner] and drawn[outer] and inner != outer:
                bones.append((inner, outer))
        return bones


_LEFT_TO_RIGHT = (
    (r"(?i)left", "right"),
    (r"(?i)(?<![a-z])l(?![a-z])", "r"),
    (r"(?i)^l(?=[a-z])", "r"),
    (r"(?<=[a-z0-9])L$", "R"),
)


def left_right_pairs(joints: Sequence[str]) -> tuple[Pair, ...]:
    """(left, right) pairs of joints whose names differ in the side only; each joint is in one at most.

    Sides are written as in left_knee, "Left Knee", knee_left, l_knee, knee.l, lknee, LKnee or kneeL; a name
    has a partner only if the other side's name is there too, in any case.
    """
    number = {name.lower(): joint for joint, name in enumerate(joints)}
    pairs, paired = [], set()
    for joint, name in enumerate(joints):
        others = [re.sub(left, right, name).lower() for left, right in _LEFT_TO_RIGHT]
        partners = [number[other] for other in others if other != name.lower() and other in number]
        pair = (joint, *partners[:1])
        if partners and paired.isdisjoint(pair):
            pairs.append(pair)
            paired.update(pair)
    return tuple(pairs)


def skeleton_of_names(
    name: str,
    joints: Sequence[str],
    bones: Sequence[Pair] = (),
    sigmas: Sequence[float] | None = None,
    pairs: Sequence[Pair] | None = None,
) -> Skeleton:
    """A skeleton of which little more than names is known; all of its joints are scored.

    The table has a column for each pair, titled by what the names have in common, and for each other joint.

    Args:
        bones: (joint, joint) to connect. sigmas: one per joint. pairs: (left, right) joints; None: those that
            the names tell.

    Raises:
        DataError: a name is there twice, a number is not that of a joint, a joint is in two pairs, or there
            are not as many sigmas as joints.
    """
    where, count = f"skeleton {name!r}", len(joints)
    twice = next((joint for number, joint in enumerate(joints) if joint in joints[:number]), None)
    if twice is not None:
        raise DataError(f"{where} has two joints named {twice!r}: expected different names")
    pairs = left_right_pairs(joints) if pairs is None else tuple((left, right) for left, right in pairs)
    bones = tuple((inner, outer) for inner, outer in bones)
    for pair in (*pairs, *bones):
        if not all(joint in range(count) for joint in pair):
            raise DataError(f"{where} connects joints {pair[0]} and {pair[1]}: expected 0 to {count - 1}")
    paired = [joint for pair in pairs for joint in pair]
    if len(set(paired)) < len(paired):
        raise DataError(f"{where} has a joint in two left-right pairs: expected one at most")
    if sigmas is not None and len(sigmas) != count:
        raise DataError(f"{where} has {len(sigmas)} sigmas for {count} joints: expected one per joint")
    return Skeleton(
        name,
        tuple(joints),
        pairs,
        bones,
        _columns(joints, pairs),
        scored=tuple(range(count)),
        sigmas=None if sigmas is None else tuple(map(float, sigmas)),
    )


def _columns(joints: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Pair | tuple[int]]:
    """A column for each pair and for each joint without a partner, in the joints' order."""
    partner = {joint: pair for pair in pairs for joint in pair}
    columns = {}
    for group in dict.fromkeys(partner.get(joint, (joint,)) for joint in range(len(joints))):
        title = _title(*(joints[joint] for joint in group))
        taken = title in columns or title == MEAN
        columns[f"{title} ({group[0]})" if taken else title] = group
    return columns


def _title(name: str, other: str | None = None) -> str:
    """Of the column of one joint, or of a pair, whose names differ in the side only unless it was given."""
    if other is not None:
        sides = (left for left, right in _LEFT_TO_RIGHT if re.sub(left, right, name).lower() == other.lower())
        side = next(sides, None)
        name = f"{name}, {other}" if side is None else re.sub(side, " ", name)
    name = re.sub(r"[\s_]+", " ", name).strip(" .-") or "Joint"
    return name[0].upper() + name[1:]


RIGHT_HIP, PELVIS, THORAX, UPPER_NECK, HEAD_TOP, LEFT_SHOULDER = 2, 6, 7, 8, 9, 13

_MPII_JOINTS = (
    "right ankle",
    "right knee",
    "right hip",
    "left hip",
    "left knee",
    "left ankle",
    "pelvis",
    "thorax",
    "upper neck",
    "head top",
    "right wrist",
    "right elbow",
    "right shoulder",
    "left shoulder",
    "left elbow",
    "left wrist",
)
MPII = Skeleton(
    "mpii",
    _MPII_JOINTS,
    left_right_pairs(_MPII_JOINTS),
    bones=(
        *((UPPER_NECK, HEAD_TOP), (THORAX, UPPER_NECK), (THORAX, PELVIS), (THORAX, 12), (THORAX, 13)),
        *((PELVIS, 2), (PELVIS, 3), (2, 1), (1, 0), (3, 4), (4, 5), (12, 11), (11, 10), (13, 14), (14, 15)),
    ),
    columns={
        "Head": (8, 9),
        "Shoulder": (12, 13),
        "Elbow": (11, 14),
        "Wrist": (10, 15),
        "Hip": (2, 3),
        "Knee": (1, 4),
        "Ankle": (0, 5),
    },
    # Without pelvis and thorax, which the evaluation of MPII Human Pose leaves out of its mean.
    scored=(0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15),
    # Leeds Sports Pose has neither: arms then start at the neck, and so do the hips.
    stand_ins={PELVIS: THORAX, THORAX: UPPER_NECK},
)
"""The 16 joints of MPII Human Pose, in its order; Leeds Sports Pose fills 14 of them."""
