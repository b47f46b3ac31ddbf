"""--dataset coco: where its files are, which flags name others, and what the two splits must share."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image
from support.lsp_as_coco import FIRST, MPII_JOINTS, write_lsp_as_coco

from data import DataError
from data.datasets import load_dataset

NAMES = ["nose", "left_hand", "right_hand"]
TRAIN, VALID = (f"coco/annotations/person_keypoints_{split}2017.json" for split in ("train", "val"))


def write_split(path, photographs, ids, names=NAMES, folder=""):
    """One photograph and one annotation for each id, the photographs in a folder; returns the path."""
    images, annotations = [], []
    for id in ids:
        images.append({"id": id, "file_name": f"{folder}{id}.jpg", "width": 40, "height": 50})
        (photograph := photographs / images[-1]["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 50), "white").save(photograph)
        keypoints = [number for joint in range(len(names)) for number in (5 + joint, 6, 2)]
        annotations.append(
            {"id": 100 + id, "image_id": id, "category_id": 1, "bbox": [1, 1, 20, 30], "keypoints": keypoints}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations}
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "person", "keypoints": names}]}))
    return path


@pytest.fixture
def usual(tmp_path):
    """COCO's own layout, with two people for training and three for validation."""
    write_split(tmp_path / TRAIN, tmp_path / "coco/train2017", (1, 2))
    write_split(tmp_path / VALID, tmp_path / "coco/val2017", (3, 4, 5))
    return tmp_path


def test_the_usual_layout(usual):
    dataset = load_dataset("coco", usual)
    assert (dataset.name, dataset.metric_name) == ("coco", "PCK@0.1")
    assert dataset.train.image.tolist() == ["coco/train2017/1.jpg", "coco/train2017/2.jpg"]
    assert dataset.valid.image.tolist() == [f"coco/val2017/{id}.jpg" for id in (3, 4, 5)]
    assert all((dataset.root / image).exists() for image in dataset.people.image)
    assert dataset.skeleton.joints == tuple(NAMES)
    assert dataset.skeleton.pairs == ((1, 2),)
    assert [image["id"] for image in dataset.coco.images] == [3, 4, 5]


@pytest.mark.parametrize("kept", [TRAIN, VALID])
def test_one_usual_file_is_enough_for_a_stage_that_needs_its_split(usual, kept):
    (usual / (TRAIN if kept == VALID else VALID)).unlink()
    dataset = load_dataset("coco", usual)
    assert (len(dataset.train), len(dataset.valid)) == ((2, 0) if kept == TRAIN else (0, 3))
    assert (dataset.coco is None) == (kept == TRAIN)


def test_files_of_ones_own_with_folders_in_their_names(tmp_path):
    train = write_split(tmp_path / "a.json", tmp_path / "photos", (1, 2), folder="day/morning/")
    valid = tmp_path / "b.json.gz"
    plain = write_split(tmp_path / "b.json", tmp_path / "photos", (3,))
    valid.write_bytes(gzip.compress(plain.read_bytes()))
    files = {"annotations": train, "annotations_valid": valid}
    dataset = load_dataset("coco", tmp_path / "none", **files, images=[tmp_path / "photos"])
    assert dataset.people.image.tolist() == ["day/morning/1.jpg", "day/morning/2.jpg", "3.jpg"]
    assert all((dataset.root / image).exists() for image in dataset.people.image)
    assert dataset.coco.ids.tolist() == [103]


def test_a_folder_of_photographs_for_each_split(tmp_path):
    train = write_split(tmp_path / "train/own.json", tmp_path / "train", (1,))
    valid = write_split(tmp_path / "valid/own.json", tmp_path / "valid", (1,))
    files = {"annotations": train, "annotations_valid": valid}
    dataset = load_dataset("coco", tmp_path, **files, images=[tmp_path / "train", tmp_path / "valid"])
    assert dataset.root == tmp_path
    assert dataset.people.image.tolist() == ["train/1.jpg", "valid/1.jpg"]
    with pytest.raises(DataError, match="--images: found 3 folders"):
        load_dataset("coco", tmp_path, **files, images=[tmp_path] * 3)


