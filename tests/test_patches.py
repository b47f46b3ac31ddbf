"""Patches: every kind of photograph gives the same pixels, and batches come in the order that was drawn."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image
from support.patch import patch_of

from data import DataError
from data.loading.loader import PatchLoader
from data.loading.windows import DENSEST, DENSITY, RIM, Windows
from data.people import People


def texture(width, height, cell=16, seed=0):
    """A photograph of smooth random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // cell, width // cell, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def people_of(names, **changes):
    n = len(names)
    table = {
        "image": np.array(names),
        "center": np.full((n, 2), 45, dtype=np.float32),
        "scale": np.full(n, 0.4, dtype=np.float32),
        "points": np.full((n, 16, 2), 40, dtype=np.float32),
        "normalizer": np.arange(n, dtype=np.float32),
        "valid": np.zeros(n, dtype=bool),
    }
    return People(**table | changes)


@pytest.fixture
def seven(tmp_path):
    """A folder with seven photographs, the grey level of each ten times its row, and their people."""
    for k in range(7):
        Image.new("RGB", (100, 90), (10 * k, 10 * k, 10 * k)).save(tmp_path / f"{k}.png")
    return tmp_path, people_of([f"{k}.png" for k in range(7)])


def loader(folder, people, batch_size=3, workers=0, seed=None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return PatchLoader(people, folder, 64, 1.0, batch_size, workers, torch.device("cpu"), generator)


def rows(batches):
    return [batch.index.tolist() for batch in batches]


def assert_alike(patch, other, mean=1.5, worst=16):
    difference = np.abs(patch.astype(int) - other.astype(int))
    assert difference.mean() < mean and difference.max() <= worst


@pytest.mark.parametrize("shrink", [1.2, 2.2, 4.4, 9.3, 20.0])
def test_a_jpeg_that_is_decoded_small_gives_the_same_patch(tmp_path, shrink):
    """A JPEG decodes straight to a fraction; the same pixels as a PNG are decoded in full."""
    texture(1501, 1203, cell=80).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as photo:
        photo.save(tmp_path / "a.png")
    box = ((700.3, 655.8), shrink * 48 / 200, 1.0, 48)
    small, width, _ = patch_of(tmp_path / "a.jpg", *box)
    full, _, _ = patch_of(tmp_path / "a.png", *box)
    assert width == 1501
    assert_alike(small, full)
    assert full.std() > 20


def test_a_jpeg_is_never_decoded_coarser_than_the_patch(tmp_path):
    """Stripes that a patch resolves are still there when the decoder could have shrunk them away."""
    stripes = np.zeros((800, 800, 3), dtype=np.uint8)
    stripes[:, np.arange(800) % 8 < 4] = 255
    Image.fromarray(stripes).save(tmp_path / "a.jpg", quality=95)
    patch, _, _ = patch_of(tmp_path / "a.jpg", (400, 400), 3.0, 1.0, 240)  # 4 px a stripe pair
    assert patch.astype(float).std() > 100


def test_a_patch_is_the_middle_of_a_larger_one(tmp_path):
    """Of its own pixels, and resampled: the filter sees the photograph beyond what crops see."""
    texture(300, 300, cell=2).save(tmp_path / "a.png")
    for scale in (0.2, 0.36):  # 1 and 1.8 px of the photograph a px of the crop
        inner, _, box = patch_of(tmp_path / "a.png", (150.4, 148.7), scale, 1.0, 40)
        outer, _, outer_box = patch_of(tmp_path / "a.png", (150.4, 148.7), scale, 2.0, 40)
        x, y = np.rint(outer_box[:2] - box[:2]).astype(int)
        if scale == 0.2:
            np.testing.assert_array_equal(inner, outer[y:, x:][: len(inner), : len(inner)])
        assert outer_box[2] == pytest.approx(box[2], rel=0.02)


def test_grey_and_cmyk_photographs_load_as_rgb(tmp_path):
    colors = Image.new("RGB", (100, 100), (200, 120, 40))
    colors.convert("L").save(tmp_path / "grey.jpg", quality=100)
    colors.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    batch = next(iter(loader(tmp_path, people_of(["grey.jpg", "cmyk.jpg"]))))
    grey, cmyk = batch.patch[:, :, 40, 40].int()
    assert grey.tolist() == [135, 135, 135]
    assert (cmyk - torch.tensor([200, 120, 40])).abs().max() <= 4


def test_a_patch_is_black_beyond_the_photograph(tmp_path):
    Image.new("RGB", (100, 80), "white").save(tmp_path / "a.png")
    patch, _, box = patch_of(tmp_path / "a.png", (100, 40), 0.32, 1.0, 64)  # a px a px
    middle = int(box[0])
    assert (patch[:, :middle] == 255).all() and (patch[:, middle:] == 0).all()
    for center in ((300.0, 40.0), (50.0, -900.0), (-1e5, 1e5)):
        patch, _, _ = patch_of(tmp_path / "a.png", center, 0.32, 1.0, 64)
        assert not patch.any()


@pytest.mark.parametrize("res", [20, 32, 100, 300])
def test_black_round_the_photograph_changes_nothing(tmp_path, res):
    """Shrunk (by whole pixels too, of which the last are cut) and enlarged, with windows off every side."""
    rng = np.random.default_rng(0)
    bare = rng.integers(70, 186, (91, 123, 3), dtype=np.uint8)  # nothing that resampling would clip
    Image.fromarray(bare).save(tmp_path / "bare.png")
    Image.fromarray(np.pad(bare, ((400, 400), (400, 400), (0, 0)))).save(tmp_path / "framed.png")
    for center in [*rng.uniform((-30, -30), (150, 120), (8, 2)), (200.4, 45), (60, -80.2), (5000, 45)]:
        patches = [
            patch_of(tmp_path / name, np.add(center, border), 0.5, 1.6, res)[0].astype(int)
            for name, border in (("bare.png", 0), ("framed.png", 400))
        ]
        assert np.abs(patches[0] - patches[1]).max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["cut off", "text", "gone"])
