"""pose-hg-train's .h5 files, the official .mat, and that all formats tell the same."""

import logging

import numpy as np
import pytest
from support.annotation_files import (
    assert_same_people,
    entry,
    person,
    structs,
    write_h5,
    write_json,
    write_official,
)

from data import DataError
from data.readers.mpii import read_h5, read_json, read_official

IMAGES = "mpii/images"


def test_h5_reads_its_sibling_too(tmp_path):
    valid = write_h5(tmp_path, "valid", 1)
    assert read_h5(valid, IMAGES).valid.tolist() == [True]
    train = write_h5(tmp_path, "train", 2)
    people = read_h5(valid, IMAGES)
    assert_same_people(people, read_h5(train, IMAGES), rtol=0)
    assert people.image.tolist() == [f"{IMAGES}/{n}.jpg" for n in ("train0", "train1", "valid0")]
    assert people.valid.tolist() == [False, False, True]
    np.testing.assert_array_equal(people.center[0], [50, 50])
    np.testing.assert_array_equal(people.scale, [1.5] * 3)
    np.testing.assert_array_equal(people.normalizer, [20] * 3)
    np.testing.assert_array_equal(people.points[0, :2], [[0, 0], [2, 3]])


def test_h5_image_names_as_character_codes_or_in_a_text_file(tmp_path):
    codes = np.zeros((2, 16))
    for row, name in enumerate((b"015601864.jpg", b"a.png")):
        codes[row, : len(name)] = list(name)
    path = write_h5(tmp_path, "valid", imgname=codes)
    wanted = [f"{IMAGES}/015601864.jpg", f"{IMAGES}/a.png"]
    assert read_h5(path, IMAGES).image.tolist() == wanted

    write_h5(tmp_path, "valid", imgname=None)
    names = tmp_path / "valid_images.txt"
    with pytest.raises(DataError, match=r"valid_images\.txt cannot be read"):
        read_h5(path, IMAGES)
    names.write_text("015601864.jpg\na.png\n")
    assert read_h5(path, IMAGES).image.tolist() == wanted
    names.write_text("015601864.jpg\n")
    with pytest.raises(DataError, match=r"imgname has 1 rows, expected as many .* 2"):
        read_h5(path, IMAGES)


def test_h5_without_head_sizes_estimates_them(tmp_path):
    people = read_h5(write_h5(tmp_path, "train", normalize=None), IMAGES)
    np.testing.assert_allclose(people.normalizer, [0.75 * np.hypot(2, 2)] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("scale", np.array([1.0, 0.0]), "row 1 .* field scale: found 0.0"),
        ("scale", np.array([1.0, 180.0]), "row 1 .* field scale: found 180.0, expected .* px / 200"),
        ("center", np.array([[1.0, np.nan], [1, 1]]), r"row 0 .* field center: found nan at \[1\]"),
        ("part", np.zeros((2, 15, 2)), "row 0 .* field part: found 15 x 2 numbers"),
        ("part", None, "cannot be read as HDF5 .*part"),
    ],
)
def test_bad_h5(tmp_path, field, values, said):
    with pytest.raises(DataError, match=said):
        read_h5(write_h5(tmp_path, "train", **{field: values}), IMAGES)


def test_h5_of_another_name_has_no_split(tmp_path):
    with pytest.raises(DataError, match=r"train\.h5 or valid\.h5"):
        read_h5(tmp_path / "test.h5", IMAGES)


def test_official_file(tmp_path):
    empty = np.zeros((0, 0))
    unannotated = [{"scale": 2.0}, person(scale=empty), person(objpos=empty)]
    path = write_official(
        tmp_path,
        None,
        [person()],
        [*unannotated, person(ids=[8, 9], x2=empty), person(annopoints=structs({"point": empty}))],
        [person()],
        [{"x1": 1.0}],
        [person(), person(ids=[3])],
        train=[1, 1, 1, 0, 1, 1],
    )
    (tmp_path / "valid_images.txt").write_text("2.jpg\n0.jpg\n")
    people = read_official(path, IMAGES)
    assert people.image.tolist() == [f"{IMAGES}/{i}.jpg" for i in (1, 2, 5, 5)]
    assert people.valid.tolist() == [False, True, False, False]
    np.testing.assert_allclose(people.center, [[120, 260]] * 4)
    np.testing.assert_allclose(people.scale, [2.5] * 4)
    np.testing.assert_allclose(people.normalizer, [30, 0.75 * np.hypot(1, 2), 30, 30], rtol=1e-6)
    k = np.arange(16)
    np.testing.assert_allclose(people.points[0], np.stack([100 + k, 200 + 2 * k], axis=1))
    assert np.flatnonzero(people.points[3].any(axis=1)).tolist() == [3]
    np.testing.assert_allclose(people.points[3, 3], [103, 206])


