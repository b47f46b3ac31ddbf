"""Draws skeletons, heatmaps, cells and crosses on pictures, and encodes them as JPEG."""

import io

import numpy as np
from PIL import Image, ImageDraw

from data.skeleton import MPII, Pair, Skeleton

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {"right": (255, 128, 0), "left": (0, 150, 255), "middle": (70, 215, 90)}
"""Colors of the person's sides and middle: they differ in hue and lightness, for color-blind readers."""

FAINTEST = 0.02  # of the strongest peak: below that, a joint is not drawn
WEAK = 0.25  # heatmaps with a lower maximum are not scaled up to full color; targets have maximum 1
_DIMMED = 0.4  # brightness of a picture under heatmaps or cells
CROSS: Color = (220, 30, 60)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_LARGE = 2000  # px; above that, edges are smooth enough without supersampling


def clear_peaks(peaks: np.ndarray) -> np.ndarray:
    """Which joints have a peak high enough to draw: bool [..., K] of peaks [..., K] of each person."""
    return (peaks > 0) & (peaks >= FAINTEST * peaks.max(axis=-1, keepdims=True))


def draw_skeleton(
    image: np.ndarray,
    joints: np.ndarray,
    drawn: np.ndarray,
    truth: bool = False,
    size: float | None = None,
    skeleton: Skeleton = MPII,
) -> np.ndarray:
    """Draw a skeleton on a picture.

    Args:
        image: u8 [H, W, 3]. joints: [K, 2] px of the image, (0, 0) is its corner. drawn: bool [K], joints to
        draw. truth: draw thin bones with white edges and rings, instead of the thick bones and discs of
        predictions. size: px, the thickness of lines is proportional to it; default: the longer side of the
        image.

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


def number_joints(image: np.ndarray, joints: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Write the numbers of joints on a picture u8 [H, W, 3], each on the side away from the others.

    joints: [K, 2] px. drawn: bool [K], joints to number.
    """
    canvas = Image.fromarray(image)
    pen, size = ImageDraw.Draw(canvas), max(image.shape[:2]) / 28
    numbers, at = np.flatnonzero(drawn), joints[drawn]
    apart = at[:, None] - at
    away = (apart / np.maximum(1.0, np.linalg.norm(apart, axis=-1, keepdims=True)) ** 3).sum(axis=1)
    away /= np.maximum(1e-9, np.linalg.norm(away, axis=-1, keepdims=True))
    for number, middle in zip(numbers, at + 0.95 * size * away, strict=True):
        edge = {"stroke_width": 2, "stroke_fill": _BLACK}
        pen.text(middle.tolist(), str(number), _WHITE, font_size=size, anchor="mm", **edge)
    return np.asarray(canvas)


def draw_frame(image: np.ndarray, side: float) -> np.ndarray:
    """Draw a square in the middle of a square picture u8 [H, H, 3]; side: px."""
    canvas = Image.fromarray(image)
    pen, edge = ImageDraw.Draw(canvas), (len(image) - side) / 2
    for grown, width, color in ((1, 4, _BLACK), (0, 2, _WHITE)):
        box = (edge - grown, edge - grown, edge + side + grown, edge + side + grown)
        pen.rectangle(box, outline=color, width=width)
    return np.asarray(canvas)


def _side(bone: Pair, skeleton: Skeleton) -> str:
    """The side of a bone: that of its joints, disregarding middle ones; "middle" if they differ."""
    sides = {skeleton.sides[joint] for joint in bone} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def cross_out(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Draw a cross at each of the points [K, 2] px on a picture u8 [H, W, 3]."""
    canvas = Image.fromarray(image)
    pen, arm = ImageDraw.Draw(canvas), max(3.0, 0.025 * max(image.shape[:2]))
    for color, width in ((_WHITE, 0.8 * arm), (CROSS, 0.4 * arm)):
        for x, y in points.tolist():
            for rise in (-arm, arm):
                pen.line((x - arm, y - rise, x + arm, y + rise), fill=color, width=max(1, round(width)))
    return np.asarray(canvas)


def shade_cells(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Darken and hatch the `hidden` cells, bool [side, side], of a square picture u8 [H, H, 3]."""
    cells = np.arange(len(image)) * len(hidden) // len(image)
    dark = hidden[np.ix_(cells, cells)]
    places = np.arange(len(image))
    hatch = (places[:, None] + places) // 3 % 4 == 0
    shaded = np.where(hatch[..., None], _DIMMED * image + 60, _DIMMED * image)
    return np.where(dark[..., None], shaded, image).astype(np.uint8)


def label_cells(image: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Draw a distribution over cells, f64 [side, side], on a square picture u8 [H, H, 3]: tints and per cent.

    A cell with the mean share is tinted by half.
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
    """Draw heatmaps on a darkened picture, in the colors of their joints' sides.

    Colors add up: where left and right overlap, the result is white.

    Args:
        image: u8 [H, W, 3]. heatmaps: f32 [K, h, w]; their maximum has full color, or `WEAK` if that is
        higher.

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
    """Resize a square picture u8 [H, H, 3] to u8 [side, side, 3]."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """Encode a picture u8 [H, W, 3] as JPEG, without chroma subsampling, to keep thin colored lines sharp."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
