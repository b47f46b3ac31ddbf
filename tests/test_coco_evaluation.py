"""Stage 1 on a data set in COCO's format: average precision, results files, and boxes of a detector."""

import json

import numpy as np
import pytest
from support.cocoeval import by_hand
from support.experiment import refusal, run_here
from support.stages import demo_data

from data import DataError
from data.boxes import load_boxes
from data.datasets import load_dataset
from data.skeleton import MPII
from utils.compare.run_logs import read_run
from utils.evaluation.average_precision import average_precision, keypoint_results
from utils.records.checkpoint import load_checkpoint

STAGE_1, NAME = "stack-hg.py", "lr-0.00025-1"
SIGMA = 1.0  # so large that a network which has learned nothing gets some average precision
OTHER = 900  # id of a photograph without people


def coco_file(people, path):
    """People of the demo set as a file in COCO's format, with a crowd and a photograph without people."""
    names = [image.rpartition("/")[2] for image in people.image.tolist()]
    images = [{"id": 100 + row, "file_name": name} for row, name in enumerate(names)]
    annotations = []
    for row, points in enumerate(people.points.tolist()):
        (x, y), side = people.center[row].tolist(), 160 * people.scale[row].item()
        keypoints = [number for x, y in points for number in (x, y, 2 * (x > 0 and y > 0))]
        bbox = [x - side / 2, y - side / 2, side, side]
        one = {
            "id": row + 1,
            "image_id": 100 + row,
            "category_id": 3,
            "bbox": bbox,
            "area": side**2,
            "iscrowd": 0,
        }
        annotations.append(
            one | {"keypoints": keypoints, "num_keypoints": sum(v > 0 for v in keypoints[2::3])}
        )
    crowd = {"id": 99, "image_id": 100, "iscrowd": 1, "num_keypoints": 0, "keypoints": [0] * 48}
    annotations.append(annotations[0] | crowd)
    images.append({"id": OTHER, "file_name": names[0]})
    category = {"id": 3, "name": "figure", "keypoints": list(MPII.joints), "sigmas": [SIGMA] * 16}
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny set in COCO's format, drawn from the demo set: flag -> path."""
    folder = tmp_path_factory.mktemp("coco")
    demo = load_dataset("demo", demo_data(folder))
    splits = {"annotations": demo.train, "annotations_valid": demo.valid}
    annotations = {flag: coco_file(people, folder / f"{flag}.json") for flag, people in splits.items()}
    return annotations | {"images": folder / "demo" / "images"}


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """The folder of two epochs of stage 1, and the flags that name it and the data."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    flags = ["--dataset", "coco", "--exp_dir", checkpoints, "--exp_id", "tiny"]
    for flag, path in files.items():
        flags += [f"--{flag}", path]
    printed = run_here(STAGE_1, *flags, "--is_train", "true", "--nEpochs", 2)
    return checkpoints / "tiny", flags, printed


def load(files, **more):
    return load_dataset("coco", files["images"], **files | {"images": [files["images"]]}, **more)


@pytest.mark.parametrize("kind", ["coco", "crowdpose", "ap10k"])
def test_annotations_as_predictions_have_ap_1_on_real_files(real_data, kind):
    folder = real_data / "coco" / kind
    dataset = load_dataset("coco", folder, annotations_valid=folder / f"test_{kind}.json", images=[folder])
    found = np.concatenate([dataset.valid.points, np.ones_like(dataset.valid.points[..., :1])], axis=2)
    ids = ([row[name] for row in dataset.coco.rows] for name in ("image_id", "category_id"))
    assert dataset.skeleton.sigmas is not None
    scores = average_precision(dataset.coco, keypoint_results(found, *ids), dataset.skeleton)
    assert [scores.shares["AP"], scores.shares["AR"]] == pytest.approx([1, 1])


def test_an_epochs_row_has_what_cocoeval_finds_by_hand_in_its_results(files, trained):
    folder, _, printed = trained
    rows = load_checkpoint(folder / f"{NAME}.pth.tar")["train_history"]
    logged, content = read_run(folder).pck, json.loads(files["annotations_valid"].read_text())
    for row in rows:
        written = folder / f"lr-0.00025-{row['epoch']}-preds.json"
        ap, ap50, ap75, _, _, ar = by_hand(content, written, [SIGMA] * 16)
        assert [row["valid_ap"], row["valid_ap50"], row["valid_ap75"], row["valid_ar"]] == [
            ap,
            ap50,
            ap75,
            ar,
        ]
        assert logged[row["epoch"]][:4] == [ap, ap50, ap75, ar]
        assert 0 < ap < 1 == pytest.approx(ap50)
    assert "AP75" in printed and f"{100 * ap:.2f}" in printed
    results = json.loads(written.read_text())
    assert [one["image_id"] for one in results] == [100, 101, 102, 103]
    assert all(set(one) == {"image_id", "category_id", "keypoints", "score"} for one in results)


def test_results_are_kept_and_replaced_as_checkpoints_are(trained, tmp_path):
    _, flags, _ = trained
    flags = [*flags, "--exp_dir", tmp_path, "--is_train", "true", "--nEpochs", 3, "--keep", 1]
    for _ in range(2):
        run_here(STAGE_1, *flags, "--overwrite", "true")
        checkpoints = {path.name.removesuffix(".pth.tar") for path in tmp_path.glob("tiny/*[0-9].pth.tar")}
        results = {path.name.removesuffix("-preds.json") for path in tmp_path.glob("tiny/*-preds.json")}
        assert results == checkpoints
        assert (
            len([*tmp_path.glob("tiny/*-model-best.pth.tar")])
            == len([*tmp_path.glob("tiny/*-best.json")])
            == 1
        )


def boxes_file(path, files, **changes):
    """The annotated boxes as those of a detector, the first with these fields."""
    content = json.loads(files["annotations_valid"].read_text())
    names = ("image_id", "category_id", "bbox")
    boxes = [{name: one[name] for name in names} | {"score": 0.5} for one in content["annotations"][:4]]
    boxes[0] |= changes
    path.write_text(json.dumps(boxes))
    return path


def test_boxes_of_a_detector_that_are_the_annotated_ones_find_the_same(files, trained, tmp_path):
    folder, flags, _ = trained
    boxes = boxes_file(tmp_path / "boxes.json", files)
    before = (folder / f"{NAME}-preds.json").read_bytes()
    evaluate = [*flags, "--load_prefix_pose", NAME, "--boxes", boxes]
    printed = run_here(STAGE_1, *evaluate)
    assert (folder / f"{NAME}-preds.json").read_bytes() == before
    results = json.loads((folder / f"{NAME}-preds-boxes.json").read_text())
    annotated = json.loads(before)
    assert [one["keypoints"] for one in results] == [one["keypoints"] for one in annotated]
    assert [one["score"] for one in results] == pytest.approx([one["score"] / 2 for one in annotated])
    assert "4 boxes scored" in printed
    assert f"{100 * read_run(folder).pck[1][0]:.2f}" in printed

    boxes.write_text(json.dumps(json.loads(boxes.read_text())[1:]))
    assert "4 other boxes, this run has 3: --overwrite true" in refusal(STAGE_1, *evaluate)
    run_here(STAGE_1, *evaluate, "--overwrite", "true")
    assert len(json.loads((folder / f"{NAME}-preds-boxes.json").read_text())) == 3


def test_boxes_of_other_things_and_photographs_are_left_out(files, tmp_path, caplog):
    caplog.set_level("INFO")
    path = boxes_file(tmp_path / "boxes.json", files, category_id=77)
    boxes = load_boxes(path, load(files))
    assert boxes.image_ids == [101, 102, 103] and boxes.scores == [0.5] * 3
    assert "left out 1 of 4 boxes" in caplog.text
    assert load_boxes(boxes_file(path, files), load(files, limit=2)).image_ids == [100, 101]
    with pytest.raises(DataError, match="none of 4 boxes"):
        load_boxes(boxes_file(path, files, category_id=77, image_id=101), load(files, limit=1))


def test_a_photograph_without_people_is_searched_too(files, tmp_path):
    boxes = load_boxes(boxes_file(tmp_path / "boxes.json", files, image_id=OTHER), load(files))
    assert boxes.image_ids[0] == OTHER and len(boxes.people) == 4
    valid = load(files).valid
    assert boxes.people.image.tolist() == valid.image.tolist()
    assert np.array_equal(boxes.people.center, valid.center) and np.array_equal(
        boxes.people.scale, valid.scale
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_id": 5}, "field image_id: found 5"),
        ({"image_id": "a"}, "field image_id: found 'a'"),
        ({"category_id": [1]}, "field category_id: found"),
        ({"category_id": None}, "field category_id: found None, expected a whole number"),
        ({"bbox": [1, 2, 3]}, "field bbox: found 3 numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "field bbox: found"),
        (
            {"bbox": [1, 2, 0, 9]},
            "field bbox: found 0.0, expected a width and a height above 0; correct these 1 of ",
        ),
        ({"bbox": "box"}, "field bbox: found 'box'"),
        ({"score": None}, "field score: found None"),
    ],
)
def test_a_bad_box_is_one_line_with_file_entry_and_field(files, tmp_path, changes, told):
    path = boxes_file(tmp_path / "boxes.json", files, **changes)
    with pytest.raises(DataError) as error:
        load_boxes(path, load(files))
    assert f"{path}: entry 0 (counted from 0), {told}" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_pycocotools_nothing_is_trained(trained, monkeypatch, tmp_path):
    _, flags, _ = trained
    monkeypatch.setattr("utils.run.find_spec", lambda name: None)
    message = refusal(STAGE_1, *flags, "--exp_dir", tmp_path, "--is_train", "true")
    assert "pip install pycocotools" in message and not [*tmp_path.rglob("*.tar")]


def test_the_log_says_what_average_precision_is_computed_on(trained, tmp_path):
    _, flags, printed = trained
    assert "average precision:" not in printed
    evaluate = (*flags, "--load_prefix_pose", NAME, "--limit", 3)
    assert "precision: on 3 of 4 people, in the 3 of 5 photographs" in run_here(STAGE_1, *evaluate)
    annotations = flags[flags.index("--annotations_valid") + 1]
    content = json.loads(annotations.read_text())
    del content["categories"][0]["sigmas"]
    (tmp_path / "own.json").write_text(json.dumps(content))
    printed = run_here(
        STAGE_1, *evaluate, "--annotations_valid", tmp_path / "own.json", "--overwrite", "true"
    )
    assert "no constants (sigmas): 0.05 for each" in printed


@pytest.mark.parametrize("content", ["{}", "[", "[3]", "[]"])
def test_a_file_that_has_no_boxes_is_one_line(files, tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(DataError, match=str(path)) as error:
        load_boxes(path, load(files))
    assert "\n" not in str(error.value)


def test_boxes_are_refused_where_they_do_nothing(files, trained, tmp_path):
    _, flags, _ = trained
    boxes = ("--boxes", boxes_file(tmp_path / "boxes.json", files))
    assert "--boxes applies only without --is_train true" in refusal(
        STAGE_1, *flags, *boxes, "--is_train", "true"
    )
    place = ("--exp_id", "other", "--load_prefix_pose", NAME)
    assert "--boxes applies only with --dataset coco" in refusal(STAGE_1, *place, *boxes)
    assert "--eval_grid applies only without --boxes" in refusal(
        STAGE_1, *flags, *boxes, *place[2:], "--eval_grid", "true"
    )
