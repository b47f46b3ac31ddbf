"""Articulated human figures for the demo data set: poses in space, clothes, and their drawing.

A figure is an array of points (21, 3): the 16 joints in MPII's order, then right hand, left hand,
right toes, left toes, and a point one head radius before the face. In space x runs to the right of
the picture, y down, and z away from the viewer; a standing person is about 1 unit tall.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

JOINTS = 16
SUPERSAMPLING = 2
DOWN = np.array([0.0, 1.0, 0.0])
LEGS = {  # thigh's lift from hanging, azimuth (0 outwards, 90 forwards), bend of the knee; degrees
    "straight": ((0, 10), (10, 90), (0, 8)),
    "forward": ((20, 50), (70, 100), (0, 45)),
    "back": ((10, 40), (-100, -80), (10, 70)),
    "knee up": ((60, 105), (60, 100), (60, 120)),
    "kick": ((55, 105), (25, 95), (0, 25)),
    "side": ((15, 45), (0, 30), (0, 35)),
    "squat": ((75, 112), (35, 75), (90, 130)),
}
STANCES = (  # share, one leg, the other leg, range of the trunk's lean forwards in degrees
    (0.30, "straight", "straight", (-5, 12)),
    (0.18, "forward", "back", (0, 20)),
    (0.12, "kick", "straight", (-20, 10)),
    (0.08, "knee up", "straight", (-10, 10)),
    (0.12, "side", "side", (-5, 20)),
    (0.10, "knee up", "back", (0, 25)),
    (0.10, "squat", "squat", (10, 40)),
)
ARMS = (  # share, upper arm's lift and azimuth, elbow's bend and its way: inwards, up, forwards
    (0.28, (4, 30), (-30, 90), (0, 50), (0.3, 0.0, 1.0)),
    (0.12, (32, 52), (-25, 5), (75, 105), (1.0, -0.3, 0.3)),
    (0.14, (60, 110), (-10, 40), (0, 60), (0.0, 0.4, 0.8)),
    (0.20, (120, 172), (-10, 60), (0, 75), (0.7, 0.6, 0.5)),
    (0.10, (40, 100), (55, 100), (0, 80), (0.4, 0.8, 0.2)),
    (0.10, (60, 100), (-10, 40), (75, 125), (0.1, 1.0, 0.3)),
    (0.06, (20, 45), (40, 80), (90, 125), (0.9, 0.4, 0.4)),
)
SKINS = ((241, 204, 177), (224, 172, 135), (198, 134, 96), (141, 85, 54), (110, 70, 48))
HAIRS = ((35, 26, 22), (72, 46, 28), (120, 78, 42), (196, 160, 98), (130, 128, 126))


@dataclass(frozen=True)
class Solid:
    """A rounded, tapered bar from `start` to `end`, (3,) each in px, with its two `radii` in px.

    `colour` is (3,) in 0..255; `depth` stretches the cross-section along z; `stripes` is a wave
    vector (2,) in radians per px, or None for plain cloth.
    """

    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]
    colour: np.ndarray
    depth: float = 1.0
    stripes: np.ndarray | None = None


@dataclass
class Canvas:
    """A transparent picture of `width` x `height` px on which the nearest solid covers the others.

    Points are in px of the finished picture, with (0, 0) the centre of its first pixel; `light` is
    the unit vector (3,) towards the lamp.
    """

    width: int
    height: int
    light: np.ndarray
    _colour: np.ndarray = field(init=False)
    _nearest: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.height * SUPERSAMPLING, self.width * SUPERSAMPLING)
        self._colour = np.zeros((*shape, 4), np.uint8)
        self._nearest = np.full(shape, np.inf, np.float32)

    def draw(self, solid: Solid) -> None:
        """Draw one solid; what lies off the picture is left out."""
        reach = max(solid.radii)
        ends = np.stack([solid.start, solid.end])[:, :2]
        low = np.floor((ends.min(0) - reach + 0.5) * SUPERSAMPLING).astype(int).clip(0)
        high = np.ceil((ends.max(0) + reach + 0.5) * SUPERSAMPLING).astype(int)
        window = (slice(low[1], max(high[1], 0)), slice(low[0], max(high[0], 0)))
        nearest, colour = self._nearest[window], self._colour[window]
        rows, columns = np.indices(nearest.shape, np.float32)
        x = (columns + low[0] + 0.5) / SUPERSAMPLING - 0.5
        y = (rows + low[1] + 0.5) / SUPERSAMPLING - 0.5

        axis = solid.end - solid.start
        length2 = max(float(axis[:2] @ axis[:2]), 1e-6)
        along = ((x - solid.start[0]) * axis[0] + (y - solid.start[1]) * axis[1]) / length2
        along = along.clip(0, 1)
        radius = solid.radii[0] + (solid.radii[1] - solid.radii[0]) * along
        normal_x = (x - solid.start[0] - along * axis[0]) / radius
        normal_y = (y - solid.start[1] - along * axis[1]) / radius
        normal_z = np.sqrt((1 - normal_x**2 - normal_y**2).clip(0))
        z = solid.start[2] + along * axis[2] - solid.depth * radius * normal_z

        seen = (normal_z > 0) & (z < nearest)
        lit = normal_x * self.light[0] + normal_y * self.light[1] - normal_z * self.light[2]
        shade = 0.42 + 0.66 * lit.clip(0) + 0.08 * normal_z
        if solid.stripes is not None:
            shade = shade * np.where(np.sin(x * solid.stripes[0] + y * solid.stripes[1]) > 0, 1, 0.6)
        colour[seen, :3] = (shade[seen, None] * solid.colour).clip(0, 255)
        colour[seen, 3] = 255
        nearest[seen] = z[seen]

    def image(self) -> Image.Image:
        """The picture in RGBA, reduced to `width` x `height`."""
        return Image.fromarray(self._colour).resize((self.width, self.height), Image.LANCZOS)


def turn(axis: int, degrees: float) -> np.ndarray:
    """The rotation matrix (3, 3) about the axis x (0), y (1) or z (2)."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _aim(lift: float, azimuth: float, side: int) -> np.ndarray:
    """The unit vector (3,) `lift` degrees from straight down, outwards (0) or forwards (90)."""
    lift, azimuth = np.deg2rad([lift, azimuth])
    outwards, forwards = np.sin(lift) * np.cos(azimuth), np.sin(lift) * np.sin(azimuth)
    return np.array([side * outwards, np.cos(lift), -forwards])


