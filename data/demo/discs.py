"""Pictures of the data set control: figures of three discs, which `models.known_answer` reads."""

import numpy as np
from PIL import Image

SIDE = 128  # px of a picture
BOX = 100  # px of a person's box
LENGTH = 0.5 * BOX  # px from head to foot
RADIUS = 5  # px of a disc


def paint_discs(rng: np.random.Generator) -> tuple[Image.Image, dict]:
    """An RGB picture of a figure, and the fields of its row that depend on the picture.

    On black are a green head above a blue foot and a red mark in one of the four quarters around their
    middle. Joints 0 to 7 are all at the foot and 8 to 15 at the head, so a mirrored figure has the same
    joints, and its mark on the other side.
    """
    middle = SIDE / 2 + rng.uniform(-2, 2, 2)
    half = np.array([0, LENGTH / 2])
    head, foot = middle - half, middle + half
    mark = middle + rng.choice((-1, 1), 2) * rng.uniform(8, 18, 2)
    pixels = np.arange(SIDE) + 0.5
    channels = [
        np.clip(RADIUS + 0.5 - np.hypot(pixels - x, pixels[:, None] - y), 0, 1) * rng.uniform(150, 255)
        for x, y in (mark, head, foot)
    ]
    scale = BOX / 200 / 1.25  # the reader enlarges it, and moves the center, as usual for MPII's annotations
    row = {
        "img_width": SIDE,
        "img_height": SIDE,
        "objpos": [middle[0], middle[1] - 15 * scale],
        "joint_self": [[*joint, 1] for joint in 8 * [foot.tolist()] + 8 * [head.tolist()]],
        "scale_provided": scale,
        "normalizer": LENGTH,
    }
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)), row
