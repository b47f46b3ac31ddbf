"""Articulated human figures for the demo data set: 3D poses, clothes, and rendering.

A figure is an array of points (21, 3): the 16 joints in MPII's order, then right hand, left hand, right toes,
left toes, and a point one head radius before the face. x points to the right of the picture, y down, and z
away from the viewer; a standing person is about 1 unit tall.

Figures are skaters: pads, gloves and shoes mark the joints of limbs. Left and right limbs look the same;
which is which follows from the direction the person faces, and that from the face in front and, behind, from
the rucksack, the straps of the knee pads and the heels.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

JOINTS = 16
SUPERSAMPLING = 2
HEAD = 0.2  # body heights from neck to top: a child's
DOWN = np.array([0.0, 1.0, 0.0])
LEGS = {  # thigh's lift from hanging, azimuth (0 outwards, 90 forwards), bend of the knee; degrees
    "straight": ((2, 12), (0, 40), (0, 8)),
    "side": ((15, 45), (0, 30), (0, 35)),
    "forward": ((15, 45), (30, 80), (10, 60)),
    "knee up": ((60, 100), (20, 70), (60, 110)),
    "kick": ((50, 90), (0, 40), (0, 25)),
}
STANCES = (  # share, one leg, the other leg
    (0.25, "straight", "straight"),
    (0.25, "side", "side"),
    (0.20, "forward", "side"),
    (0.15, "knee up", "straight"),
    (0.15, "kick", "straight"),
)
ARMS = (  # share, upper arm's lift and azimuth, elbow's bend and its way: inwards, up, forwards
    (0.30, (10, 40), (-10, 40), (0, 40), (0.3, 0.2, 1.0)),
    (0.15, (32, 52), (-15, 15), (75, 105), (1.0, -0.3, 0.3)),
    (0.30, (60, 110), (-10, 30), (0, 90), (0.0, 1.0, 0.4)),
    (0.25, (120, 165), (-10, 30), (0, 75), (0.5, 0.8, 0.3)),
)
SKINS = ((241, 204, 177), (224, 172, 135), (198, 134, 96), (141, 85, 54), (110, 70, 48))
HAIRS = ((35, 26, 22), (72, 46, 28), (120, 78, 42), (196, 160, 98), (130, 128, 126))
PADS, GLOVES, RUCKSACK = (np.array(color, float) for color in ((32, 32, 36), (250,) * 3, (235, 120, 20)))


@dataclass(frozen=True)
class Solid:
    """A rounded, tapered bar from `start` to `end`, (3,) each in px, with its two `radii` in px.

    `color` is (3,) in 0..255; `depth` stretches the cross-section along z.
    """

    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]
    color: np.ndarray
    depth: float = 1.0


@dataclass
class Canvas:
    """A transparent picture of `width` x `height` px, on which the nearest solid covers the others.

    Points are in px of the picture, (0, 0) is the centre of its first pixel; `light` is the unit vector (3,)
    towards the lamp.
    """

    width: int
    height: int
    light: np.ndarray
    _color: np.ndarray = field(init=False)
    _nearest: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.height * SUPERSAMPLING, self.width * SUPERSAMPLING)
        self._color = np.zeros((*shape, 4), np.uint8)
        self._nearest = np.full(shape, np.inf, np.float32)

    def draw(self, solid: Solid) -> None:
        """Draw a solid, clipped to the picture."""
        start, end = solid.start.astype(np.float32), solid.end.astype(np.float32)
        reach = max(solid.radii)
        low = np.floor((np.minimum(start, end)[:2] - reach + 0.5) * SUPERSAMPLING).astype(int).clip(0)
        high = np.ceil((np.maximum(start, end)[:2] + reach + 0.5) * SUPERSAMPLING).astype(int).clip(0)
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        nearest, color = self._nearest[window], self._color[window]
        rows, columns = (np.arange(length, dtype=np.float32) for length in nearest.shape)
        x = (columns + low[0] + 0.5) / SUPERSAMPLING - 0.5 - start[0]
        y = (rows[:, None] + low[1] + 0.5) / SUPERSAMPLING - 0.5 - start[1]

        axis = end - start
        along = ((x * axis[0] + y * axis[1]) / max(axis[:2] @ axis[:2], np.float32(1e-6))).clip(0, 1)
        radius = solid.radii[0] + (solid.radii[1] - solid.radii[0]) * along
        normal_x, normal_y = (x - along * axis[0]) / radius, (y - along * axis[1]) / radius
        normal_z = np.sqrt((1 - normal_x**2 - normal_y**2).clip(0))
        z = start[2] + along * axis[2] - solid.depth * radius * normal_z

        seen = (normal_z > 0) & (z < nearest)
        normal = np.stack([normal_x[seen], normal_y[seen], -normal_z[seen]], axis=1)
        shade = 0.42 + 0.66 * (normal @ self.light).clip(0) - 0.08 * normal[:, 2]
        color[seen, :3] = (shade[:, None] * solid.color).clip(0, 255)
        color[seen, 3] = 255
        nearest[seen] = z[seen]

    def image(self) -> Image.Image:
        """The picture in RGBA, reduced to `width` x `height`."""
        return Image.fromarray(self._color).reduce(SUPERSAMPLING)


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
    """The unit vector (3,) lifted by `lift` degrees from straight down; azimuth 0: outwards, 90: forwards."""
    lift, azimuth = np.deg2rad([lift, azimuth])
    outwards, forwards = np.sin(lift) * np.cos(azimuth), np.sin(lift) * np.sin(azimuth)
    return np.array([side * outwards, np.cos(lift), -forwards])


def _leg(rng: np.random.Generator, name: str, side: int, size: float) -> np.ndarray:
    """Knee, ankle and toes (3, 3) from the hip of `side`: -1 right, 1 left."""
    lift, azimuth, bend = (rng.uniform(*limits) for limits in LEGS[name])
    thigh = _aim(lift, azimuth, side)
    ahead = _aim(90, np.clip(azimuth, 50, 95), side)
    back = _unit(np.cross(np.cross(ahead, DOWN), thigh))
    cosine, sine = np.cos(np.deg2rad(bend)), np.sin(np.deg2rad(bend))
    shin = cosine * thigh + sine * back
    foot = _unit(sine * thigh - cosine * back + 0.35 * shin)
    return np.cumsum([0.225 * size * thigh, 0.215 * size * shin, 0.075 * foot], axis=0)


def _arm(rng: np.random.Generator, side: int, size: float) -> np.ndarray:
    """Elbow, wrist and hand (3, 3) from the shoulder of `side`, with the trunk upright."""
    _, lift, azimuth, bend, (inwards, up, forwards) = ARMS[_choose(rng, ARMS)]
    upper = _aim(rng.uniform(*lift), rng.uniform(*azimuth), side)
    towards = np.array([-side * inwards, -up, -forwards]) + rng.normal(0, 0.2, 3)
    across = _unit(towards - (towards @ upper) * upper)
    angle = np.deg2rad(rng.uniform(*bend))
    fore = np.cos(angle) * upper + np.sin(angle) * across
    return np.cumsum([0.165 * size * upper, 0.145 * size * fore, 0.05 * size * fore], axis=0)


def _choose(rng: np.random.Generator, table: tuple) -> int:
    return int(rng.choice(len(table), p=[row[0] for row in table]))


def sample_pose(rng: np.random.Generator) -> np.ndarray:
    """The points (21, 3) of a random pose, facing the viewer, with the pelvis at the origin."""
    _, *legs = STANCES[_choose(rng, STANCES)]
    rng.shuffle(legs)
    arm_size, leg_size = rng.normal(1, 0.04, 2).clip(0.9, 1.1)
    trunk = turn(0, rng.uniform(-5, 12)) @ turn(2, rng.normal(0, 7)) @ turn(1, rng.normal(0, 12))
    head = turn(1, rng.normal(0, 15)) @ turn(0, rng.normal(0, 6)) @ turn(2, rng.normal(0, 8))
    points = np.zeros((21, 3))
    points[7] = trunk @ (0, -0.265, 0)
    points[8] = points[7] + _unit(trunk @ (0, -1, 0) + head @ (0, -1, 0)) * 0.05
    points[9] = points[8] + head @ (0, -HEAD, 0)
    points[20] = points[8] + head @ (0, -0.6 * HEAD, -0.4 * HEAD)
    for side, name, hip, shoulder in ((-1, legs[0], 2, 12), (1, legs[1], 3, 13)):
        points[hip] = (side * 0.06, 0, 0)
        leg = points[hip] + _leg(rng, name, side, leg_size)
        arm_start = trunk @ (side * 0.115, -0.25, 0)
        arm = arm_start + _arm(rng, side, arm_size) @ trunk.T
        points[shoulder] = arm_start
        points[[hip + side, hip + 2 * side, 18 if side < 0 else 19]] = leg
        points[[shoulder + side, shoulder + 2 * side, 16 if side < 0 else 17]] = arm
    return points


@dataclass(frozen=True)
class Outfit:
    """The appearance of a person: colors (3,) in 0..255, and the width of limbs and trunk."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trousers: np.ndarray
    pads: np.ndarray
    gloves: np.ndarray  # and shoes
    rucksack: np.ndarray  # and straps and heels
    width: float


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Random colors and width."""
    skin, hair = (np.array(palette[rng.integers(5)], float) for palette in (SKINS, HAIRS))
    shirt, trousers = rng.uniform(60, 240, (2, 3))
    return Outfit(
        skin=skin * rng.uniform(0.92, 1.06),
        hair=np.minimum(hair, 0.6 * skin),
        shirt=shirt,
        trousers=0.6 * trousers,
        pads=PADS * rng.uniform(0.6, 1.4),
        gloves=GLOVES * rng.uniform(0.85, 1.0),
        rucksack=RUCKSACK * rng.uniform(0.85, 1.05),
        width=float(rng.uniform(0.9, 1.15)),
    )


def figure_solids(points: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    """The solids of a person at `points` (21, 3) px, whose body is `unit` px tall."""
    behind = _unit(np.cross(points[13] - points[12], points[6] - points[7]))
    limbs = []
    for hip, knee, ankle, toes in ((2, 1, 0, 18), (3, 4, 5, 19)):
        limbs += _leg_solids(points[[hip, knee, ankle, toes]], behind, outfit, unit)
    for shoulder, elbow, wrist, hand in ((12, 11, 10, 16), (13, 14, 15, 17)):
        limbs += _arm_solids(points[[shoulder, elbow, wrist, hand]], outfit, unit)
    return limbs + _trunk_solids(points, behind, outfit, unit) + _head_solids(points, outfit, unit)


def _leg_solids(leg: np.ndarray, behind: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    hip, knee, ankle, toes = leg
    wide = unit * outfit.width
    upper, lower = knee + 0.12 * (hip - knee), knee + 0.12 * (ankle - knee)
    strap = 0.02 * unit * behind
    return [
        Solid(hip, knee, (0.062 * wide, 0.045 * wide), outfit.trousers),
        Solid(upper, lower, (0.054 * wide,) * 2, outfit.pads),
        Solid(upper + strap, lower + strap, (0.052 * wide,) * 2, outfit.rucksack),
        Solid(knee, ankle, (0.042 * wide, 0.032 * wide), outfit.skin),
        Solid(ankle, toes, (0.042 * unit, 0.034 * unit), outfit.gloves),
        Solid(ankle + strap, ankle + strap, (0.039 * unit,) * 2, outfit.rucksack),
    ]


def _arm_solids(arm: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    shoulder, elbow, wrist, hand = arm
    wide = unit * outfit.width
    upper, lower = elbow + 0.12 * (shoulder - elbow), elbow + 0.12 * (wrist - elbow)
    return [
        Solid(shoulder, elbow, (0.046 * wide, 0.036 * wide), outfit.shirt),
        Solid(upper, lower, (0.044 * wide,) * 2, outfit.pads),
        Solid(elbow, wrist, (0.034 * wide, 0.028 * wide), outfit.skin),
        Solid(wrist, hand, (0.034 * unit, 0.030 * unit), outfit.gloves),
    ]


def _trunk_solids(points: np.ndarray, behind: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    pelvis, thorax, neck = points[6:9]
    across, spine = _unit(points[13] - points[12]), pelvis - thorax
    facing = float(across[:2] @ across[:2])

    def slab(start: float, end: float, widths: tuple[float, float], color: np.ndarray) -> Solid:
        """A part of the trunk; its width in the picture depends on the direction the person faces."""
        radii = np.sqrt(np.square(widths) * facing + 0.07**2 * (1 - facing)) * unit * outfit.width
        depth = 0.07 * unit * outfit.width / radii.mean()
        return Solid(thorax + start * spine, thorax + end * spine, tuple(radii), color, depth)

    yoke = 0.046 * unit * outfit.width
    top, bottom = (thorax + share * spine + 0.09 * unit * behind for share in (0.22, 0.6))
    return [
        slab(0.30, 0.90, (0.112, 0.098), outfit.shirt),
        slab(0.97, 1.02, (0.104, 0.104), outfit.trousers),
        Solid(points[12], points[13], (yoke, yoke), outfit.shirt),
        Solid(thorax, neck, (0.042 * unit, 0.042 * unit), outfit.skin),
        Solid(top, bottom, (0.085 * unit, 0.095 * unit), outfit.rucksack, 0.6),
    ]


def _head_solids(points: np.ndarray, outfit: Outfit, unit: float) -> list[Solid]:
    neck, top = points[8:10]
    size = HEAD * unit
    up = _unit(top - neck)
    ahead = _unit(points[20] - (neck + 0.6 * (top - neck)))
    across = np.cross(ahead, up)

    def ball(sideways: float, upwards: float, forwards: float, radius: float, color: np.ndarray) -> Solid:
        """A ball in the head; position relative to the neck and radius are in sizes of the head."""
        middle = neck + size * (sideways * across + upwards * up + forwards * ahead)
        return Solid(middle, middle, (radius * size,) * 2, color)

    white, dark = np.full(3, 240.0), np.full(3, 25.0)
    solids = [
        ball(0, 0.50, 0.02, 0.42, outfit.skin),
        ball(0, 0.60, -0.10, 0.42, outfit.hair),
    ]
    for side in (-0.17, 0.17):
        solids += [ball(side, 0.50, 0.36, 0.09, white), ball(side, 0.50, 0.40, 0.06, dark)]
    return solids
