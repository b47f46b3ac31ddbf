"""The loops of stage 1 and of pretraining, and the flip test: which pictures, targets and rates they use."""

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.experiment import load_script
from support.stand_ins import (
    Blind,
    Filter,
    Silent,
    Stubborn,
    agent_with,
    level_logits,
    plain_run,
    random_rows,
    some_people,
)
from torch import Tensor
from torch.testing import assert_close

from data.augmentation import Augmentation
from data.crops import augment
from data.heatmap import predict_points
from data.kinds import KINDS
from data.skeleton import MPII
from models.losses import distribution_loss, pose_loss
from utils.agents import scale_rotation
from utils.agents.base import Trial
from utils.agents.collect import bin_pck, summary
from utils.agents.pretraining import constant_loss, warn_of_uniform_rows
from utils.agents.scale_rotation import ScaleRotationRecord
from utils.evaluation.evaluate import crop_pck, evaluate, evaluation_grid, flip_tested_heatmaps
from utils.evaluation.metrics import person_pckh
from utils.records.history import History
from utils.system.devices import Streams
from utils.training import Learner

STAGE1, PRETRAIN = load_script("stack-hg.py"), load_script("pretrain-s-r-agent.py")
RES = 32


def batches(*rows):
    """Batches of people, each given by their rows in a table of ten, who look different."""
    people = replace(some_people(10), normalizer=torch.full((10,), 120.0))  # within which many joints are
    tensors = {name: value for name, value in vars(people).items() if isinstance(value, Tensor)}
    return [replace(people, **{name: value[part] for name, value in tensors.items()}) for part in rows]