def _leg(rng: np.random.Generator, name: str, side: int, size: float) -> np.ndarray:
    """Knee, ankle and toes (3, 3) from the hip of `side`: -1 right, 1 left."""
    lift, azimuth, bend = (rng.uniform(*limits) for limits in LEGS[name])
    thigh = _aim(lift, azimuth, side)
    ahead = _aim(90, 90 if azimuth < -45 else np.clip(azimuth, 50, 95), side)
    back = _unit(np.cross(np.cross(ahead, DOWN), thigh))
    cosine, sine = np.cos(np.deg2rad(bend)), np.sin(np.deg2rad(bend))
    shin = cosine * thigh + sine * back
    foot = _unit(sine * thigh - cosine * back + 0.35 * shin)
    return np.cumsum([0.245 * size * thigh, 0.235 * size * shin, 0.085 * foot], axis=0)


def _arm(rng: np.random.Generator, side: int, size: float) -> np.ndarray:
    """Elbow, wrist and hand (3, 3) from the shoulder of `side`, with the trunk upright."""
    _, lift, azimuth, bend, (inwards, up, forwards) = ARMS[_choose(rng, ARMS)]
    upper = _aim(rng.uniform(*lift), rng.uniform(*azimuth), side)
    towards = np.array([-side * inwards, -up, -forwards]) + rng.normal(0, 0.2, 3)
    across = _unit(towards - (towards @ upper) * upper)
    angle = np.deg2rad(rng.uniform(*bend))
    fore = np.cos(angle) * upper + np.sin(angle) * across
    return np.cumsum([0.165 * size * upper, 0.145 * size * fore, 0.055 * size * fore], axis=0)


def _choose(rng: np.random.Generator, table: tuple) -> int:
    return int(rng.choice(len(table), p=[row[0] for row in table]))


