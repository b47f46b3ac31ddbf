"""What keeps the agent from the answer in a world where it is known: the published update, part by part.

OMP_NUM_THREADS=1 python tests/ablate_control.py table --updates 4000
OMP_NUM_THREADS=1 python tests/ablate_control.py network --updates 3000

An agent learns as in joint training, from scratch, on the data set and the network named control. As the rule
of that network is known, PCK under a draw is computed: each of 14 joints is found with the probability that
the rule gives. `table` is an agent that knows who is who: a free distribution for each of the four groups of
people, so it shows where an update leads. `network` is the scale-rotation agent, which has to see it.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.datasets import load_dataset
from data.kinds import KINDS
from data.loading.patches import Patches
from data.people import People
from models import losses
from models.agent import ScaleRotationAgent
from models.known_answer import KnownAnswer, read
from utils.agents.ceiling import limited_shares
from utils.agents.pretraining import agent_loss
from utils.control import scores
from utils.training import OPTIMIZERS

JOINTS, IN_RES, BATCH = 14, 64, 24
TABLE_LR = 0.01
SIDED = {kind: KINDS[kind] for kind in ("scale", "rotation")}  # the kinds that the rule knows
FIELDS = [kind.field for kind in SIDED.values()]
WORLDS = {  # lost in every crop, at the last bins, on the side of the mark
    "clear": {"ALWAYS": 0.1, "EXTREME": 0.1, "OWN": 0.6},
    "faint": {"ALWAYS": 0.3, "EXTREME": 0.2, "OWN": 0.2},
}


@dataclass(frozen=True)
class Update:
    """An update of the agent; the defaults are the published one.

    clamp: whether no bin may have more than 2 / bins. ties: whether they are penalized, or have no effect.
    reference: whose draws the agent's are compared with, "random" or "uniform". draws: over how many PCK is
    averaged, on both sides; None: it is the expected one. reinforce: the rule of that name instead. baseline:
    its own, PCK under the reference's draw, or "batch", the mean PCK of the agent's draws in the batch.
    """

    lr: float = 5e-5
    reward: float = losses.REWARD
    penalty: float = losses.PENALTY
    clamp: bool = True
    ties: bool = True
    reference: str = "random"
    draws: int | None = 1
    reinforce: bool = False
    baseline: str = "reference"


@dataclass
class Known:
    """N people: features of their un-augmented crops, and the sides on which the network fails, [N, 2]."""

    features: list[Tensor]
    side: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, people: People, root: Path, network: KnownAnswer) -> "Known":
        batch = Patches(people, root, IN_RES, MARGINS["identity"])[list(range(len(people)))]
        image = augment(batch, Augmentation.identity(len(people)), IN_RES, IN_RES // 4).image
        return cls(list(network.features(image)), read(image)[1])

    def __getitem__(self, rows: Tensor) -> "Known":
        return Known([feature[rows] for feature in self.features], self.side[rows])

    def pck(self, network: KnownAnswer, augmentation: Augmentation) -> Tensor:
        """Expected PCK [C, kinds, N] under C augmentations each, of C * N rows, for each kind alone."""
        pck = []
        for k, field in enumerate(FIELDS):
            values = torch.zeros(len(augmentation), len(FIELDS))
            values[:, k] = getattr(augmentation, field)
            side = self.side.repeat(len(values) // len(self.side), 1)
            pck.append(1 - network.rule(values, side).view(-1, len(self.side)))
        return torch.stack(pck, dim=1)


def draw(logits: dict[str, Tensor], generator: torch.Generator) -> tuple[Augmentation, dict[str, Tensor]]:
    """Draws from the distributions, and their bins."""
    bins = {
        kind: torch.multinomial(one.detach().softmax(1), 1, generator=generator).flatten()
        for kind, one in logits.items()
    }
    return Augmentation.drawn(bins, generator), bins


def measured(expected: Tensor, draws: int | None, generator: torch.Generator) -> Tensor:
    """PCK as `draws` crops give it, of the expected one."""
    if draws is None:
        return expected
    counts = torch.full_like(expected, JOINTS * draws)
    return torch.binomial(counts, expected, generator=generator) / counts


def loss_of(
    update: Update, network: KnownAnswer, known: Known, logits: dict[str, Tensor], generator: torch.Generator
) -> Tensor:
    """The loss of an update for a batch."""
    drawn, bins = draw(logits, generator)
    if update.reference == "uniform":
        reference, _ = draw({kind: torch.zeros_like(one) for kind, one in logits.items()}, generator)
    else:
        reference = Augmentation.random(len(known.side), generator)
    expected = known.pck(network, Augmentation.cat([reference, drawn]))
    lower, own = measured(expected, update.draws, generator)
    if update.reinforce:
        baseline = own.mean(1, keepdim=True) if update.baseline == "batch" else lower
        lost = zip(logits.items(), baseline - own, strict=True)
        return sum(losses.policy_loss(one, bins[kind], cost) for (kind, one), cost in lost)
    targets = {}
    for k, (kind, one) in enumerate(logits.items()):
        shares = one.detach().softmax(1)
        target = losses.reward(shares, bins[kind], lower[k], own[k]).target
        if not update.ties:
            target = torch.where((lower[k] == own[k])[:, None], shares, target)
        targets[kind] = target
    return agent_loss(logits, targets)


class Table(nn.Module):
    """An agent that knows who is who: free logits for each of the four pairs of sides."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.ParameterDict({kind: torch.zeros(4, len(SIDED[kind].means)) for kind in SIDED})

    def forward(self, known: Known) -> dict[str, Tensor]:
        group = (known.side > 0).long() @ torch.tensor([2, 1])
        return {kind: self.logits[kind][group] for kind in SIDED}


