"""The embedded demo data set: seeded photographs of articulated figures in MPII's file format.

It lets the whole pipeline run on a machine that has no photographs; its scores say nothing about
people.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.figures import (
    JOINTS,
    SKINS,
    Canvas,
    Solid,
    figure_solids,
    sample_outfit,
    sample_pose,
    turn,
)

SEED = 2018
ANNOTATIONS = "mpii-hr-lsp-normalizer.json"
HEAD_SHARE = 0.75 / 0.6  # head size is 0.75 of neck to top, and 0.6 of the normalizer
MARGIN = 6


def write_demo(folder: Path, train: int = 240, valid: int = 60) -> None:
    """Write `train` + `valid` photographs of one person each, and their annotations.

    `folder` gets `images/*.jpg` and `mpii-hr-lsp-normalizer.json`: a list of rows as the method's
    authors publish them, joints (16, 3) as x, y in px and visible 1/0 (0 behind a plank or a box),
    [0, 0, 0] where a joint is off the photograph. Photograph `i` of a split depends on nothing but
    the seed, the split and `i`.

    Raises FileExistsError if `folder` exists. It appears complete or not at all.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        (unfinished / "images").mkdir(parents=True)
        rows = []
        for split, count in enumerate((train, valid)):
            for index in range(count):
                photo, row = paint_person(np.random.default_rng([SEED, split, index]))
                name = f"{('train', 'valid')[split]}-{index:04d}.jpg"
                photo.save(unfinished / "images" / name, quality=90)
                head = {"dataset": "MPII", "isValidation": bool(split), "img_paths": name}
                rows.append(head | row | {"annolist_index": len(rows) + 1, "people_index": 1})
        (unfinished / ANNOTATIONS).write_text(json.dumps(rows))
        unfinished.rename(folder)


def paint_person(rng: np.random.Generator) -> tuple[Image.Image, dict]:
    """One RGB photograph, and the fields of its row that follow from the picture."""
    width, height = int(rng.integers(320, 481)), int(rng.integers(280, 401))
    tilt = _tilt(rng)
    points, unit = _place(rng, _view(rng, sample_pose(rng), tilt), width, height)
    light = np.array([*rng.uniform((-0.7, -0.7), (0.7, -0.1)), -0.8])
    canvas = Canvas(width, height, light / np.linalg.norm(light))
    bystander = _bystander(rng, points, unit) if rng.random() < 0.35 else []
    person = figure_solids(points, sample_outfit(rng), unit)
    for solid in [*person, *bystander, *_clutter(rng, points, unit, width, height)]:
        canvas.draw(solid)

    photo = _background(rng, width, height)
    if abs(tilt) < 25:
        photo = _with_shadow(photo, points, unit)
    figures = np.asarray(canvas.image(), np.float32)
    cloth = 1 + 0.07 * _noise(rng, width, height, 6)[..., None]
    photo = _blend(photo, figures[..., :3] * cloth, figures[..., 3:] / 255)
    cover = _cover(rng, points, unit, width, height)
    texture = _muted(rng, 1)[0] * (1 + 0.12 * _noise(rng, width, height, 12)[..., None])
    photo = _blend(photo, texture, cover[..., None])
    return _expose(rng, photo), _annotation(points[:JOINTS, :2], cover)


def _tilt(rng: np.random.Generator) -> float:
    """The body's rotation in the picture in degrees: mostly small, with a heavy tail."""
    kind = rng.random()
    if kind < 0.72:
        return float(np.clip(rng.normal(0, 7), -15, 15))
    return float(rng.uniform(-60, 60) if kind < 0.95 else rng.uniform(60, 150) * rng.choice((-1, 1)))


def _view(rng: np.random.Generator, points: np.ndarray, tilt: float) -> np.ndarray:
    """The points (21, 3) seen from the front or from behind, slightly from above or below."""
    yaw = np.clip(rng.normal(0, 28), -75, 75) + 180 * (rng.random() < 0.35)
    return points @ (turn(2, tilt) @ turn(0, rng.normal(0, 6)) @ turn(1, yaw)).T


