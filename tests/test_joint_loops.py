"""The loops of stage 3: what the agent draws, what it is rewarded for, and what it must leave alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.experiment import kept_logging, load_script
from support.stages import QUIET, SMALL, TRAIN, demo_data
from support.stand_ins import Blind, Filter, Silent, Stubborn, agent_with, plain_run, some_people
from torch.testing import assert_close

from data.augmentation import Augmentation
from data.crops import augment
from data.kinds import KINDS
from data.skeleton import MPII
from models.losses import pose_loss
from options.parser import StageParser
from utils.agents import AGENTS
from utils.agents.base import HARDEST, Trial
from utils.agents.scale_rotation import ScaleRotationRecord, draw
from utils.evaluation.metrics import pck_counts
from utils.records.history import History
from utils.run import Run
from utils.system.devices import Streams
from utils.system.errors import UserError
from utils.training import Learner

SCRIPT = load_script("joint-train-pose-s-r-agent.py")
CHI_SQUARE_999 = 22.46  # 6 degrees of freedom
CROP_PCK = "utils.agents.scale_rotation.crop_pck"
LEVEL = torch.zeros(1, 7)


def drawn_by(scale, rotation, people, run):
    agent = agent_with(Stubborn(scale, rotation), "agent", run, Blind())
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


def test_draws_follow_the_predicted_distributions():
    shares = torch.tensor([0.3, 0.05, 0.1, 0.05, 0.2, 0.1, 0.2])
    count = 3000
    scale = torch.stack([shares, shares.flip(0)]).repeat(count, 1)  # each of them, person by person
    people, run = some_people(2 * count), plain_run()
    augmentation, bins, logits = drawn_by(scale.log(), scale.flip(1).log(), people, run)
    assert_close(logits["scale"].softmax(dim=1), scale)
    for name, expected in (("scale", shares), ("rotation", shares.flip(0))):
        kind, drawn = KINDS[name], bins[name]
        for person in (0, 1):
            counts = drawn[person::2].bincount(minlength=7).double()
            wanted = count * (expected if person == 0 else expected.flip(0))
            assert ((counts - wanted) ** 2 / wanted).sum() < CHI_SQUARE_999
        value = getattr(augmentation, kind.field)
        beside = (value - torch.tensor(kind.means)[drawn]).abs() / kind.std
        assert beside.max() <= 1.001
        assert beside.std() > 0.2  # spread round the bin's mean
    assert not augmentation.flip.any()
    assert (augmentation.color == 1).all()
    together = torch.corrcoef(torch.stack([*bins.values()])[:, ::2].double())[0, 1]
    assert abs(together) < 0.06  # scale and rotation are drawn apart


def test_each_person_gets_bins_of_its_own():
    sure = 50 * torch.eye(7)
    people = some_people(7)
    for seed in range(3):
        augmentation, bins, _ = drawn_by(sure, sure.flip(0), people, plain_run(seed))
        assert bins["scale"].tolist() == [0, 1, 2, 3, 4, 5, 6]
        assert bins["rotation"].tolist() == [6, 5, 4, 3, 2, 1, 0]
        assert (augmentation.log2_scale.diff() > 0).all()
        assert (augmentation.rotation.diff() < 0).all()


def test_a_part_of_a_batch_is_drawn_as_in_the_whole():
    logits = {kind: torch.randn(7, 7, generator=torch.Generator().manual_seed(0)) for kind in KINDS}
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


def share_of_the_bin(monkeypatch, kind, chosen, hard, seed, batches=120):
    """How likely the agent draws a bin, at first and in the end, if crops there lose half of the joints."""

    def crop_pck(run, network, people, augmentation):
        value = getattr(augmentation, KINDS[kind].field).view(-1, len(people))
        near = (value - KINDS[kind].means[chosen]).abs() <= 1.01 * KINDS[kind].std
        return 1 - 0.5 * near if hard else torch.ones(value.shape)

    monkeypatch.setattr(CROP_PCK, crop_pck)
    run = plain_run(seed)
    agent = agent_with(Stubborn(LEVEL.clone(), LEVEL.clone()), "agent", run, Blind(), 0.02)
    record = train_agent(run, agent, [some_people(24)] * batches)
    row = record.row(History())
    assert (row[f"{kind}_gap"] > 0) == hard
    assert row["rotation_gap" if kind == "scale" else "scale_gap"] == 0
    assert row["pck_gap"] == pytest.approx(record.means.read()["pck_gap"], abs=1e-6)
    return getattr(agent.learner.network, kind).softmax(dim=1)[0, chosen].item()


@pytest.mark.parametrize(("kind", "chosen"), [("scale", 5), ("rotation", 1), ("rotation", 6)])
def test_agent_learns_which_bin_is_hard(monkeypatch, kind, chosen):
    hard = [share_of_the_bin(monkeypatch, kind, chosen, True, seed) for seed in range(3)]
    level = [share_of_the_bin(monkeypatch, kind, chosen, False, seed) for seed in range(3)]
    assert sum(hard) / 3 > 0.22
    assert sum(level) / 3 < 0.18


def test_choosing_is_compared_with_the_agents_own_range(monkeypatch):
    """One rotation alone is hard, and rare at random: an agent that knows it, and one that does not."""

    def crop_pck(run, network, people, augmentation):
        seen.append(augmentation)
        return 1 - 0.7 * (augmentation.rotation < -54).view(-1, len(people)).float()

    monkeypatch.setattr(CROP_PCK, crop_pck)
    sure, gaps = torch.tensor([[9.0, 0, 0, 0, 0, 0, 0]]), []
    for answer in (sure, LEVEL):
        seen, run = [], plain_run()
        agent = agent_with(Stubborn(LEVEL.clone(), answer.clone()), "agent", run, Blind(), 1e-9)
        row = train_agent(run, agent, [some_people(50)] * 40).row(History())
        uniform = torch.cat([augmentation.rotation[50:] for augmentation in seen[1::2]])
        counts = (uniform / 20).round().long().add(3).bincount(minlength=7).double()
        assert ((counts - 2000 / 7) ** 2 / (2000 / 7)).sum() < CHI_SQUARE_999
        assert row["scale_uniform_gap"] == row["scale_uniform_gap_error"] == 0
        assert row["uniform_gap"] == pytest.approx(row["rotation_uniform_gap"] / 2)
        gaps.append((row["rotation_uniform_gap"], row["rotation_uniform_gap_error"], row["rotation_gap"]))
    (knows, error, _), (guesses, guess_error, beside_random) = gaps
    assert knows == pytest.approx(0.7 * 6 / 7, abs=0.03) and knows > 20 * error
    assert abs(guesses) < 3 * guess_error < 3 * 0.02
    assert beside_random > 0.05  # the range alone looks hard beside random draws


def test_uniform_draws_change_no_other(monkeypatch):
    """The generator of the agent's draws ends where the agent's and random's alone take it."""
    monkeypatch.setattr(CROP_PCK, lambda run, network, people, drawn: torch.ones(len(drawn) // 9, 9))
    run, people = plain_run(3), some_people(9)
    train_agent(run, agent_with(Stubborn(LEVEL, LEVEL), "agent", run, Blind(), 1e-9), [people])
    alone = Streams(3)["agent training"]
    draw({kind: LEVEL.expand(9, 7) for kind in KINDS}, people, alone)
    Augmentation.random(9, alone)
    assert torch.equal(run.streams["agent training"].get_state(), alone.get_state())


def test_hardest_draws_of_an_epoch_are_kept():
    draws = torch.Generator().manual_seed(0)
    record, lost = ScaleRotationRecord("agent"), {}
    level, bins = dict.fromkeys(KINDS, LEVEL.expand(40, 7)), dict.fromkeys(KINDS, torch.zeros(40).long())
    for batch in range(4):
        pck, rows = torch.rand(3, 2, 40, generator=draws), 40 * batch + torch.randperm(40, generator=draws)
        trial = Trial(level, bins, torch.rand(40, 2, generator=draws), pck)
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
    pose = Learner(run.pose_network(), 1e-3)
    far = torch.tensor([[0.0, 0, 0, 0, 0, 0, 60]])
    agent = agent_with(Stubborn(far, far.flip(1)), "agent", run, pose.network)
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
    unmirrored = torch.where(odd.flip, -odd.rotation, odd.rotation)  # the agent looks at people as they are
    assert 0 < odd.flip.sum() < len(odd)
    for kind, value, side in (("scale", odd.log2_scale, 6), ("rotation", unmirrored, 0)):
        assert ((value - KINDS[kind].means[side]).abs() <= 1.001 * KINDS[kind].std).all()
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
    agent, report = agent_with(Stubborn(LEVEL, LEVEL), "agent", run, pose.network), Silent()
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
    logits = {kind: torch.zeros(3, 7) for kind in KINDS}
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
    assert sections == ["people", ("agent", "row 1", "draws"), ("occlusion", "row 1", ())]
