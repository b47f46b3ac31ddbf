"""Skeletons: pairs and columns that names tell, mirrors, drawn bones."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from data import DataError
from data.geometry import mirror_points
from data.heatmap import mirror_heatmaps
from data.people import People, scorable
from data.skeleton import MPII, left_right_pairs, skeleton_of_names
from utils.display.drawing import COLORS, draw_skeleton, overlay_heatmaps
from utils.evaluation.metrics import pck_table

COCO = ["nose", "left_eye", "right_eye", "left_shoulder", "right_shoulder", "left_hip", "right_hip"]


@pytest.mark.parametrize(
    ("joints", "pairs"),
    [
        ("left_eye right_eye nose", [(0, 1)]),
        ("RightEye LeftEye", [(1, 0)]),
        ("eye_left nose eye_right", [(0, 2)]),
        ("l_eye r_eye", [(0, 1)]),
        ("eye.R eye.L", [(1, 0)]),
        ("LShoulder RShoulder Neck", [(0, 1)]),
        ("kneeL kneeR Tail", [(0, 1)]),
        ("left_front_paw left_back_paw right_front_paw right_back_paw", [(0, 2), (1, 3)]),
        ("Left_Knee right_knee", [(0, 1)]),
        ("left_eye nose", []),
        ("lip rip", [(0, 1)]),  # as lknee and rknee; `pairs` overrides it
        ("lip tail skull", []),
        ("left_eye Left_Eye right_eye", [(0, 2)]),
    ],
)
def test_names_tell_pairs(joints, pairs):
    assert list(left_right_pairs(joints.split())) == pairs


def test_names_with_spaces_tell_pairs():
    assert left_right_pairs(["Left Knee", "Neck", "Right Knee", "Knee (L)", "knee (r)"]) == ((0, 2), (3, 4))


def test_a_skeleton_of_names():
    skeleton = skeleton_of_names("person", COCO, bones=[[0, 1], (1, 3)], sigmas=[0.1] * 7)
    assert len(skeleton) == 7 and skeleton.scored == tuple(range(7)) and skeleton.bones == ((0, 1), (1, 3))
    assert skeleton.columns == {"Nose": (0,), "Eye": (1, 2), "Shoulder": (3, 4), "Hip": (5, 6)}
    assert skeleton.sides == ("middle", "left", "right", "left", "right", "left", "right")
    assert skeleton.sigmas == (0.1,) * 7 and skeleton_of_names("person", COCO).sigmas is None


def test_given_pairs_replace_those_of_the_names():
    skeleton = skeleton_of_names("lips", ["lip", "rip", "west", "east"], pairs=[(2, 3)])
    assert skeleton.mirror == [0, 1, 3, 2]
    assert skeleton.columns == {"Lip": (0,), "Rip": (1,), "West, east": (2, 3)}


def test_columns_have_different_titles():
    joints = ["mean", "left_eye", "right_eye", "eye", "LEye", "REye", "root_of_tail"]
    assert skeleton_of_names("odd", joints).columns == {
        "Mean (0)": (0,),
        "Eye": (1, 2),
        "Eye (3)": (3,),
        "Eye (4)": (4, 5),
        "Root of tail": (6,),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"joints": ["eye", "nose", "eye"]}, "skeleton 'dog' has two joints named 'eye'"),
        ({"bones": [(0, 2)]}, "skeleton 'dog' connects joints 0 and 2: expected 0 to 1"),
        ({"pairs": [(0, -1)]}, "skeleton 'dog' connects joints 0 and -1: expected 0 to 1"),
        ({"pairs": [(0, 1), (1, 0)]}, "skeleton 'dog' has a joint in two left-right pairs"),
        ({"pairs": [(0, 0)]}, "skeleton 'dog' has a joint in two left-right pairs"),
        ({"sigmas": [0.1]}, "skeleton 'dog' has 1 sigmas for 2 joints"),
    ],
)
def test_what_is_no_skeleton_is_refused_in_one_line(given, message):
    with pytest.raises(DataError, match=re.escape(message)) as error:
        skeleton_of_names("dog", **{"joints": ["eye", "nose"], **given})
    assert "\n" not in str(error.value)


def bones_by_hand(drawn):
    """The rule that drew MPII's and Leeds Sports Pose's people when it was a function of its own."""
    top = 7 if drawn[7] else 8
    bottom = 6 if drawn[6] else top
    trunk = ((8, 9), (7, 8), (top, bottom), (top, 12), (top, 13))
    limbs = ((2, 1), (1, 0), (3, 4), (4, 5), (12, 11), (11, 10), (13, 14), (14, 15))
    pairs = (*trunk, (bottom, 2), (bottom, 3), *limbs)
    return [(inner, outer) for inner, outer in pairs if inner != outer and drawn[inner] and drawn[outer]]


def test_stand_ins_take_the_place_of_joints_that_are_not_drawn():
    rng = np.random.default_rng(0)
    lsp = np.ones(16, bool)
    lsp[[6, 7]] = False
    for drawn in (np.ones(16, bool), lsp, *(rng.random((300, 16)) < 0.7)):
        assert MPII.drawn_bones(drawn) == bones_by_hand(drawn)


FIVE = skeleton_of_names("five", ["nose", "left_paw", "tail", "right_paw", "left_wing"])


def test_a_mirror_twice_is_the_identity():
    draws = torch.Generator().manual_seed(0)
    points, width = torch.randint(1, 99, (3, 5, 2), generator=draws), torch.tensor([100, 120, 99])
    mirrored = mirror_points(points, width, FIVE)
    assert torch.equal(mirrored[:, 1, 0], width - points[:, 3, 0]) and not torch.equal(mirrored, points)
    assert torch.equal(mirror_points(mirrored, width, FIVE), points)
    maps = torch.rand(2, 5, 4, 4, generator=draws)
    assert torch.equal(mirror_heatmaps(maps, FIVE)[:, 3], maps[:, 1].flip(-1))
    assert torch.equal(mirror_heatmaps(mirror_heatmaps(maps, FIVE), FIVE), maps)


def test_only_scored_joints_count():
    skeleton = replace(FIVE, scored=(0, 2))
    points = np.zeros((2, 5, 2), np.float32)
    points[0, 1], points[1, 2] = 10, 10
    people = People(
        **{name: np.zeros(2) for name in ("image", "center", "scale", "valid")},
        points=points,
        normalizer=np.ones(2, np.float32),
    )
    assert scorable(people, skeleton).tolist() == [False, True]
    assert scorable(people, FIVE).tolist() == [True, True]
    pred = torch.from_numpy(points).clone()
    pred[0, 1] += 100
    table = pck_table(pred, torch.from_numpy(points), torch.ones(2), "PCK", 0.5, skeleton)
    assert (table.people, table.mean, table.pck["Paw"]) == (1, 1, 0)


def test_a_table_of_many_columns_fits_a_terminal():
    skeleton = skeleton_of_names("many", [f"joint of some length {k}" for k in range(17)])
    points = torch.full((1, 17, 2), 10.0)
    lines = str(pck_table(points, points, torch.ones(1), "PCK", 0.5, skeleton)).splitlines()
    assert max(map(len, lines)) <= 110 and len(lines) % 3 == 0 and len({*map(len, lines[:3])}) == 1
    assert " ".join(lines[::3]).split() == [
        *" ".join(title for title in skeleton.columns).split(),
        "Mean",
    ]
    assert all(line.startswith("PCK@0.5   ") for line in lines[1::3])


def test_drawings_of_any_skeleton():
    image, places = np.zeros((60, 60, 3), np.uint8), np.array([[30, 10], [10, 30], [50, 30]], np.float32)
    pair = skeleton_of_names("pair", ["nose", "left_ear", "right_ear"], [(1, 0), (2, 0), (1, 2)])
    drawn = draw_skeleton(image, places, np.ones(3, bool), size=300, skeleton=pair).astype(int)
    for (x, y), side in (((20, 20), "left"), ((40, 20), "right"), ((30, 30), "middle")):
        assert np.abs(drawn[y, x] - COLORS[side]).sum() < 60, side
    only_left = skeleton_of_names("ears", ["left_ear", "right_ear"])
    maps = np.zeros((2, 8, 8), np.float32)
    maps[0, 4, 4] = 1
    shown = overlay_heatmaps(image, maps, only_left)
    assert shown[..., 2].max() > 200 > shown[..., 0].max()
