"""The crop transform against golden numbers, and its properties."""

import torch

from data.geometry import mirror_points, transform_points


def boxes(arrays):
    return [torch.from_numpy(arrays[f"in_{name}"]) for name in ("center", "scale", "rot")]


def each_res(arrays):
    res = torch.from_numpy(arrays["in_res"])
    return [(int(side), res == side) for side in res.unique()]


def test_transform_golden(golden):
    arrays = golden("a_transform")
    center, scale, rotation = boxes(arrays)
    for res, rows in each_res(arrays):
        box = center[rows], scale[rows], rotation[rows]
        image = torch.from_numpy(arrays["in_pts_image"])[rows]
        crop = torch.from_numpy(arrays["in_pts_crop"])[rows]
        forward, inverse = (
            torch.from_numpy(arrays[f"out_aug_{way}"])[rows] for way in ("forward", "inverse")
        )
        assert torch.allclose(transform_points(image, *box, res), forward, rtol=0, atol=1e-3)
        assert torch.allclose(transform_points(crop, *box, res, inverse=True), inverse, rtol=0, atol=1e-3)


def test_evaluation_points_golden(golden):
    """1-based coordinates, truncated: the evaluation's way, here on top of the exact transform."""
    arrays = golden("a_transform")
    center, scale, rotation = boxes(arrays)
    for res, rows in each_res(arrays):
        crop = torch.from_numpy(arrays["in_pts_crop"])[rows]
        raw = transform_points(crop - 1, center[rows], scale[rows], rotation[rows], res, inverse=True)
        want, want_raw = (torch.from_numpy(arrays[f"out_eval_inverse{end}"])[rows] for end in ("", "_raw"))
        assert torch.allclose(raw, want_raw, rtol=0, atol=2e-3)
        safe = (want_raw - want_raw.round()).abs() > 2e-3
        assert torch.equal((raw.trunc() + 1)[safe].long(), want[safe])


def test_corners_are_the_box():
    center, scale = torch.tensor([[100.0, 50.0]]), torch.tensor([0.5])
    corners = torch.tensor([[[50.0, 0.0], [150.0, 100.0]]])
    crop = transform_points(corners, center, scale, torch.zeros(1), 256)
    assert torch.allclose(crop, torch.tensor([[[0.0, 0.0], [256.0, 256.0]]], dtype=torch.float64))


def test_there_and_back():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20, 16, 2, generator=generator) * 1000
    box = (
        torch.rand(20, 2, generator=generator) * 1000,
        torch.rand(20, generator=generator) * 5 + 0.1,
        torch.rand(20, generator=generator) * 360 - 180,
    )
    crop = transform_points(points, *box, 256)
    assert torch.allclose(transform_points(crop, *box, 256, inverse=True), points.double(), atol=1e-9)


def test_mirror_points_golden(golden):
    arrays = golden("c_flip")
    points, width = (torch.as_tensor(arrays[f"in_{name}"]) for name in ("pts", "width"))
    mirrored = mirror_points(points, width.expand(len(points)) if width.ndim == 0 else width)
    assert torch.equal(mirrored, torch.from_numpy(arrays["out_pts"]))


def test_mirror_twice_is_identity():
    points = torch.randint(0, 640, (5, 16, 2)).double()
    width = torch.full((5,), 640.0)
    assert torch.equal(mirror_points(mirror_points(points, width), width), points)
