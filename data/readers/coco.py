"""Reader of COCO's keypoints format (Lin et al., ECCV 2014), in which many data sets and tools write."""

import logging
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import DataError
from data.coco_truth import CocoTruth
from data.people import People
from data.readers.checks import FORMATS, RowChecks, finite, load_json, not_negative, positive, shorten
from data.readers.coco_skeleton import read_skeleton
from data.skeleton import Skeleton

log = logging.getLogger(__name__)

BOX_MARGIN = 1.25
# Of bbox, where the file has no area: as in the evaluations of CrowdPose and AI Challenger.
AREA = 0.53
_EDGE = 0.01  # px
_LISTS = ("images", "annotations", "categories")
_OF_PHOTOGRAPHS = ("file_name", "width", "height")
_OF_ANNOTATIONS = ("image_id", "category_id", "bbox", "keypoints", "area", "iscrowd")
_OF_CATEGORIES = ("name", "skeleton", "sigmas")
_KEPT = {"id", *_LISTS, *_OF_PHOTOGRAPHS, *_OF_ANNOTATIONS, *_OF_CATEGORIES}
_SIDE = "a side of the photograph in px, or 0 where it is unknown"


@dataclass(frozen=True, eq=False)
class CocoFile:
    """One annotation file: its people, their skeleton and, of a validation split, the truth."""

    people: People
    skeleton: Skeleton
    truth: CocoTruth | None


def read_coco(path: Path, images: str, valid: bool, skip_bad: bool = False) -> CocoFile:
    """An annotation file in COCO's keypoints format, plain or gzipped: the people of one split.

    Fields read, of photographs: id, file_name (below the folder `images`), where present width and height;
    of annotations: id, image_id, category_id, bbox (x, y, w, h px), keypoints (x, y px and v of each joint: 0
    not annotated, 1 hidden, 2 visible), and where present iscrowd and area; of categories: `read_skeleton`.
    Left out are annotations of categories without joints, crowd regions, and people without an annotated
    joint; logged lines count them.

    `center` is the middle of bbox, `scale` its longer side / 200 px times 1.25, `normalizer` its longer side.
    An annotated joint up to 1 px beyond the left or the upper edge is moved inside; one further out counts as
    not annotated, as in every table of people.

    valid: whether the people are of the validation split; only that has a truth.

    Raises DataError for an unreadable file or a bad annotation; `skip_bad` leaves bad annotations out.
    """
    content = _load(path)
    photographs = _by_id(path, content["images"])
    categories, annotations = _with_joints(path, content)
    skeleton = read_skeleton(path, categories, content.get("sigmas"))
    if not annotations:
        raise DataError(
            f"{path}: found {len(photographs)} photographs and no annotation with joints, expected at least "
            "one: move photographs with people into this split"
        )
    checks = RowChecks(path, [_name(row, annotation) for row, annotation in enumerate(annotations)], skip_bad)
    columns = {"id": _check_ids(checks, column_of(annotations, "id"))}
    for field, known in (("image_id", photographs), ("category_id", {one["id"] for one in categories})):
        columns[field] = references(checks, field, column_of(annotations, field), known)
    columns |= _check_fields(checks, annotations, len(skeleton))

    shown = [photographs.get(id, {}) for id in columns["image_id"].tolist()]
    sides = [
        checks.numbers(side, column_of(shown, side, 0), (), _SIDE, not_negative)
        for side in ("width", "height")
    ]
    table = checks.good_rows(
        People(
            checks.names("file_name", column_of(shown, "file_name"), images),
            **_geometry(columns["bbox"], columns["keypoints"]),
            valid=np.full(len(annotations), valid),
            size=np.stack(sides, axis=1),
            id=columns["id"],
        )
    )
    columns = {field: column[checks.good] for field, column in columns.items()}
    crowd, people = columns["iscrowd"] == 1, _is_person(columns["iscrowd"], columns["num_keypoints"])
    log.info(
        "%s: %d people; left out %d crowd regions and %d people without an annotated joint",
        *(path, people.sum(), crowd.sum(), (~crowd & ~people).sum()),
    )
    truth = _truth(photographs, columns, categories, images) if valid else None
    return CocoFile(table[people], skeleton, truth)