def sample_pose(rng: np.random.Generator) -> np.ndarray:
    """The points (21, 3) of a person who faces the viewer, the pelvis at the origin."""
    _, *legs, lean = STANCES[_choose(rng, STANCES)]
    rng.shuffle(legs)
    arm_size, leg_size = rng.normal(1, 0.04, 2).clip(0.9, 1.1)
    trunk = turn(0, rng.uniform(*lean)) @ turn(2, rng.normal(0, 7)) @ turn(1, rng.normal(0, 12))
    head = turn(1, rng.normal(0, 20)) @ turn(0, rng.normal(0, 8)) @ turn(2, rng.normal(0, 8))
    points = np.zeros((21, 3))
    points[7] = trunk @ (0, -0.285, 0)
    points[8] = points[7] + _unit(trunk @ (0, -1, 0) + head @ (0, -1, 0)) * 0.055
    points[9] = points[8] + head @ (0, -0.155, 0)
    points[20] = points[8] + head @ (0, -0.093, -0.062)
    for side, name, hip, shoulder in ((-1, legs[0], 2, 12), (1, legs[1], 3, 13)):
        points[hip] = (side * 0.052, 0, 0)
        leg = points[hip] + _leg(rng, name, side, leg_size)
        arm_start = trunk @ (side * 0.108, -0.272, 0)
        arm = arm_start + _arm(rng, side, arm_size) @ trunk.T
        points[shoulder] = arm_start
        points[[hip + side, hip + 2 * side, 18 if side < 0 else 19]] = leg
        points[[shoulder + side, shoulder + 2 * side, 16 if side < 0 else 17]] = arm
    return points


@dataclass(frozen=True)
class Outfit:
    """How a person looks: colours (3,) in 0..255, lengths of the clothes, and the build's width."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    long_sleeves: bool
    long_legs: bool
    long_hair: bool
    watch: bool  # on the left wrist
    bands: float  # of the shirt's stripes, per body height; 0 for a plain one
    width: float


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Clothes, colours and build, by chance."""
    skin, hair = (np.array(palette[rng.integers(5)], float) for palette in (SKINS, HAIRS))
    shirt, trousers, shoes = rng.uniform(20, 240, (3, 3))
    shirt, shoes = shirt.mean() + 0.8 * (shirt - shirt.mean()), 0.3 * shoes.mean() + 0.5 * shoes
    trousers = 0.7 * (0.5 * trousers.mean() + 0.5 * trousers)
    return Outfit(
        *(skin * rng.uniform(0.92, 1.06), np.minimum(hair, 0.6 * skin), shirt, trousers, shoes),
        *(rng.random(4) < (0.45, 0.65, 0.35, 0.5)).tolist(),
        bands=float(rng.uniform(12, 30) * (rng.random() < 0.3)),
        width=float(rng.uniform(0.88, 1.15)),
    )


