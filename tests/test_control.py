"""A world with a known answer: what is hard for whom is a rule, which the stages must find."""

import shlex
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from ablate_control import SIDED, TABLE_LR, Known, Network, Table, Update, learn, measure, measured
from support.experiment import parsed, run_here
from torch.testing import assert_close

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.datasets import load_dataset
from data.demo import write_demo
from data.demo.discs import paint_discs
from data.kinds import KINDS
from data.loading.patches import Patches
from models.known_answer import KnownAnswer, read
from models.losses import hardness_distribution
from models.masks import cell_mask
from utils import control
from utils.agents.ceiling import limited_shares
from utils.agents.pretraining import agent_loss, hardest_bins
from utils.evaluation.metrics import person_pckh
from utils.records.distributions import distribution_path
from utils.training import Learner

TRAIN, PEOPLE = 240, 48
ALWAYS, OWN, EXTREME = KnownAnswer.ALWAYS, KnownAnswer.OWN, KnownAnswer.EXTREME


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with a small set of the control."""
    folder = tmp_path_factory.mktemp("data")
    write_demo(folder / "control", TRAIN, PEOPLE, paint_discs, ".png")
    return folder


@pytest.fixture(scope="module")
def people(data):
    """Some of its people, in patches that hold all draws."""
    dataset = load_dataset("control", data)
    return Patches(dataset.valid, dataset.root, 64, MARGINS["drawn"])[list(range(PEOPLE))]


@pytest.fixture(scope="module")
def sides(people):
    """Left -1 or right 1 and above -1 or below 1, where the mark is in the photograph: [N], [N]."""
    red = people.patch[:, 0].float()
    places = torch.linspace(-1, 1, red.shape[-1])
    return (red.sum(1) * places).sum(1).sign(), (red.sum(2) * places).sum(1).sign()


def crops(people, augmentation):
    return augment(people, augmentation, 64, 16)


@pytest.mark.parametrize(("log2_scale", "rotation"), [(0.0, 0.0), (0.65, 65.0), (-0.65, -65.0), (0.3, -20.0)])
def test_it_reads_from_the_image_how_the_crop_was_made(people, sides, log2_scale, rotation):
    sample = crops(people, Augmentation.fixed(PEOPLE, log2_scale, rotation))
    values, side = read(sample.image)
    assert_close(values[:, 0], torch.full((PEOPLE,), log2_scale), atol=0.03, rtol=0)
    assert_close(values[:, 1], torch.full((PEOPLE,), rotation), atol=1.5, rtol=0)
    right, below = sides
    assert_close(side, torch.stack((below, right), dim=1))
    assert len({(x, y) for x, y in side.tolist()}) == 4  # somebody of each


@torch.no_grad()
@pytest.mark.parametrize("mirrored", [False, True])
def test_hard_is_what_the_rule_says(people, sides, mirrored):
    right, below = sides
    right = -right if mirrored else right  # the mark is on the other side of the mirrored person
    network, threshold = KnownAnswer(8), 0.5
    for kind, side in (("scale", below), ("rotation", right)):
        bins = Augmentation.bins(kind, PEOPLE)
        bins.flip[:] = mirrored
        sample = crops(people, bins)
        pred = sample.predict(network(sample.image)[0])
        pck = person_pckh(pred, sample.points, sample.normalizer, sample.heatmap, threshold)
        expected = torch.stack(
            [
                1 - ALWAYS - EXTREME * abs(mean) / KINDS[kind].means[-1] - OWN * (side * mean > 0)
                for mean in KINDS[kind].means
            ]
        ).flatten()
        assert_close(1 - network.lost(sample.image), expected, atol=0.02, rtol=0)
        for hard in (expected < 0.5, expected > 0.5):
            assert pck[hard].mean().item() == pytest.approx(expected[hard].mean().item(), abs=0.05)
            assert pck[hard].unique().numel() > 3  # one draw is noisy


@torch.no_grad()
def test_gains_of_colors_change_nothing(people):
    network, draws = KnownAnswer(8), torch.Generator().manual_seed(0)
    colored = Augmentation.random(PEOPLE, draws)
    plain = replace(colored, color=Augmentation.identity(PEOPLE).color)
    samples = [crops(people, one).image for one in (colored, plain)]
    assert not torch.equal(*samples)
    assert_close(*(network.lost(image) for image in samples), atol=0.02, rtol=0)


@torch.no_grad()
def test_a_mask_over_the_mark_is_hard(people, sides):
    network, (right, below) = KnownAnswer(8), sides
    image = crops(people, Augmentation.identity(PEOPLE)).image
    cell = ((below + 1) + (right + 1) / 2).long()  # of 2 x 2
    for masked in range(4):
        mask = cell_mask(torch.full((PEOPLE, 1), masked), 2)
        assert_close(network.lost(image, mask), ALWAYS + OWN * (cell == masked), atol=0.02, rtol=0)
        assert network(image, mask)[0].shape == (PEOPLE, 16, 16, 16)


@pytest.fixture(scope="module")
def stages(data, tmp_path_factory):
    """The options of the control, after stage 1 and all of stage 2 but the agent's training."""
    opt = control.parse(["--data_dir", str(data), "--exp_dir", str(tmp_path_factory.mktemp("exp"))])
    for heading, command in control.steps(opt):
        if heading in ("agent: stage 1", *(f"agent: how hard is each {kind}?" for kind in KINDS)):
            run_here(*command.split()[1:])
        if heading == "agent: initial weights":
            run_here(*command.split()[1:])
            return opt


