"""The table of people, the checks of its rows, and JSON files, good and bad."""

import gzip
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
from support.annotation_files import (
    assert_same_people,
    entry,
    joints_with,
    person,
    write_h5,
    write_json,
    write_official,
)

from data import DataError
from data.people import People
from data.readers.lsp import read_lsp, read_lspet
from data.readers.mpii import read_h5, read_json, read_official
from data.skeleton import MPII

IMAGES = "mpii/images"


def test_mirror_exchanges_left_and_right_names():
    swap = {"right": "left", "left": "right"}
    for name, other in zip(MPII.joints, MPII.mirror, strict=True):
        mirrored = " ".join(swap.get(word, word) for word in name.split())
        assert MPII.joints[other] == mirrored


def test_a_file_of_another_format_names_the_page_of_formats(tmp_path):
    """So does one of which no row is good, but not one with a bad row."""
    page = "; docs/data.md describes the files that can be read"
    other, damaged = tmp_path / "other.mat", tmp_path / "damaged.json"
    scipy.io.savemat(other, {"people": np.zeros(3)})
    damaged.write_text("[{")
    files = (
        (read_official, other),
        (read_lsp, other),
        (read_json, damaged),
        (read_h5, other.with_stem("valid")),
    )
    for read, path in files:
        with pytest.raises(DataError, match=page):
            read(path, IMAGES)
    with pytest.raises(DataError, match=page):
        read_json(write_json(tmp_path, {"keypoints": []}, {"keypoints": []}), IMAGES)
    with pytest.raises(DataError) as refused:
        read_json(write_json(tmp_path, entry(), {"keypoints": []}), IMAGES)
    assert page not in str(refused.value)


def test_json_mpii_row(tmp_path):
    joints = joints_with(0, 0.0, 300.0)
    rows = entry(joint_self=joints), entry(isValidation=1.0, dataset="MPI", img_paths="b/c.jpg")
    rows[1].update(img_width=640.0, img_height=480.0)
    del rows[1]["normalizer"]
    people = read_json(write_json(tmp_path, *rows), IMAGES)
    assert people.image.tolist() == ["mpii/images/a.jpg", "mpii/images/b/c.jpg"]
    assert people.valid.tolist() == [False, True]
    np.testing.assert_allclose(people.center, [[120, 260]] * 2)
    np.testing.assert_allclose(people.scale, [2.5, 2.5])
    np.testing.assert_allclose(people.points[0, 1:, 0], 100 + np.arange(1, 16))
    np.testing.assert_array_equal(people.points[0, 0], [0, 0])
    np.testing.assert_allclose(people.normalizer, [30, 0.75 * np.hypot(1, 2)], rtol=1e-6)
    assert people.size.tolist() == [[0, 0], [640, 480]] and people.size.dtype == np.int32
    dtypes = {people.center.dtype, people.scale.dtype, people.points.dtype, people.normalizer.dtype}
    assert dtypes == {np.dtype(np.float32)}


@pytest.mark.parametrize("joint", [8, 9])
def test_head_size_is_unknown_without_neck_or_head_top(tmp_path, joint):
    row = entry(joint_self=joints_with(joint, 0.0, 0.0), normalizer=0.0)
    assert read_json(write_json(tmp_path, row), IMAGES).normalizer.tolist() == [0]


def test_json_lsp_rows_and_mpii_rows_are_kept_apart(tmp_path, caplog):
    path = write_json(tmp_path, entry(dataset="LEEDS", img_paths="im0001.jpg"), entry())
    lsp = read_json(path, "lsp/images", dataset="lsp")
    assert "skipped 1 of 2 rows of data set MPI or MPII" in caplog.text
    assert lsp.image.tolist() == ["lsp/images/im0001.jpg"]
    np.testing.assert_allclose(lsp.center, [[120, 230]])
    np.testing.assert_allclose(lsp.scale, [2 * 1.4375])
    np.testing.assert_allclose(lsp.normalizer, [np.hypot(11, 22)], rtol=1e-6)
    assert read_json(path, IMAGES).image.tolist() == ["mpii/images/a.jpg"]
    assert "skipped 1 of 2 rows of data set LEEDS" in caplog.text


