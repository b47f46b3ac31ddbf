"""Stage 3's loops with the occlusion agent: where masks lie, whose turn it is, and what is rewarded."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support.experiment import load_script
from support.stand_ins import Blind, Heart, Silent, Stubborn, agent_with, plain_run, some_people
from torch import nn

from data.augmentation import MARGINS, Augmentation
from models.losses import Reward, reward
from utils.agents.base import HARDEST, Record, Trial
from utils.agents.joint import warn_of_missed_turns
from utils.agents.occlusion import agent_cells
from utils.agents.rules import RULES
from utils.records.history import History
from utils.system.errors import UserError
from utils.training import Learner

SCRIPT = load_script("joint-train-pose-s-r-agent.py")
SIDE, RES = 4, 256


class Watched(nn.Module):
    """A pose network that notes with what it is called; an agent sees the image itself."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Conv2d(3, 16, kernel_size=4, stride=4)
        self.seen = []

    def forward(self, image, mask=None):
        self.seen.append((image, mask))
        return [self.filter(image)]

    def features(self, image):
        return (image,)


class Spotter(Heart):
    """An occlusion agent's network that is sure of the cell of the brightest pixel."""

    def forward(self, features):
        brightest = F.adaptive_max_pool2d(features[0].sum(dim=1, keepdim=True), SIDE)
        return 1e4 * (brightest == brightest.amax(dim=(2, 3), keepdim=True))


def small_run(seed=0):
    return plain_run(seed, RES)


def people_with_spots(count, seed=0):
    """Each photograph is dark but for a bright spot somewhere about its middle."""
    draws = torch.Generator().manual_seed(seed)
    patch = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    for person, (x, y) in enumerate(torch.randint(-6, 7, (count, 2), generator=draws).tolist()):
        patch[person, :, 32 + y, 32 + x] = 150
    box = torch.tensor([32, 32, 64 / MARGINS["drawn"]]).repeat(count, 1)
    return replace(some_people(count), patch=patch, box=box)


def pose_epoch(run, networks, batches):
    """What the pose network saw, and the epoch's row; networks: the agents', by name."""
    pose = Learner(Watched(), 1e-3)
    agents = [agent_with(network, name, run, pose.network) for name, network in networks.items()]
    row = SCRIPT.train_pose(run, pose, agents, batches, Silent())
    return pose.network.seen, row


def test_masks_lie_on_the_crops_that_they_were_predicted_for():
    """The agent hides a bright spot: it has to be hidden in the crop that the network trains on."""
    people = people_with_spots(24)
    seen, _ = pose_epoch(small_run(), {"occlusion": Spotter(SIDE)}, [people, people])
    (_, none), (image, mask) = seen
    assert none is None
    assert mask.shape == (24, 1, SIDE, SIDE)
    assert (mask.sum(dim=(1, 2, 3)) == SIDE**2 - 2).all()
    light = image.sum(dim=1)
    spots = (light == light.amax(dim=(1, 2), keepdim=True)) & (light > 0.2)
    hidden = F.interpolate(mask, size=RES, mode="nearest")[:, 0] == 0
    assert (spots & hidden).any(dim=(1, 2)).all()
    cells = F.adaptive_max_pool2d(spots.float(), SIDE).flatten(1).argmax(dim=1)
    assert len(cells.unique()) >= 3  # it is not always the same cell
    plain = Augmentation.identity(24)
    unaugmented = small_run().augment(people, plain).image.sum(dim=1)
    before = F.adaptive_max_pool2d(unaugmented, SIDE).flatten(1).argmax(dim=1)
    assert (before != cells).sum() >= 6  # nor the one that the un-augmented crop has it in


