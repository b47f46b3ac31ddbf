"""Data sets by name: which files are read, and what happens when some are not there."""

import errno
import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from support.annotation_files import write_h5

from data import DATASETS, DataError, datasets
from data.datasets import load_dataset


def rows(splits, dataset="MPII", **changes):
    """JSON rows, one photograph each: `splits` is a letter a person, t for train, v for valid."""
    return [
        {
            "dataset": dataset,
            "isValidation": split == "v",
            "img_paths": f"{i}.jpg",
            "objpos": [50.0, 50.0],
            "joint_self": [[10.0 + k, 20.0 + k, 1.0] for k in range(16)],
            "scale_provided": 1.0,
            **changes,
        }
        for i, split in enumerate(splits)
    ]


def add_photograph(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def write_set(root, name, people, file="mpii-hr-lsp-normalizer.json"):
    images = root / name / "images"
    images.mkdir(parents=True, exist_ok=True)
    for row in people:
        add_photograph(images / row["img_paths"])
    (root / name / file).write_text(json.dumps(people))


def numbers(people):
    return [int(image.rpartition("/")[2].removesuffix(".jpg")) for image in people.image]


def test_mpii_splits_and_measure(tmp_path):
    write_set(tmp_path, "mpii", rows("tvvt"))
    dataset = load_dataset("mpii", tmp_path)
    assert (dataset.name, dataset.metric, dataset.threshold) == ("mpii", "PCKh", 0.5)
    assert numbers(dataset.train) == [0, 3]
    assert numbers(dataset.valid) == [1, 2]
    assert all((dataset.root / image).exists() for image in dataset.people.image)


def test_limit_counts_in_each_split(tmp_path):
    write_set(tmp_path, "mpii", rows("tvvtt"))
    dataset = load_dataset("mpii", tmp_path, limit=2)
    assert numbers(dataset.train) == [0, 3]
    assert numbers(dataset.valid) == [1, 2]
    assert numbers(load_dataset("mpii", tmp_path, limit=1).people) == [0, 1]


def test_missing_photographs(tmp_path, caplog):
    write_set(tmp_path, "mpii", rows("tttvv"))
    for gone in (1, 3):
        (tmp_path / "mpii" / "images" / f"{gone}.jpg").unlink()
    with pytest.raises(DataError, match=r"^2 of 5 photographs are missing .*/mpii/images/1\.jpg \(missing; "):
        load_dataset("mpii", tmp_path)
    dataset = load_dataset("mpii", tmp_path, skip_missing=True)
    assert numbers(dataset.people) == [0, 2, 4]
    assert "skipped 2 of 5 people: 2 of 5 photographs are missing" in caplog.text
    assert numbers(load_dataset("mpii", tmp_path, limit=2, skip_missing=True).people) == [0, 2, 4]

    shutil.rmtree(tmp_path / "mpii" / "images")
    with pytest.raises(DataError, match="5 of 5 photographs are missing"):
        load_dataset("mpii", tmp_path)
    with pytest.raises(DataError, match="no complete photograph of any annotated person"):
        load_dataset("mpii", tmp_path, skip_missing=True)


@pytest.mark.parametrize("name", ["no\0/a.jpg", "x" * 500 + ".jpg", "x" * 500 + "/a.jpg"])
def test_a_photograph_that_no_file_system_can_hold_is_missing(tmp_path, name):
    write_set(tmp_path, "mpii", rows("tv"))
    path = tmp_path / "mpii" / "mpii-hr-lsp-normalizer.json"
    people = json.loads(path.read_text())
    people[1]["img_paths"] = name
    path.write_text(json.dumps(people))
    with pytest.raises(DataError, match=r"^1 of 2 photographs are missing"):
        load_dataset("mpii", tmp_path)
    assert numbers(load_dataset("mpii", tmp_path, skip_missing=True).people) == [0]


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>Not found</html>")


def a_dangling_link(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere.jpg")


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_off, "does not decode: "),
        (empty, "empty"),
        (text, "does not decode: cannot identify"),
        (a_dangling_link, "missing: it is a folder or a broken link"),
        (a_folder, "missing: it is a folder or a broken link"),
    ],
)
def test_incomplete_photographs_are_found_at_the_start(tmp_path, caplog, suffix, damage, said):
    people = rows("ttvv")
    for row in people:
        row["img_paths"] = row["img_paths"].replace(".jpg", suffix)
    write_set(tmp_path, "mpii", people)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    damaged = tmp_path / "mpii" / "images" / f"1{suffix}"
    Image.fromarray(noise).save(damaged)
    assert len(load_dataset("mpii", tmp_path).people) == 4
    damage(damaged)
    with pytest.raises(DataError, match=r"^1 of 4 photographs are missing or incomplete; first: ") as error:
        load_dataset("mpii", tmp_path)
    assert f"{damaged} ({said}" in str(error.value) and "\n" not in str(error.value)
    people = load_dataset("mpii", tmp_path, skip_missing=True).people
    assert people.image.tolist() == [f"mpii/images/{k}{suffix}" for k in (0, 2, 3)]
    assert len(load_dataset("mpii", tmp_path, limit=1).people) == 2  # of whom nobody lacks anything
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "skipped 1 of 4 people" in record.message and said in record.message


