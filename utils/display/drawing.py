"""Drawing on pictures: skeletons, heatmaps, and their JPEG files."""

import io

import numpy as np
from PIL import Image, ImageDraw

from data.skeleton import MPII, Pair, Skeleton

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {"right": (255, 128, 0), "left": (0, 150, 255), "middle": (70, 215, 90)}
"""Of the person's right side, left side and middle: apart in hue and lightness, for color-blind eyes too."""

FAINTEST = 0.02  # of the strongest peak: a map below that does not show its joint
WEAK = 0.25  # a maximum of heatmaps, whose targets reach 1
_DIMMED = 0.4  # brightness of a picture under its heatmaps
CROSS: Color = (220, 30, 60)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_LARGE = 2000  # px; above that, edges are smooth enough without supersampling


def clear_peaks(peaks: np.ndarray) -> np.ndarray:
    """Bool [..., K]: the joints whose maps have a peak worth drawing; peaks [..., K], a person a row."""
    return (peaks > 0) & (peaks >= FAINTEST * peaks.max(axis=-1, keepdims=True))


def draw_skeleton(
    image: np.ndarray,
    joints: np.ndarray,
    drawn: np.ndarray,
    truth: bool = False,
    size: float | None = None,
    skeleton: Skeleton = MPII,
) -> np.ndarray:
    """A picture with a skeleton on it.

    Args:
        image: u8 [H, W, 3]. joints: [K, 2] px of the image (0, 0 is its corner). drawn: bool [K].
        truth: thin white-edged bones and rings, to lie below the prediction's thick bones and discs.
        size: px that strokes are in proportion to; default: the longer side of the image.

    Returns:
        u8 [H, W, 3].
    """
    height, width = image.shape[:2]
    fine = 2 if max(height, width) <= _LARGE else 1
    canvas = Image.fromarray(image).resize((fine * width, fine * height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    at = [tuple(map(float, fine * joint)) for joint in joints]
    thick = fine * max(1.0, (size or max(height, width)) / (190 if truth else 75))
    edge = max(1.0, 0.35 * thick)

    def line(inner: int, outer: int, color: Color, width: float) -> None:
        pen.line((at[inner], at[outer]), fill=color, width=max(1, round(width)))

    bones = skeleton.drawn_bones(drawn)
    for inner, outer in bones:
        line(inner, outer, _WHITE if truth else _BLACK, thick + 2 * edge)
    for bone in bones:
        line(*bone, COLORS[_side(bone, skeleton)], thick)
    radius = (2.6 if truth else 1.1) * thick
    for joint in np.flatnonzero(drawn):
        color = COLORS[skeleton.sides[joint]]
        if truth:
            pen.circle(at[joint], radius + edge, outline=_WHITE, width=round(thick + 2 * edge))
            pen.circle(at[joint], radius, outline=color, width=max(1, round(thick)))
        else:
            pen.circle(at[joint], radius + edge, fill=_BLACK)
            pen.circle(at[joint], radius, fill=color)
    return np.asarray(canvas.reduce(fine) if fine > 1 else canvas)


def _side(bone: Pair, skeleton: Skeleton) -> str:
    """The side that a bone belongs to: that of its joints beside the middle, if they are of one side."""
    sides = {skeleton.sides[joint] for joint in bone} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def cross_out(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A picture u8 [H, W, 3] with a cross at each of the points [K, 2] px."""
    canvas = Image.fromarray(image)
    pen, arm = ImageDraw.Draw(canvas), max(3.0, 0.025 * max(image.shape[:2]))
    for color, width in ((_WHITE, 0.8 * arm), (CROSS, 0.4 * arm)):
        for x, y in points.tolist():
            for rise in (-arm, arm):
                pen.line((x - arm, y - rise, x + arm, y + rise), fill=color, width=max(1, round(width)))
    return np.asarray(canvas)


def shade_cells(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A square picture u8 [H, H, 3] with the `hidden` cells, bool [side, side], dark and hatched."""
    cells = np.arange(len(image)) * len(hidden) // len(image)
    dark = hidden[np.ix_(cells, cells)]
    places = np.arange(len(image))
    hatch = (places[:, None] + places) // 3 % 4 == 0
    shaded = np.where(hatch[..., None], _DIMMED * image + 60, _DIMMED * image)
    return np.where(dark[..., None], shaded, image).astype(np.uint8)


def label_cells(image: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A square picture u8 [H, H, 3] under a distribution over cells, f64 [side, side], in per cent.

    A cell of the mean share is half tinted.
    """
    side = len(shares)
    cells = np.arange(len(image)) * side // len(image)
    tint = 0.75 * (shares * shares.size / 2).clip(max=1)[np.ix_(cells, cells)][..., None]
    canvas = Image.fromarray((_DIMMED * (1 - tint) * image + tint * np.array(CROSS)).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for row, column in np.ndindex(shares.shape):
        middle = ((np.array([column, row]) + 0.5) * len(image) / side).tolist()
        pen.text(
            middle,
            f"{100 * shares[row, column]:.0f}",
            _WHITE,
            font_size=len(image) / 14,
            anchor="mm",
            stroke_width=1,
            stroke_fill=_BLACK,
        )
    return np.asarray(canvas)


def overlay_heatmaps(image: np.ndarray, heatmaps: np.ndarray, skeleton: Skeleton = MPII) -> np.ndarray:
    """A darkened picture under heatmaps that glow in the colors of their joints' sides.

    Light adds up: where right and left cannot be told apart it is white.

    Args:
        image: u8 [H, W, 3]. heatmaps: f32 [K, h, w]; the full color is their maximum,
            or `WEAK` where that is less: maps that say nothing stay dark.

    Returns:
        u8 [H, W, 3].
    """
    height, width = image.shape[:2]
    relative = (heatmaps / max(float(heatmaps.max()), WEAK)).clip(0, 1).astype(np.float32)
    pixels, strongest = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 1), np.float32)
    sides = np.array(skeleton.sides)
    for side in filter(skeleton.sides.__contains__, COLORS):
        share = Image.fromarray(relative[sides == side].max(axis=0))
        share = np.asarray(share.resize((width, height), Image.Resampling.BILINEAR))[..., None]
        pixels += share * np.float32(COLORS[side])
        strongest = np.maximum(strongest, share)
    pixels += _DIMMED * (1 - strongest) * image
    return pixels.clip(0, 255).astype(np.uint8)


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """A square picture u8 [H, H, 3] as u8 [side, side, 3]."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """A picture u8 [H, W, 3] as a JPEG file whose thin colored lines stay sharp."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
