"""Leeds Sports Pose as files in COCO's format.

PYTHONPATH=. python tests/support/lsp_as_coco.py dataset/lsp FOLDER [PEOPLE PER SPLIT]
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from data.people import People, annotated
from data.readers.coco import BOX_MARGIN
from data.readers.lsp import read_lsp

LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NAMES = [
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *(f"{side}_{limb}" for limb in LIMBS for side in ("left", "right")),
]
FIRST = 5  # LSP has none of those before
MPII_JOINTS = (13, 12, 14, 11, 15, 10, 3, 2, 4, 1, 5, 0)
"""The joints from `FIRST` on, in MPII's numbers. Neck and head top have no name in COCO."""


def write_split(people: People, photographs: Path, path: Path) -> None:
    """Write people of whom each has a photograph of its own; bbox is such that the square is the same."""
    images, annotations = [], []
    for id, (name, center, scale, points) in enumerate(
        zip(people.image.tolist(), people.center, people.scale.tolist(), people.points, strict=True), 1
    ):
        image = {"id": id, "file_name": Path(name).name}
        with Image.open(photographs / image["file_name"]) as photograph:
            width, height = photograph.size
        images.append(image | {"width": width, "height": height})
        side = 200 * scale / BOX_MARGIN
        keypoints = np.zeros((len(NAMES), 3))
        keypoints[FIRST:, :2] = points[MPII_JOINTS, :]
        keypoints[FIRST:, 2] = 2 * annotated(points[MPII_JOINTS, :])
        annotation = {"id": id, "image_id": id, "category_id": 1, "iscrowd": 0}
        annotation["bbox"] = [*(center - side / 2).tolist(), side, side]
        annotations.append(annotation | {"keypoints": keypoints.ravel().tolist()})
    categories = [{"id": 1, "name": "person", "keypoints": NAMES}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_lsp_as_coco(lsp: Path, folder: Path, limit: int | None = None) -> None:
    """Write `train.json` and `valid.json` with the first `limit` people of each split of LSP's folder."""
    people = read_lsp(lsp / "joints.mat", "lsp/images")
    folder.mkdir(parents=True, exist_ok=True)
    for valid, name in ((False, "train"), (True, "valid")):
        write_split(people[people.valid == valid][:limit], lsp / "images", folder / f"{name}.json")


if __name__ == "__main__":
    write_lsp_as_coco(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