def test_complete_photographs_need_not_be_decoded(tmp_path, monkeypatch):
    """Whatever some cameras write after the end of a JPEG."""
    write_set(tmp_path, "mpii", rows("tv"))
    with (tmp_path / "mpii" / "images" / "0.jpg").open("ab") as file:
        file.write(bytes(900))

    def decode(path):
        raise AssertionError("a photograph was decoded")

    monkeypatch.setattr("data.loading.presence.open_lazily", decode)
    assert len(load_dataset("mpii", tmp_path).people) == 2


@pytest.mark.parametrize(
    ("annotated", "stored"),
    [
        ("m\N{LATIN SMALL LETTER U WITH DIAERESIS}.jpg", "mu\N{COMBINING DIAERESIS}.jpg"),
        ("mu\N{COMBINING DIAERESIS}/a.jpg", "m\N{LATIN SMALL LETTER U WITH DIAERESIS}/a.jpg"),
        ("a.jpg", "A.JPG"),
    ],
)
def test_a_name_that_is_nearly_the_same_is_shown(tmp_path, annotated, stored):
    write_set(tmp_path, "mpii", [*rows("t"), *rows("v", img_paths=annotated)])
    images = tmp_path / "mpii" / "images"
    add_photograph(images / stored)
    (images / annotated).unlink()
    if (images / annotated).parent != images:
        (images / annotated).parent.rmdir()
    if not (images / stored).exists():
        pytest.skip("this file system takes both names for one")
    with pytest.raises(DataError, match=r"^1 of 2 .*\(missing; .*; a similar name, ") as error:
        load_dataset("mpii", tmp_path)
    assert ascii(f"mpii/images/{stored}") in str(error.value)


def test_photographs_under_another_usual_name(tmp_path):
    """Leeds Sports Pose's in the folder of its archive, its extension's as PNG; two are one too many."""
    names = ["lsp_dataset/images/im0001.jpg", "im0002.jpg", "lsp_dataset/images/im0003.jpg"]
    people = [row | {"img_paths": name} for row, name in zip(rows("ttv", "LEEDS"), names, strict=True)]
    images = tmp_path / "lsp" / "images"
    for name in ("im0001.jpg", "im0002.png", "im0003.png"):
        add_photograph(images / name)
    path = tmp_path / "people.json"
    path.write_text(json.dumps(people))
    found = load_dataset("lsp", tmp_path, path).people.image.tolist()
    assert found == [f"lsp/images/{name}" for name in ("im0001.jpg", "im0002.png", "im0003.png")]
    add_photograph(images / "im0003.jpg")
    two = r"missing; 2 of its other usual names exist, expected 1: lsp/images/im0003\.jpg, .*\.png"
    with pytest.raises(DataError, match=two):
        load_dataset("lsp", tmp_path, path)
    for name in ("im0003.jpg", "im0003.png"):
        (images / name).unlink()
    none = r"im0003\.jpg \(missing; no lsp/images/im0003\.jpg or .*\.png either\)"
    with pytest.raises(DataError, match=none):
        load_dataset("lsp", tmp_path, path)


