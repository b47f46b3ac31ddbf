"""Metrics against golden numbers, and on cases whose answer is known."""

import math

import numpy as np
import torch

from data.annotations import People
from data.heatmap import predict_points
from utils.metrics import heatmap_accuracy, pck_counts, pck_table, person_pckh, scorable

EVERYONE = torch.full((1,), 10.0)


def test_metrics_golden(golden):
    arrays = {name: torch.as_tensor(array) for name, array in golden("e_metrics").items()}
    maps, target = arrays["in_maps_i16"].float() / arrays["in_maps_div"], arrays["in_target"]
    points, normalizer = arrays["in_grnd_pts"], arrays["in_normalizer"]

    per_joint, mean = heatmap_accuracy(maps, target, arrays["in_idx"].tolist())
    assert torch.allclose(torch.cat((mean.view(1), per_joint)), arrays["out_accuracy"], atol=1e-6)

    pred = predict_points(maps, arrays["in_center"], arrays["in_scale"], arrays["in_rot"])
    assert torch.equal(pred, arrays["out_final_preds"].float())
    correct, annotated = pck_counts(pred, points, normalizer)
    distance = arrays["out_dists_origin"]
    assert torch.equal(annotated, (distance >= 0).sum(dim=1))
    assert torch.equal(correct, ((distance >= 0) & (distance <= 0.5)).sum(dim=1))

    pckh = person_pckh(pred, points, normalizer, target)
    assert torch.allclose(pckh, arrays["out_per_person_pckh"], atol=1e-6)


def test_exactly_the_threshold_is_correct():
    points = torch.full((1, 16, 2), 100.0)
    pred = points.clone()
    pred[0, :, 0] += 5.0
    pred[0, 3, 0] += 1e-4
    correct, annotated = pck_counts(pred, points, EVERYONE, threshold=0.5)
    assert annotated.tolist() == [1] * 16
    assert correct.tolist() == [1, 1, 1, 0] + [1] * 12


def test_joints_and_people_that_do_not_count():
    points = torch.full((2, 16, 2), 100.0)
    points[0, 4] = 0
    _, annotated = pck_counts(points, points, torch.tensor([10.0, 0.0]))
    assert annotated.tolist() == [1] * 4 + [0] + [1] * 11


def test_who_can_be_scored():
    points = np.zeros((5, 16, 2), np.float32)
    points[0] = points[1] = 100
    points[2, 6:8] = 100  # pelvis and thorax
    points[3, 0] = 100
    normalizer = np.array([10, 0, 10, 10, 10], np.float32)
    names, ones = np.array(["a.jpg"] * 5), np.ones(5, np.float32)
    people = People(names, np.zeros((5, 2), np.float32), ones, points, normalizer, ones > 0)
    assert scorable(people).tolist() == [True, False, False, True, False]
    points, normalizer = torch.from_numpy(points), torch.from_numpy(normalizer)
    assert pck_table(points, points, normalizer, "PCKh", 0.5).people == 2


def test_table_counts_over_joints_not_over_batches():
    points = torch.full((3, 16, 2), 100.0)
    points[1:, 9] = 0  # head top known of one person only
    pred = points.clone()
    pred[0, 9] += 50
    table = pck_table(pred, points, EVERYONE.expand(3), "PCKh", 0.5)
    assert table.pck["Head"] == 3 / 4
    assert table.pck["Ankle"] == table.auc["Ankle"] == 1
    assert math.isclose(table.mean, 1 - 1 / (3 * 14 - 2))
    assert "PCKh@0.5" in str(table)


def test_person_pckh_without_a_joint_is_zero():
    points = torch.zeros(1, 16, 2)
    assert person_pckh(points, points, EVERYONE, torch.zeros(1, 16, 64, 64)).tolist() == [0]
