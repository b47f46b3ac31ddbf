"""What the network sees against a plain and slow reading of the whole photograph in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.plain import plain_crop, psnr

from data.augmentation import MARGINS, Augmentation
from data.crops import PersonBatch, augment
from data.loading.patches import Patches
from data.people import People

RES = 64
WIDTH, HEIGHT = 331, 247  # a multiple of nothing that a decoder shrinks by


def photograph(seed: int = 0) -> np.ndarray:
    """u8 [HEIGHT, WIDTH, 3]: smooth, and bright up to its border."""
    coarse = np.random.default_rng(seed).integers(60, 256, (HEIGHT // 24, WIDTH // 24, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def batch_of(
    path: Path, center: tuple, scale: float, way: str = "identity", in_res: int = RES
) -> PersonBatch:
    """One person as the loader hands it out."""
    person = People(
        image=np.array([path.name]),
        center=np.array([center], np.float32),
        scale=np.array([scale], np.float32),
        points=np.zeros((1, 16, 2), np.float32),
        normalizer=np.ones(1, np.float32),
        valid=np.ones(1, bool),
    )
    return Patches(person, path.parent, in_res, MARGINS[way])[[0]]


WAYS = {"identity": (0.0, 0.0), "random": (0.5, -40.0), "drawn": (-0.6, 25.0), "scale": (0.6, 0.0)}
"""A margin, and a change of scale and a rotation that use it."""

CASES = {  # center and scale of a box; dB that each crop of it has to reach, two or more below what it does
    "inside": ((160.3, 121.8), 0.6, 55),
    "over the left border": ((40.6, 120.2), 0.9, 38),
    "over the lower right corner": ((310.2, 230.7), 0.9, 30),
    "over all borders": ((165.1, 123.9), 2.6, 28),
    "beyond": ((-300.0, 900.0), 0.9, 100),
    "a few pixels": ((100.4, 90.7), 0.06, 55),
    "a few pixels at the corner": ((1.2, 246.4), 0.06, 34),
    "huge": ((170.0, 120.0), 4.1, 28),
}


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("case", CASES)
def test_crops_are_those_of_a_plain_reading(tmp_path, case, kind):
    center, scale, wanted = CASES[case]
    path = tmp_path / f"photo.{kind}"
    Image.fromarray(photograph()).save(path, quality=97)
    pixels = np.asarray(Image.open(path))
    for way, (log2_scale, rotation) in WAYS.items():
        people = batch_of(path, center, scale, way)
        crop = augment(people, Augmentation.fixed(1, log2_scale, rotation), RES, 16).image[0]
        plain = plain_crop(pixels, center, scale * 2**log2_scale, rotation, RES)
        assert psnr(crop, plain) > wanted, way
        assert plain.any() == (case != "beyond")


@pytest.mark.parametrize("in_res", [64, 100])
@pytest.mark.parametrize("way", WAYS)
def test_a_crop_inside_the_photograph_has_no_black_in_it(tmp_path, way, in_res):
    Image.new("RGB", (410, 410), "white").save(tmp_path / "white.png")
    people = batch_of(tmp_path / "white.png", (205, 205), 0.9, way, in_res)
    log2_scale, rotation = {"random": (0.5, 45.0), "drawn": (0.65, 45.0)}.get(way, WAYS[way])
    crop = augment(people, Augmentation.fixed(1, log2_scale, rotation), in_res, 16).image
    torch.testing.assert_close(crop, torch.ones_like(crop), atol=1e-6, rtol=0)


def test_a_crops_edge_is_as_if_its_patch_were_larger(tmp_path):
    """The same pixels of the photograph, with more on every side."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(256, size=(200, 200, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    people = batch_of(tmp_path / "noise.png", (100.3, 99.2), 0.5)
    larger = batch_of(tmp_path / "noise.png", (100.3, 99.2), 0.5, "drawn")
    assert larger.patch.shape[-1] > people.patch.shape[-1] + 20
    crop, same = (augment(batch, Augmentation.identity(1), RES, 16).image for batch in (people, larger))
    torch.testing.assert_close(crop, same, atol=1 / 255 + 1e-6, rtol=0)  # patches are rounded