def test_official_file_agrees_with_json(tmp_path):
    (tmp_path / "valid_images.txt").write_text("1.jpg")
    official = read_official(write_official(tmp_path, [person()], None), IMAGES)
    json_people = read_json(write_json(tmp_path, entry(img_paths="0.jpg")), IMAGES)
    assert_same_people(official, json_people, rtol=0)


def test_official_file_without_a_split_takes_every_tenth_photograph(tmp_path, caplog):
    path = write_official(tmp_path, None, *[[person(), person()]] * 21)
    people = read_official(path, IMAGES)
    assert people.image[people.valid].tolist() == [f"{IMAGES}/{i}.jpg" for i in (10, 10, 20, 20)]
    assert "not be comparable" in caplog.text


def test_a_list_of_names_may_have_a_byte_order_mark_blanks_and_empty_lines(tmp_path):
    """What editors add without showing it; a name that is not recognised makes a validation person train."""
    path = write_official(tmp_path, [person()], [person()], [person()])
    (tmp_path / "valid_images.txt").write_bytes(b"\xef\xbb\xbf0.jpg \t\r\n\r\n 2.jpg\r\n\n")
    assert read_official(path, IMAGES).valid.tolist() == [True, False, True]
    stored = write_h5(tmp_path, "valid", imgname=None)
    assert read_h5(stored, IMAGES).image.tolist() == [f"{IMAGES}/0.jpg", f"{IMAGES}/2.jpg"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0.jpg\nimages/1.jpg\n", "1 of 2 names match no photograph of mpii_.*; first: 'images/1.jpg'"),
        (
            "0\n1\n",
            "2 of 2 names match no photograph of mpii_.*; first: '0', expected names such as '0.jpg'$",
        ),
        ("0.JPG\n", "1 of 1 names match no photograph"),
        ("\n \n", "is empty: expected the names"),
        ("", "is empty: expected the names"),
    ],
)
def test_a_list_of_names_that_are_no_photographs_is_an_error(tmp_path, content, said):
    path = write_official(tmp_path, [person()], [person()])
    (tmp_path / "valid_images.txt").write_text(content)
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=rf"valid_images\.txt:? {said}"):
            read_official(path, IMAGES, skip_bad)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ids": [0, 16]}, "field annopoints: found 2 x 3 numbers, expected .* ids 0 to 15"),
        ({"scale": np.nan}, "field scale: found nan"),
        ({"scale": -1.0}, "field scale: found -1"),
        ({"scale": 180.0}, "field scale: found 180.0, expected .* side of the person's box in px / 200"),
        ({"objpos": structs({"x": 5.0})}, r"field objpos: found None at \[1\]"),
        ({"x1": np.inf}, r"field x1, y1, x2, y2: found inf at \[0\]"),
    ],
)
def test_bad_person_of_the_official_file(tmp_path, changes, said):
    path = write_official(tmp_path, None, [person(), person(**changes)], [person()])
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\), " + said):
        read_official(path, IMAGES)
    assert len(read_official(path, IMAGES, skip_bad=True)) == 2


def test_real_mpii_json_and_h5_are_the_same_people(real_data, caplog):
    caplog.set_level(logging.WARNING)
    everyone = read_json(real_data / "mpii" / "mpii_annotations.json.gz", IMAGES)
    assert (len(everyone), everyone.valid.sum()) == (25204, 2958)
    exact = read_h5(real_data / "mpii" / "valid.h5", IMAGES)
    people = everyone[everyone.valid]
    np.testing.assert_array_equal(people.image, exact.image)
    names = (real_data / "mpii" / "valid_images.txt").read_text().split()
    assert people.image.tolist() == [f"{IMAGES}/{name}" for name in names]
    # The JSON holds scale to 3 digits; the .h5 cut coordinates to whole px, 5 of them to "none".
    np.testing.assert_allclose(people.center, exact.center, atol=15 * 0.0005 + 1e-4)
    np.testing.assert_allclose(people.scale, exact.scale, atol=1.25 * 0.0005 + 1e-6)
    both = people.points.all(axis=-1) & exact.points.all(axis=-1)
    assert (people.points.any(axis=-1) != exact.points.any(axis=-1)).sum() == 5
    assert np.abs(people.points - exact.points)[both].max() <= 1
    known = people.normalizer > 0
    assert (~known).sum() == 66
    assert (np.abs(people.normalizer / exact.normalizer - 1)[known] < 0.03).mean() > 0.98
    assert not caplog.text
