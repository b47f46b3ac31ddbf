"""Augmentation: the release's samples, where every pixel goes, and how draws are distributed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.patch import patch_of
from torch.nn.functional import avg_pool2d, grid_sample

from data.augmentation import MARGINS, Augmentation, reach
from data.crops import PersonBatch, augment
from data.geometry import mirror_points, transform_points
from data.kinds import KINDS
from data.people import annotated
from data.readers.lsp import read_lsp

RES = 64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def write_photograph(folder, pixels, name="photo.png"):
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(folder / name)
    return folder / name


def people_of(path, center, scale, points=None, normalizer=None, res=RES, margin=MARGINS["drawn"]):
    """People of one photograph (or of a list of them), centres [N, 2] and scales [N], as a loader's batch."""
    n = len(center)
    paths = path if isinstance(path, list) else n * [path]
    read = [patch_of(one, xy, side, margin, res) for one, xy, side in zip(paths, center, scale, strict=True)]
    largest = max(len(patch) for patch, _, _ in read)
    return PersonBatch(
        patch=torch.stack([padded(patch, largest) for patch, _, _ in read]).permute(0, 3, 1, 2),
        box=torch.tensor(np.stack([box for _, _, box in read])),
        center=torch.tensor(np.array(center), dtype=torch.float32),
        scale=torch.tensor(np.array(scale), dtype=torch.float32),
        points=torch.zeros(n, 16, 2) if points is None else torch.tensor(points, dtype=torch.float32),
        normalizer=torch.ones(n) if normalizer is None else torch.tensor(normalizer, dtype=torch.float32),
        width=torch.tensor([float(width) for _, width, _ in read]),
        index=torch.arange(n),
        margin=margin,
    )


def padded(patch, side):
    return torch.tensor(np.pad(patch, ((0, side - len(patch)), (0, side - len(patch)), (0, 0))))


def geometric(n, seed, flip=None):
    """Random scales and rotations within the range of "drawn", half of them mirrored unless said."""
    unit = torch.rand(3, n, generator=seeded(seed))
    flips = unit[2] < 0.5 if flip is None else torch.full((n,), flip)
    identity = Augmentation.identity(n)
    return replace(identity, log2_scale=1.3 * unit[0] - 0.65, rotation=130 * unit[1] - 65, flip=flips)