def test_a_photograph_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_set(tmp_path, "mpii", rows("tv"))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("data.loading.presence.read_end", refuse)
    for skip in (False, True):
        with pytest.raises(DataError, match=r"/mpii/images/0\.jpg cannot be read: Permission denied$"):
            load_dataset("mpii", tmp_path, skip_missing=skip)


def test_unreadable_annotations_are_named(tmp_path, monkeypatch):
    write_set(tmp_path, "mpii", rows("tv"))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"normalizer\.json cannot be read as JSON .*Permission denied"):
        load_dataset("mpii", tmp_path)


def test_a_split_may_be_empty(tmp_path):
    write_set(tmp_path, "mpii", rows("vv"))
    dataset = load_dataset("mpii", tmp_path)
    assert (len(dataset.train), len(dataset.valid)) == (0, 2)


def test_photographs_of_both_splits_are_warned_of(tmp_path, caplog):
    people = rows("tvtvv")
    people[1]["img_paths"] = people[3]["img_paths"] = "2.jpg"
    write_set(tmp_path, "mpii", people)
    assert len(load_dataset("mpii", tmp_path).people) == 5
    assert "1 of 3 photographs show people of both splits" in caplog.text
    assert caplog.text.rstrip().endswith("first: mpii/images/2.jpg")


def test_bad_rows_are_an_error_or_skipped(tmp_path):
    people = rows("tv")
    people[1]["scale_provided"] = 0
    write_set(tmp_path, "mpii", people)
    with pytest.raises(DataError, match="row 1"):
        load_dataset("mpii", tmp_path)
    assert numbers(load_dataset("mpii", tmp_path, skip_bad=True).people) == [0]


def test_absent_data_set_says_what_is_missing_and_where_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        load_dataset("mpii", tmp_path / "nowhere")
    for part in (
        str(tmp_path / "nowhere" / "mpii"),
        "normalizer.json or another",
        "docs/data.md",
        "--dataset demo",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"lsp: expected joints\.mat; "):
        load_dataset("lsp", tmp_path)
    usual = r"coco: expected annotations/person_keypoints_train2017\.json .*--annotations, .*--images"
    with pytest.raises(DataError, match=usual):
        load_dataset("coco", tmp_path)
    with pytest.raises(DataError, match="'posetrack': expected one of mpii, lsp, coco, demo"):
        load_dataset("posetrack", tmp_path)


def test_preference_among_mpii_files(tmp_path):
    folder = tmp_path / "mpii"

    def head_sizes():
        return load_dataset("mpii", tmp_path).people.normalizer.round().tolist()

    folder.mkdir()
    train_alone = write_h5(folder, "train", 1, imgname=[b"0.jpg"])
    with pytest.raises(DataError, match="no annotations of data set mpii"):
        load_dataset("mpii", tmp_path)  # no stage can use it
    train_alone.unlink()
    write_h5(folder, "valid", 1, imgname=[b"0.jpg"], normalize=[78.0])
    (folder / "images").mkdir()
    add_photograph(folder / "images" / "0.jpg")
    assert head_sizes() == [78]
    write_set(tmp_path, "mpii", rows("t", normalizer=100.0), "mpii_annotations.json")
    assert head_sizes() == [60]
    write_h5(folder, "train", 1, imgname=[b"0.jpg"], normalize=[77.0])
    assert head_sizes() == [77, 78]
    authors = json.dumps(rows("t", normalizer=200.0)).encode()
    (folder / "mpii-hr-lsp-normalizer.json.gz").write_bytes(gzip.compress(authors))
    assert head_sizes() == [120]


def test_annotations_given_by_the_caller(tmp_path):
    write_set(tmp_path, "mpii", rows("tv"))
    other = tmp_path / "mine.json"
    other.write_text(json.dumps(rows("v")))
    assert numbers(load_dataset("mpii", tmp_path, other).valid) == [0]
    write_h5(tmp_path, "valid", 1, imgname=[b"0.jpg"])
    assert load_dataset("mpii", tmp_path, tmp_path / "valid.h5").people.normalizer.tolist() == [20]
    with pytest.raises(DataError, match=r"mine\.txt: expected a \.json"):
        load_dataset("mpii", tmp_path, tmp_path / "mine.txt")
    with pytest.raises(DataError, match=r"valid\.h5: expected a \.json, \.gz, \.mat file"):
        load_dataset("lsp", tmp_path, tmp_path / "valid.h5")


