"""Files in COCO's keypoints format: what is read, what is left out, and what is refused."""

import json

import numpy as np
import pytest

from data.readers.coco import read_coco

NAMES = ["nose", "left_hand", "right_hand"]


def photograph(id=7, **changes):
    return {"id": id, "file_name": f"{id}.jpg", "width": 64, "height": 48} | changes


def annotation(id=1, keypoints=(10, 20, 2, 0, 0, 0, 30.5, 12, 1), **changes):
    fields = {"image_id": 7, "category_id": 1, "bbox": [4, 6, 20, 40], "keypoints": list(keypoints)}
    return {"id": id} | fields | changes


def coco_file(annotations, **changes):
    categories = [{"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}]
    return {"images": [photograph()], "annotations": annotations, "categories": categories} | changes


def read(tmp_path, content, valid=True, skip_bad=False):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    return read_coco(path, "photos", valid, skip_bad)


def test_box_points_and_normalizer(tmp_path):
    people = read(tmp_path, coco_file([annotation(id=2**40)])).people
    assert people.image.tolist() == ["photos/7.jpg"]
    assert people.center.tolist() == [[14, 26]]
    assert people.scale == pytest.approx(1.25 * 40 / 200)
    assert people.normalizer.tolist() == [40]
    assert people.points.tolist() == [[[10, 20], [0, 0], [30.5, 12]]]
    assert people.size.tolist() == [[64, 48]]
    assert people.id.tolist() == [2**40]
    assert people.valid.tolist() == [True]


def test_a_joint_on_the_edge_counts_and_one_beyond_it_does_not(tmp_path):
    keypoints = (0, 20, 2, -0.5, 0, 1, -5, 12, 2)
    people = read(tmp_path, coco_file([annotation(keypoints=keypoints)])).people
    assert people.points.tolist() == pytest.approx(np.float32([[[0.01, 20], [0.01, 0.01], [0, 0]]]))


def test_not_annotated_wherever_x_and_y_are(tmp_path):
    keypoints = (10, 20, 0, None, float("nan"), 0, 3, 4, 1)
    file = read(tmp_path, coco_file([annotation(keypoints=keypoints)]))
    assert file.people.points.tolist() == [[[0, 0], [0, 0], [3, 4]]]
    assert file.truth.annotations[0]["keypoints"] == [10, 20, 0, 0, 0, 0, 3, 4, 1]
