"""Photographs that their camera stored turned: which are turned upright, and how."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.annotation_files import entry, write_json
from support.patch import patch_of

from data import DataError
from data.datasets import load_dataset
from data.loading.loader import PatchLoader
from data.loading.orientation import exif_orientation
from data.loading.photographs import open_lazily
from utils.display.photograph import open_photograph
from utils.patch_store import Caches

CPU = torch.device("cpu")
TURNS = Image.Transpose
STORED = {  # orientation -> how the upright photograph is stored; as EXIF defines it
    1: None,
    2: TURNS.FLIP_LEFT_RIGHT,
    3: TURNS.ROTATE_180,
    4: TURNS.FLIP_TOP_BOTTOM,
    5: TURNS.TRANSPOSE,
    6: TURNS.ROTATE_90,
    7: TURNS.TRANSVERSE,
    8: TURNS.ROTATE_270,
}
EVERY, SIDEWAYS = list(STORED), [5, 6, 7, 8]
BOX = (np.array([250.0, 70.0]), 1.3)  # reaches beyond the photograph on the right and above


def upright(width=304, height=208, seed=0):
    """Smooth random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def store(photo, path, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = photo if STORED[orientation] is None else photo.transpose(STORED[orientation])
    path.parent.mkdir(parents=True, exist_ok=True)
    turned.save(path, exif=exif, **options)
    return turned


def assert_alike(patch, other, mean=0.5, worst=4):
    difference = np.abs(patch.astype(int) - other.astype(int))
    assert difference.mean() < mean and difference.max() <= worst


@pytest.mark.parametrize("orientation", EVERY)
def test_a_photograph_is_turned_when_only_that_fits_the_annotated_size(tmp_path, orientation):
    photo = upright()
    photo.save(tmp_path / "upright.png")
    stored = store(photo, tmp_path / "stored.png", orientation)
    stored.save(tmp_path / "plain.png")
    seen, width, _ = patch_of(tmp_path / "upright.png", *BOX, 1.0, 64)
    as_stored = patch_of(tmp_path / "plain.png", *BOX, 1.0, 64)

    patch, found, _ = patch_of(tmp_path / "stored.png", *BOX, 1.0, 64, upright=True)
    assert_alike(patch, seen)
    assert found == width == 304
    patch, found, _ = patch_of(tmp_path / "stored.png", *BOX, 1.0, 64, size=photo.size)
    assert_alike(patch, seen if orientation in SIDEWAYS else as_stored[0])
    assert found == 304
    for size in ((0, 0), stored.size):
        patch, found, _ = patch_of(tmp_path / "stored.png", *BOX, 1.0, 64, size=size)
        np.testing.assert_array_equal(patch, as_stored[0])
        assert found == as_stored[1] == stored.width


@pytest.mark.parametrize("orientation", EVERY)
@pytest.mark.parametrize("shrink", [2.2, 9.3])
def test_a_jpeg_that_is_decoded_small_is_turned(tmp_path, orientation, shrink):
    """Its sides are no multiples of 8: pixels at either edge are decoded in part."""
    photo = upright(1501, 1208)
    store(photo, tmp_path / "stored.jpg", orientation, quality=95)
    photo.save(tmp_path / "upright.png")
    box = (np.array([1400.0, 300.0]), shrink * 64 / 200, 1.0, 64)
    patch, width, _ = patch_of(tmp_path / "stored.jpg", *box, upright=True)
    assert_alike(patch, patch_of(tmp_path / "upright.png", *box)[0], mean=1, worst=32)
    assert width == 1501


def test_a_photograph_of_neither_size_is_refused(tmp_path):
    store(upright(), tmp_path / "a.png", 6)
    with pytest.raises(
        DataError, match=r"a\.png has 208 x 304 px, but the annotation file gives 300 x 208 px"
    ):
        patch_of(tmp_path / "a.png", *BOX, 1.0, 64, size=(300, 208))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_orientation_that_does_not_exist_says_nothing(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright().save(tmp_path / f"a.{suffix}", exif=exif)
    with open_lazily(tmp_path / f"a.{suffix}") as photo:
        assert exif_orientation(photo) == 1


def test_the_orientation_is_known_before_a_photograph_is_decoded(tmp_path, monkeypatch):
    store(upright(), tmp_path / "turned.png", 6)
    upright().save(tmp_path / "plain.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    for name, expected in (("turned", 6), ("plain", 1)):
        with open_lazily(tmp_path / f"{name}.png") as photo:
            assert exif_orientation(photo) == expected


def data_set(folder, orientations, size=(304, 208)):
    """A photograph of each orientation, annotated upright."""
    rows = []
    for number, orientation in enumerate(orientations):
        photo = upright(seed=number)
        store(photo, folder / "mpii" / "images" / f"{number}.png", orientation)
        photo.save(folder / "mpii" / "images" / f"upright-{number}.png")
        row = entry(img_paths=f"{number}.png", objpos=[150.0, 80.0], scale_provided=0.6)
        rows.append(row | dict(zip(("img_width", "img_height"), size, strict=True)) if size else row)
    write_json(folder / "mpii", *rows).rename(folder / "mpii" / "mpii_annotations.json")
    return load_dataset("mpii", folder)


def batches(data, cache=None):
    return list(PatchLoader(data.train, data.root, 64, 1.2, 3, 0, CPU, cache=cache))


def test_turned_photographs_are_counted_once(tmp_path, caplog):
    caplog.set_level("INFO")
    data_set(tmp_path, [6, 1, 8, 1])
    (line,) = [line for line in caplog.messages if "EXIF" in line]
    assert line.startswith("2 of 4 photographs are turned upright") and line.endswith("mpii/images/0.png")


@pytest.mark.parametrize(("orientations", "size"), [([1, 3, 2], (304, 208)), ([1, 6, 8], None)])
def test_orientations_that_no_size_decides_are_warned_of(tmp_path, caplog, orientations, size):
    data_set(tmp_path, orientations, size)
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("2 of 3 photographs have an EXIF orientation, and no size")
    assert line.endswith("they are not turned; first: mpii/images/1.png")


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_a_cache_has_turned_photographs_as_decoded(tmp_path, place):
    data = data_set(tmp_path, [6, 1, 8, 5])
    decoder = PatchLoader(data.train, data.root, 64, 1.2, 3, 0, CPU)
    cache = Caches(tmp_path / "cache" if place == "folder" else CPU).get("a", decoder)
    for decoded, cached in zip(batches(data), batches(data, cache), strict=True):
        assert torch.equal(decoded.patch, cached.patch) and torch.equal(decoded.width, cached.width)
        assert decoded.width.unique() == 304


def test_a_cache_of_other_annotated_sizes_is_another(tmp_path):
    """People have the same fingerprint whatever the file gives as the photographs' size."""
    turned, stored = (data_set(tmp_path, [6, 1, 8], size) for size in ((304, 208), None))
    assert turned.people.fingerprint == stored.people.fingerprint
    prints = {PatchLoader(d.train, d.root, 64, 1.2, 3, 0, CPU).patches.fingerprint for d in (turned, stored)}
    assert len(prints) == 2


@pytest.mark.parametrize("orientation", EVERY)
def test_a_single_photograph_is_shown_upright(tmp_path, caplog, orientation):
    caplog.set_level("INFO")
    photo = upright()
    store(photo, tmp_path / "a.png", orientation)
    np.testing.assert_array_equal(np.asarray(open_photograph(tmp_path / "a.png")), np.asarray(photo))
    said = f"--image {tmp_path / 'a.png'} is turned upright (EXIF orientation {orientation})"
    assert caplog.messages == ([] if orientation == 1 else [said])