def texture(width, height, seed=0):
    """A photograph [height, width, 3] of smooth random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def few(tmp_path):
    """Three people of one photograph, their windows partly off it."""
    rng = np.random.default_rng(1)
    photo = write_photograph(tmp_path, texture(300, 240))
    points = rng.uniform(20, 220, (3, 16, 2))
    return people_of(photo, rng.uniform(60, 180, (3, 2)), [0.6, 0.9, 1.3], points, [9, 8, 7])


def test_published_samples(golden, tmp_path):
    expected = golden("l_sample")
    box, draws = expected["in_scale_provided"], torch.tensor(expected["in_draws"], dtype=torch.float32)
    people = people_of(
        write_photograph(tmp_path, expected["in_image_u8"]),
        expected["in_objpos"] + np.stack((0 * box, 15 * box), axis=1),
        1.25 * box,
        expected["in_joints"][..., :2],
        0.6 * expected["in_normalizer"],
        res=256,
        margin=MARGINS["random"],
    )
    rotation = (30 * draws[:, 1]).clamp(-60, 60) * (draws[:, 2] > 0.6)
    log2_scale = (0.25 * draws[:, 0]).clamp(-0.5, 0.5)
    drawn = {
        "log2_scale": log2_scale,
        "rotation": rotation,
        "flip": draws[:, 3] <= 0.5,
        "color": draws[:, 4:],
    }
    sample = augment(people, replace(Augmentation.identity(len(draws)), **drawn))

    def assert_close(name, tolerance=1e-3):
        found = getattr(sample, name)
        key = {"rotation": "rot", "points": "pts"}.get(name, name)
        wanted = torch.tensor(expected[f"out_{key}"]).view_as(found)
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0, check_dtype=False)

    for name in ("center", "scale", "rotation", "points", "normalizer"):
        assert_close(name)
    cells = transform_points(sample.points, sample.center, sample.scale, sample.rotation, 64)
    moved = ((cells > 0) & (cells < 3)).any(-1) & annotated(
        sample.points
    )  # see conventions: one cell off there
    assert moved.sum() <= 2
    wanted = torch.tensor(expected["out_heatmap"])
    torch.testing.assert_close(sample.heatmap[~moved], wanted[~moved], atol=1e-6, rtol=0)
    # The release stretches contrast, so only the geometry of the image is comparable.
    for crop, stretched in zip(sample.image, expected["out_image_u8"], strict=True):
        assert np.corrcoef(crop.flatten(), stretched.ravel())[0, 1] > 0.99


def test_published_crops(golden, tmp_path):
    given, expected = golden("k_crop_image"), torch.tensor(golden("k_crop_plain")["out_crop"])
    photo = write_photograph(tmp_path, given["in_image_u8"])
    n, margin = len(expected), 2**0.5
    people = people_of(photo, given["in_center"], given["in_scale"], res=256, margin=margin)
    rotation = torch.tensor(given["in_rot"], dtype=torch.float32)
    sample = augment(people, replace(Augmentation.identity(n), rotation=rotation))
    difference = (255 * sample.image - expected.permute(0, 3, 1, 2)).abs().mean(dim=(1, 2, 3))
    assert difference.max() < 2.5


def test_marks_are_where_points_say(tmp_path):
    """Gaussian marks at sub-pixel places: their centroids in any crop are their transformed points."""
    rng, n, crops, width, height = np.random.default_rng(2), 6, 8, 320, 260
    center, scale = rng.uniform((130, 110), (190, 150), (n, 2)), rng.uniform(0.8, 1.1, n)
    marks = center + rng.uniform(-25, 25, (n, 2))
    y, x = np.mgrid[:height, :width] + 0.5
    paths = []
    for k, (mark_x, mark_y) in enumerate(marks):
        bump = 255 * np.exp(-((x - mark_x) ** 2 + (y - mark_y) ** 2) / (2 * 6.0**2))
        paths.append(write_photograph(tmp_path, np.repeat(bump.round()[..., None], 3, 2), f"{k}.png"))
    people = people_of(paths, center, scale, np.repeat(marks[:, None], 16, 1))
    sample = augment(people, geometric(crops * n, seed=3), RES, RES // 4)

    weight = sample.image.mean(dim=1).double()
    middles = torch.arange(RES) + 0.5
    total = weight.sum(dim=(1, 2))
    seen = (
        torch.stack(((weight.sum(1) * middles).sum(1), (weight.sum(2) * middles).sum(1)), 1) / total[:, None]
    )
    wanted = transform_points(sample.points, sample.center, sample.scale, sample.rotation, RES)[:, 0]
    assert (seen - wanted).abs().max() < 0.1
    assert (wanted - RES / 2).abs().amax() > 10  # not all in the middle


def test_mirroring_is_that_of_the_photograph(few, tmp_path):
    pixels = texture(300, 240)
    photo = write_photograph(tmp_path, pixels[:, ::-1], "mirrored.png")
    center = few.center * torch.tensor([-1, 1]) + torch.tensor([300, 0])
    points = mirror_points(few.points, few.width)
    mirrored = people_of(photo, center.numpy(), few.scale.numpy(), points.numpy(), few.normalizer.numpy())
    turned = geometric(3, seed=4, flip=True)
    one = augment(few, turned, RES, RES // 4)
    other = augment(mirrored, replace(turned, flip=~turned.flip), RES, RES // 4)
    for name in ("center", "scale", "rotation", "points", "normalizer", "heatmap"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), msg=name)
    assert one.heatmap.amax(dim=(2, 3)).sum() > 16
    assert (one.image - other.image).abs().max() < 2 / 255


def test_flip_color_and_rotation_are_what_they_are_called(few):
    def crop(**changes):
        return augment(few, replace(Augmentation.identity(3), **changes), RES, RES // 4).image

    plain = crop()
    torch.testing.assert_close(crop(flip=torch.ones(3, dtype=torch.bool)), plain.flip(-1), atol=1e-5, rtol=0)
    quarter = torch.rot90(plain, 1, dims=(2, 3))  # counter-clockwise
    torch.testing.assert_close(crop(rotation=torch.full((3,), 90.0)), quarter, atol=1e-4, rtol=0)
    gains = torch.tensor([[0.6, 1.0, 1.4]]).repeat(3, 1)
    torch.testing.assert_close(crop(color=gains), (plain * gains[:, :, None, None]).clamp(max=1))


def test_a_crop_does_not_depend_on_the_others(few):
    """Bit for bit: several crops a person, a batch, and a person alone."""
    parts = [geometric(3, seed) for seed in (5, 6, 7)]
    together = augment(few, Augmentation.cat(parts), RES, RES // 4)
    single = [augment(few, part, RES, RES // 4) for part in parts]
    for name, value in vars(together).items():
        assert torch.equal(value, torch.cat([getattr(sample, name) for sample in single])), name
    for person in range(3):
        people, one = (
            replace(all_of_them, **{name: value[[person]] for name, value in tensors(all_of_them)})
            for all_of_them in (few, parts[0])
        )
        alone = augment(people, one, RES, RES // 4)
        for name, value in vars(single[0]).items():
            assert torch.equal(getattr(alone, name), value[[person]]), (person, name)


def tensors(batch):
    """The tensors of people or of an augmentation, by name."""
    return [(name, value) for name, value in vars(batch).items() if isinstance(value, torch.Tensor)]


def test_bins_are_the_papers():
    scale, rotation = KINDS["scale"], KINDS["rotation"]
    assert (scale.field, scale.std, rotation.field, rotation.std) == ("log2_scale", 0.05, "rotation", 5)
    assert scale.means == pytest.approx([0.2 * k for k in range(-3, 4)])
    assert rotation.means == pytest.approx([20 * k for k in range(-3, 4)])
    assert rotation.extremes == [mean + side for mean in rotation.means for side in (-5, 0, 5)]


def test_random_draws_are_the_papers():
    scale, rotation = KINDS["scale"], KINDS["rotation"]
    assert (scale.random_std, scale.random_limit, scale.random_probability) == (0.25, 0.5, 1)
    assert (rotation.random_std, rotation.random_limit, rotation.random_probability) == (30, 60, 0.4)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_bins_come_bin_by_bin(kind):
    augmentation, count = Augmentation.bins(kind.name, 3), 3 * len(kind.means)
    assert len(augmentation) == count
    expected = torch.tensor([[mean] * 3 for mean in kind.means]).flatten()
    assert torch.equal(getattr(augmentation, kind.field), expected)
    for name, value in vars(Augmentation.identity(count)).items():
        assert name == kind.field or torch.equal(getattr(augmentation, name), value)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_random_draws_of_a_kind(kind):
    values = getattr(Augmentation.random(40_000, seeded()), kind.field)
    drawn = values[values != 0]
    assert abs(len(drawn) / len(values) - kind.random_probability) < 0.01
    normal = torch.distributions.Normal(0, 1).icdf((torch.arange(10_000) + 0.5) / 10_000)
    clamped = (kind.random_std * normal).clamp(-kind.random_limit, kind.random_limit)
    assert values.abs().max() <= kind.random_limit
    assert abs(drawn.mean()) < 0.03 * kind.random_std
    assert drawn.std() == pytest.approx(clamped.std().item(), rel=0.02)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_acts_alone(kind, few):
    """The agent's draws are tried one kind at a time: each bin that is not 0 changes the crop."""
    plain = augment(few, Augmentation.identity(3), RES, RES // 4)
    bins = augment(few, Augmentation.bins(kind.name, 3), RES, RES // 4)
    for mean, image in zip(kind.means, bins.image.split(3), strict=True):
        assert ((image - plain.image).abs().amax(dim=(1, 2, 3)) > 0.1).all() == (mean != 0)


def test_random_draws_are_independent():
    n = 40_000
    drawn = Augmentation.random(n, seeded())
    assert abs(drawn.flip.float().mean() - 0.5) < 0.01
    assert drawn.color.shape == (n, 3) and drawn.color.min() >= 0.6 and drawn.color.max() <= 1.4
    torch.testing.assert_close(drawn.color.mean(0), torch.ones(3), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.color.std(0), torch.full((3,), 0.8 / 12**0.5), atol=0.01, rtol=0)
    kinds = (getattr(drawn, kind.field) for kind in KINDS.values())
    columns = torch.stack((*kinds, drawn.rotation != 0, drawn.flip, *drawn.color.T))
    assert (torch.corrcoef(columns) - torch.eye(len(columns))).abs().max() < 0.03


def test_draws_follow_the_generator():
    one, same, other = (Augmentation.random(5, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.color, same.color) and torch.equal(one.log2_scale, same.log2_scale)
    assert not torch.equal(one.log2_scale, other.log2_scale)


def test_drawn_values_stay_near_their_bins():
    bins = {
        kind.name: torch.randint(len(kind.means), (20_000,), generator=seeded(1)) for kind in KINDS.values()
    }
    drawn = Augmentation.drawn(bins, seeded())
    offsets = []
    for kind in KINDS.values():
        offset = (getattr(drawn, kind.field) - torch.tensor(kind.means)[bins[kind.name]]) / kind.std
        assert offset.abs().max() <= 1 + 1e-4
        assert abs(offset.mean()) < 0.02
        at_limit = (offset.abs() > 1 - 1e-4).float().mean()
        assert at_limit == pytest.approx(0.3173, abs=0.02)  # of a normal value: beyond one deviation
        offsets.append(offset)
    assert (torch.corrcoef(torch.stack(offsets)) - torch.eye(len(offsets))).abs().max() < 0.03
    assert not drawn.flip.any() and (drawn.color == 1).all()


@pytest.mark.parametrize("margin", ["drawn", "random"])
def test_the_margin_holds_every_crop(margin, tmp_path):
    """On a white photograph without edges nothing of a crop is black."""
    photo = write_photograph(tmp_path, np.full((700, 700, 3), 255))
    people = people_of(photo, [[350, 350]], [1.0], margin=MARGINS[margin])
    scale, rotation = {"drawn": (0.65, 65.0), "random": (0.5, 60.0)}[margin]
    angles = torch.tensor([0.0, 20, 45, -45, rotation, -rotation])
    extreme = replace(Augmentation.identity(6), log2_scale=torch.full((6,), scale), rotation=angles)
    assert augment(people, extreme, RES, RES // 4).image.min() > 0.99


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"log2_scale": 0.5}, "scale 0.5"),
        ({"rotation": 10.0}, "rotation 10"),
        ({"log2_scale": float("nan")}, "nan"),
    ],
)
def test_a_crop_beyond_its_patch_is_refused(changes, named, tmp_path):
    photo = write_photograph(tmp_path, np.full((90, 90, 3), 255))
    people = people_of(photo, [[45, 45]] * 3, [0.2] * 3, margin=1.0)
    augment(people, Augmentation.identity(3), RES, RES // 4)
    beyond = Augmentation.identity(3)
    for field, value in changes.items():
        getattr(beyond, field)[1] = value
    with pytest.raises(ValueError, match=f"crop 1 .*{named}.* patch holds 1:"):
        augment(people, beyond, RES, RES // 4)


def test_what_the_crops_do_not_reach_does_not_count(few):
    """Patches whose border is noise: a crop from well inside is the same."""
    noisy = torch.randint(256, few.patch.shape, dtype=torch.uint8, generator=seeded())
    inner = slice(few.patch.shape[-1] // 8, -(few.patch.shape[-1] // 8))
    noisy[:, :, inner, inner] = few.patch[:, :, inner, inner]
    for augmentation in (Augmentation.identity(3), Augmentation.fixed(3, -0.5, 30)):
        crops, same = (
            augment(people, augmentation, RES, RES // 4).image for people in (few, replace(few, patch=noisy))
        )
        assert torch.equal(crops, same)


def test_a_window_off_the_photograph_is_black(tmp_path):
    photo = write_photograph(tmp_path, np.full((100, 120, 3), 255))
    people = people_of(photo, [[-400, 50], [60, 3000]], [0.5, 0.5], np.full((2, 16, 2), 50))
    sample = augment(people, geometric(2, seed=8), RES, RES // 4)
    assert not sample.image.any() and not sample.heatmap.any()


def test_detail_too_fine_for_a_crop_fades(tmp_path):
    """Stripes of 1.5 px in the plain crop: seen when zoomed in, no false pattern when zoomed out."""
    wave = 127.5 + 127.5 * np.sin(2 * np.pi * np.arange(600) / 3)
    photo = write_photograph(tmp_path, np.broadcast_to(wave[None, :, None], (600, 600, 3)))
    people = people_of(photo, [[300, 300]], [2 * RES / 200])
    near, far = (
        augment(people, Augmentation.fixed(1, step, 20), RES, RES // 4).image for step in (-0.6, 0.6)
    )
    assert near.std() > 0.06 and far.std() < 0.03


def direct_warp(path, center, scale, rotation, res):
    """The crop [3, res, res], sampled from the full photograph with many samples a crop pixel."""
    photo = torch.tensor(np.asarray(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255
    size = torch.tensor([photo.shape[3], photo.shape[2]])
    samples = max(2, int(np.ceil(3 * 200 * scale / res)))
    at = (torch.arange(res * samples) + 0.5) / samples
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(1, -1, 2)
    box = (torch.tensor(center)[None], torch.tensor([scale]), torch.tensor([rotation]))
    places = transform_points(grid, *box, res, inverse=True) / size * 2 - 1
    places = places.view(1, len(at), len(at), 2).float()
    return avg_pool2d(grid_sample(photo, places, padding_mode="zeros", align_corners=False), samples)[0]


def test_real_photographs_lose_little_detail(real_data):
    lsp, res = read_lsp(real_data / "lsp" / "joints.mat", "lsp/images"), 128
    rng, psnr = np.random.default_rng(0), []
    for person in rng.choice(len(lsp), 6, replace=False):
        path, center, scale = real_data / lsp.image[person], lsp.center[person], float(lsp.scale[person])
        people = people_of(path, [center], [scale], res=res)
        for log2_scale, rotation in rng.uniform((-0.6, -60), (0.6, 60), (4, 2)):
            crop = augment(people, Augmentation.fixed(1, log2_scale, rotation), res, res // 4).image[0]
            wanted = direct_warp(path, center, scale * 2**log2_scale, rotation, res)
            psnr.append(-10 * (crop - wanted).square().mean().log10().item())
    assert np.median(psnr) > 38


def test_the_patch_of_people_who_are_not_augmented_is_their_box():
    assert MARGINS["identity"] == reach(Augmentation.identity(1)).item() == 1
