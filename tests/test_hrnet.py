"""HRNet's files of MPII: their arithmetic, their head boxes, and that they tell of the same people."""

import gzip
import json
import logging

import numpy as np
import pytest
import scipy.io
from PIL import Image
from support.annotation_files import assert_same_people, entry, person, structs, write_json, write_official

from data import DataError
from data.datasets import load_dataset
from data.readers.hrnet import read_mpii_json
from data.readers.mpii import read_h5, read_json

IMAGES = "mpii/images"


def row(**changes):
    """Joint k at (100 + k, 200 + 2 k), counted from 1."""
    values = {
        "image": "a.jpg",
        "center": [120.0, 230.0],
        "scale": 2.0,
        "joints": [[100.0 + k, 200.0 + 2 * k] for k in range(16)],
        "joints_vis": [1.0] * 16,
    }
    return values | changes


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def write_boxes(path, sides, **variables):
    """Head boxes of 3 by 4 times the sides px."""
    corners = np.zeros((2, 2, len(sides)))
    corners[0] = 7
    corners[1] = 7 + np.outer((3, 4), sides)
    scipy.io.savemat(path, {"headboxes_src": corners} | variables)
    return path


def test_rows_are_read_with_the_arithmetic_of_the_published_loader(tmp_path):
    unplaced = row(center=[-1.0, 80.0], image="b/c.jpg")
    path = write(tmp_path / "train.json", row(), unplaced)
    people = read_mpii_json(path, IMAGES)
    assert people.image.tolist() == [f"{IMAGES}/a.jpg", f"{IMAGES}/b/c.jpg"]
    np.testing.assert_array_equal(people.center, [[119, 259], [-2, 79]])
    np.testing.assert_array_equal(people.scale, [2.5, 2])
    np.testing.assert_array_equal(people.points[0, 3], [102, 205])
    np.testing.assert_allclose(people.normalizer, [0.75 * np.hypot(1, 2)] * 2, rtol=1e-6)
    assert people.points.dtype == np.float32 and not people.valid.any()


def test_joints_without_joints_vis_are_not_annotated_and_those_at_the_edge_are(tmp_path):
    joints, visible = row()["joints"], row()["joints_vis"]
    joints[:5] = [[0.4, 300.0], [1.0, 1.0], [-3.0, 300.0], [500.0, 300.0], [-1.0, -1.0]]
    visible[3] = visible[4] = 0
    (points,) = read_mpii_json(
        write(tmp_path / "train.json", row(joints=joints, joints_vis=visible)), IMAGES
    ).points
    edge = np.float32(0.01)
    assert points[:6].tolist() == [[edge, 299], [edge, edge], [0, 0], [0, 0], [0, 0], [104, 209]]


def test_either_file_is_read_with_its_sibling(tmp_path):
    train, valid = (write(tmp_path / f"{name}.json", row(image=f"{name}.jpg")) for name in ("train", "valid"))
    people = read_mpii_json(valid, IMAGES)
    assert_same_people(people, read_mpii_json(train, IMAGES), rtol=0)
    assert people.image.tolist() == [f"{IMAGES}/train.jpg", f"{IMAGES}/valid.jpg"]
    assert people.valid.tolist() == [False, True]
    train.unlink()
    assert len(read_mpii_json(valid, IMAGES)) == 1


def test_head_boxes_of_validation_people(tmp_path, caplog):
    path = write(tmp_path / "valid.json", row(), row(joints_vis=[0.0] + [1.0] * 15))
    estimate = 0.75 * np.hypot(1, 2)
    np.testing.assert_allclose(read_mpii_json(path, IMAGES).normalizer, [estimate] * 2, rtol=1e-6)
    assert "gt_valid.mat does not exist: head sizes of all people are estimated" in caplog.text
    caplog.clear()
    missing = np.zeros((16, 2))
    missing[0, 1] = 1
    write_boxes(tmp_path / "gt_valid.mat", [10.0, 6.0], jnt_missing=missing)
    np.testing.assert_allclose(read_mpii_json(path, IMAGES).normalizer, [30, 18], rtol=1e-6)
    write(tmp_path / "train.json", row())
    np.testing.assert_allclose(read_mpii_json(path, IMAGES).normalizer, [estimate, 30, 18], rtol=1e-6)
    assert not caplog.text


