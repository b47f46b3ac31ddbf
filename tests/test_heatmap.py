"""Heatmaps against golden numbers; encoding and decoding as inverses."""

import torch

from data.geometry import transform_points
from data.heatmap import decode_heatmaps, locate_points, mirror_heatmaps, predict_points, render_heatmaps


def dyadic_maps(arrays, name="maps"):
    return torch.from_numpy(arrays[f"in_{name}_i16"].astype("float32") / arrays[f"in_{name}_div"])


def test_render_golden(golden):
    arrays = golden("b_heatmap")
    points = torch.from_numpy(arrays["in_pts"])
    maps, want = render_heatmaps(points), torch.from_numpy(arrays["out_heatmap"])
    # Left out: the release draws the peak one cell too far for a fractional coordinate in (0, 3).
    shifted = ((points > 0) & (points < 3) & (points != points.floor())).any(dim=-1)
    assert not shifted.all()
    assert torch.allclose(maps[~shifted], want[~shifted], rtol=0, atol=1e-7)


def test_targets_golden(golden):
    arrays = golden("b2_targets")
    joints, center, scale, rotation = (
        torch.from_numpy(arrays[f"in_{name}"]) for name in ("joints", "center", "scale", "rot")
    )
    points = transform_points(joints, center, scale.view(-1), rotation.view(-1), 64)
    points = points * (joints > 0).all(dim=-1, keepdim=True)
    assert torch.allclose(points, torch.from_numpy(arrays["out_pts_crop"]), rtol=0, atol=1e-3)
    near_edge = ((points - points.round()).abs() < 1e-4).any(dim=-1) & (points > 0).all(dim=-1)
    shifted = ((points > 0) & (points < 3)).any(dim=-1)
    maps, want = render_heatmaps(points), torch.from_numpy(arrays["out_heatmap"])
    kept = ~(near_edge | shifted)
    assert kept.sum() > 100
    assert torch.allclose(maps[kept], want[kept], rtol=0, atol=1e-7)


def test_peak_sits_in_the_cell_of_the_joint_everywhere():
    points = torch.tensor([[[0.5, 0.5], [1.5, 2.99], [63.99, 10.0], [0.0, 5.0], [64.5, 5.0]]])
    maps = render_heatmaps(points)
    assert decode_heatmaps(maps)[0].tolist() == [[1, 1], [2, 3], [64, 11], [0, 0], [0, 0]]
    assert maps[0, 0, 0, 0] == 1


def test_mirror_golden(golden):
    arrays = golden("c_flip")
    for name in (key for key in arrays if key.startswith("in_maps4")):
        maps = torch.from_numpy(arrays[name])
        want = torch.from_numpy(arrays["out_" + name.removeprefix("in_") + "_flip_back"])
        assert torch.equal(mirror_heatmaps(maps), want.to(maps.dtype))
        assert torch.equal(mirror_heatmaps(mirror_heatmaps(maps)), maps)


def test_decode_golden(golden):
    arrays = golden("d_decode")
    maps = dyadic_maps(arrays)
    assert torch.equal(decode_heatmaps(maps), torch.from_numpy(arrays["out_get_preds"]).float())
    box = [torch.from_numpy(arrays[f"in_{name}"]) for name in ("center", "scale", "rot")]
    pred = predict_points(maps, *box)
    raw = torch.from_numpy(arrays["out_final_raw"])
    safe = (raw - raw.round()).abs() > 1e-3
    assert torch.equal(pred[safe], torch.from_numpy(arrays["out_final_preds"]).float()[safe])


def test_ties_go_to_the_first_cell():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 2, 1] = maps[0, 0, 1, 3] = maps[0, 0, 3, 0] = 0.5
    assert decode_heatmaps(maps)[0, 0].tolist() == [4, 2]


def test_encode_then_decode_is_the_joint_to_a_cell():
    """A joint comes back within half a cell, a quarter cell's refinement and the whole-pixel truncation."""
    generator = torch.Generator().manual_seed(1)
    center = torch.rand(50, 2, generator=generator) * 200 + 300
    scale = torch.rand(50, generator=generator) * 2 + 0.5
    rotation = torch.rand(50, generator=generator) * 120 - 60
    crop = torch.rand(50, 16, 2, generator=generator) * 62 + 1
    points = transform_points(crop, center, scale, rotation, 64, inverse=True)
    cell = 200 * scale / 64
    pred = predict_points(render_heatmaps(crop), center, scale, rotation)
    error = (pred - points).norm(dim=-1)
    assert (error <= cell[:, None] * 0.5 * 2**0.5 + 1.5 * 2**0.5).all()
    located = locate_points(render_heatmaps(crop), center, scale, rotation)  # not truncated
    assert ((located - points).norm(dim=-1) <= cell[:, None] * 0.5 * 2**0.5 + 1e-3).all()
