"""The loops of stage 3: what the agent draws, what it is rewarded for, and what it must leave alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from support.experiment import kept_logging, load_script
from support.stages import QUIET, SMALL, TRAIN, demo_data
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
from torch.testing import assert_close

from data.augmentation import Augmentation
from data.crops import augment
from data.kinds import KINDS
from data.skeleton import MPII
from models.losses import pose_loss
from options.parser import StageParser
from utils.agents import AGENTS
from utils.agents.base import HARDEST, Trial
from utils.agents.rules import RULES
from utils.agents.scale_rotation import ScaleRotationRecord, draw
from utils.evaluation.metrics import pck_counts
from utils.records.history import History
from utils.run import Run
from utils.system.devices import Streams
from utils.system.errors import UserError
from utils.training import Learner

SCRIPT = load_script("joint-train-pose-s-r-agent.py")
CROP_PCK = "utils.agents.scale_rotation.crop_pck"


def drawn_by(logits, people, run):
    agent = agent_with(Stubborn(**logits), "agent", run, Blind())
    logits = agent.predict(run.augment(people, Augmentation.identity(len(people))))
    return *draw(logits, people, agent.streams.batches), logits


def train_agent(run, agent, batches):
    pose = SimpleNamespace(network=agent.pose, epoch=0)
    return SCRIPT.train_agent(run, pose, agent, batches, Silent())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the demo set, with a pose network that has learned nothing."""
    root = tmp_path_factory.mktemp("loops")
    flags = (*SMALL, *QUIET, "--data_dir", demo_data(root / "data"), "--exp_dir", root, "--exp_id", "loops")
    with kept_logging():
        opt = StageParser("test", "resume_pose", "joint", "ranks").parse([str(flag) for flag in flags])
        return Run(opt, root / "loops")


def chi_square(chosen, expected):
    """How far the bins that people drew are from the expected counts, in 99.9 % quantiles."""
    counts = chosen.bincount(minlength=len(expected)).double()
    limit = stats.chi2.ppf(0.999, len(expected) - 1)
    return ((counts - expected) ** 2 / expected).sum().item() / limit


def test_draws_follow_the_predicted_distributions():
    count, draws = 3000, torch.Generator().manual_seed(0)
    predicted = random_rows(2, draws)
    rows = {kind: row.repeat(count, 1) for kind, row in predicted.items()}  # of two people by turns
    people, run = some_people(2 * count), plain_run()
    augmentation, bins, logits = drawn_by({kind: row.log() for kind, row in rows.items()}, people, run)
    for kind in KINDS.values():
        drawn = bins[kind.name]
        assert_close(logits[kind.name].softmax(dim=1), rows[kind.name])
        for person in (0, 1):
            assert chi_square(drawn[person::2], count * predicted[kind.name][person].double()) < 1
        value = getattr(augmentation, kind.field)
        beside = (value - torch.tensor(kind.means)[drawn]).abs() / kind.std
        assert beside.max() <= 1.001
        assert beside.std() > 0.2  # spread round the bin's mean
    assert not augmentation.flip.any()
    assert (augmentation.color == 1).all()
    together = torch.corrcoef(torch.stack([*bins.values()])[:, ::2].double())
    assert (together - torch.eye(len(KINDS))).abs().max() < 0.06  # kinds are drawn apart


def test_each_person_gets_bins_of_its_own():
    people, draws = some_people(7), torch.Generator().manual_seed(0)
    for seed in range(3):
        chosen = {kind.name: torch.randint(len(kind.means), (7,), generator=draws) for kind in KINDS.values()}
        sure = {kind: 50 * torch.eye(len(KINDS[kind].means))[bins] for kind, bins in chosen.items()}
        augmentation, bins, _ = drawn_by(sure, people, plain_run(seed))
        assert_close(bins, chosen)
        for kind in KINDS.values():
            value = getattr(augmentation, kind.field)
            assert ((value - torch.tensor(kind.means)[chosen[kind.name]]).abs() <= 1.001 * kind.std).all()


def test_a_part_of_a_batch_is_drawn_as_in_the_whole():
    logits = {kind: row.log() for kind, row in random_rows(7, torch.Generator().manual_seed(0)).items()}
    whole, bins = draw(logits, some_people(7), torch.Generator().manual_seed(5))
    expected = torch.Generator().manual_seed(5)
    for kind, answer in logits.items():
        assert torch.equal(bins[kind], torch.multinomial(answer.softmax(dim=1), 1, generator=expected)[:, 0])
    for first, end in ((0, 3), (3, 7)):
        people = replace(some_people(end - first), before=first, after=7 - end)
        mine = {kind: answer[first:end] for kind, answer in logits.items()}
        part, chosen = draw(mine, people, torch.Generator().manual_seed(5))
        for name, value in vars(part).items():
            assert torch.equal(value, getattr(whole, name)[first:end]), name
        assert all(torch.equal(chosen[kind], bins[kind][first:end]) for kind in KINDS)