@pytest.mark.parametrize("folder", ["annot", ""])
def test_head_boxes_of_the_official_file(tmp_path, caplog, folder):
    """Found by photograph and position; a head box of 30 x 40 px is that of one person of two."""
    caplog.set_level(logging.INFO)
    path = write(
        tmp_path / "annot" / "valid.json", row(image="0.jpg"), row(image="0.jpg", center=[50.0, 230.0])
    )
    write(tmp_path / "annot" / "train.json", row(image="0.jpg"))
    write_official(
        tmp_path / folder, [person(), person(scale=3.0, x2=100.0, objpos=structs({"x": 9.0, "y": 9.0}))]
    )
    estimate = 0.75 * np.hypot(1, 2)
    np.testing.assert_allclose(read_mpii_json(path, IMAGES).normalizer, [estimate, 30, estimate], rtol=1e-6)
    assert "head sizes of 1 of 2 validation people are those of" in caplog.text
    assert "tenth" not in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"headboxes_src": np.ones((2, 2, 3))}, "headboxes_src of 2 x 2 x 2, .* found 2 x 2 x 3$"),
        ({"other": 1}, "headboxes_src of 2 x 2 x 2, .* found none$"),
        ({"headboxes_src": np.full((2, 2, 2), np.nan)}, "headboxes_src has numbers that are not finite"),
        (
            {"headboxes_src": np.ones((2, 2, 2)), "jnt_missing": np.eye(16)[:, :2]},
            r"other people: .*\(jnt_missing\) of 2 of 2 people .* same order",
        ),
        (
            {"headboxes_src": np.ones((2, 2, 2)), "jnt_missing": np.zeros((2, 16))},
            "jnt_missing of 16 x 2, found 2 x 16",
        ),
    ],
)
def test_head_boxes_that_are_not_of_these_people(tmp_path, content, said):
    path = write(tmp_path / "valid.json", row(), row())
    scipy.io.savemat(tmp_path / "gt_valid.mat", content)
    with pytest.raises(DataError, match=rf"gt_valid\.mat.*{said}"):
        read_mpii_json(path, IMAGES)


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("image", "../a.jpg", "'../a.jpg'"),
        ("center", [1.0, None], r"None at \[1\]"),
        ("scale", 180.0, "180.0"),
        ("joints", row()["joints"][:15], "15 x 2 numbers"),
        ("joints_vis", None, "None"),
        ("joints_vis", [1.0] * 15, "15 numbers"),
    ],
)
def test_bad_row_is_named_or_skipped(tmp_path, caplog, field, value, found):
    path = write(tmp_path / "train.json", row(), row(**{field: value}), row(image="z.jpg"))
    with pytest.raises(DataError, match=rf"train\.json: row 1 .*, field {field}: found {found}, expected"):
        read_mpii_json(path, IMAGES)
    people = read_mpii_json(path, IMAGES, skip_bad=True)
    assert people.image.tolist() == [f"{IMAGES}/a.jpg", f"{IMAGES}/z.jpg"]
    assert "skipped 1 of 3 people" in caplog.text


def test_a_file_of_another_name_has_no_split(tmp_path):
    with pytest.raises(DataError, match=r"people\.json: expected a name .* train\.json or valid\.json or"):
        read_mpii_json(write(tmp_path / "people.json", row()), IMAGES)


def test_other_json_files_are_read_as_before(tmp_path):
    path = write_json(tmp_path, entry())
    assert_same_people(read_mpii_json(path, IMAGES), read_json(path, IMAGES), rtol=0)


@pytest.mark.parametrize(
    ("train", "valid", "boxes"),
    [
        ("annot/train.json", "annot/valid.json", "annot/gt_valid.mat"),
        ("annotations/mpii_train.json", "annotations/mpii_val.json", "annotations/mpii_gt_val.mat"),
    ],
)
def test_published_layouts_are_found(tmp_path, train, valid, boxes):
    folder = tmp_path / "mpii"
    for name in ("a", "b"):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 300)).save(folder / "images" / f"{name}.jpg")
    write(folder / train, row())
    write(folder / valid, row(image="b.jpg"))
    write_boxes(folder / boxes, [10.0])
    data = load_dataset("mpii", tmp_path)
    assert (len(data.train), data.valid.normalizer.tolist()) == (1, [30])
    assert len(load_dataset("mpii", tmp_path, folder / valid).people) == 2


def hrnet_row(source):
    joints = np.array(source["joint_self"])
    known = joints[:, :2].any(axis=1)
    return row(
        image=source["img_paths"],
        center=source["objpos"],
        scale=source["scale_provided"],
        joints=np.where(known[:, None], joints[:, :2], -1).tolist(),
        joints_vis=known.astype(float).tolist(),
    )


def test_real_people_are_those_of_the_other_files(real_data, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    packed = real_data / "mpii" / "mpii_annotations.json.gz"
    source = json.loads(gzip.decompress(packed.read_bytes()))
    for name, wanted in (("train", 0), ("valid", 1)):
        rows = [hrnet_row(one) for one in source if one["isValidation"] == wanted]
        write(tmp_path / f"{name}.json", *rows)
    exact = read_h5(real_data / "mpii" / "valid.h5", IMAGES)
    write_boxes(tmp_path / "gt_valid.mat", exact.normalizer / 0.6 / 5)
    people, others = read_mpii_json(tmp_path / "train.json", IMAGES), read_json(packed, IMAGES)
    order = np.argsort(others.valid, kind="stable")
    others = others[order]
    np.testing.assert_array_equal(people.image, others.image)
    assert np.bincount(people.valid).tolist() == [22246, 2958]
    np.testing.assert_allclose(people.center, others.center - 1, atol=1e-3)
    np.testing.assert_allclose(people.scale, others.scale, rtol=1e-6)
    known = others.points.any(axis=-1)
    np.testing.assert_array_equal(people.points.any(axis=-1), known)
    at_edge = others.points.min(axis=-1) < 1.01
    np.testing.assert_allclose(
        people.points[known & ~at_edge], others.points[known & ~at_edge] - 1, atol=1e-3
    )
    assert np.abs(people.points - others.points)[known].max() < 1.001
    valid = people[people.valid]
    np.testing.assert_allclose(valid.normalizer, exact.normalizer, rtol=1e-5)
    train, other = people[~people.valid], others[~others.valid]
    untouched = ~(known & at_edge)[~others.valid].any(axis=1)
    np.testing.assert_allclose(train.normalizer[untouched], other.normalizer[untouched], rtol=1e-3)
    assert not caplog.text