def test_json_is_told_to_be_gzipped_by_its_content(tmp_path):
    plain = write_json(tmp_path, entry())
    packed = tmp_path / "packed.json"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert_same_people(read_json(packed, IMAGES), read_json(plain, IMAGES), rtol=0)


def test_backslashes_separate_folders(tmp_path):
    people = read_json(write_json(tmp_path, entry(img_paths="b\\c.jpg")), IMAGES)
    assert people.image.tolist() == [f"{IMAGES}/b/c.jpg"]


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("joint_self", entry()["joint_self"][:15], "15 x 3 numbers"),
        ("joint_self", joints_with(3, "left", 2.0), "'left' at [3, 0]"),
        ("joint_self", joints_with(3, float("nan"), 2.0), "nan at [3, 0]"),
        ("joint_self", None, "None"),
        ("joint_self", [*entry()["joint_self"][:15], None], "None at [15]"),
        ("joint_self", joints_with(3, None, 2.0), "None at [3, 0]"),
        ("joint_self", [*entry()["joint_self"][:15], [1.0, 2.0]], "2 numbers at [15]"),
        ("joint_self", [*entry()["joint_self"][:15], [1.0, None]], "None at [15, 1]"),
        ("objpos", [1.0, float("-inf")], "-inf at [1]"),
        ("objpos", [1.0, 1e300], "1e+300 at [1]"),
        ("objpos", [1.0, 1e6], "1000000.0 at [1]"),
        ("scale_provided", 1e-60, "1e-60"),
        ("scale_provided", 180.0, "180.0"),
        ("scale_provided", [], "0 numbers"),
        ("normalizer", -1.0, "-1.0"),
        ("img_paths", "", "''"),
        ("img_paths", "/etc/a.jpg", "'/etc/a.jpg'"),
        ("img_paths", "C:\\a.jpg", "a.jpg"),
        ("img_paths", "b/../../a.jpg", "'b/../../a.jpg'"),
        ("img_paths", "b\ud800.jpg", r"'b\ud800.jpg'"),
        ("img_paths", "b\udfff.jpg", r"'b\udfff.jpg'"),
        ("img_paths", 7, "7"),
        ("img_paths", "x" * 100_000, "'xxx"),
        ("isValidation", 2, "2"),
        ("img_width", -640, "-640"),
        ("img_height", "480 px", "'480 px'"),
        ("dataset", "COCO", "'COCO'"),
    ],
)
def test_bad_row_is_named_or_skipped(tmp_path, caplog, field, value, found):
    bad = entry(**{field: value})
    path = write_json(tmp_path, entry(dataset="LEEDS"), entry(), bad, bad, entry(img_paths="z.jpg"))
    with pytest.raises(DataError) as caught:
        read_json(path, IMAGES)
    message = str(caught.value)
    assert message.startswith(f"{path}: row 2 (counted from 0), field {field}: found ")
    assert found in message.split("found ")[1].split(", expected ")[0]
    assert "\n" not in message
    assert len(message) < 400

    people = read_json(path, IMAGES, skip_bad=True)
    assert people.image.itemsize < 200
    assert people.image.tolist() == ["mpii/images/a.jpg", "mpii/images/z.jpg"]
    assert "skipped 2 of 4 people" in caplog.text
    remedy = "; correct these 2 of 4 people, or skip them with --skip_bad true"
    assert message.endswith(remedy) and message.removesuffix(remedy) in caplog.text


def test_rows_that_are_no_objects_are_bad_rows(tmp_path):
    path = write_json(tmp_path, entry(), 5)
    with pytest.raises(DataError, match=r"row 1 .*field dataset: found None"):
        read_json(path, IMAGES)
    assert len(read_json(path, IMAGES, skip_bad=True)) == 1


def test_a_center_off_the_photograph_is_good(tmp_path):
    people = read_json(write_json(tmp_path, entry(objpos=[-40.0, 0.0])), IMAGES)
    np.testing.assert_allclose(people.center, [[-40, 30]])


def test_a_matlab_file_of_something_else(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"joints": np.zeros((3, 13, 5))})
    for read, wanted in (
        (read_official, "RELEASE"),
        (read_lsp, "3 x 14 x N"),
        (read_lspet, "14 x 3 x N"),
    ):
        with pytest.raises(DataError, match=wanted):
            read(path, IMAGES)