class Network(ScaleRotationAgent):
    """The scale-rotation agent."""

    def forward(self, known: Known) -> dict[str, Tensor]:
        return super().forward(known.features)


def measure(network: KnownAnswer, known: Known, agent: nn.Module) -> Tensor:
    """Means over people and kinds.

    Expected PCK of the agent, of the best one under the limit, of uniform draws, and of the best one without
    a limit; share of people whose most probable bin is hard; probability of hard bins.
    """
    agent.eval()
    with torch.no_grad():
        logits = agent(known)
    agent.train()
    rows = []
    for k, (kind, one) in enumerate(logits.items()):
        shares, pck = one.softmax(1), known.pck(network, Augmentation.bins(kind, len(known.side)))[:, k].T
        agents = (shares, limited_shares(pck), torch.full_like(pck, 1 / pck.shape[1]))
        expected = [(one * pck).sum(1).mean() for one in agents]
        rows.append(torch.stack([*expected, pck.amin(1).mean(), *scores(shares, pck, masks=False)[:2]]))
    return torch.stack(rows).mean(0)


def unlimited(bins: Tensor) -> Tensor:
    """In place of the clamp at 2 / bins: only what is below 0 is cut."""
    bins = bins.clamp(min=0)
    return bins / bins.sum(dim=1, keepdim=True)


def learn(
    update: Update, network: KnownAnswer, people: Known, new: Known, agent: nn.Module, stops: list[int]
) -> list[Tensor]:
    """`measure` for new people after each number of updates."""
    generator = torch.Generator().manual_seed(1)
    optimizer = OPTIMIZERS["rmsprop"](agent.parameters(), lr=update.lr)
    found, done, order = [], 0, torch.empty(0, dtype=torch.long)
    clamp = losses._clamp if update.clamp else unlimited
    with mock.patch.multiple(losses, REWARD=update.reward, PENALTY=update.penalty, _clamp=clamp):
        for stop in stops:
            while done < stop:
                if len(order) < BATCH:
                    order = torch.randperm(len(people.side), generator=generator)
                rows, order = order[:BATCH], order[BATCH:]
                batch = people[rows]
                loss = loss_of(update, network, batch, agent(batch), generator)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
            found.append(measure(network, new, agent))
    return found


VARIANTS = {
    "table": {
        "published": {},
        "rise by 50 %, fall by 50 %": {"reward": 0.5},
        "rise by 20 %, fall by 20 %": {"penalty": 0.2},
        "no limit": {"clamp": False},
        "ties have no effect": {"ties": False},
        "against uniform draws": {"reference": "uniform"},
        "PCK of 4 draws": {"draws": 4},
        "expected PCK": {"draws": None},
        "rise as fall, against uniform": {"reward": 0.5, "reference": "uniform"},
        "the same, ties have no effect": {"reward": 0.5, "reference": "uniform", "ties": False},
        "the same, no limit": {"reward": 0.5, "reference": "uniform", "ties": False, "clamp": False},
        "reinforce": {"reinforce": True},
        "reinforce, against uniform": {"reinforce": True, "reference": "uniform"},
        "reinforce, mean of the batch": {"reinforce": True, "baseline": "batch"},
    },
    "network": {
        "published, 5e-5": {},
        "2.5e-4": {"lr": 2.5e-4},
        "1e-3": {"lr": 1e-3},
        "1e-3, rise as fall, against uniform, ties have no effect": {
            "lr": 1e-3,
            "reward": 0.5,
            "reference": "uniform",
            "ties": False,
        },
        "5e-5, reinforce": {"reinforce": True},
        "2.5e-4, reinforce": {"lr": 2.5e-4, "reinforce": True},
        "1e-3, reinforce": {"lr": 1e-3, "reinforce": True},
        "5e-5, reinforce, mean of the batch": {"reinforce": True, "baseline": "batch"},
    },
}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agent", choices=VARIANTS)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--variants", nargs="+", type=int, help="numbers of variants, from 0")
    parser.add_argument("--chan", type=int, default=32)
    parser.add_argument("--data_dir", type=Path, default=Path("dataset"))
    opt = parser.parse_args()
    stops = [0] + [opt.updates * share // 30 for share in (1, 3, 10, 30)]
    torch.manual_seed(0)
    network = KnownAnswer(opt.chan)
    dataset = load_dataset("control", opt.data_dir)
    train_people, new = (Known.of(some, dataset.root, network) for some in (dataset.train, dataset.valid))
    for world in opt.worlds:
        for name, value in WORLDS[world].items():
            setattr(network, name, value)
        for number, (title, changes) in enumerate(VARIANTS[opt.agent].items()):
            if opt.variants and number not in opt.variants:
                continue
            torch.manual_seed(1)
            agent = Table() if opt.agent == "table" else Network(opt.chan, opt.chan)
            base = Update(lr=TABLE_LR) if opt.agent == "table" else Update()
            curve = learn(replace(base, **changes), network, train_people, new, agent, stops)
            found = 100 * torch.stack(curve)
            if number == (opt.variants or [0])[0]:
                best, uniform, unlimited_best = found[0, 1:4].tolist()
                say(f"\n{world}: uniform {uniform:.1f}, best {best:.1f}, without limit {unlimited_best:.1f}")
                say("| update | " + " | ".join(map(str, stops)) + " | found | mass |")
            regrets = " | ".join(f"{row:.1f}" for row in (found[:, 0] - found[:, 1]).tolist())
            say(f"| {title} | {regrets} | {found[-1, 4]:.0f} | {found[-1, 5]:.0f} |")


if __name__ == "__main__":
    main()