def _load(path: Path) -> dict[str, list[dict]]:
    content = load_json(path, _compact)
    if isinstance(content, list):
        if content and isinstance(content[0], dict) and "image_id" in content[0]:
            raise DataError(
                f"{path} is a list of detections or results: expected a file of annotations; {FORMATS}"
            )
        raise DataError(
            f"{path} is a list, not a file in COCO's format: expected {', '.join(_LISTS)}; "
            f"--dataset mpii reads lists of MPII's people; {FORMATS}"
        )
    if not isinstance(content, dict):
        raise DataError(f"{path}: found {shorten(content)}, expected {', '.join(_LISTS)}; {FORMATS}")
    for field in _LISTS:
        if not isinstance(content.get(field), list):
            found = shorten(content.get(field))
            raise DataError(
                f"{path}: field {field}: found {found}, expected a list, as in COCO's format; {FORMATS}"
            )
        # An entry that is no object lacks every field, which the checks then say.
        content[field] = [entry if isinstance(entry, dict) else {} for entry in content[field]]
    return content


def _compact(entry: dict) -> dict:
    """A JSON object with the fields that are read; a list of numbers takes 8 bytes per number, not 30."""
    entry = {field: value for field, value in entry.items() if field in _KEPT}
    for field in ("bbox", "keypoints"):
        if isinstance(entry.get(field), list):
            with suppress(TypeError, OverflowError):  # not numbers alone: names, or a bad row
                entry[field] = array("d", entry[field])
    return entry


def whole_number(value: object) -> int | None:
    """A whole number of 64 bits, which other programs may have written as 1.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < 2**63 else None


def _by_id(path: Path, photographs: list[dict]) -> dict[int, dict]:
    """Photographs by their ids; no annotation can be of a photograph without one."""
    by_id = {}
    for photograph in photographs:
        id = whole_number(photograph.get("id"))
        if id in by_id:
            raise DataError(f"{path}: images, field id: found {id} twice, expected a different id for each")
        if id is not None:
            by_id[id] = photograph
    names = [str(photograph.get("file_name")) for photograph in by_id.values()]
    if len(set(names)) < len(names):
        twice = len(names) - len(set(names))
        log.warning("%s: %d of %d photographs have the file name of another one", path, twice, len(names))
    return by_id


def _with_joints(path: Path, content: dict) -> tuple[list[dict], list[dict]]:
    """The categories that have joints, and the annotations without those of other categories."""
    for row, category in enumerate(content["categories"]):
        category["id"] = whole_number(category.get("id"))
        if category["id"] is None or not isinstance(category.get("name"), str):
            raise DataError(f"{path}: category number {row} (from 0): expected a whole number id and a name")
    categories = [category for category in content["categories"] if category.get("keypoints")]
    if not categories:
        raise DataError(
            f"{path}: found no names of joints, expected them in the field keypoints of a category, as in "
            "person_keypoints_train2017.json: add them"
        )
    others = {one["id"] for one in content["categories"]} - {one["id"] for one in categories}
    annotations = [
        one for one in content["annotations"] if whole_number(one.get("category_id")) not in others
    ]
    if len(annotations) < len(content["annotations"]):
        count = f"{len(content['annotations']) - len(annotations)} of {len(content['annotations'])}"
        log.info("%s: left out %s annotations, whose categories have no joints", path, count)
    return categories, annotations


def _name(row: int, annotation: dict) -> str:
    id = whole_number(annotation.get("id"))
    return f"annotation number {row} (from 0)" if id is None else f"annotation {id}"


def column_of(entries: list[dict], field: str, default: object = None) -> list:
    """The values of a field, `default` where there is none or it is null."""
    values = (entry.get(field) for entry in entries)
    return [default if value is None else value for value in values]


def _check_ids(checks: RowChecks, found: list) -> np.ndarray:
    """The annotations' ids, int64 [N]."""
    ids = [whole_number(id) for id in found]
    checks.reject("id", found, np.array([id is None for id in ids], bool), "a whole number")
    first = {id: row for row, id in reversed(list(enumerate(ids)))}
    again = [first[id] != row for row, id in enumerate(ids)]
    checks.reject("id", found, np.array(again, bool), "a different id for each annotation")
    return np.array([id or 0 for id in ids], np.int64)


def references(checks: RowChecks, field: str, found: list, known: dict | set) -> np.ndarray:
    """A column of ids of photographs or categories, int64 [N]."""
    ids = [whole_number(id) for id in found]
    what = f"a whole number, the id of one of {len(known)} {field.removesuffix('_id')} entries"
    checks.reject(field, found, np.array([id not in known for id in ids], bool), what)
    return np.array([id or 0 for id in ids], np.int64)