def test_without_photographs_the_flag_is_named(tmp_path):
    path = write_split(tmp_path / "own.json", tmp_path / "photos", (1,))
    with pytest.raises(DataError, match=r"coco/train2017 does not exist: expected .* --images"):
        load_dataset("coco", tmp_path, annotations=path)


def test_both_files_have_the_same_joints(usual):
    write_split(usual / VALID, usual / "coco/val2017", (3,), names=["nose", "tail"])
    with pytest.raises(DataError, match=r"train2017\.json and .*val2017\.json have different joints, 3"):
        load_dataset("coco", usual)


def test_ids_are_those_of_the_validation_table(usual):
    (usual / "coco/val2017/3.jpg").unlink()
    dataset = load_dataset("coco", usual, skip_missing=True)
    assert dataset.coco.ids.tolist() == dataset.valid.id.tolist() == [104, 105]
    assert len(dataset.coco.annotations) == 3
    assert load_dataset("coco", usual, skip_missing=True, limit=1).coco.ids.tolist() == [104]


def test_pairs_of_ones_own_and_joints_without_a_partner(usual, caplog):
    names = ["left_hand", "right_hand", "left_toe", "hand_of_right", "wing"]
    for file, folder, id in ((TRAIN, "train2017", 1), (VALID, "val2017", 3)):
        write_split(usual / file, usual / "coco" / folder, (id,), names=names)
    assert load_dataset("coco", usual).skeleton.pairs == ((0, 1),)
    assert "joints without a partner on the other side" in caplog.text
    assert "as they are: left_toe, hand_of_right; --mirror_pairs" in caplog.text
    pairs = ["left_hand:right_hand", "left_toe:hand_of_right"]
    assert load_dataset("coco", usual, mirror_pairs=pairs).skeleton.pairs == ((0, 1), (2, 3))
    with pytest.raises(DataError, match="--mirror_pairs: the data set has no joint 'toe'"):
        load_dataset("coco", usual, mirror_pairs=["left_toe:toe"])
    with pytest.raises(DataError, match="two left-right pairs"):
        load_dataset("coco", usual, mirror_pairs=["left_hand:right_hand", "left_hand:wing"])


@pytest.mark.parametrize("name", ["mpii", "lsp"])
def test_a_file_of_cocos_format_given_to_another_data_set(usual, name):
    with pytest.raises(DataError, match=r"train2017\.json is a file in COCO's format: use --dataset coco"):
        load_dataset(name, usual, annotations=usual / TRAIN)


def test_the_size_of_photographs_and_the_ids_do_not_change_the_fingerprint(usual):
    before = load_dataset("coco", usual).valid
    content = json.loads((usual / VALID).read_text())
    for image in content["images"]:
        del image["width"]
    (usual / VALID).write_text(json.dumps(content))
    after = load_dataset("coco", usual).valid
    assert before.size.tolist() == [[40, 50]] * 3
    assert after.size.tolist() == [[0, 50]] * 3
    assert before.fingerprint == after.fingerprint


def test_lsp_written_as_coco_has_the_same_people(real_data, tmp_path):
    write_lsp_as_coco(real_data / "lsp", tmp_path, limit=40)
    files = {"annotations": tmp_path / "train.json", "annotations_valid": tmp_path / "valid.json"}
    coco = load_dataset("coco", tmp_path, **files, images=[real_data / "lsp" / "images"])
    lsp = load_dataset("lsp", real_data, annotations=real_data / "lsp" / "joints.mat", limit=40)
    names = [lsp.skeleton.joints[joint].replace(" ", "_") for joint in MPII_JOINTS]
    assert coco.skeleton.joints[FIRST:] == tuple(names)
    assert coco.skeleton.name == "coco"
    for one, other in ((coco.train, lsp.train), (coco.valid, lsp.valid)):
        assert [image.rpartition("/")[2] for image in other.image] == one.image.tolist()
        np.testing.assert_allclose(one.center, other.center, rtol=1e-6)
        np.testing.assert_allclose(one.scale, other.scale, rtol=1e-6)
        np.testing.assert_array_equal(one.points[:, FIRST:], other.points[:, MPII_JOINTS])
        assert not one.points[:, :FIRST].any()