def test_lsp_from_the_authors_json(tmp_path):
    write_set(tmp_path, "lsp", [*rows("tv", "LEEDS"), *rows("t")], "people.json")
    dataset = load_dataset("lsp", tmp_path, tmp_path / "lsp" / "people.json")
    assert dataset.people.image.tolist() == ["lsp/images/0.jpg", "lsp/images/1.jpg"]
    (tmp_path / "none.json").write_text(json.dumps(rows("t")))
    with pytest.raises(DataError, match=r"none\.json has no people of data set lsp"):
        load_dataset("lsp", tmp_path, tmp_path / "none.json")


def test_lsp_extended_joins_the_training_people(tmp_path):
    joints = np.random.default_rng(0).uniform(1, 99, (3, 14, 2))
    for name, image, stored in (
        ("lsp", "im000{}.jpg", joints),
        ("lspet", "im0000{}.jpg", np.concatenate([joints[:2], np.ones((1, 14, 2))])),
    ):
        (tmp_path / name / "images").mkdir(parents=True)
        for i in (1, 2):
            add_photograph(tmp_path / name / "images" / image.format(i))
        stored = stored.transpose(1, 0, 2) if name == "lspet" else stored
        scipy.io.savemat(tmp_path / name / "joints.mat", {"joints": stored})
    dataset = load_dataset("lsp", tmp_path)
    assert (dataset.metric, dataset.threshold) == ("PCK", 0.2)
    assert dataset.train.image.tolist() == [
        *("lsp/images/im0001.jpg", "lsp/images/im0002.jpg"),
        *("lspet/images/im00001.jpg", "lspet/images/im00002.jpg"),
    ]
    np.testing.assert_array_equal(dataset.people.points[:2], dataset.people.points[2:])
    assert len(load_dataset("lsp", tmp_path, tmp_path / "lsp" / "joints.mat").people) == 2


def test_demo_is_drawn_once(tmp_path, monkeypatch):
    drawn = []

    def draw(folder):
        drawn.append(folder)
        write_set(folder.parent, folder.name, rows("tv"))

    monkeypatch.setitem(datasets.DATASETS, "demo", replace(datasets.DATASETS["demo"], draw=draw))
    for _ in range(2):
        dataset = load_dataset("demo", tmp_path)
        assert dataset.metric == "PCKh"
        assert dataset.people.image.tolist() == ["demo/images/0.jpg", "demo/images/1.jpg"]
    assert drawn == [tmp_path / "demo"]


@pytest.mark.parametrize("other_run", [True, False])
def test_a_demo_set_that_another_run_draws_meanwhile_will_do(tmp_path, monkeypatch, other_run):
    def draw(folder):
        if other_run:
            write_set(folder.parent, folder.name, rows("tv"))
        raise OSError(39, "Directory not empty")

    monkeypatch.setitem(datasets.DATASETS, "demo", replace(datasets.DATASETS["demo"], draw=draw))
    if other_run:
        assert len(load_dataset("demo", tmp_path).people) == 2
    else:
        with pytest.raises(DataError, match="demo cannot be written: Directory not empty"):
            load_dataset("demo", tmp_path)


def test_real_data_sets(real_data):
    mpii = load_dataset("mpii", real_data, skip_missing=True)
    assert (len(mpii.train), len(mpii.valid)) == (12, 6)
    sample = real_data / "mpii" / "mpii-hr-lsp-normalizer.sample.json"
    assert len(load_dataset("mpii", real_data, sample).people) == 18
    lsp = load_dataset("lsp", real_data)
    assert (len(lsp.train), len(lsp.valid)) == (1093, 1000)


def test_a_limit_that_leaves_nobody_out_is_said(tmp_path, caplog):
    write_set(tmp_path, "mpii", rows("ttvvv"))
    for limit, limited, told in ((2, True, False), (3, False, True), (24, False, True)):
        caplog.clear()
        assert load_dataset("mpii", tmp_path, limit=limit).limited == limited
        there = "has no effect: there are only 2 people for training, 3 for validation"
        assert (there in caplog.text) == told
    assert not load_dataset("mpii", tmp_path).limited


def test_each_data_set_has_its_name_on_the_command_line():
    assert tuple(datasets.DATASETS) == DATASETS