def figure_solids(points: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    """The solids of a person at `points` (21, 3) px, whose body is `unit` px tall."""
    limbs = []
    for hip, knee, ankle, toes in ((2, 1, 0, 18), (3, 4, 5, 19)):
        limbs += _leg_solids(points[[hip, knee, ankle, toes]], outfit, unit)
    for shoulder, elbow, wrist, hand in ((12, 11, 10, 16), (13, 14, 15, 17)):
        limbs += _arm_solids(points[[shoulder, elbow, wrist, hand]], outfit, unit)
    if outfit.watch:
        above = points[14] + 0.88 * (points[15] - points[14])
        limbs.append(Solid(above, points[15], (0.028 * unit,) * 2, np.full(3, 30.0)))
    return limbs + _trunk_solids(points, outfit, unit) + _head_solids(points, outfit, unit)


def _leg_solids(leg: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    hip, knee, ankle, toes = leg
    wide = unit * outfit.width
    lower = outfit.trousers if outfit.long_legs else outfit.skin
    calf, hem = knee + 0.35 * (ankle - knee), hip + 0.75 * (knee - hip)
    heel = ankle + _unit(ankle - knee) * 0.016 * unit
    return [
        Solid(hip, knee, (0.061 * wide, 0.043 * wide), lower),
        Solid(hip, hem, (0.066 * wide, 0.054 * wide), outfit.trousers),
        Solid(knee, calf, (0.042 * wide, 0.043 * wide), lower),
        Solid(calf, ankle, (0.043 * wide, 0.027 * wide), lower),
        Solid(heel, toes, (0.031 * unit, 0.022 * unit), outfit.shoes),
    ]


def _arm_solids(arm: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    shoulder, elbow, wrist, hand = arm
    wide = unit * outfit.width
    cloth, length = (outfit.shirt, 1.0) if outfit.long_sleeves else (outfit.skin, 0.6)
    sleeve = shoulder + length * (elbow - shoulder)
    return [
        Solid(shoulder, elbow, (0.040 * wide, 0.031 * wide), cloth),
        Solid(shoulder, sleeve, (0.044 * wide, 0.037 * wide), outfit.shirt),
        Solid(elbow, wrist, (0.031 * wide, 0.022 * wide), cloth),
        Solid(wrist, hand, (0.021 * unit, 0.019 * unit), outfit.skin),
    ]


def _trunk_solids(points: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    pelvis, thorax, neck = points[6:9]
    across, spine = _unit(points[13] - points[12]), pelvis - thorax
    facing = float(across[:2] @ across[:2])
    stripes = outfit.bands * 2 * np.pi / unit * _unit(spine)[:2] if outfit.bands else None

    def slab(start: float, end: float, widths: tuple[float, float], colour: np.ndarray) -> Solid:
        """A part of the trunk, whose breadth in the picture depends on where the person faces."""
        radii = np.sqrt(np.square(widths) * facing + 0.068**2 * (1 - facing)) * unit * outfit.width
        ends = thorax + start * spine, thorax + end * spine
        depth = 0.068 * unit * outfit.width / radii.mean()
        return Solid(*ends, tuple(radii), colour, depth, None if colour is outfit.trousers else stripes)

    yoke = 0.042 * unit * outfit.width
    return [
        slab(0.30, 0.75, (0.112, 0.090), outfit.shirt),
        slab(0.70, 0.90, (0.090, 0.098), outfit.shirt),
        slab(0.97, 1.02, (0.099, 0.099), outfit.trousers),
        Solid(points[12], points[13], (yoke, yoke), outfit.shirt, 1.0, stripes),
        Solid(thorax, neck, (0.040 * unit, 0.034 * unit), outfit.skin),
        Solid(neck, neck + 0.2 * (points[9] - neck), (0.034 * unit,) * 2, outfit.skin),
    ]


def _head_solids(points: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    neck, top = points[8:10]
    up = _unit(top - neck)
    ahead = points[20] - (neck + 0.6 * (top - neck))
    ahead, across = _unit(ahead), np.cross(_unit(ahead), up)

    def at(sideways: float, upwards: float, forwards: float) -> np.ndarray:
        """A point of the head from its neck, in body heights."""
        return neck + unit * (sideways * across + upwards * up + forwards * ahead)

    def blob(start: np.ndarray, end: np.ndarray, radius: float, colour: np.ndarray) -> Solid:
        return Solid(start, end, (radius * unit,) * 2, colour)

    white, dark, lips = np.full(3, 235.0), np.full(3, 25.0), outfit.skin * (0.72, 0.42, 0.42)
    solids = [
        Solid(at(0, 0.047, 0.006), at(0, 0.093, 0), (0.043 * unit, 0.060 * unit), outfit.skin),
        blob(at(0, 0.097, -0.014), at(0, 0.092, -0.010), 0.061, outfit.hair),
        blob(at(0, 0.114, 0.010), at(0, 0.110, -0.010), 0.044, outfit.hair),
        blob(at(0, 0.070, 0.054), at(0, 0.080, 0.056), 0.009, outfit.skin),
        blob(at(-0.014, 0.040, 0.040), at(0.014, 0.040, 0.040), 0.009, lips),
    ]
    if outfit.long_hair:
        solids.append(blob(at(0, 0.090, -0.020), at(0, -0.02, -0.045), 0.046, outfit.hair))
    for side in (-0.023, 0.023):
        solids.append(blob(at(side, 0.088, 0.047), at(side, 0.088, 0.047), 0.0125, white))
        solids.append(blob(at(side, 0.088, 0.055), at(side, 0.088, 0.055), 0.0078, dark))
        solids.append(blob(at(side * 0.6, 0.108, 0.052), at(side * 1.5, 0.108, 0.050), 0.005, outfit.hair))
    return solids