def test_batches_take_turns():
    batches = [some_people(6) for _ in range(7)]
    networks = {"agent": Stubborn(scale=60 * torch.eye(7)[6:]), "occlusion": Heart(SIDE)}
    for names, masked, row_has in (
        (("agent",), (), {"random", "agent"}),
        (("occlusion",), (1, 3, 5), {"random", "occlusion"}),
        (("agent", "occlusion"), (2, 5), {"random", "agent", "occlusion"}),
    ):
        run, seen = small_run(), []
        augment = run.augment

        def noted(people, augmentation, augment=augment, seen=seen):
            seen.append(augmentation)
            return augment(people, augmentation)

        run.augment = noted
        calls, row = pose_epoch(run, {name: networks[name] for name in names}, batches)
        assert tuple(k for k, (_, mask) in enumerate(calls) if mask is not None) == masked
        assert {name.removeprefix("train_pck_") for name in row if name.startswith("train_pck_")} == row_has
        # The scale-rotation agent wants scales that no random augmentation has.
        far = [
            k for k, one in enumerate(a for a in seen if a.color.std() > 0) if (one.log2_scale > 0.54).all()
        ]
        turns = len(names) + 1
        assert far == ([k for k in range(7) if k % turns == 1] if "agent" in names else [])


def test_turns_go_on_from_epoch_to_epoch():
    """With one batch an epoch the agent has every other one."""
    run, pose, rows = small_run(), Learner(Watched(), 1e-3), []
    agents = [agent_with(Heart(SIDE), "occlusion", run, pose.network)]
    for epoch, batches in enumerate((1, 1, 3, 1)):
        pose.epoch = epoch
        rows.append(SCRIPT.train_pose(run, pose, agents, batches * [some_people(6)], Silent()))
    assert [mask is not None for _, mask in pose.network.seen] == [False, True] * 3
    turns = [{name.removeprefix("train_pck_") for name in row if "pck_" in name} for row in rows]
    assert turns == [{"random"}, {"occlusion"}, {"random", "occlusion"}, {"occlusion"}]
    again = Learner(Watched(), 1e-3)
    again.restore({"optimizer": pose.optimizer.state_dict(), "epoch": 3}, Path("resumed"))
    SCRIPT.train_pose(run, again, agents, [some_people(6)], Silent())
    assert again.network.seen[0][1] is None


def test_fewer_batches_than_turns_are_a_warning(caplog):
    run = small_run()
    agents = [agent_with(Heart(SIDE), "occlusion", run, Watched())]
    warn_of_missed_turns(agents, 2)
    assert not caplog.messages
    warn_of_missed_turns(agents, 1)
    (line,) = caplog.messages
    assert line.startswith("an epoch has 1 batch for 2 turns (random augmentation, the occlusion agent): ")


def test_an_agent_that_has_diverged_masks_nobody():
    logits = torch.zeros(3, 16)
    logits[1, 4] = torch.nan
    with pytest.raises(UserError, match="the agent's outputs are not finite"):
        agent_cells(logits, some_people(3), torch.Generator())


def test_uniform_masks_ask_nobody():
    class Mute(Heart):
        def forward(self, features):
            raise AssertionError("asked")

    run, people = small_run(), some_people(500)
    run.opt.occ_draws = "uniform"
    run.augment = lambda people, augmentation: None
    _, mask = agent_with(Mute(SIDE), "occlusion", run, Blind()).augment(people, None)
    hidden = (mask == 0).float().mean(dim=0).flatten()
    assert hidden.sum() == pytest.approx(2, abs=1e-5)
    assert (hidden - 2 / 16).abs().max() < 0.06  # 4 standard deviations


def test_a_part_of_a_batch_is_masked_as_in_the_whole():
    logits = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    whole = agent_cells(logits, some_people(7), torch.Generator().manual_seed(5))
    for first, end in ((0, 3), (3, 7)):
        people = replace(some_people(end - first), before=first, after=7 - end)
        part = agent_cells(logits[first:end], people, torch.Generator().manual_seed(5))
        assert torch.equal(part, whole[first:end])