def crash(path, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_matlab_file_that_crashes_its_reader_is_named(tmp_path, monkeypatch):
    """As scipy's does on some damaged files."""
    monkeypatch.setattr(scipy.io, "loadmat", crash)
    for read in (read_official, read_lsp, read_lspet):
        with pytest.raises(
            DataError, match=r"a\.mat cannot be read .*the reader crashed on it: it is damaged\)"
        ):
            read(tmp_path / "a.mat", IMAGES)


@pytest.mark.parametrize("damage", ["half", "random", "absent"])
@pytest.mark.parametrize("kind", ["json", "gz", "h5", "lsp", "official"])
def test_damaged_file_is_named(tmp_path, kind, damage):
    lsp = tmp_path / "joints.mat"
    scipy.io.savemat(lsp, {"joints": np.random.default_rng(0).random((3, 14, 50))})
    plain = write_json(tmp_path, entry(), entry())
    packed = tmp_path / "people.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    path, read, called = {
        "json": (plain, read_json, "JSON"),
        "gz": (packed, read_json, "JSON"),
        "h5": (write_h5(tmp_path, "valid"), read_h5, "HDF5"),
        "lsp": (lsp, read_lsp, "a MATLAB file"),
        "official": (write_official(tmp_path, [person()]), read_official, "a MATLAB file"),
    }[kind]
    content = path.read_bytes()
    path.unlink()
    if damage != "absent":
        noise = np.random.default_rng(1).bytes(999)
        path.write_bytes(noise if damage == "random" else content[: len(content) // 2])
    with pytest.raises(DataError) as caught:
        read(path, IMAGES)
    assert str(caught.value).startswith(f"{path} cannot be read as {called} (")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_rows_of_a_table_stay_together(tmp_path):
    rows = [entry(img_paths=f"{i}.jpg", scale_provided=1.0 + i) for i in range(4)]
    people = read_json(write_json(tmp_path, *rows), IMAGES)
    for chosen, wanted in (
        (slice(1, 3), [1, 2]),
        (np.array([3, 0]), [3, 0]),
        (people.scale > 3, [2, 3]),
    ):
        some = people[chosen]
        assert some.image.tolist() == [f"{IMAGES}/{i}.jpg" for i in wanted]
        np.testing.assert_allclose(some.scale, 1.25 * (1 + np.array(wanted)))
    assert_same_people(People.concatenate([people[:1], people[1:]]), people, rtol=0)
    assert len(people[:0]) == 0


def test_a_fingerprint_is_the_one_that_earlier_checkpoints_have():
    """And is another as soon as anything of the people is."""
    people = People(
        image=np.array(["a/1.jpg", "a/2.jpg"]),
        center=np.array([[1, 2], [3, 4]], np.float32),
        scale=np.array([1, 2], np.float32),
        points=np.arange(64, dtype=np.float32).reshape(2, 16, 2),
        normalizer=np.array([5, 6], np.float32),
        valid=np.array([False, True]),
    )
    assert people.fingerprint == "d600bdfbec588986"
    assert replace(people, size=np.array([[640, 480]] * 2)).fingerprint == people.fingerprint
    others = {people[::-1].fingerprint}
    for name in ("image", "center", "scale", "points", "normalizer", "valid"):
        value = getattr(people, name)
        changed = value.copy()
        changed[0] = changed[1]
        others.add(replace(people, **{name: changed}).fingerprint)
    assert len(others - {people.fingerprint}) == 7


def test_real_authors_json_has_exact_head_sizes(real_data):
    people = read_json(real_data / "mpii" / "mpii-hr-lsp-normalizer.sample.json", IMAGES)
    exact = read_h5(real_data / "mpii" / "valid.h5", IMAGES)
    valid = people[people.valid]
    rows = [
        int(np.argmin(np.abs(exact.center - center).sum(axis=1) + 1e6 * (exact.image != image)))
        for image, center in zip(valid.image, valid.center, strict=True)
    ]
    assert len(rows) == 6
    np.testing.assert_allclose(valid.normalizer, exact.normalizer[rows], rtol=1e-4)
    np.testing.assert_allclose(valid.scale, exact.scale[rows], atol=1e-3)