def share_of_the_bin(monkeypatch, kind, chosen, hard, seed, rule, batches=120):
    """How likely the agent draws a bin, at first and in the end, if crops there lose half of the joints."""

    def crop_pck(run, network, people, augmentation):
        value = getattr(augmentation, KINDS[kind].field).view(-1, len(people))
        near = (value - KINDS[kind].means[chosen]).abs() <= 1.01 * KINDS[kind].std
        return 1 - 0.5 * near if hard else torch.ones(value.shape)

    monkeypatch.setattr(CROP_PCK, crop_pck)
    run = plain_run(seed)
    run.opt.agent_rule = rule
    agent = agent_with(Stubborn(), "agent", run, Blind(), 0.02)
    record = train_agent(run, agent, [some_people(24)] * batches)
    row = record.row(History())
    assert (row[f"{kind}_gap"] > 0) == hard
    assert all(row[f"{other}_gap"] == 0 for other in KINDS if other != kind)
    assert row["pck_gap"] == pytest.approx(record.means.read()["pck_gap"], abs=1e-6)
    return agent.learner.network.logits[kind].softmax(dim=1)[0, chosen].item()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_agent_learns_which_bin_is_hard(monkeypatch, kind, rule):
    bins, chosen = len(KINDS[kind].means), 1
    hard = [share_of_the_bin(monkeypatch, kind, chosen, True, seed, rule) for seed in range(3)]
    level = [share_of_the_bin(monkeypatch, kind, chosen, False, seed, rule) for seed in range(3)]
    assert sum(hard) / 3 > 1.54 / bins
    assert sum(level) / 3 < 1.26 / bins


def test_choosing_is_compared_with_the_agents_own_range(monkeypatch):
    """One rotation alone is hard, and rare at random: an agent that knows it, and one that does not."""

    def crop_pck(run, network, people, augmentation):
        seen.append(augmentation)
        return 1 - 0.7 * (augmentation.rotation < -54).view(-1, len(people)).float()

    monkeypatch.setattr(CROP_PCK, crop_pck)
    sure, gaps = torch.tensor([[9.0, 0, 0, 0, 0, 0, 0]]), []
    for answer in (sure, torch.zeros(1, 7)):
        seen, run = [], plain_run()
        agent = agent_with(Stubborn(rotation=answer), "agent", run, Blind(), 1e-9)
        row = train_agent(run, agent, [some_people(50)] * 40).row(History())
        alone = [*KINDS].index("rotation")
        uniform = torch.cat([augmentation.rotation.view(-1, 50)[alone] for augmentation in seen[1::2]])
        assert chi_square((uniform / 20).round().long() + 3, torch.full((7,), 2000 / 7)) < 1
        assert row["scale_uniform_gap"] == row["scale_uniform_gap_error"] == 0
        assert row["uniform_gap"] == pytest.approx(row["rotation_uniform_gap"] / len(KINDS))
        gaps.append((row["rotation_uniform_gap"], row["rotation_uniform_gap_error"], row["rotation_gap"]))
    (knows, error, _), (guesses, guess_error, beside_random) = gaps
    assert knows == pytest.approx(0.7 * 6 / 7, abs=0.03) and knows > 20 * error
    assert abs(guesses) < 3 * guess_error < 3 * 0.02
    assert beside_random > 0.05  # the range alone looks hard beside random draws


