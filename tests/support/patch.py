"""One person's patch of a photograph, and a batch of such, without a table of people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.loading.patches import read_patch
from data.loading.windows import Windows


def patch_of(
    path: Path, center: Sequence[float], scale: float, margin: float, in_res: int, **turned: object
) -> tuple[np.ndarray, int, np.ndarray]:
    """The patch u8 [P, P, 3], the photograph's width, and the box f32 [3] in the patch; see `Windows`."""
    window = Windows.of(np.float32([center]), np.float32([scale]), margin, in_res)[0]
    patch = np.zeros((window.side, window.side, 3), np.uint8)
    width = read_patch(path, int(window.shrink), window.corner, int(window.length), patch, **turned)
    return patch, width, window.box
