"""Stand-ins with which a stage's loop runs without a data set, a folder and networks that take time."""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import torch
from torch import nn

from data.augmentation import MARGINS
from data.crops import PersonBatch, augment
from data.kinds import KINDS
from data.skeleton import MPII
from utils.agents import AGENTS
from utils.agents.occlusion import Occlusion
from utils.agents.scale_rotation import ScaleRotation
from utils.system.devices import Streams


class Silent:
    """A report that nobody reads; heard: epoch, number and means of every batch."""

    def __init__(self):
        self.heard = []

    def batch(self, bar, epoch, batch, read):
        self.heard.append((epoch, batch, read()))


class Filter(nn.Module):
    """A pose network of three stacks: a linear filter of the picture each, another one for every joint."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.stacks = nn.ModuleList(nn.Conv2d(3, 16, kernel_size=4, stride=4) for _ in range(3))

    def forward(self, image):
        return [stack(image) for stack in self.stacks]


class Exact(nn.Module):
    """A pose network in float64: its peaks do not depend on the batch's size or the processor's rounding."""

    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, image):
        return self.network(image.double())


class Blind(nn.Module):
    """A pose network for an agent that does not look."""

    def features(self, image):
        return (image,)


def level_logits(people):
    """Logits of uniform distributions: kind -> zeros [people, bins]."""
    return {kind.name: torch.zeros(people, len(kind.means)) for kind in KINDS.values()}


def random_rows(people, draws):
    """Random distributions of people: kind -> [people, bins]."""
    return {
        kind: torch.randn(level.shape, generator=draws).softmax(dim=1)
        for kind, level in level_logits(people).items()
    }


class Stubborn(nn.Module):
    """A scale-rotation agent's network: each person gets the same logits, or their row; it can learn.

    given: logits by kind; those of other kinds are level.
    """

    def __init__(self, **given):
        super().__init__()
        self.logits = nn.ParameterDict(level_logits(1) | given)

    def forward(self, features):
        return {kind: self.logits[kind].expand(len(features[0]), -1) for kind in KINDS}


class Heart(nn.Module):
    """An occlusion agent's network of side x side cells that tells everyone the same; it can learn."""

    def __init__(self, side):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, side, side))

    def forward(self, features):
        return self.weight.expand(len(features[0]), -1, -1, -1)


def agent_with(network, name, run, pose, lr=1e-3):
    """The agent of that name in a run, with this network in place of its own."""
    which = {"agent": ScaleRotation, "occlusion": Occlusion}[name]
    return type("StandIn", (which,), {"network": lambda _: network})(AGENTS[name], run, pose, lr)


def some_people(count):
    """People whose photographs are 8 px of noise."""
    draws = torch.Generator().manual_seed(1)
    return PersonBatch(
        patch=torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=draws),
        box=torch.tensor([4.0, 4.0, 8 / MARGINS["drawn"]]).repeat(count, 1),
        center=torch.full((count, 2), 100.0),
        scale=torch.ones(count),
        points=100 + 50 * torch.rand(count, 16, 2, generator=draws),
        normalizer=torch.full((count,), 20.0),
        width=torch.full((count,), 200.0),
        index=torch.arange(count),
        margin=MARGINS["drawn"],
    )


def plain_forward(network, image, mask=None):
    """A run's `forward` without a device, a memory format and a precision."""
    return network(image) if mask is None else network(image, mask)


def generator_states(streams):
    """The state of each generator in use."""
    return {purpose: generator.get_state() for purpose, generator in streams._generators.items()}


def plain_run(seed=0, in_res=8):
    """What loops need of a run, without a data set."""
    return SimpleNamespace(
        opt=SimpleNamespace(
            network="hourglass",
            in_res=in_res,
            out_res=in_res // 4,
            agent_iters=None,
            agent_rule="published",
            bs=24,
            seed=seed,
            mirror=False,
            sync_bn=False,
            agent_draws="learned",
            occ_draws="learned",
        ),
        dataset=SimpleNamespace(metric="PCKh", threshold=0.5, coco=None),
        skeleton=MPII,
        streams=Streams(seed),
        device=torch.device("cpu"),
        cells=in_res // 64,
        place=lambda network: network,
        passes=nullcontext,
        augment=partial(augment, in_res=in_res, out_res=in_res // 4),
        forward=plain_forward,
    )
