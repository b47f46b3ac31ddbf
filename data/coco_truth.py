"""What an evaluation of COCO's kind needs to know of an annotation file beyond the table of people."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class CocoTruth:
    """The annotations of a validation split in COCO's terms.

    images       {id, width, height} of every photograph of the file; 0 px where the file does not say
    annotations  {id, image_id, category_id, bbox [x, y, w, h], area, iscrowd 0 or 1, num_keypoints, keypoints
                 [3K]} of all annotations that have joints' names, among them crowd regions and people without
                 an annotated joint, who are not in the table. `area` is 0.53 * w * h where the file has none;
                 `num_keypoints` is counted, not read
    categories   {id, name} of the categories that have joints
    ids          int64 [N], the annotation's id of each row of the table of validation people
    """

    images: list[dict]
    annotations: list[dict]
    categories: list[dict]
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