def test_collecting_finds_the_rule(stages, sides):
    for kind, side in zip(SIDED, reversed(sides), strict=True):
        folder = stages.exp_dir / f"control/agent/sr-dir-{control.BASE}"
        rows = torch.from_numpy(np.loadtxt(distribution_path(folder, "val", kind)))
        hard = side[:, None] * torch.tensor(KINDS[kind].means) > 0
        assert (hardest_bins(rows) * hard).sum(dim=1).mean() > 0.97
        assert_close((rows * hard).sum(dim=1).mean().item(), 0.793, atol=0.04, rtol=0)


def test_the_table_has_what_can_be_reached_and_the_untrained_agent(stages):
    title, name, folder, prefix = next(control.results(stages))
    flags = f"{control.stage_flags(stages, name)} --load_prefix_pose {control.BASE}"
    lines = control.table(name, flags.split(), folder, prefix)
    assert title == "scale-rotation agent, pretraining"
    measured, lines = lines[: 7 * len(KINDS)], lines[7 * len(KINDS) :]
    for kind, ceiling in zip(KINDS, np.array_split(measured, len(KINDS)), strict=True):
        title, *rest = [line.removeprefix(f"  {kind} as collected: ") for line in ceiling]
        assert float(title.rpartition(" ")[2].rstrip(":")) == pytest.approx(0.9, abs=0.04)
        uniform, same_limited, same_bin, own_limited, own_bin, hindsight = (
            float(line.split()[0]) for line in rest
        )
        assert (uniform, own_limited, own_bin) == pytest.approx((58.6, 31.4, 21.2), abs=3)
        assert (
            hindsight < own_bin < own_limited < same_bin < same_limited < uniform
        )  # 20 is the lowest expected
    reached = "uniform 58.6, best 31.4, hardest bin 20.0"
    for start, ending in ((0, ""), (len(KINDS) + 2, ", mirrored")):
        assert lines[start : start + 2] == [f"  {kind}{ending}: {reached}" for kind in SIDED]
        epoch, *found = map(float, lines[start + len(KINDS) + 1].split())
        assert epoch == 0 and found[1:6:3] == pytest.approx([43, 43], abs=5)
        assert found[2:6:3] == pytest.approx([27.1, 27.1], abs=3)  # close to uniform: 58.6 - 31.4


