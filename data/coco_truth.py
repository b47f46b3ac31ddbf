"""What an evaluation of COCO's kind needs to know of an annotation file beyond the table of people."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class CocoTruth:
    """The annotations of a validation split in COCO's terms.

    images       {id, file_name, width, height} of every photograph of the file, the name as the file has it;
                 0 px where it does not say
    annotations  {id, image_id, category_id, bbox [x, y, w, h], area, iscrowd 0 or 1, num_keypoints, keypoints
                 [3K]} of all annotations that have joints' names, among them crowd regions and people without
                 an annotated joint, who are not in the table. `area` is 0.53 * w * h where the file has none;
                 `num_keypoints` is counted, not read
    categories   {id, name} of the categories that have joints
    folder       of the photographs, relative to the data set's root
    ids          int64 [N], the annotation's id of each row of the table of validation people
    """

    images: list[dict]
    annotations: list[dict]
    categories: list[dict]
    folder: str = ""
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @cached_property
    def rows(self) -> list[dict]:
        """The annotation of each row of the table of validation people."""
        annotation = {one["id"]: one for one in self.annotations}
        return [annotation[id] for id in self.ids.tolist()]

    @cached_property
    def to_find(self) -> list[dict]:
        """The annotations of people to be found: all but crowd regions and people without a joint."""
        return [one for one in self.annotations if one["num_keypoints"] and not one["iscrowd"]]

    @cached_property
    def evaluated(self) -> list[int]:
        """Ids of the photographs on which results are scored.

        All of them, unless the table lacks people who are to be found, as with --limit: then those of the
        people in the table.
        """
        if {one["id"] for one in self.to_find} <= set(self.ids.tolist()):
            return [image["id"] for image in self.images]
        return sorted({row["image_id"] for row in self.rows})
