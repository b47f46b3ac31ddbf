"""Photographs of every mode show what was put into them."""

import numpy as np
import pytest
from PIL import Image

from data.loading.photographs import open_lazily, to_rgb

GREY = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
RAMP = np.repeat(GREY[..., None], 3, axis=2)
COLORS = np.stack((GREY, GREY[:, ::-1], np.full_like(GREY, 80)), axis=2)
BLACK_AND_WHITE = RAMP // 128 * 255
HIDDEN = np.where(RAMP < 100, 0, RAMP)  # black where transparent


def with_palette() -> Image.Image:
    photo = Image.fromarray(GREY[:, ::-1].copy(), "L").copy()
    photo.putpalette(np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes())
    return photo


def layers(pixels: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """LA of grey [H, W], RGBA of colors [H, W, 3]."""
    return Image.fromarray(np.dstack((pixels, opacity)))


OPAQUE, HALF = np.full_like(GREY, 255), np.full_like(GREY, 128)
PART = np.where(GREY < 100, 0, 255).astype(np.uint8)

PHOTOGRAPHS = {  # how it is made, where it is kept, what is seen
    "1": (lambda: Image.fromarray(BLACK_AND_WHITE[..., 0] > 0), "png", BLACK_AND_WHITE),
    "L": (lambda: Image.fromarray(GREY), "png", RAMP),
    "LA": (lambda: layers(GREY, OPAQUE), "png", RAMP),
    "LA, part transparent": (lambda: layers(GREY, PART), "png", HIDDEN),
    "P": (with_palette, "png", RAMP),
    "RGB": (lambda: Image.fromarray(COLORS), "png", COLORS),
    "RGBA": (lambda: layers(COLORS, OPAQUE), "png", COLORS),
    "RGBA, part transparent": (lambda: layers(RAMP, PART), "png", HIDDEN),
    "RGBA, half transparent": (lambda: layers(RAMP, HALF), "png", np.rint(RAMP * (128 / 255))),
    "CMYK": (lambda: Image.fromarray(COLORS).convert("CMYK"), "tif", COLORS),
    "I;16": (lambda: Image.fromarray(GREY.astype(np.uint16) * 257), "png", RAMP),
    "I;16, TIFF": (lambda: Image.fromarray(GREY.astype(np.uint16) * 257), "tif", RAMP),
    "I;16B": (lambda: Image.fromarray((GREY.astype(np.uint16) * 257).astype(">u2")), "tif", RAMP),
    "I, up to 255": (lambda: Image.fromarray(GREY.astype(np.int32)), "tif", RAMP),
    "I, up to 65535": (lambda: Image.fromarray(GREY.astype(np.int32) * 257), "tif", RAMP),
    "F, up to 1": (lambda: Image.fromarray(GREY.astype(np.float32) / 255), "tif", RAMP),
    "F, up to 255": (lambda: Image.fromarray(GREY.astype(np.float32)), "tif", RAMP),
    "F, up to 65535": (lambda: Image.fromarray(GREY.astype(np.float32) * 257), "tif", RAMP),
}


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_a_ramp_is_seen_whatever_its_mode(tmp_path, kind):
    make, suffix, seen = PHOTOGRAPHS[kind]
    path = tmp_path / f"ramp.{suffix}"
    make().save(path)
    with open_lazily(path) as photo:
        assert photo.mode == kind.split(",")[0]
        rgb = to_rgb(photo)
    assert rgb.mode == "RGB"
    assert np.abs(np.asarray(rgb).astype(float) - seen).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_color_is_black(tmp_path, suffix):
    """One grey of a palette, or of all greys, may stand for nothing."""
    photo = Image.fromarray(GREY)
    photo.save(tmp_path / f"ramp.{suffix}", transparency=200)
    with open_lazily(tmp_path / f"ramp.{suffix}") as photo:
        assert np.array_equal(to_rgb(photo), np.where(RAMP == 200, 0, RAMP))


@pytest.mark.parametrize(
    "values",
    [np.int32([[0, -1]]), np.int32([[0, 65536]]), np.float32([[0, 7e4]]), np.float32([[0.5, np.nan]])],
)
def test_grey_without_a_known_white_is_refused(values):
    with pytest.raises(ValueError, match="grey values from"):
        to_rgb(Image.fromarray(values))


@pytest.mark.parametrize(("value", "seen"), [(0, 0), (7, 7), (255, 255), (65535, 255)])
def test_an_even_grey_is_seen(value, seen):
    for kind in (np.int32, np.float32):
        rgb = np.asarray(to_rgb(Image.fromarray(np.full((2, 3), value, kind))))
        assert rgb.shape == (2, 3, 3) and (rgb == seen).all()


def test_a_jpeg_is_not_decoded_yet(tmp_path):
    Image.new("RGB", (800, 400)).save(tmp_path / "a.jpg")
    with open_lazily(tmp_path / "a.jpg") as photo:
        photo.draft("RGB", (100, 50))
        assert to_rgb(photo).size == (100, 50)


@pytest.mark.filterwarnings("error")
def test_a_large_photograph_is_opened_without_a_warning(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("RGB", (10, 10)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    with open_lazily(path) as photo:
        assert photo.size == (10, 10)
