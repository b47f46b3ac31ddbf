"""The demo data set: rendered pictures of articulated figures, in MPII's file format.

All stages run on it without a download, and small networks learn it in minutes. Scores on it say nothing
about photographs of people.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.demo.figures import JOINTS, Canvas, figure_solids, sample_outfit, sample_pose, turn

SEED = 2018
ANNOTATIONS = "mpii-hr-lsp-normalizer.json"
HEAD_SHARE = 0.75 / 0.6  # head size is 0.75 of neck to top, and 0.6 of the normalizer
SIDE = 200  # px of a photograph
BOX_JITTER = 0.3  # log2: boxes fit only roughly, as in annotations by hand


def paint_person(rng: np.random.Generator) -> tuple[Image.Image, dict]:
    """An RGB picture of a person, and the fields of its row that depend on the picture."""
    points, unit = _place(rng, _view(rng, sample_pose(rng)))
    light = np.array([*rng.uniform((-0.7, -0.7), (0.7, -0.1)), -0.8])
    canvas = Canvas(SIDE, SIDE, light / np.linalg.norm(light))
    for solid in figure_solids(points, sample_outfit(rng), unit):
        canvas.draw(solid)
    photo, figure = _background(rng), canvas.image()
    photo.paste(figure, mask=figure.getchannel("A"))
    return photo, _annotation(rng, points[:JOINTS, :2])


def write_demo(
    folder: Path,
    train: int = 300,
    valid: int = 60,
    paint: Callable[[np.random.Generator], tuple[Image.Image, dict]] = paint_person,
    suffix: str = ".jpg",
) -> None:
    """Write `train` + `valid` pictures of one person each, and their annotations, to a new folder.

    It has `images/*.jpg` and `mpii-hr-lsp-normalizer.json`, a list of rows in the format of the method's
    authors, with joints (16, 3): x, y in px and 1. Picture `i` of a split depends only on the seed, the split
    and `i`; `paint` draws it, and says what its row has of it. The folder is created complete or not at all.

    Raises:
        FileExistsError: `folder` exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} already exists")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        (unfinished / "images").mkdir(parents=True)
        rows = []
        for split, count in enumerate((train, valid)):
            for index in range(count):
                photo, row = paint(np.random.default_rng([SEED, split, index]))
                name = f"{('train', 'valid')[split]}-{index:04d}{suffix}"
                photo.save(unfinished / "images" / name, quality=90)
                head = {"dataset": "MPII", "isValidation": bool(split), "img_paths": name}
                rows.append(head | row | {"annolist_index": len(rows) + 1, "people_index": 1})
        (unfinished / ANNOTATIONS).write_text(json.dumps(rows))
        unfinished.rename(folder)


def _view(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """The points (21, 3) from a random view: one in eight from behind, 40 % tilted by up to 60 degrees."""
    yaw = np.clip(rng.normal(0, 20), -60, 60) + 180 * (rng.random() < 0.12)
    tilt = rng.uniform(-60, 60) if rng.random() < 0.4 else rng.normal(0, 7)
    return points @ (turn(2, tilt) @ turn(0, rng.normal(0, 5)) @ turn(1, yaw)).T


def _place(rng: np.random.Generator, points: np.ndarray) -> tuple[np.ndarray, float]:
    """The points at a random place and size, in px of the picture, and the px of one body height."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    unit = rng.uniform(0.75, 0.95) * SIDE / (high - low).max()
    corner = rng.uniform(0.1, 0.9, 2) * (SIDE - (high - low) * unit)
    return points * unit + np.array([*(corner - low * unit), 0]), float(unit)


def _background(rng: np.random.Generator) -> Image.Image:
    """A random background: a mottled wall, the ground, and a few flat shapes in dull colors."""
    wall, ground = _dull(rng, 2)
    height = (np.arange(SIDE // 4) + 0.5)[:, None, None] / (SIDE // 4)
    share = np.where(height > rng.uniform(0.4, 0.8), 0.7 + 0.3 * height, 0.4 * height)
    place = wall + (ground - wall) * share + 5 * rng.normal(size=(SIDE // 4, SIDE // 4, 1))
    picture = Image.fromarray(place.clip(0, 255).astype(np.uint8))
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(picture)
    for color in _dull(rng, rng.integers(6)):
        middle, half = rng.uniform(0, SIDE, 2), rng.uniform(5, 30, 2)
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((*(middle - half), *(middle + half)), fill=tuple(color.astype(int).tolist()))
    return picture.filter(ImageFilter.BoxBlur(1))


def _dull(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random colors (count, 3), less saturated than clothes."""
    colors = rng.uniform(60, 220, (count, 3))
    return 0.5 * colors + 0.5 * colors.mean(1, keepdims=True)


def _annotation(rng: np.random.Generator, joints: np.ndarray) -> dict:
    """The fields of a row that describe a person with joints (16, 2) px."""
    low, high = joints.min(0), joints.max(0)
    scale = float((high - low).max()) / 200 * 2 ** rng.uniform(-BOX_JITTER, BOX_JITTER)
    centre_x, centre_y = (low + high) / 2
    return {
        "img_width": SIDE,
        "img_height": SIDE,
        # the reader moves the centre down by 15 * scale, as usual for MPII's annotations
        "objpos": [round(float(centre_x), 2), round(float(centre_y) - 15 * scale, 2)],
        "joint_self": [[round(float(x), 2), round(float(y), 2), 1] for x, y in joints],
        "scale_provided": round(scale, 4),
        "normalizer": round(HEAD_SHARE * float(np.linalg.norm(joints[8] - joints[9])), 3),
    }