def _place(rng: np.random.Generator, points: np.ndarray, width: int, height: int) -> tuple[np.ndarray, float]:
    """The points in px of the photograph, and the px of one body height.

    One person in six sticks out over an edge, by up to a fifth of its size.
    """
    photo = np.array([width, height])
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    largest = ((photo - 4 * MARGIN) / (high - low)).min()
    unit = min(np.exp(rng.uniform(np.log(120), np.log(285))), largest)
    free = photo - 2 * MARGIN - (high - low) * unit
    corner = MARGIN + rng.uniform(0.1, 0.9, 2) * free
    if rng.random() < 1 / 6:
        axis = rng.integers(2)
        beyond = rng.uniform(0.08, 0.2) * (high - low)[axis] * unit
        feet_first = points[:6, axis].mean() > points[7, axis]
        corner[axis] = MARGIN + free[axis] + beyond if feet_first else MARGIN - beyond
    return points * unit + np.array([*(corner - low * unit), 0]), float(unit)


def _bystander(rng: np.random.Generator, points: np.ndarray, unit: float) -> list[Solid]:
    """A second, smaller person behind and beside the first."""
    scale = unit * rng.uniform(0.4, 0.65)
    other = _view(rng, sample_pose(rng), _tilt(rng)) * scale
    aside = rng.choice((-1, 1)) * rng.uniform(0.55, 0.9) * unit
    other += points[6] + (aside, rng.uniform(-0.2, 0.3) * unit, 3 * unit)
    return figure_solids(other, sample_outfit(rng), scale)


def _clutter(
    rng: np.random.Generator, points: np.ndarray, unit: float, width: int, height: int
) -> list[Solid]:
    """Bars and balls that could pass for limbs and heads, most of them behind the person."""
    solids = []
    for _ in range(rng.integers(0, 7)):
        start = np.array([*rng.uniform(0, (width, height)), 2 * unit])
        if rng.random() < 0.12:
            start[:2] = points[rng.integers(JOINTS), :2] + rng.normal(0, 0.1 * unit, 2)
            start[2] = -2 * unit
        ball = rng.random() < 0.3
        length, heading = 0 if ball else rng.uniform(0.1, 0.5) * unit, rng.uniform(0, 2 * np.pi)
        end = start + length * np.array([np.cos(heading), np.sin(heading), 0])
        thickness = rng.uniform(0.02, 0.06) * unit * rng.uniform(0.7, 1, 2)
        skin = np.array(SKINS[rng.integers(len(SKINS))], float)
        colour = skin if rng.random() < 0.4 else rng.uniform(20, 240, 3)
        solids.append(Solid(start, end, tuple(thickness), colour))
    return solids


def _noise(rng: np.random.Generator, width: int, height: int, cell: float) -> np.ndarray:
    """Smooth noise (height, width) of unit variance at its grid points, `cell` px apart."""
    grid = rng.normal(size=(int(height / cell) + 2, int(width / cell) + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.BICUBIC))


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A place (height, width, 3) in 0..255: sky and ground, a wall, or something out of focus."""
    rows, columns = np.indices((height, width), np.float32)
    top, bottom = _muted(rng, 2)
    direction = rng.normal(0, 0.35) + np.pi / 2
    ramp = columns / width * np.cos(direction) + rows / height * np.sin(direction)
    if rng.random() < 0.6:
        ramp = np.where(rows > height * rng.uniform(0.45, 0.8), 0.7 + 0.3 * ramp, 0.4 * ramp)
    photo = _blend(top, bottom, ramp[..., None])
    picture = Image.fromarray(photo.clip(0, 255).astype(np.uint8))
    _paint_things(rng, picture)
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.choice((0.6, 1.5, 4.0)))))
    relief = np.zeros_like(rows)
    if rng.random() < 0.25:
        angle, period = rng.uniform(0, np.pi), rng.uniform(10, 50)
        wave = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / period)
        relief += rng.uniform(8, 30) * np.tanh(4 * wave)
    for cell, strength in ((70, 20), (14, 10), (4, 6)):
        relief += strength * rng.random() * _noise(rng, width, height, cell)
    tint = rng.uniform(0.7, 1.2, 3).astype(np.float32)
    return np.asarray(picture, np.float32) + relief[..., None] * tint


def _muted(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours (count, 3) of a place: seldom as bright as clothes are."""
    colours = rng.uniform(30, 235, (count, 3))
    grey, saturation = colours.mean(1, keepdims=True), rng.uniform(0.1, 0.65, (count, 1))
    return (grey + saturation * (colours - grey)).astype(np.float32)