def share_of_the_cell(monkeypatch, chosen, hard, seed, rule):
    """How likely the agent draws a cell, at first 1 in 16, if masking it loses half of the joints."""

    def masked_pck(run, network, sample, drawn):
        lost = torch.stack([(cells == chosen).any(dim=1) for cells in drawn])
        return 1 - 0.5 * lost.float() * hard

    monkeypatch.setattr("utils.agents.occlusion.masked_pck", masked_pck)
    run = small_run(seed)
    run.opt.agent_rule = rule
    agent = agent_with(Heart(SIDE), "occlusion", run, Blind(), 0.02)
    run.augment = lambda people, augmentation: SimpleNamespace(image=torch.zeros(len(people), 3, 4, 4))
    pose = SimpleNamespace(network=agent.pose, epoch=0)
    record = SCRIPT.train_agent(run, pose, agent, [some_people(24)] * 120, Silent())
    row = record.row(History())
    assert (row["occlusion_gap"] > 0) == hard
    assert row["occlusion_gap"] == pytest.approx(record.means.read()["occlusion_gap"], abs=1e-6)
    return agent.learner.network.weight.flatten().softmax(dim=0)[chosen].item()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("chosen", [0, 6])
def test_agent_learns_which_cell_is_hard(monkeypatch, chosen, rule):
    hard = [share_of_the_cell(monkeypatch, chosen, True, seed, rule) for seed in range(3)]
    level = [share_of_the_cell(monkeypatch, chosen, False, seed, rule) for seed in range(3)]
    assert sum(hard) / 3 > 0.09
    assert sum(level) / 3 < 0.075


def test_a_cell_that_reaches_twice_its_uniform_share_is_at_the_limit():
    """Of four cells 0.5 is the limit: 0.45 grows past it, 0.4 does not, nor does what is penalised."""
    predicted = torch.tensor([[0.45, 0.25, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1], [0.45, 0.25, 0.2, 0.1]])
    harder = torch.tensor([1.0, 1.0, 0.0])
    found = reward(predicted, torch.zeros(3).long(), harder, torch.full((3,), 0.5))
    assert found.rewarded.tolist() == [True, True, False]
    assert found.limited.tolist() == [True, False, False]
    assert found.target[:, 0].tolist() == pytest.approx([0.5, 0.48, 0.225])


def test_record_by_hand():
    record, people = Record("occlusion"), replace(some_people(4), index=torch.tensor([7, 3, 5, 9]))
    uniform, agent = torch.tensor([[1.0, 0.5, 0.75, 1.0], [0.5, 0.75, 0.75, 0.75]])
    logits, cells = torch.zeros(4, 16), torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    pck = torch.stack([uniform, agent, uniform])[:, None]
    trial = Trial({"occlusion": logits}, {"occlusion": cells}, cells[:, None], pck)
    rewarded, limited = torch.tensor([[True, False, False, True], [True, False, False, False]])
    assert torch.equal(trial.rewards()["occlusion"].rewarded, rewarded)
    taught = Reward(logits.softmax(dim=1), rewarded, limited)
    record.add(people, torch.tensor(0.5), trial, {"occlusion": taught})
    before = [0.0] * 16
    before[0] = 1.0
    row = record.row(History([{"occlusion_distribution": before}]))
    gaps = torch.tensor([0.5, -0.25, 0.0, 0.25], dtype=torch.float64)
    assert row.pop("occlusion_distribution") == pytest.approx([1 / 16] * 16)
    assert row == pytest.approx(
        {
            "occlusion_loss": 0.5,
            "occlusion_pck_uniform": 0.8125,
            "occlusion_pck_agent": 0.6875,
            "occlusion_gap": 0.125,
            "occlusion_gap_error": (gaps - gaps.mean()).square().sum().div(3).sqrt().item() / 2,
            "occlusion_reward_share": 0.5,
            "occlusion_tie_share": 0.25,
            "occlusion_limit_share": 0.25,
            "occlusion_entropy": math.log(16),
            "occlusion_change": 15 / 16,
        }
    )
    hardest = record.hardest()
    assert [(one["row"], one["value"]) for one in hardest[:2]] == [(7, [0, 1]), (9, [6, 7])]
    assert (hardest[0]["pck_reference"], hardest[0]["pck_agent"]) == (1.0, 0.5)
    assert len(hardest) == min(4, HARDEST)