def test_a_photograph_that_does_not_decode_is_named(seven, damage, workers):
    folder, people = seven
    bad = folder / "bad.jpg"
    texture(100, 90).save(bad)
    if damage == "gone":
        bad.unlink()
    else:
        bad.write_bytes(bad.read_bytes()[:900] if damage == "cut off" else b"this is\nno photograph\n")
    people = people_of([*people.image[:4], bad.name, *people.image[5:]])
    with pytest.raises(DataError) as error:
        list(loader(folder, people, workers=workers))
    line = str(error.value)
    assert str(bad) in line and "person 4 " in line and "\n" not in line
    del error
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_in_order_everyone_comes_once(seven, workers):
    folder, people = seven
    ordered = loader(folder, people, workers=workers)
    for _ in range(2):
        batches = list(ordered)
        assert rows(batches) == [[0, 1, 2], [3, 4, 5], [6]] and len(ordered) == 3
    last = batches[2]
    side = 81 + 2 * RIM + 1  # the box of 80 px, rounded up, in the photograph's own pixels, and a rim
    assert last.patch.shape == (1, 3, side, side) and last.patch.dtype == torch.uint8
    assert (last.patch == 60).all() and last.normalizer.tolist() == [6] and last.width.tolist() == [100]
    assert last.points.tolist() == people.points[6:].tolist()
    assert last.margin == 1 and last.box[0].tolist() == pytest.approx([44, 44, 80])


@pytest.mark.parametrize("margin", [1.0, 2.2])
@pytest.mark.parametrize("in_res", [64, 256])
def test_a_patch_is_never_larger_than_the_photograph_there(margin, in_res):
    """And never coarser than `DENSITY` where the photograph is not; whole boxes with their rim are in it."""
    side = np.geomspace(1, 3e4, 400)
    windows = Windows.of(np.full((400, 2), 3.7), side / 200, margin, in_res)
    density = windows.box[:, 2] / in_res
    np.testing.assert_array_less(windows.box[:, 2], side * (1 + 1e-6))
    np.testing.assert_array_less(np.minimum(DENSITY, side / in_res) * 0.99, density)
    assert density.max() <= DENSEST
    reach = margin * windows.box[:, 2] / 2
    for edge in (windows.box[:, :2].T - reach, windows.side - windows.box[:, :2].T - reach):
        assert edge.min() >= RIM


def test_the_order_depends_on_the_generator_alone(seven):
    here, workers, other = (loader(*seven, 2, n, seed) for n, seed in ((0, 1), (2, 1), (0, 2)))
    epochs = [rows(here), rows(here)]
    assert epochs == [rows(workers), rows(workers)]
    assert epochs[0] != epochs[1] and epochs != [rows(other), rows(other)]
    torch.manual_seed(5)  # the global generator has no say
    assert rows(loader(*seven, 2, seed=1)) == epochs[0]


def test_a_single_last_person_is_left_out_of_training_alone(seven):
    folder, people = seven
    assert [len(batch) for batch in rows(loader(folder, people, 3, seed=1))] == [3, 3]
    assert [len(batch) for batch in rows(loader(folder, people, 3))] == [3, 3, 1]
    assert [len(batch) for batch in rows(loader(folder, people, 4, seed=1))] == [4, 3]
    assert [len(batch) for batch in rows(loader(folder, people, 1, seed=1))] == 7 * [1]
