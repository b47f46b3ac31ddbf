"""Where each person's patch lies on the photograph, and how many pixels it has.

A patch never has more pixels than the photograph has there. If the photograph has up to `DENSEST` px per px
of the un-augmented crop, the patch holds the photograph's own pixels; if it has more, these are first halved,
which a JPEG decoder does by itself, and then resampled if they are still too many. All of this follows from
the table of people, before any photograph is opened.
"""

from dataclasses import dataclass

import numpy as np

from data.geometry import PIXELS_PER_SCALE

DENSITY = 1.25  # patch px per px of the un-augmented crop that zooming in can still resolve
DENSEST = 1.75  # up to here resampling costs more time than the smaller patch saves
RIM = 3  # px of a patch beyond the farthest crops: where resampling and the crops' filter meet the border


@dataclass(frozen=True)
class Windows:
    """The windows of N people; each is a square of whole pixels of the photograph, shrunk by a whole number.

    shrink  int64 [N]           px of the photograph per px of the shrunk one, a power of two
    corner  int64 [N, 2] px     upper left corner (x, y) in the shrunk photograph
    length  int64 [N] px        side in the shrunk photograph
    side    int64 [N] px        side of the patch; less than `length` where it is resampled
    box     f32 [N, 3] px       the person's box in the patch: middle (x, y) and side
    """

    shrink: np.ndarray
    corner: np.ndarray
    length: np.ndarray
    side: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.side)

    def __getitem__(self, rows: np.ndarray) -> "Windows":
        """The windows of the people in these rows."""
        return Windows(*(column[rows] for column in vars(self).values()))

    @staticmethod
    def of(center: np.ndarray, scale: np.ndarray, margin: float, in_res: int) -> "Windows":
        """The windows of people for crops of `in_res` px that reach over `margin` box sides.

        center: [N, 2] px. scale: [N], box side / 200 px.
        """
        box = PIXELS_PER_SCALE * scale.astype(float)
        shrink = 2 ** np.floor(np.log2(box / (DENSITY * in_res))).clip(min=0)
        center, box = center / shrink[:, None], box / shrink  # px of the shrunk photograph
        zoom = np.where(box > DENSEST * in_res, DENSITY * in_res / box, 1.0)
        side = np.ceil(margin * box * zoom) + 2 * RIM + 1  # one more, since corners are whole numbers
        length = np.ceil(side / zoom)
        corner = np.rint(center - length[:, None] / 2)
        zoom = side / length
        middle, box = (center - corner) * zoom[:, None], box * zoom
        whole = (shrink, corner, length, side)
        return Windows(*(column.astype(np.int64) for column in whole), np.c_[middle, box].astype(np.float32))
