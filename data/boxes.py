"""Boxes that a detector has found in the validation photographs, in COCO's results format."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import DataError
from data.datasets import Dataset
from data.loading.presence import with_photographs
from data.people import People
from data.readers.checks import RowChecks, load_json
from data.readers.coco import column_of, references, reject_flat_boxes, square, whole_number

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Boxes:
    """N boxes; people: the table, without joints; image_ids, category_ids, scores: N each."""

    people: People
    image_ids: list[int]
    category_ids: list[int]
    scores: list[float]


def load_boxes(path: Path, dataset: Dataset, skip_missing: bool = False) -> Boxes:
    """The boxes {image_id, category_id, bbox [x, y, w, h] px, score} in a JSON file, plain or gzipped.

    Left out are boxes of categories that the annotation file does not have (detectors find more than people),
    and those in photographs that are not evaluated; a logged line counts them.

    Raises:
        DataError: the file cannot be read, an entry is bad, no box is left, or a photograph is missing or
            incomplete, which `skip_missing` leaves out with a warning.
    """
    truth, entries = dataset.coco, load_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path} is not a list: expected the boxes of a detector in COCO's results format")
    entries = [one if isinstance(one, dict) else {} for one in entries]  # the checks then say what it lacks
    rows = [f"entry {row} (counted from 0)" for row in range(len(entries))]
    checks = RowChecks(path, rows, remedy="correct these {} of {} boxes")
    known = {image["id"]: image for image in truth.images}
    image_ids = references(checks, "image_id", column_of(entries, "image_id"), known)
    found = column_of(entries, "category_id")
    category_ids = [whole_number(id) for id in found]
    checks.reject("category_id", found, np.array([id is None for id in category_ids], bool), "a whole number")
    box = checks.numbers("bbox", column_of(entries, "bbox"), (4,), "x, y, width and height in px")
    reject_flat_boxes(checks, box)
    scores = checks.numbers("score", column_of(entries, "score"))
    shown = [known.get(id, {}) for id in image_ids.tolist()]
    people = checks.good_rows(
        People(
            checks.names("file_name", column_of(shown, "file_name"), truth.folder),
            **square(box),
            points=np.zeros((len(box), len(dataset.skeleton), 2)),
            normalizer=np.zeros(len(box)),
            valid=np.ones(len(box), bool),
            size=np.array([column_of(shown, side, 0) for side in ("width", "height")]).T,
            id=np.arange(len(box)),  # the entry
        )
    )
    categories = [category["id"] for category in truth.categories]
    used = np.isin(image_ids, truth.evaluated) & np.isin(category_ids, categories)
    if not used.any():
        raise DataError(
            f"{path}: none of {len(used)} boxes is in an evaluated photograph and of its categories"
        )
    if not used.all():
        left_out = f"{np.count_nonzero(~used)} of {len(used)}"
        log.info("%s: left out %s boxes, of other categories or photographs", path, left_out)
    people = with_photographs(people[used], dataset.root, None, skip_missing)
    columns = (image_ids, np.array(category_ids), scores)
    return Boxes(people, *(column[people.id].tolist() for column in columns))
