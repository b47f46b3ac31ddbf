"""Skeletons and heatmaps on pictures, and plots."""

import io
from itertools import groupby

import numpy as np
import pytest
import torch
from PIL import Image

from data.kinds import KINDS
from data.skeleton import MPII, PELVIS, THORAX
from utils.display.drawing import (
    COLORS,
    WEAK,
    clear_peaks,
    draw_skeleton,
    encode_jpeg,
    enlarge,
    overlay_heatmaps,
)
from utils.display.plots import plot_distributions, plot_grid

ALL = np.ones(16, dtype=bool)


@pytest.fixture
def joints() -> np.ndarray:
    """Sixteen places, far from one another, in a picture of 200 px."""
    return np.array([(25 + 50 * (k % 4), 25 + 50 * (k // 4)) for k in range(16)], dtype=np.float32)


def without(*missing: int) -> np.ndarray:
    return np.array([joint not in missing for joint in range(16)])


def connected(pairs: list[tuple[int, int]], joints: set[int]) -> bool:
    reached = {next(iter(joints))}
    for _ in pairs:
        reached |= {joint for pair in pairs if reached & set(pair) for joint in pair}
    return reached == joints


@pytest.mark.parametrize("missing", [(), (PELVIS,), (THORAX,), (PELVIS, THORAX)])
def test_bones_connect_the_whole_body(missing):
    drawn = without(*missing)
    pairs = MPII.drawn_bones(drawn)
    assert connected(pairs, set(np.flatnonzero(drawn).tolist()))
    assert len(pairs) == len(set(pairs)) == drawn.sum() - 1


def test_bones_touch_only_joints_that_are_drawn():
    assert MPII.drawn_bones(np.zeros(16, dtype=bool)) == []
    for joint in range(16):
        assert all(joint not in pair for pair in MPII.drawn_bones(without(joint)))


@pytest.mark.parametrize("truth", [False, True])
def test_every_joint_has_the_color_of_its_side(joints, truth):
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    drawn = draw_skeleton(image, joints, ALL, truth=truth)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    for joint, side in enumerate(MPII.sides):
        x, y = joints[joint].astype(int)
        near = drawn[y - 4 : y + 5, x - 4 : x + 5].reshape(-1, 3).astype(int)
        distance = np.abs(near - COLORS[side]).sum(axis=1).min()
        assert distance < (200 if truth else 60), (side, joint)


def test_a_prediction_is_edged_in_black_and_the_truth_in_white(joints):
    image = np.full((200, 200, 3), 128, dtype=np.uint8)
    for truth in (False, True):
        drawn = draw_skeleton(image, joints, ALL, truth=True) if truth else draw_skeleton(image, joints, ALL)
        edges = drawn[(drawn == drawn[..., :1]).all(axis=-1) & (drawn != 128).all(axis=-1)]
        assert len(edges) > 300 and (np.median(edges) > 128) == truth


def bands(pixels: np.ndarray, color: tuple[int, int, int]) -> list[tuple[str, int]]:
    """Runs of the same color along a line of pixels [N, 3], and how long each is; blends are left out."""
    names = {color: "color", (0, 0, 0): "black", (255, 255, 255): "white", (128, 128, 128): "picture"}
    told = [names[tuple(pixel)] for pixel in pixels.tolist() if tuple(pixel) in names]
    return [(name, len([*run])) for name, run in groupby(told)]


def test_a_prediction_has_thick_bones_and_discs_and_the_truth_thin_ones_and_rings():
    """As the pages say: so that both are seen where they lie on each other."""
    image, drawn = np.full((800, 800, 3), 128, dtype=np.uint8), without(*range(2, 16))
    shin = np.full((16, 2), np.nan, dtype=np.float32)
    shin[:2] = (600, 400), (200, 400)  # right ankle and knee
    predicted, true = (draw_skeleton(image, shin, drawn, truth=truth) for truth in (False, True))
    across = [bands(picture[:, 400], COLORS["right"]) for picture in (predicted, true)]
    outwards = [
        [name for name, _ in bands(picture[400, 604:], COLORS["right"])] for picture in (predicted, true)
    ]
    assert [name for name, _ in across[0]] == ["picture", "black", "color", "black", "picture"]
    assert [name for name, _ in across[1]] == ["picture", "white", "color", "white", "picture"]
    assert across[0][2][1] > 2 * across[1][2][1]
    assert outwards == [["color", "black", "picture"], ["picture", "white", "color", "white", "picture"]]


def test_nothing_is_drawn_where_no_joint_is(joints):
    image = np.full((200, 200, 3), 90, dtype=np.uint8)
    np.testing.assert_array_equal(draw_skeleton(image, joints, np.zeros(16, dtype=bool)), image)


def test_joints_may_lie_outside_and_absent_ones_anywhere(joints):
    joints[0], joints[3] = (-500, 900), np.nan
    drawn = draw_skeleton(np.zeros((120, 200, 3), dtype=np.uint8), joints, without(3))
    assert drawn.shape == (120, 200, 3)


def test_a_large_photograph_is_drawn_on_without_a_larger_copy(joints):
    drawn = draw_skeleton(np.zeros((300, 2400, 3), dtype=np.uint8), joints, ALL, size=200)
    assert drawn.shape == (300, 2400, 3) and drawn.any()


def test_faint_maps_show_no_joint():
    peaks = np.ones((2, 16), dtype=np.float32)
    peaks[0, 6:8] = 0.001
    peaks[1] = 0
    assert clear_peaks(peaks).tolist() == [without(6, 7).tolist(), [False] * 16]


def test_heat_maps_glow_in_their_sides_color():
    maps = np.zeros((16, 64, 64), dtype=np.float32)
    maps[0, 10, 10] = maps[5, 50, 50] = 0.8
    picture = overlay_heatmaps(np.full((64, 64, 3), 100, dtype=np.uint8), maps)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert tuple(picture[10, 10]) == COLORS["right"]
    assert tuple(picture[50, 50]) == COLORS["left"]
    assert picture[30, 30].min() > 20 and picture[30, 30].max() < 100


def test_maps_that_say_nothing_stay_dark():
    image = np.full((64, 64, 3), 100, dtype=np.uint8)
    for value in (0, -0.5, 0.01 * WEAK):
        assert overlay_heatmaps(image, np.full((16, 64, 64), value, dtype=np.float32)).max() < 60


def test_jpeg_keeps_size_and_colors():
    image = enlarge(np.full((16, 16, 3), (200, 100, 30), dtype=np.uint8), 64)
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(image))))
    assert decoded.shape == (64, 64, 3)
    assert np.abs(decoded.astype(int) - (200, 100, 30)).max() <= 4


def test_distributions_stand_at_their_bins(tmp_path, figures):
    rows = {"train": torch.tensor([[0.4, 0.2, 0.4, 0, 0, 0, 0]] * 2), "val": torch.eye(7)[[0, 6]]}
    plot_distributions(tmp_path / "a.png", rows, KINDS["scale"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    bars = [*axes.patches]
    assert [bar.get_height() for bar in bars[:7]] == pytest.approx(rows["train"][0].tolist())
    assert [bar.get_height() for bar in bars[7:]] == pytest.approx([0.5, 0, 0, 0, 0, 0, 0.5])
    left, right = ([bar.get_x() + bar.get_width() / 2 for bar in part] for part in (bars[:7], bars[7:]))
    assert [(a + b) / 2 for a, b in zip(left, right, strict=True)] == pytest.approx(KINDS["scale"].means)
    assert [b - a for a, b in zip(left, right, strict=True)] == pytest.approx([0.08] * 7)
    uniform = axes.lines[-1]
    assert list(uniform.get_ydata()) == pytest.approx([1 / 7] * 2)


def test_a_grid_is_in_per_cent(tmp_path, figures):
    plot_grid(tmp_path / "a.png", torch.eye(7, dtype=torch.float64)[:, [1, 0, 2, 3, 4, 5, 6]], "PCKh@0.5")
    axes = figures[0].axes[0]
    texts = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert len(texts) == 49
    assert texts[(1, 0)] == texts[(0, 1)] == ("100.0", "black") and texts[(0, 0)] == ("0.0", "white")
    assert axes.images[0].get_array().max() == 100 and axes.images[0].get_clim() == (0, 100)
    assert axes.images[0].origin == "lower"
