"""People are checked against their photographs before anything is trained on."""

import numpy as np
import pytest
from PIL import Image
from support.annotation_files import entry, joints_with, write_json

from data import DataError
from data.datasets import load_dataset
from data.loading.fit import people_that_fit
from data.people import People


def write(folder, *rows):
    """Rows 0, 1 ... of photographs 0.jpg, 1.jpg ... of 400 x 300 px."""
    images = folder / "mpii" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        row["img_paths"] = f"{number}.jpg"
        Image.new("RGB", (400, 300)).save(images / f"{number}.jpg")
    write_json(folder / "mpii", *rows).rename(folder / "mpii" / "mpii_annotations.json")


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def load(folder, **flags):
    return load_dataset("mpii", folder, **flags).people


ON_ONE_POINT = [[50.0, 60.0, 1.0]] * 16
BAD = {  # what is wrong -> a row with it, and how the message describes it
    "box": (
        entry(objpos=[-9000.0, -9030.0]),
        "1 with a box that misses the photograph (first: {}: 500 px around (-9000, -9000) of 400 x 300 px)",
    ),
    "box beside the photograph": (
        entry(objpos=[650.0, 200.0]),
        "1 with a box that misses the photograph (first: {}: 500 px around (650, 230) of 400 x 300 px)",
    ),
    "size": (
        entry(img_width=300, img_height=300),
        "1 with a photograph of another size (first: {} has 400 x 300 px, but the annotation file gives "
        "300 x 300 px)",
    ),
    "size that EXIF does not explain": (
        entry(img_width=300, img_height=400),
        "1 with a photograph of another size (first: {} has 400 x 300 px, but the annotation file gives "
        "300 x 400 px)",
    ),
    "joints": (
        entry(joint_self=ON_ONE_POINT),
        "1 with all joints on one point (first: {}: 500 px around (120, 260) of 400 x 300 px)",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_who_cannot_be_trained_on_is_an_error_or_skipped(tmp_path, caplog, kind):
    row, said = BAD[kind]
    said = said.format(tmp_path / "mpii" / "images" / "0.jpg")
    write(tmp_path, dict(row), entry())
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    advice = "correct the annotations, or skip these people with --skip_bad true"
    assert str(caught.value) == f"1 of 2 people cannot be trained on: {said}; {advice}"
    assert not warnings(caplog)
    assert load(tmp_path, skip_bad=True).image.tolist() == ["mpii/images/1.jpg"]
    assert warnings(caplog) == [f"skipped 1 of 2 people; there are {said}"]
    assert len(load(tmp_path, skip_bad=True, limit=2)) == 1


def test_nobody_is_left(tmp_path):
    write(tmp_path, BAD["box"][0])
    with pytest.raises(DataError, match="none of 1 people can be trained on: 1 with a box that misses"):
        load(tmp_path, skip_bad=True)


def test_odd_people_are_counted_by_kind_in_one_warning(tmp_path, caplog):
    far = joints_with(3, 390.0, 580.0)  # half a box is 250 px
    small = entry(scale_provided=7.9 / 250, objpos=[50.0, 50.0])
    write(tmp_path, entry(), entry(joint_self=far), small, dict(small))
    assert len(load(tmp_path)) == 4
    (line,) = warnings(caplog)
    folder = tmp_path / "mpii" / "images"
    small, far = (
        f"(first: {folder}/2.jpg: 7.9 px around (50, 50.474) of 400 x 300 px)",
        f"(first: {folder}/1.jpg: 500 px around (120, 260) of 400 x 300 px)",
    )
    assert line == (
        f"skipped 0 of 4 people; there are 2 with a box of less than 8 px {small}, "
        f"1 with a joint more than half a box outside the photograph {far}"
    )


def test_people_at_the_limits_are_not_odd(tmp_path, caplog):
    touching = entry(objpos=[649.0, 200.0])
    joints = joints_with(3, 390.0, 549.0)
    known = [[0.0, 0.0, 0.0]] * 14 + [[50.0, 60.0, 1.0]] * 2
    box = entry(scale_provided=8.001 / 250, objpos=[50.0, 50.0], joint_self=known)
    write(tmp_path, touching, entry(joint_self=joints), box, entry(img_width=400, img_height=300))
    assert len(load(tmp_path)) == 4
    assert not warnings(caplog)


def test_a_header_that_cannot_be_read_is_left_to_decoding(tmp_path, caplog):
    """As the photograph's end is complete, only decoding can tell what is wrong with it."""
    write(tmp_path, BAD["box"][0])
    (tmp_path / "mpii" / "images" / "0.jpg").write_bytes(b"no photograph\xff\xd9")
    assert len(load(tmp_path)) == 1
    assert not warnings(caplog)


def test_an_annotation_of_coco_is_named_by_its_id(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    people = People(
        image=np.array(["a.png", "a.png"]),
        center=np.array([[20, 15], [99, 15]], np.float32),
        scale=np.full(2, 0.2, np.float32),
        points=np.arange(1, 65, dtype=np.float32).reshape(2, 16, 2),
        normalizer=np.ones(2, np.float32),
        valid=np.zeros(2, bool),
        id=np.array([7, 1234567]),
    )
    with pytest.raises(DataError, match=r"first: .*a\.png, annotation 1234567: 40 px around \(99, 15\)"):
        people_that_fit(people, tmp_path, skip_bad=False)


def test_real_people_fit_their_photographs(real_data, caplog):
    for name in ("lsp", "mpii"):
        annotations = real_data / "mpii" / "mpii-hr-lsp-normalizer.sample.json" if name == "mpii" else None
        assert len(load_dataset(name, real_data, annotations).people) > 10
    assert not [line for line in caplog.messages if "people; there are" in line or "EXIF" in line]