def _paint_things(rng: np.random.Generator, picture: Image.Image) -> None:
    """Houses with windows, trees and blobs, on `picture` itself."""
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(2, 9)):
        x, y = rng.uniform(-30, picture.width), rng.uniform(0.05, 0.7) * picture.height
        wide, tall = rng.uniform(20, 130), rng.uniform(40, 230)
        colour, second = map(tuple, _muted(rng, 2).astype(int).tolist())
        kind = rng.integers(3)
        if kind == 0:
            pen.rectangle((x, y, x + wide, y + tall), fill=colour)
            for left in np.arange(x + 6, x + wide - 12, 18):
                for upper in np.arange(y + 8, y + tall - 16, 26):
                    pen.rectangle((left, upper, left + 8, upper + 13), fill=second)
        elif kind == 1:
            pen.rectangle((x + 0.42 * wide, y, x + 0.58 * wide, y + tall), fill=(84, 62, 44))
            for centre_x, centre_y in rng.uniform((x, y - 0.5 * wide), (x + wide, y + 0.2 * wide), (9, 2)):
                green = int(rng.uniform(70, 140))
                box = (centre_x - 16, centre_y - 16, centre_x + 16, centre_y + 16)
                pen.ellipse(box, fill=(green // 2, green, green // 3))
        else:
            pen.ellipse((x, y, x + wide, y + 0.6 * tall), fill=colour)


def _with_shadow(photo: np.ndarray, points: np.ndarray, unit: float) -> np.ndarray:
    """The photograph, darker on the ground below the person."""
    height, width = photo.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    feet = points[[0, 5, 18, 19], :2]
    x, y = feet[:, 0].mean(), feet[:, 1].max() + 0.01 * unit
    reach = 0.16 * unit + 0.5 * np.ptp(feet[:, 0])
    distance = ((columns - x) / reach) ** 2 + ((rows - y) / (0.06 * unit)) ** 2
    return photo * (1 - 0.45 * np.exp(-2 * distance))[..., None]


def _cover(rng: np.random.Generator, points: np.ndarray, unit: float, width: int, height: int) -> np.ndarray:
    """How much (height, width) in 0..1 a plank or a box before the person hides; mostly nothing."""
    mask = Image.new("L", (2 * width, 2 * height))
    if rng.random() < 0.3:
        centre = points[rng.integers(6) if rng.random() < 0.6 else rng.integers(JOINTS), :2]
        long, short = rng.uniform(0.12, 0.4) * unit, rng.uniform(0.03, 0.09) * unit
        corners = np.array([(-long, -short), (long, -short), (long, short), (-long, short), (0, 0)])
        corners = corners[:4] @ turn(2, rng.uniform(0, 180))[:2, :2].T
        corners += centre + rng.normal(0, 0.06, 2) * unit
        ImageDraw.Draw(mask).polygon([tuple(corner) for corner in 2 * corners], fill=255)
    return np.asarray(mask.resize((width, height), Image.LANCZOS), np.float32) / 255


def _blend(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
    return under + (over - under) * share


def _expose(rng: np.random.Generator, photo: np.ndarray) -> Image.Image:
    """The finished photograph: lamp, colour cast, focus, and the camera's noise."""
    height, width = photo.shape[:2]
    across, along = rng.uniform(-0.22, 0.22, 2)
    rows, columns = np.indices((height, width), np.float32)
    lamp = 1 + across * (columns / width - 0.5) + along * (rows / height - 0.5)
    cast = rng.uniform(0.7, 1.2) * rng.normal(1, 0.05, 3)
    photo = (photo - 128) * rng.uniform(0.75, 1.15) + 128
    photo = photo * (lamp[..., None] * cast.astype(np.float32))
    picture = Image.fromarray(photo.clip(0, 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0)))
    grain = rng.uniform(1, 7) * rng.standard_normal((height, width, 1), np.float32)
    return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))


def _annotation(joints: np.ndarray, cover: np.ndarray) -> dict:
    """The fields of a row that describe the joints (16, 2) and the hidden share of each pixel."""
    height, width = cover.shape
    low, high = joints.min(0), joints.max(0)
    scale = float((high - low).max()) / 200
    centre_x, centre_y = (low + high) / 2
    rows = []
    for x, y in joints:
        inside = 0 < x < width - 1 and 0 < y < height - 1
        visible = inside and cover[round(y), round(x)] < 0.5
        rows.append([round(float(x), 2), round(float(y), 2), int(visible)] if inside else [0, 0, 0])
    return {
        "img_width": width,
        "img_height": height,
        # the reader moves the centre down by 15 * scale, as MPII's own annotations want it
        "objpos": [round(float(centre_x), 2), round(float(centre_y) - 15 * scale, 2)],
        "joint_self": rows,
        "scale_provided": round(scale, 4),
        "normalizer": round(HEAD_SHARE * float(np.linalg.norm(joints[8] - joints[9])), 3),
    }
