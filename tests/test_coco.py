"""Files in COCO's keypoints format: what is read, what is left out, and what is refused."""

import json

import numpy as np
import pytest

from data import DataError
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


def test_who_is_left_out(tmp_path, caplog):
    caplog.set_level("INFO")
    bag = {"id": 2, "name": "bag", "supercategory": "objects"}
    people = [
        annotation(1),
        annotation(2, iscrowd=1, keypoints=(1, 1, 2) * 3),
        annotation(3, keypoints=(5, 5, 0) * 3, bbox=[0, 0, 0, 0]),
        annotation(4, iscrowd=True, keypoints=()),
        annotation(5, category_id=2, keypoints=()),
        annotation(6),
        {field: value for field, value in annotation(7).items() if field != "keypoints"},
    ]
    content = coco_file(people)
    content["categories"].append(bag)
    file = read(tmp_path, content)
    assert file.people.id.tolist() == [1, 6]
    assert "left out 1 of 7 annotations, whose categories have no joints" in caplog.text
    assert "2 people; left out 2 crowd regions and 2 people without an annotated joint" in caplog.text
    assert [one["id"] for one in file.truth.annotations] == [1, 2, 3, 4, 6, 7]
    assert file.truth.categories == [{"id": 1, "name": "person"}]
    assert read(tmp_path, content, valid=False).truth is None


def test_the_truth_is_what_the_file_has_and_what_it_lacks_is_computed(tmp_path):
    people = [annotation(1, num_keypoints=17, area=100.5, iscrowd=False), annotation(2, num_keypoints=0)]
    first, second = read(tmp_path, coco_file(people)).truth.annotations
    expected = {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [4, 6, 20, 40],
        "area": 100.5,
        "iscrowd": 0,
        "num_keypoints": 2,
        "keypoints": [10, 20, 2, 0, 0, 0, 30.5, 12, 1],
    }
    assert first == expected
    assert second == expected | {"id": 2, "area": pytest.approx(0.53 * 20 * 40)}


def test_ids_may_start_at_0_and_be_written_with_a_point(tmp_path):
    categories = [{"id": 0, "name": "person", "keypoints": NAMES}]
    people = [annotation(0, image_id=0, category_id=0), annotation(1.0, image_id=0.0, category_id=0)]
    file = read(tmp_path, coco_file(people, images=[photograph(0)], categories=categories))
    assert file.people.id.tolist() == [0, 1]
    assert file.people.image.tolist() == ["photos/0.jpg"] * 2
    assert [one["category_id"] for one in file.truth.annotations] == [0, 0]


def test_several_categories_share_their_names(tmp_path):
    categories = [{"id": one, "name": f"animal {one}", "keypoints": NAMES} for one in (3, 9)]
    people = [annotation(1, category_id=9), annotation(2, category_id=3)]
    file = read(tmp_path, coco_file(people, categories=categories))
    assert file.skeleton.joints == tuple(NAMES)
    assert file.skeleton.pairs == ((1, 2),)
    assert file.skeleton.bones == ()
    assert [one["category_id"] for one in file.truth.annotations] == [9, 3]
    categories[1]["keypoints"] = NAMES[::-1]
    with pytest.raises(DataError, match="'animal 3' and 'animal 9' have different keypoints"):
        read(tmp_path, coco_file(people, categories=categories))


def test_bones_count_joints_from_1(tmp_path):
    content = coco_file([annotation()])
    content["categories"][0]["skeleton"] = [[1, 2], [3, 1]]
    assert read(tmp_path, content).skeleton.bones == ((0, 1), (2, 0))


@pytest.mark.parametrize("other", [0, 4])
def test_bones_that_count_other_joints_are_all_left_out(tmp_path, caplog, other):
    content = coco_file([annotation()])
    content["categories"][0]["skeleton"] = [[1, 2], [3, other], [3, 1]]
    assert read(tmp_path, content).skeleton.bones == ()
    assert f"left out all 3 bones: found joint {other}, expected 1 to 3" in caplog.text


@pytest.mark.parametrize("place", ["category", "file"])
def test_sigmas_of_the_file(tmp_path, place):
    content = coco_file([annotation()])
    assert read(tmp_path, content).skeleton.sigmas is None
    (content["categories"][0] if place == "category" else content)["sigmas"] = [0.1, 0.2, 0.3]
    assert read(tmp_path, content).skeleton.sigmas == (0.1, 0.2, 0.3)
    (content["categories"][0] if place == "category" else content)["sigmas"] = [0.1, 0]
    with pytest.raises(DataError, match="field sigmas: found 2 numbers, expected 3 numbers above 0"):
        read(tmp_path, content)