def test_the_table_is_computed_where_its_numbers_are(monkeypatch):
    """A GPU trains the stages if there is one."""
    asked = mock.Mock(side_effect=StopIteration)
    monkeypatch.setattr(control, "Run", asked)
    flags = f"{control.stage_flags(control.parse([]), 'agent')} --load_prefix_pose {control.BASE}"
    with pytest.raises(StopIteration):
        control.table("agent", flags.split(), Path(), "")
    assert asked.call_args.args[0].gpu_id == -1


def test_scores_by_hand():
    pck = torch.tensor([[0.2, 0.9, 0.3, 0.8]])
    uniform, sure = torch.full((1, 4), 0.25), torch.tensor([[0.0, 1, 0, 0]])
    assert_close(limited_shares(pck), torch.tensor([[0.5, 0, 0.5, 0]]))
    assert_close(control.scores(uniform, pck, False), torch.tensor([1, 0.5, 0.55 - 0.25]))
    assert_close(control.scores(sure, pck, False), torch.tensor([0, 0, 0.9 - 0.25]))
    # Pairs of different cells: (3 * 0.2 + 2 * 0.3 + 0.8) / 6; the best two are always cells 0 and 2.
    assert_close(control.scores(uniform, pck, True), torch.tensor([1, 0.5, 2 / 6 - 0.2]))


@pytest.mark.parametrize("name", control.AGENTS)
def test_its_commands_parse(name, monkeypatch):
    for heading, command in control.steps(control.parse(["--exp_dir", "my runs"])):
        if heading.startswith(name):
            _, script, *flags = shlex.split(command)
            opt = parsed(script, *flags)
            assert opt.dataset == "control" and opt.exp_dir == Path("my runs")


@pytest.mark.parametrize(("reinforce", "expected"), [(False, 10), (True, 0)])
def test_an_agent_that_knows_the_person_is_led_to_the_answer(data, reinforce, expected):
    """By either rule, which the product's own functions make; reinforce has no limit to obey."""
    dataset, network = load_dataset("control", data), KnownAnswer(8)
    train, new = (Known.of(some, dataset.root, network) for some in (dataset.train, dataset.valid))
    update = Update(lr=TABLE_LR, reinforce=reinforce)
    *_, before, after = 100 * torch.stack(learn(update, network, train, new, Table(), [0, 200]))
    regret = [one[0] - one[1] for one in (before, after)]
    assert regret[0].item() == pytest.approx(27.1, abs=0.1)
    assert regret[1] < expected and after[4] > 90  # of hardest bins found


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The network, 1,200 people to learn from and 100 new ones."""
    torch.manual_seed(0)
    folder, network = tmp_path_factory.mktemp("many"), KnownAnswer(32)
    write_demo(folder / "control", 1200, 100, paint_discs, ".png")
    dataset = load_dataset("control", folder)
    return network, *(Known.of(some, dataset.root, network) for some in (dataset.train, dataset.valid))


@pytest.mark.slow
def test_pretraining_finds_the_hardest_bins_of_new_people(many):
    network, train, new = many
    draws = torch.Generator().manual_seed(0)
    pck = [train.pck(network, Augmentation.bins(kind, 1200))[:, k] for k, kind in enumerate(SIDED)]
    rows = [hardness_distribution(measured(one, 1, draws).T) for one in pck]
    torch.manual_seed(1)
    learner, found = Learner(Network(32, 32), 1e-3), []
    for _ in range(5):
        for some in torch.randperm(1200, generator=draws).split(24):
            targets = dict(zip(SIDED, (row[some] for row in rows), strict=True))
            learner.step(agent_loss(learner.network(train[some]), targets))
        found.append(measure(network, new, learner.network)[4].item())
    assert max(found) > 0.9


@pytest.mark.slow
def test_joint_training_improves_on_uniform_draws_without_pretraining(many):
    torch.manual_seed(1)
    before, after = learn(Update(lr=1e-3), *many, Network(32, 32), [0, 250])
    assert before[0] - before[1] > 0.25  # close to uniform: 0.271
    assert after[0] - after[1] < 0.24
