"""Average precision: as COCOeval computes it by hand, and on predictions whose score is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support.cocoeval import by_hand

from data.coco_truth import CocoTruth
from data.skeleton import UNKNOWN_SIGMA, skeleton_of_names
from utils.evaluation.average_precision import CONFIDENT, average_precision, keypoint_results
from utils.records.predictions import encode_results

JOINTS = 4
SKELETON = skeleton_of_names("four", "abcd", sigmas=(0.05, 0.05, 0.1, 0.1))


def person(id, image, category=1, side=100.0, joints=JOINTS, iscrowd=0):
    """An annotation with its first `joints` joints in a row, in an own part of its photograph."""
    keypoints = np.zeros((JOINTS, 3))
    for joint in range(joints):
        keypoints[joint] = 10 * id + 7 * joint, 50 + joint, 2
    return {
        "id": id,
        "image_id": image,
        "category_id": category,
        "bbox": [0.0, 0.0, side, side],
        "area": side * side,
        "iscrowd": iscrowd,
        "num_keypoints": joints,
        "keypoints": keypoints.flatten().tolist(),
    }


def with_sigma(sigma):
    return replace(SKELETON, sigmas=sigma and (sigma,) * JOINTS)


def truth_of(*annotations):
    images = [{"id": id, "width": 640, "height": 480} for id in {one["image_id"] for one in annotations}]
    categories = [{"id": id, "name": str(id)} for id in sorted({one["category_id"] for one in annotations})]
    ids = [one["id"] for one in annotations if one["num_keypoints"] and not one["iscrowd"]]
    return CocoTruth(images, list(annotations), categories, ids=np.array(ids))


def results_of(annotations, shift=0.0):
    """The annotated joints, `shift` px to the right, as results of one confidence."""
    found = np.array([one["keypoints"] for one in annotations]).reshape(-1, JOINTS, 3)
    found[..., 0] += shift
    found[..., 2] = 0.9
    ids = ([one[name] for one in annotations] for name in ("image_id", "category_id"))
    return keypoint_results(found, *ids)


PEOPLE = [person(1, 1), person(2, 1, side=50), person(3, 2, joints=2), person(4, 3, category=2)]


def test_annotations_as_predictions_have_ap_1(capfd):
    scores = average_precision(truth_of(*PEOPLE), results_of(PEOPLE), SKELETON)
    assert scores.shares == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75", "APM", "APL", "AR"), 1.0))
    assert scores.row() == pytest.approx(
        dict.fromkeys(("valid_ap", "valid_ap50", "valid_ap75", "valid_ar"), 1.0)
    )
    assert capfd.readouterr() == ("", "")


def test_an_annotation_with_id_0_is_found_too():
    people = [person(0, 1), person(1, 2), person(2, 3)]
    assert average_precision(truth_of(*people), results_of(people), SKELETON).shares["AP"] == pytest.approx(1)


def test_oks_falls_with_distance_area_and_sigma():
    """It is exp(-d^2 / (2 area (2 sigma)^2)); AP counts the thresholds 0.5, 0.55 ... below it."""
    for sigma, side, oks in ((0.05, 100, 0.72), (0.05, 60, 0.93), (0.1, 100, 0.52)):
        one = person(1, 1, side=side)
        shift = side * 2 * sigma * math.sqrt(-2 * math.log(oks))
        shares = average_precision(truth_of(one), results_of([one], shift), with_sigma(sigma)).shares
        below = sum(0.5 + 0.05 * step < oks for step in range(10))
        assert shares["AP"] == pytest.approx(below / 10) and shares["AP50"] == pytest.approx(1)


def test_the_joints_constants_are_those_given():
    one = person(1, 1)
    truth, results = truth_of(one), results_of([one], shift=12)
    strict, lax = (average_precision(truth, results, with_sigma(sigma)) for sigma in (0.03, 0.2))
    assert strict.shares["AP"] == 0 < lax.shares["AP"]


def test_joints_without_constants_share_one():
    one = person(1, 1)
    truth, results = truth_of(one), results_of([one], shift=8)
    unknown, known = (average_precision(truth, results, with_sigma(s)) for s in (None, UNKNOWN_SIGMA))
    assert unknown.shares["AP"] == known.shares["AP"] < 1


def test_a_person_who_is_not_found_costs_recall():
    scores = average_precision(truth_of(*PEOPLE[:3]), results_of(PEOPLE[:2]), SKELETON)
    assert scores.shares["AR"] == pytest.approx(2 / 3)
    assert scores.shares["AP"] == pytest.approx(67 / 101)  # precision is 1 up to a recall of 2/3, and then 0


def test_crowds_and_people_without_joints_are_ignored():
    others = [person(8, 1, joints=0), person(9, 2, iscrowd=1)]
    assert average_precision(truth_of(*PEOPLE, *others), results_of(PEOPLE), SKELETON).shares[
        "AP"
    ] == pytest.approx(1)


def test_only_photographs_of_people_in_the_table_are_evaluated():
    truth = truth_of(*PEOPLE, person(9, 4, joints=0))
    assert truth.evaluated == [1, 2, 3, 4]
    fewer = replace(truth, ids=truth.ids[:1])
    assert fewer.evaluated == [1] and [row["id"] for row in fewer.rows] == [1]
    scores = average_precision(fewer, results_of(PEOPLE[:1]), SKELETON)
    assert scores.shares["AR"] == pytest.approx(1 / 2)  # another person of photograph 1 was not found


def test_sizes_that_nobody_has_are_nan_and_print():
    scores = average_precision(truth_of(person(1, 1)), results_of([person(1, 1)]), SKELETON)
    assert math.isnan(scores.shares["APM"]) and scores.shares["APL"] == pytest.approx(1)
    assert str(scores).split() == [
        "AP",
        "AP50",
        "AP75",
        "APM",
        "APL",
        "AR",
        "OKS",
        *["100.00", "100.00", "100.00", "nan", "100.00", "100.00"],
    ]


def test_people_are_scored_by_their_confident_joints_and_box():
    found = np.zeros((3, JOINTS, 3))
    found[0, :, 2] = 0.9, 0.5, CONFIDENT, -0.1
    found[1, :, 2] = 0.1
    found[2, :, 2] = 0.8
    scores = [one["score"] for one in keypoint_results(found, [1, 1, 2], [1, 1, 1])]
    assert scores == pytest.approx([0.7, 0.0, 0.8])
    scores = [one["score"] for one in keypoint_results(found, [1, 1, 2], [1, 1, 1], [0.5, 1.0, 0.25])]
    assert scores == pytest.approx([0.35, 0.0, 0.2])


@pytest.mark.parametrize("seed", range(3))
def test_ap_is_that_of_cocoeval_by_hand_on_the_written_results(tmp_path, seed):
    rng = np.random.default_rng(seed)
    annotations = [
        person(
            id,
            int(rng.integers(1, 6)),
            int(rng.integers(1, 3)),
            rng.uniform(40, 150),
            int(rng.integers(0, 5)),
        )
        for id in range(1, 31)
    ]
    found = np.array([one["keypoints"] for one in annotations]).reshape(-1, JOINTS, 3)
    found[..., :2] += rng.normal(0, 8, (30, JOINTS, 2))
    found[..., 2] = rng.uniform(0, 1, (30, JOINTS))
    ids = ([one[name] for one in annotations] for name in ("image_id", "category_id"))
    truth = truth_of(*annotations)
    before = json.dumps(truth.annotations)
    scores = average_precision(truth, keypoint_results(found, *ids), SKELETON)
    assert json.dumps(truth.annotations) == before
    written = tmp_path / "results.json"
    written.write_bytes(encode_results(scores.results))
    content = {"images": truth.images, "annotations": annotations, "categories": truth.categories}
    assert [*scores.shares.values()] == by_hand(content, written, SKELETON.sigmas)
    assert 0 < scores.shares["AP"] < 1