def test_uniform_draws_change_no_other(monkeypatch):
    """The generator of the agent's draws ends where the agent's and random's alone take it."""
    monkeypatch.setattr(CROP_PCK, lambda run, network, people, drawn: torch.ones(len(drawn) // 9, 9))
    run, people = plain_run(3), some_people(9)
    train_agent(run, agent_with(Stubborn(), "agent", run, Blind(), 1e-9), [people])
    alone = Streams(3)["agent training"]
    draw(level_logits(9), people, alone)
    Augmentation.random(9, alone)
    assert torch.equal(run.streams["agent training"].get_state(), alone.get_state())


def test_hardest_draws_of_an_epoch_are_kept():
    draws = torch.Generator().manual_seed(0)
    record, lost = ScaleRotationRecord("agent"), {}
    level, bins = level_logits(40), dict.fromkeys(KINDS, torch.zeros(40).long())
    for batch in range(4):
        pck = torch.rand(3, len(KINDS), 40, generator=draws)
        rows = 40 * batch + torch.randperm(40, generator=draws)
        trial = Trial(level, bins, torch.rand(40, len(KINDS), generator=draws), pck)
        record.add(replace(some_people(40), index=rows), torch.tensor(0.0), trial, trial.rewards())
        for k, row in enumerate(rows.tolist()):
            for place, kind in enumerate(KINDS):
                draw = (row, kind, trial.values[k, place].item())
                lost[(pck[0, place, k] - pck[1, place, k]).item()] = draw
    hardest = record.hardest()
    kept = [(draw["row"], draw["choice"], draw["value"]) for draw in hardest]
    assert kept == [lost[most] for most in sorted(lost, reverse=True)[:HARDEST]]
    gaps = [draw["pck_reference"] - draw["pck_agent"] for draw in hardest]
    assert gaps == pytest.approx(sorted(lost, reverse=True)[:HARDEST])


def learner_state(learner):
    return {name: value.clone() for name, value in learner.network.state_dict().items()}


def test_agents_epoch_leaves_the_pose_network_alone(run):
    pose = Learner(run.pose_network(), 1e-3)
    agent = AGENTS["agent"].build(run, pose.network, 1e-3)
    loader = run.loader(run.dataset.train, "drawn", run.streams["order"])
    pose.network.train()
    before, agent_before = learner_state(pose), learner_state(agent.learner)
    record = SCRIPT.train_agent(run, pose, agent, loader, Silent())
    assert_close(learner_state(pose), before, atol=0, rtol=0)
    assert all(parameter.grad is None for parameter in pose.network.parameters())
    changed = [
        name
        for name, value in learner_state(agent.learner).items()
        if not torch.equal(value, agent_before[name])
    ]
    assert any(name.endswith("running_mean") for name in changed)
    assert any(name.startswith("fc_") for name in changed)
    assert sum(record.row(pose.history)["scale_distribution"]) == pytest.approx(1, abs=1e-5)


def test_pose_networks_epoch_leaves_the_agent_alone_and_takes_turns(run, monkeypatch):
    """Even batches are augmented at random, odd ones as the agent says, mirrored and colored as before."""

    def every_other(n, generator):
        return replace(Augmentation.identity(n), flip=torch.arange(n) % 2 == 0)

    monkeypatch.setattr(Augmentation, "mirrored", every_other)
    pose = Learner(run.pose_network(), 1e-3)
    sides = {kind.name: 0 if kind.odd else len(kind.means) - 1 for kind in KINDS.values()}
    far = {kind: 60 * torch.eye(len(KINDS[kind].means))[[side]] for kind, side in sides.items()}
    agent = agent_with(Stubborn(**far), "agent", run, pose.network)
    seen = []

    def recorded(people, augmentation):
        seen.append(augmentation)
        return augment(people, augmentation, run.opt.in_res, run.opt.out_res)

    monkeypatch.setattr(run, "augment", recorded)
    loader = run.loader(run.dataset.train, "drawn", run.streams["order"])
    before, agent_before = learner_state(pose), learner_state(agent.learner)
    losses, step = [], pose.step
    pose.step = lambda *loss: losses.append(step(*loss)) or losses[-1]
    row = SCRIPT.train_pose(run, pose, [agent], loader, Silent())
    assert_close(learner_state(agent.learner), agent_before, atol=0, rtol=0)
    assert not torch.equal(learner_state(pose)["conv1.weight"], before["conv1.weight"])
    assert pose.network.training
    assert 0 <= row["train_pck"] <= 1

    even, look, odd, last = seen  # of three batches
    sizes = [len(augmentation) for augmentation in (even, odd, last)]
    assert sum(sizes) == TRAIN
    expected = sum(size * float(loss) for size, loss in zip(sizes, losses, strict=True)) / TRAIN
    assert row["train_loss"] == pytest.approx(expected)
    assert (look.log2_scale == 0).all()
    assert (look.color == 1).all()
    for kind in KINDS.values():
        value = getattr(odd, kind.field)
        if kind.odd:
            value = torch.where(odd.flip, -value, value)  # the agent looks at people as they are
        assert ((value - kind.means[sides[kind.name]]).abs() <= 1.001 * kind.std).all()
    for random in (even, last):
        assert (random.log2_scale.abs() <= 0.5).all()
    for augmentation in (even, odd, last):
        assert augmentation.color.std() > 0.05


class Seeing(Filter):
    """A pose network that an agent may look through."""

    def features(self, image):
        return (image,)


def test_batches_of_random_draws_and_of_the_agents_are_scored_apart():
    run, crops, people = plain_run(seed=1, in_res=32), [], some_people(30)
    people.normalizer[:] = 120  # within which many joints are

    def recorded(people, augmentation):
        sample = augment(people, augmentation, 32, 8)
        if (augmentation.color != 1).any():  # not what the agent looks at
            crops.append(sample)
        return sample

    run.augment = recorded
    pose, again = (Learner(Seeing(), 1e-3) for _ in range(2))
    agent, report = agent_with(Stubborn(), "agent", run, pose.network), Silent()
    row = SCRIPT.train_pose(run, pose, [agent], [people] * 3, report)
    found = []
    for sample in crops:
        outputs = again.network(sample.image)
        again.step(pose_loss(outputs, sample.heatmap))
        correct, known = pck_counts(sample.predict(outputs[-1].detach()), sample.points, sample.normalizer)
        found.append(correct[[*MPII.scored]].sum().item() / known[[*MPII.scored]].sum().item())
    assert found[1] != pytest.approx((found[0] + found[2]) / 2)
    assert row["train_pck_random"] == pytest.approx((found[0] + found[2]) / 2)
    assert row["train_pck_agent"] == pytest.approx(found[1])
    assert row["train_pck"] == pytest.approx(sum(found) / 3)
    assert [heard[:2] for heard in report.heard] == [(0, k) for k in range(3)]
    assert report.heard[-1][2] == {"loss": row["train_loss"], "pck": row["train_pck"]}


def test_the_network_that_learns_is_in_train_mode_and_the_other_in_eval_mode(run):
    pose = Learner(run.pose_network(), 1e-3)
    agent = AGENTS["agent"].build(run, pose.network, 1e-3)
    pose.network.eval()
    loader = run.loader(run.dataset.train, "drawn", run.streams["order"])
    agent_before = learner_state(agent.learner)
    SCRIPT.train_pose(run, pose, [agent], loader, Silent())
    assert pose.network.training and not agent.learner.network.training
    assert_close(learner_state(agent.learner), agent_before, atol=0, rtol=0)
    report = Silent()
    record = SCRIPT.train_agent(run, pose, agent, loader, report)
    assert [heard[:2] for heard in report.heard] == [(0, k) for k in range(3)]
    assert report.heard[-1][2] == record.means.read()
    assert agent.learner.network.training and not pose.network.training


def test_draws_of_an_odd_batch_do_not_depend_on_the_pose_networks_mode(run):
    """The half pass looks in eval mode, in the middle of training too."""
    pose = Learner(run.pose_network(), 1e-3)
    agent = AGENTS["agent"].build(run, pose.network, 1e-3)
    agent.learner.network.eval()
    (people, *_) = run.loader(run.dataset.train, "drawn")
    sample = run.augment(people, Augmentation.identity(len(people)))
    before, logits = learner_state(pose), []
    for training in (True, False):
        pose.network.train(training)
        logits.append(agent.predict(sample))
        assert pose.network.training == training
    assert_close(logits[0], logits[1], atol=0, rtol=0)
    assert_close(learner_state(pose), before, atol=0, rtol=0)


def test_an_agent_that_has_diverged_draws_nothing():
    logits = level_logits(3)
    logits["rotation"][1, 4] = torch.nan
    with pytest.raises(UserError, match="the agent's outputs are not finite"):
        draw(logits, some_people(3), torch.Generator())


def test_the_page_of_an_epoch_has_the_exhibits_of_each_agent_that_takes_part(monkeypatch):
    monkeypatch.setattr(SCRIPT, "pose_gallery", lambda *_: ["people"])
    monkeypatch.setattr(SCRIPT, "draw_exhibits", lambda run, network, exhibits: exhibits)
    pose = SimpleNamespace(network=None, history=SimpleNamespace(rows=["row 0", "row 1"]))
    agents = [
        SimpleNamespace(type=AGENTS[name], exhibits=lambda *given, name=name: [(name, *given)])
        for name in AGENTS
    ]
    sections = SCRIPT.gallery(None, pose, agents, None, {"agent": "draws"})
    assert sections[:3] == ["people", ("agent", "row 1", "draws"), ("occlusion", "row 1", ())]
    assert [name for name, *_ in sections[1:]] == [*AGENTS]
