"""Metrics against golden numbers, and on cases whose answer is known."""

import math
import statistics

import numpy as np
import pytest
import torch
from scipy import stats

from data.crops import Sample
from data.heatmap import predict_points, render_heatmaps
from data.people import People, scorable
from data.skeleton import MEAN, MPII
from utils.evaluation.metrics import (
    PckCounter,
    pck_counts,
    pck_interval,
    pck_table,
    person_pckh,
)

COLUMNS = MPII.columns | {MEAN: MPII.scored}
EVERYONE = torch.full((1,), 10.0)


def test_metrics_golden(golden):
    arrays = {name: torch.as_tensor(array) for name, array in golden("e_metrics").items()}
    maps, target = arrays["in_maps_i16"].float() / arrays["in_maps_div"], arrays["in_target"]
    points, normalizer = arrays["in_grnd_pts"], arrays["in_normalizer"]

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
    normalizer = np.array([10, 0, 10, 0.5, 10], np.float32)
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


def test_columns_are_those_of_papers():
    sides = {
        name: {f"{side} {name.lower()}" for side in ("right", "left")}
        for name in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
    }
    everything = set(MPII.joints) - {"pelvis", "thorax"}
    expected = {"Head": {"upper neck", "head top"}, **sides, "Mean": everything}
    found = {name: [MPII.joints[joint] for joint in joints] for name, joints in COLUMNS.items()}
    assert list(found) == list(expected)
    for name, joints in found.items():
        assert set(joints) == expected[name] and len(joints) == len(expected[name])


def test_table_by_hand():
    """AUC: the mean over the 51 thresholds 0, 0.01 .. 0.5 of the share within them."""
    draws = torch.Generator().manual_seed(0)
    distance = torch.randint(70, (40, 16), generator=draws) / 100 - 0.005  # between the thresholds
    points = torch.full((40, 16, 2), 100.0)
    pred = points.clone()
    pred[..., 0] += 10 * distance
    table = pck_table(pred, points, EVERYONE.expand(40), "PCKh", 0.5)
    assert (table.people, table.metric, table.threshold) == (40, "PCKh", 0.5)
    for name, joints in COLUMNS.items():
        found = distance[:, joints].abs()
        shares = [(found <= k / 100).double().mean().item() for k in range(51)]
        assert table.pck[name] == pytest.approx(shares[-1])
        assert table.auc[name] == pytest.approx(sum(shares) / 51)
    head, pck, auc = str(table).splitlines()
    assert head.split() == list(COLUMNS)
    for line, title, values in ((pck, "PCKh@0.5", table.pck), (auc, "AUC", table.auc)):
        assert line.split() == [title, *(f"{100 * value:.2f}" for value in values.values())]


def test_the_interval_is_students_where_all_have_as_many_joints():
    correct = torch.tensor([3, 5, 8, 7, 0, 4])
    found = pck_interval(correct, torch.tensor([10, 10, 10, 10, 0, 10]))  # one has no joints: does not count
    shares = (correct[[0, 1, 2, 3, 5]] / 10).tolist()
    expected = stats.t.interval(0.95, 4, statistics.mean(shares), stats.sem(shares))
    assert found == pytest.approx(expected)


def test_the_interval_covers_the_truth_in_95_of_100_samples():
    """People of 1 to 14 joints, all of which are found or lost together: a joint tells nothing new."""
    draws, covered = torch.Generator().manual_seed(0), 0
    for _ in range(1000):
        annotated = torch.randint(1, 15, (30,), generator=draws)
        found = torch.rand(30, generator=draws) < 0.6
        low, high = pck_interval(annotated * found, annotated)
        covered += low <= 0.6 <= high
    assert 920 <= covered <= 970


def test_few_people_are_cautioned_of():
    points, pred = torch.full((2, 50, 16, 2), 100.0)
    pred[::2, :, 0] += 50
    pred[1::2, :8, 0] += 50
    tables = {n: pck_table(pred[:n], points[:n], EVERYONE.expand(n), "PCKh", 0.5) for n in (1, 2, 49, 50)}
    assert tables[1].caution == "only 1 person is scored, too few to say how uncertain PCKh@0.5 is"
    assert tables[2].caution.endswith(": the 95 % interval of PCKh@0.5 is 0.0 to 100.0 %")
    low, high = tables[49].interval
    assert low < tables[49].mean < high and f"{100 * low:.1f} to {100 * high:.1f} %" in tables[49].caution
    assert not tables[50].caution


@pytest.mark.parametrize(("length", "counted"), [(0.0, 0), (0.5, 16), (1.0, 16), (-1.0, 0)])
def test_a_reference_length_is_known_if_it_is_above_0(length, counted):
    points = torch.full((1, 16, 2), 100.0)
    assert pck_counts(points, points, torch.tensor([length]))[1].sum() == counted


def test_a_persons_pckh_by_hand():
    """Of scored joints in the crop alone; exactly at the threshold is correct."""
    cells = torch.full((1, 16, 2), 8.5)
    cells[0, 0], cells[0, 1], cells[0, 2] = torch.tensor([[0.5, 8.5], [8.5, 0.5], [1.5, 1.5]])
    points = torch.full((1, 16, 2), 100.0)
    pred = points.clone()
    pred[0, 3:8, 0] += 5.0  # pelvis and thorax, 6 and 7, do not count
    pred[0, 8, 0] += 5.1
    pred[0, :2] += 50  # at the crop's first column or row: not in it
    pred[0, 2] += 50
    maps = render_heatmaps(cells, 16)
    assert person_pckh(pred, points, EVERYONE, maps, 0.5).item() == pytest.approx(10 / 12)
    assert person_pckh(pred, points, EVERYONE, maps, 0.4).item() == pytest.approx(7 / 12)


def sample_of(cells):
    """Crops of 160 px whose heatmaps have 16 cells."""
    n = len(cells)
    maps, box = render_heatmaps(cells, 16), (torch.full((n, 2), 100.0), torch.full((n,), 0.8), torch.zeros(n))
    points = predict_points(maps, *box)
    deformation = torch.eye(2).repeat(n, 1, 1)
    return Sample(torch.zeros(n, 3, 64, 64), maps, *box, deformation, points, torch.full((n,), 12.0))


def test_counters_add_up():
    cells = 2 + 12 * torch.rand(5, 16, 2, generator=torch.Generator().manual_seed(1))
    sample = sample_of(cells)
    maps = sample.heatmap
    assert math.isnan(PckCounter(0.5).read())
    whole, wrong = PckCounter(0.5), PckCounter(0.5)
    whole.add(maps, sample)
    assert whole.read() == 1
    sample.points[:2, 8:12] += 50
    wrong.add(maps[:2], Sample(*(value[:2] for value in vars(sample).values())))
    assert wrong.read() == pytest.approx(10 / 14)
    assert (whole + wrong).read() == pytest.approx((5 * 14 + 2 * 10) / (7 * 14))
    wrong.add(maps, sample)
    assert wrong.read() == pytest.approx((2 * 10 + 2 * 10 + 3 * 14) / (7 * 14))