def test_published_sigmas_go_by_names_in_any_order(tmp_path):
    names = ["Neck", "Head"] + [
        f"{side} {joint}"
        for joint in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
        for side in ("Right", "Left")
    ]
    categories = [{"id": 1, "name": "person", "keypoints": names}]
    skeleton = read(
        tmp_path, coco_file([annotation(keypoints=(5, 5, 1) * 14)], categories=categories)
    ).skeleton
    assert skeleton.name == "crowdpose"
    assert skeleton.sigmas[:6] == (0.079, 0.079, 0.089, 0.089, 0.087, 0.087)


ONE = "annotation 1, field"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"keypoints": [1, 2, 2]},
            f"{ONE} keypoints: found 3 numbers, expected x, y and v of 3 joints, 9 numbers",
        ),
        ({"keypoints": [1, 2, 3] * 3}, f"{ONE} keypoints: found 3.0, expected v of each joint"),
        ({"keypoints": [float("nan"), 2, 2] * 3}, f"{ONE} keypoints: found nan at"),
        ({"keypoints": ["a"] * 9}, f"{ONE} keypoints: found 'a' at"),
        ({"keypoints": 5}, f"{ONE} keypoints: found 5"),
        ({"bbox": [1, 2, 0, 5]}, f"{ONE} bbox: found 0.0, expected a width and a height above 0"),
        ({"bbox": [1, 2, 3]}, f"{ONE} bbox: found 3 numbers, expected x, y, width and height"),
        ({"bbox": None}, f"{ONE} bbox: found None"),
        ({"bbox": [1, 2, float("inf"), 5]}, f"{ONE} bbox: found inf"),
        (
            {"image_id": 8},
            f"{ONE} image_id: found 8, expected a whole number, the id of one of 1 image entries",
        ),
        ({"image_id": "7"}, f"{ONE} image_id: found '7'"),
        ({"image_id": [7]}, f"{ONE} image_id"),
        ({"category_id": 2}, f"{ONE} category_id: found 2"),
        ({"iscrowd": 2}, f"{ONE} iscrowd: found 2, expected 0 or 1"),
        ({"area": "large"}, f"{ONE} area: found 'large'"),
        ({"id": None}, "annotation number 0 .*, field id: found None, expected a whole number"),
        ({"id": "1"}, "annotation number 0 .*, field id: found '1'"),
        ({"id": 2**63}, "annotation number 0 .*, field id: found 9223372036854775808"),
        ({"id": 2}, "annotation 2, field id: found 2, expected a different id for each annotation"),
    ],
)
def test_a_bad_annotation_is_named_with_its_field_and_can_be_skipped(tmp_path, caplog, changes, message):
    content = coco_file([annotation(1) | changes, annotation(2)])
    with pytest.raises(DataError, match=rf"own\.json: {message}") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("correct these 1 of 2 people, or skip them with --skip_bad true")
    file = read(tmp_path, content, skip_bad=True)
    assert "skipped 1 of 2 people with invalid annotations" in caplog.text
    assert file.people.id.tolist() == [one["id"] for one in file.truth.annotations] == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_name": "/etc/7.jpg"}, f"{ONE} file_name: found '/etc/7.jpg', expected a file name inside"),
        ({"file_name": "../7.jpg"}, f"{ONE} file_name: found '../7.jpg'"),
        ({"file_name": "C:\\\\7.jpg"}, f"{ONE} file_name: found 'C:"),
        ({"file_name": None}, f"{ONE} file_name: found None"),
        ({"width": "wide"}, f"{ONE} width: found 'wide'"),
        ({"height": -3}, f"{ONE} height: found -3"),
        ({"id": "7"}, f"{ONE} image_id: found 7"),
    ],
)
def test_a_bad_photograph_is_named_with_its_annotation(tmp_path, changes, message):
    content = coco_file([annotation()], images=[photograph() | changes])
    with pytest.raises(DataError, match=rf"own\.json: {message}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 7, "score": 1.0}], "is a list of detections or results"),
        ([{"image": "7.jpg", "joints": []}], "--dataset mpii reads lists of MPII's people"),
        (5, "found 5, expected images, annotations, categories"),
        ({"images": [], "annotations": {}}, "field annotations: found {}, expected a list"),
        (coco_file([]), "found 1 photographs and no annotation with joints, expected at least one: move"),
        (coco_file([], categories=[]), "found no names of joints, expected them in the field keypoints"),
        (
            coco_file([], categories=[{"id": 1, "name": "a", "keypoints": ["x", 1]}]),
            "expected a list of joints' names",
        ),
        (
            coco_file([], categories=[{"id": 1, "name": "a", "keypoints": ["x", "x"]}]),
            "a different name for each",
        ),
        (
            coco_file([], categories=[{"name": "a", "keypoints": ["x"]}]),
            "category number 0 .* expected a whole",
        ),
        (coco_file([], images=[photograph(), photograph()]), "images, field id: found 7 twice"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"own\.json.*{message}") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