def watched_run(seed=0):
    """A run, and a list that fills with the augmentations that are used."""
    run, used = plain_run(seed, in_res=RES), []

    def recorded(people, augmentation):
        used.append(augmentation)
        return augment(people, augmentation, RES, RES // 4)

    run.augment = recorded
    return run, used


def test_stage_1_trains_on_random_augmentation():
    (run, used), loader = watched_run(seed=4), batches([3, 1, 4], [0, 9, 2, 5])
    STAGE1.train_epoch(run, Learner(Filter(), 1e-3), loader, Silent())
    draws = Streams(4)["random"]
    for augmentation, people in zip(used, loader, strict=True):
        for name, value in vars(Augmentation.random(len(people), draws)).items():
            assert torch.equal(getattr(augmentation, name), value), name


def test_stage_1_reports_what_it_saw():
    """Mean loss over people, PCK over joints of the augmented crops; the weights have moved by each batch."""
    (run, used), loader = watched_run(), batches([3, 1, 4], [0, 9, 2, 5, 6])
    learner, again, report = Learner(Filter().eval(), 1e-3), Learner(Filter(), 1e-3), Silent()
    row = STAGE1.train_epoch(run, learner, loader, report)
    assert learner.network.training
    total, correct, known, means = 0.0, 0, 0, []
    for augmentation, people in zip(used, loader, strict=True):
        sample = augment(people, augmentation, RES, RES // 4)
        outputs = again.network(sample.image)
        total += len(people) * again.step(pose_loss(outputs, sample.heatmap)).item()
        means.append(total / (3 if not means else 8))
        error = (sample.predict(outputs[-1].detach()) - sample.points).norm(dim=-1) / sample.normalizer[
            :, None
        ]
        scored = [k for k, name in enumerate(MPII.joints) if name not in ("pelvis", "thorax")]
        correct, known = correct + int((error[:, scored] <= 0.5).sum()), known + 14 * len(people)
    assert row["train_loss"] == pytest.approx(total / 8, rel=1e-5)
    assert [heard[:2] for heard in report.heard] == [(0, 0), (0, 1)]
    assert [heard["loss"] for *_, heard in report.heard] == pytest.approx(means, rel=1e-5)
    assert report.heard[-1][2] == {"loss": row["train_loss"], "pck": row["train_pck"]}
    assert row["train_pck"] == pytest.approx(correct / known)
    assert_close(learner.network.state_dict(), again.network.state_dict())


@pytest.fixture
def targets(monkeypatch):
    """The targets of every agent's loss in pretraining."""
    used = []

    def recorded(logits, target):
        used.append(target)
        return sum(distribution_loss(logits[kind], target[kind]) for kind in KINDS)

    monkeypatch.setattr(PRETRAIN, "agent_loss", recorded)
    return used


@pytest.mark.parametrize("training", [True, False])
def test_pretraining_gives_each_person_their_own_rows(targets, training):
    """Whatever the order of people, and of each kind its own; on un-augmented crops."""
    (run, used), order = watched_run(), ([7, 2, 9], [0, 4])
    draws = torch.Generator().manual_seed(0)
    rows = random_rows(10, draws)
    agent = agent_with(Stubborn(), "agent", run, Blind(), 1e-9)
    report = Silent()
    agent.learner.network.train(not training)
    if training:
        found = PRETRAIN.train_epoch(run, agent, batches(*order), rows, {}, report)
        assert [heard[:2] for heard in report.heard] == [(0, 0), (0, 1)]
        assert report.heard[-1][2] == {"loss": found["loss"]}
    else:
        found = PRETRAIN.validate(run, agent, batches(*order), rows, {})
    assert agent.learner.network.training is training
    for part, target in zip(order, targets, strict=True):
        assert list(target) == list(KINDS)
        for kind in KINDS:
            assert torch.equal(target[kind], rows[kind][part])
    expected = sum(
        distribution_loss(level, rows[kind][[7, 2, 9, 0, 4]]) for kind, level in level_logits(5).items()
    )
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-4)
    for augmentation in used:
        for name, value in vars(Augmentation.identity(len(augmentation))).items():
            assert torch.equal(getattr(augmentation, name), value), name


@pytest.mark.parametrize("known", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_pretraining_finds_out_whom_the_agent_knows(training, known):
    """Of one kind two people's hardest bin is the agent's, one has another, and one has none."""
    rows, answers = {}, {}
    for kind in KINDS.values():
        one_hot = torch.eye(len(kind.means))
        hardest = 0.1 + one_hot[[2, 1, 0, 0]]
        hardest[3] = 0.5
        rows[kind.name] = hardest / hardest.sum(dim=1, keepdim=True)
        answers[kind.name] = 9 * one_hot[[2, 1, 1, 0]].roll(0 if kind.name == known else 1, dims=1)
    run, _ = watched_run()
    agent = agent_with(Stubborn(**answers), "agent", run, Blind(), 1e-9)
    loader = batches([0, 1, 2, 3])
    if training:
        found = PRETRAIN.train_epoch(run, agent, loader, rows, {}, Silent())
    else:
        found = PRETRAIN.validate(run, agent, loader, rows, {})
    del found["loss"]
    assert found == pytest.approx({f"{kind}_hit": 2 / 3 if kind == known else 0 for kind in KINDS})


@pytest.mark.parametrize("training", [True, False])
def test_pretraining_measures_the_expected_pck_of_the_agents_draws(training):
    """As collected, the mean of the measurements; by person, in any order."""
    (run, _), draws = watched_run(), torch.Generator().manual_seed(0)
    pck = {"rotation": torch.rand(2, 4, len(KINDS["rotation"].means), generator=draws)}
    answer = torch.randn(4, pck["rotation"].shape[2], generator=draws)
    order = [2, 0, 3, 1]
    agent = agent_with(Stubborn(rotation=answer[order]), "agent", run, Blind(), 1e-9)
    what = (run, agent, batches(order), random_rows(4, draws), pck)
    found = PRETRAIN.train_epoch(*what, Silent()) if training else PRETRAIN.validate(*what)
    mean = pck["rotation"].mean(dim=0)
    expected = {
        "rotation_pck": (answer.softmax(dim=1) * mean).sum(dim=1).mean().item(),
        "rotation_pck_likeliest": mean[torch.arange(4), answer.argmax(dim=1)].mean().item(),
    }
    assert {name: value for name, value in found.items() if "pck" in name} == pytest.approx(expected)


def table_of(batches):
    """What an evaluation needs of the table of a single batch's people."""
    (people,) = batches
    return SimpleNamespace(points=people.points.numpy(), normalizer=people.normalizer.numpy())


def partner(joint):
    """The joint on the other side of the body, by its name."""
    name, swap = MPII.joints[joint], {"left": "right", "right": "left"}
    return MPII.joints.index(" ".join(swap.get(word, word) for word in name.split()))


def flip_test_by_hand(network, image):
    """Joint by joint: the map of the image, and the other side's map of the mirrored image turned back."""
    plain, mirrored = network(image)[-1], network(image.flip(3))[-1].flip(3)
    maps = [(plain[:, joint] + mirrored[:, partner(joint)]) / 2 for joint in range(16)]
    return torch.stack(maps, dim=1)


def test_flip_test_averages_with_the_other_sides_map_of_the_mirrored_picture():
    network, image = Filter(), torch.rand(3, 3, RES, RES, generator=torch.Generator().manual_seed(0))
    outputs, averaged = flip_tested_heatmaps(plain_run(), network, image)
    assert_close(averaged, flip_test_by_hand(network, image))
    assert_close(outputs, network(image))
    assert (averaged - outputs[-1]).abs().max() > 0.05


def test_evaluation_predicts_with_the_flip_test_and_scores_everyone():
    network, run, loader = Filter().train(), plain_run(in_res=RES), batches([0, 1, 2], [3, 4])
    run.dataset.valid = table_of(batches([0, 1, 2, 3, 4]))
    result = evaluate(run, network, loader)
    assert not network.training
    (people,) = batches([0, 1, 2, 3, 4])
    sample = augment(people, Augmentation.identity(5), RES, RES // 4)
    with torch.no_grad():
        maps, outputs = flip_test_by_hand(network, sample.image), network(sample.image)
    expected, plain = (
        predict_points(one, sample.center, sample.scale, sample.rotation) for one in (maps, outputs[-1])
    )
    assert torch.equal(result.preds, expected)
    assert not torch.equal(expected, plain)
    assert result.loss == pytest.approx(pose_loss(outputs, sample.heatmap).item(), rel=1e-5)
    error = (expected - people.points).norm(dim=-1) / people.normalizer[:, None]
    scored = [k for k, name in enumerate(MPII.joints) if name not in ("pelvis", "thorax")]
    assert result.table.mean == pytest.approx((error[:, scored] <= 0.5).double().mean().item())
    assert result.row() == {
        "valid_loss": result.loss,
        "valid_pck": result.table.pck["Mean"],
        "valid_auc": result.table.auc["Mean"],
    }


def test_a_rate_that_is_set_is_that_of_the_next_step():
    steps = []
    for rate in (None, 1e-2):
        learner = Learner(torch.nn.Linear(1, 1), 1e-3)
        torch.nn.init.zeros_(learner.network.weight)
        if rate is not None:
            learner.set_lr(rate)
        learner.step((learner.network(torch.ones(1, 1)) - 1e3).square().sum())
        steps.append(learner.network.weight.item())
    assert steps[1] == pytest.approx(10 * steps[0])


def test_weight_decay_is_the_learners_own_whatever_a_checkpoint_had(tmp_path):
    """It pulls weights to 0 without any gradient of the loss, also after resuming; without it they stay."""

    def stepped(learner):
        before = learner.network.weight.item()
        learner.step((0 * learner.network.weight).sum())
        return abs(before) - abs(learner.network.weight.item())

    def saved(learner):
        return {"optimizer": learner.optimizer.state_dict(), "epoch": 0}

    decaying = Learner(torch.nn.Linear(1, 1, bias=False), 1e-3, weight_decay=0.1)
    plain = Learner(torch.nn.Linear(1, 1, bias=False), 1e-3)
    assert stepped(decaying) > 1e-4 and stepped(plain) == 0
    checkpoints = [saved(decaying), saved(plain)]
    plain.restore(checkpoints[0], tmp_path)
    decaying.restore(checkpoints[1], tmp_path)
    assert stepped(plain) == 0 and stepped(decaying) > 1e-4


class Watched(Filter):
    """A pose network that notes how it is run: its mode, and whether gradients are kept."""

    def __init__(self):
        super().__init__()
        self.modes = set()

    def forward(self, image):
        self.modes.add((self.training, torch.is_grad_enabled()))
        return super().forward(image)

    def features(self, image):
        return self(image)


def test_networks_are_scored_in_eval_mode_without_gradients():
    run, (people,) = plain_run(in_res=RES), batches([0, 1])
    run.dataset.valid = table_of([people])
    network = Watched()
    evaluate(run, network.train(), [people])
    assert network.modes == {(False, False)}
    crop_pck(run, network, people, Augmentation.identity(2))
    run.loader = lambda *_: [people]
    evaluation_grid(run, network.train())
    assert network.modes == {(False, False)}


@pytest.mark.parametrize("training", [True, False])
def test_the_agent_looks_without_changing_the_pose_network(training):
    run, network, precisions = plain_run(), Watched(), []
    agent = agent_with(Stubborn(), "agent", run, network.train(training))
    run.passes = lambda: precisions.append(len(network.modes)) or nullcontext()
    sample = SimpleNamespace(image=torch.rand(2, 3, RES, RES))
    logits = agent.predict(sample, trains=True)
    assert network.modes == {(False, False)} and network.training is training
    assert precisions == [0, 1]  # of either network's pass
    assert list(logits) == list(KINDS) and all(answer.grad_fn for answer in logits.values())
    assert not any(answer.grad_fn for answer in agent.predict(sample).values())


def test_crops_are_scored_augmentation_by_augmentation():
    run, (people,) = plain_run(in_res=RES), batches([1, 2, 3])
    parts = [Augmentation.random(3, run.streams["random"]) for _ in range(4)]
    together = crop_pck(run, Filter(), people, Augmentation.cat(parts))
    assert together.shape == (4, 3)
    assert torch.equal(together, torch.cat([crop_pck(run, Filter(), people, part) for part in parts]))
    sample = run.augment(people, parts[0])
    pred = sample.predict(Filter()(sample.image)[-1])
    by_hand = person_pckh(pred, sample.points, sample.normalizer, sample.heatmap, 0.5)
    assert torch.equal(together[0], by_hand)
    for kind in KINDS.values():
        alone = [
            replace(Augmentation.identity(3), **{kind.field: torch.full((3,), mean)}) for mean in kind.means
        ]
        bins = torch.cat([crop_pck(run, Filter(), people, one) for one in alone])
        assert torch.equal(bin_pck(run, Filter(), people, kind), bins.T)
        assert len(bins.unique()) > 3


def test_a_collections_summary_by_hand():
    """A uniform row, a row with two hardest bins, and one with a single one."""
    rows = torch.tensor([[1 / 7] * 7, [0.1, 0.3, 0.3, 0.1, 0.1, 0.1, 0], [0.9, 0.1, 0, 0, 0, 0, 0]])
    title, bins, mean, hardest = summary(rows, "train", KINDS["scale"]).splitlines()
    assert title == "train: 3 people, 33.3 % with a uniform row"
    assert [float(number) for number in bins.split()[2:]] == list(KINDS["scale"].means)
    assert [float(number) for number in mean.split()[2:]] == pytest.approx(
        rows.mean(dim=0).tolist(), abs=6e-4
    )
    assert [float(number) for number in hardest.split()[2:]] == [0.5, 0.25, 0.25, 0, 0, 0, 0]
    uniform = torch.full((2, 7), 1 / 7)
    assert "100.0 % with a uniform row" in summary(uniform, "val", KINDS["rotation"])
    assert summary(uniform, "val", KINDS["rotation"]).splitlines()[3].split()[2:] == ["0.000"] * 7
    nearly = uniform + torch.tensor([[4e-6, -4e-6, 0, 0, 0, 0, 0]])
    assert ", 0.0 % with a uniform row" in summary(nearly, "val", KINDS["rotation"])
    single = summary(torch.eye(7)[2:3], "val", KINDS["rotation"]).splitlines()[3]
    assert [float(number) for number in single.split()[2:]] == [0, 0, 1, 0, 0, 0, 0]


def test_rows_that_are_nearly_all_uniform_are_one_warning(caplog):
    uniform, rows = torch.full((10, 7), 1 / 7), torch.full((10, 7), 1 / 7)
    rows[:2] = torch.eye(7)[:2]
    warn_of_uniform_rows({"scale": rows, "rotation": rows})
    assert not caplog.messages
    rows[0] = 1 / 7
    warn_of_uniform_rows({"scale": rows, "rotation": uniform})
    (line,) = caplog.messages
    assert line.startswith(
        "nearly all people have a uniform row (90.0 % for scale, 100.0 % for rotation): no bin changes "
    )


def test_an_agents_epoch_by_hand(monkeypatch):
    """Two kinds; two batches of unequal size; three outcomes: harder, a tie, easier."""
    kinds = ("scale", "rotation")
    monkeypatch.setattr(scale_rotation, "KINDS", {kind: KINDS[kind] for kind in kinds})
    record, draws = ScaleRotationRecord("agent"), torch.Generator().manual_seed(0)
    history = History([{f"{kind}_distribution": [1.0, 0, 0, 0, 0, 0, 0] for kind in kinds}])
    sizes, losses = (3, 1), (2.0, 4.0)
    predicted = [{kind: torch.rand(n, 7, generator=draws).softmax(dim=1) for kind in kinds} for n in sizes]
    pckh = torch.tensor(
        [
            [[0.9, 0.5, 0.5, 0.75], [0.2, 0.4, 1.0, 0.0]],
            [[0.4, 0.5, 0.6, 0.5], [0.1, 0.8, 1.0, 0.5]],
            [[0.5, 0.5, 0.8, 0.9], [0.1, 0.6, 0.9, 0.9]],
        ]
    )
    for loss, shares, part, rows in zip(
        losses, predicted, pckh.split(sizes, dim=2), ([0, 1, 2], [3]), strict=True
    ):
        logits = {kind: one.log() for kind, one in shares.items()}
        bins = dict.fromkeys(logits, torch.zeros(len(rows)).long())
        trial = Trial(logits, bins, torch.zeros(len(rows), 2), part)
        people = replace(some_people(len(rows)), index=torch.tensor(rows))
        record.add(people, torch.tensor(loss), trial, trial.rewards())
    row = record.row(history)
    gap = pckh[0] - pckh[1]
    expected = {
        "agent_loss": (3 * 2 + 4) / 4,
        "pck_random": pckh[0].mean().item(),
        "pck_agent": pckh[1].mean().item(),
        "pck_gap": gap.mean().item(),
        "scale_gap": gap[0].mean().item(),
        "rotation_gap": gap[1].mean().item(),
        "reward_share": 3 / 8,
        "pck_uniform": 5.2 / 8,
        "uniform_gap": 0.1,  # of the people: 0.05, -0.1, 0.05, 0.4
        "uniform_gap_error": 0.10606602,  # sqrt((0.05^2 + 0.2^2 + 0.05^2 + 0.3^2) / (3 * 4))
        "scale_uniform_gap": 0.175,  # 0.1, 0, 0.2, 0.4
        "scale_uniform_gap_error": 0.08539126,  # sqrt((0.075^2 + 0.175^2 + 0.025^2 + 0.225^2) / (3 * 4))
        "rotation_uniform_gap": 0.025,  # 0, -0.2, -0.1, 0.4
        "rotation_uniform_gap_error": 0.13149778,  # sqrt((0.025^2 + 0.225^2 + 0.125^2 + 0.375^2) / (3 * 4))
    }
    for kind in kinds:
        shares = torch.cat([part[kind] for part in predicted])
        expected[f"{kind}_entropy"] = -(shares * shares.log()).sum(dim=1).mean().item()
        mean = shares.mean(dim=0)
        assert row.pop(f"{kind}_distribution") == pytest.approx(mean.tolist(), abs=1e-6)
        expected[f"{kind}_change"] = (1 - mean[0]).item()
    assert row == pytest.approx(expected, abs=1e-6)
    assert not [name for name in record.row(History()) if name.endswith("_change")]


def test_a_single_persons_gap_has_no_standard_error():
    record, bins = ScaleRotationRecord("agent"), dict.fromkeys(KINDS, torch.zeros(1).long())
    trial = Trial(level_logits(1), bins, torch.zeros(1, len(KINDS)), torch.rand(3, len(KINDS), 1))
    record.add(some_people(1), torch.tensor(0.0), trial, trial.rewards())
    assert math.isnan(record.row(History())["uniform_gap_error"])


def test_the_best_constant_prediction_is_finite():
    """A bin that nobody loses anything under has a share of 0."""
    rows = {"a": torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]]), "b": torch.tensor([[0.25, 0.25, 0.5]] * 2)}
    mean = {kind: row.mean(dim=0) for kind, row in rows.items()}
    expected = (math.log(1 / 0.75) + 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2
    assert constant_loss(rows, mean) == pytest.approx(expected, rel=1e-5)