def _check_fields(checks: RowChecks, annotations: list[dict], joints: int) -> dict[str, np.ndarray]:
    """The other columns of `CocoTruth.annotations`, with N rows; keypoints is [N, 3K]."""

    def is_flag(values: np.ndarray) -> np.ndarray:
        return np.isin(values, (0, 1))

    def are_joints(values: np.ndarray) -> np.ndarray:
        x, y, v = np.moveaxis(values.reshape(-1, joints, 3), 2, 0)
        return np.repeat((v == 0) | (finite(x) & finite(y) & finite(v)), 3, axis=1)

    crowd = checks.numbers("iscrowd", column_of(annotations, "iscrowd", 0), (), "0 or 1", is_flag)
    none = array("d", bytes(8 * 3 * joints))
    found = [none if _is_empty(value) else value for value in column_of(annotations, "keypoints", [])]
    expected = f"x, y and v of {joints} joints, {3 * joints} numbers"
    keypoints = checks.numbers("keypoints", found, (3 * joints,), expected, are_joints)
    unknown = ~np.isin(keypoints[:, 2::3], (0, 1, 2))
    first = keypoints[np.arange(len(keypoints)), 2 + 3 * unknown.argmax(axis=1)]
    checks.reject("keypoints", first, unknown.any(axis=1), "v of each joint to be 0, 1 or 2")
    labelled = (keypoints[:, 2::3] > 0).sum(axis=1)

    found = column_of(annotations, "bbox")
    box = checks.numbers("bbox", found, (4,), "x, y, width and height in px")
    reject_flat_boxes(checks, box, _is_person(crowd, labelled))
    area = checks.numbers("area", column_of(annotations, "area", 0), (), "a number of square px", np.isfinite)
    return {
        "bbox": box,
        "area": np.where(area > 0, area, AREA * box[:, 2] * box[:, 3]),
        "iscrowd": crowd.astype(int),
        "num_keypoints": labelled,
        "keypoints": np.where(np.isfinite(keypoints), keypoints, 0),
    }


def reject_flat_boxes(checks: RowChecks, box: np.ndarray, among: np.ndarray | bool = True) -> None:
    """Mark boxes [N, 4] without a width or a height as bad; among: bool [N], which are checked."""
    sides = box[:, 2:]
    flat = among & ~positive(sides).all(axis=1)
    checks.reject("bbox", sides.min(axis=1), flat, "a width and a height above 0")


def _is_empty(value: object) -> bool:
    return isinstance(value, list | array) and not value


def _is_person(crowd: np.ndarray, num_keypoints: np.ndarray) -> np.ndarray:
    """Bool [N]: whether an annotation is of one person with an annotated joint."""
    return (crowd == 0) & (num_keypoints > 0)


def _geometry(box: np.ndarray, keypoints: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of the table from box [N, 4] and keypoints [N, 3K]."""
    joints = keypoints.reshape(len(keypoints), -1, 3)
    xy = joints[..., :2]
    xy = np.where(xy > -1, np.maximum(xy, _EDGE), xy)
    points = np.where(joints[..., 2:] > 0, xy, 0)
    return {**square(box), "points": points, "normalizer": box[:, 2:].max(axis=1)}


def square(box: np.ndarray) -> dict[str, np.ndarray]:
    """Center [N, 2] px and scale [N] of the padded squares around boxes [N, 4], x, y, width, height in px."""
    scale = box[:, 2:].max(axis=1) / 200 * BOX_MARGIN
    return {"center": box[:, :2] + box[:, 2:] / 2, "scale": scale}


def _truth(
    photographs: dict[int, dict], columns: dict[str, np.ndarray], categories: list[dict], folder: str
) -> CocoTruth:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return CocoTruth(
        [
            {
                "id": id,
                "file_name": photograph.get("file_name"),
                "width": _px(photograph, "width"),
                "height": _px(photograph, "height"),
            }
            for id, photograph in photographs.items()
        ],
        [dict(zip(columns, row, strict=True)) for row in rows],
        [{"id": category["id"], "name": category["name"]} for category in categories],
        folder,
    )


def _px(photograph: dict, side: str) -> int:
    """Width or height of a photograph, 0 if unknown."""
    value = photograph.get(side)
    return int(value) if isinstance(value, int | float) and 0 < value < np.inf else 0
