"""What every agent is: how it sees, draws, is rewarded and reported."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch, Sample
from data.people import People
from models import PoseNetwork
from models.losses import Reward, reward
from utils.agents import AgentType
from utils.agents.exhibit import Exhibit, MeanDistribution
from utils.evaluation.evaluate import undisturbed
from utils.evaluation.meters import Meters
from utils.records.history import History
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError
from utils.training import Learner

HARDEST = 8  # draws of an epoch that its page shows


@dataclass(frozen=True)
class Trial:
    """What an agent chose for N people, and how hard that was.

    logits: [N, bins] of each of K choices by its name, with gradients. chosen: int64 [N], or [N, M] of
    several bins, by name. values: what was drawn, [N, K] or [N, K, ...]. pck: f32 [3, K, N], under the
    reference's draw, the agent's, and a uniform one over the agent's bins.
    """

    logits: dict[str, Tensor]
    chosen: dict[str, Tensor]
    values: Tensor
    pck: Tensor

    def rewards(self) -> dict[str, Reward]:
        """By name, what the agent's distributions become: harder draws than the reference's are rewarded."""
        return {
            name: reward(
                logits.detach().softmax(dim=1), self.chosen[name].to(logits.device), *self.pck[:2, k]
            )
            for k, (name, logits) in enumerate(self.logits.items())
        }


class AgentStreams(NamedTuple):
    """What an agent draws from: for the pose network's batches, in its own training, and uniformly there."""

    batches: Generator
    training: Generator
    uniform: Generator


class Agent(ABC):
    """An agent in a run.

    type: its entry in `AGENTS`. pose: the network whose features it sees. learner: its own network in
    training. margin, pose_margin: of the crops of its own training, and of those that it augments for the
    pose network; see `data.augmentation.MARGINS`.

    Args:
        lr, weight_decay: of its optimiser.
    """

    margin = "identity"
    pose_margin = "random"

    def __init__(
        self, which: AgentType, run: Run, pose: PoseNetwork, lr: float, weight_decay: float = 0.0
    ) -> None:
        self.type, self.run, self.pose = which, run, pose
        self.learner = Learner(run.place(self.network()), lr, run.opt.sync_bn, weight_decay)

    @abstractmethod
    def network(self) -> nn.Module:
        """Its network with initial weights: features of the pose network -> logits.

        Logits are [N, bins] by the name of what they choose; or [N, ...] of one choice, named as the agent.
        """

    @abstractmethod
    def targets(self, split: str, people: People) -> dict[str, Tensor]:
        """What it is pretrained to predict of a split's people ("train", "val"): [N, bins] by name."""

    def mirrored(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Distributions [N, bins] by name, as the people's mirror images have them."""
        return rows

    @abstractmethod
    def augment(self, people: PersonBatch, random: Augmentation) -> tuple[Sample, Tensor | None]:
        """The pose network's batch in this agent's turn, and its mask, if any; random: as in other turns."""

    @abstractmethod
    def trial(self, people: PersonBatch) -> Trial:
        """Predict and draw for people, and measure how hard that is; the pose network is in eval mode."""

    def record(self) -> "Record":
        """A new record of an epoch of its training."""
        return Record(self.type.name)

    def exhibits(self, row: dict, hardest: Sequence[dict]) -> list[Exhibit | MeanDistribution]:
        """What its part of an epoch's page shows; row: the epoch's. hardest: see `Record.hardest`."""
        return []

    def shown(self, sample: Sample) -> dict[str, Tensor]:
        """What it predicts for the crops of an exhibit: nothing of it is changed by that."""
        with undisturbed(self.learner.network):
            return self.predict(sample)

    def shown_hardest(self, hardest: Sequence[dict], reference: str) -> tuple[People, np.ndarray, list[str]]:
        """People, rows and remarks of an exhibit of `Record.hardest`; reference: what draws were against."""
        metric = self.run.dataset.metric_name
        remarks = [
            f": {metric} {100 * one['pck_agent']:.0f}\u00a0%, {100 * one['pck_reference']:.0f}\u00a0% "
            f"under {reference}"
            for one in hardest
        ]
        return self.run.dataset.train, np.array([one["row"] for one in hardest]), remarks

    @property
    def draws(self) -> str:
        """How joint training draws for it: "learned", "pretrained" or "uniform"."""
        return getattr(self.run.opt, self.type.draws)

    @property
    def streams(self) -> AgentStreams:
        """The generators that it draws from."""
        name = self.type.name
        return AgentStreams(
            *(self.run.streams[f"{name}{purpose}"] for purpose in ("", " training", " uniform"))
        )

    def predict(self, sample: Sample, trains: bool = False) -> dict[str, Tensor]:
        """Logits f32 [N, bins] by name for crops; trains: with gradients, through all ranks' network.

        The pose network's half pass runs in eval mode without gradients, so that none of its weights and
        statistics can change; afterwards it is in the mode it was in. The agent's own mode is the caller's.
        """
        image = sample.image.contiguous(memory_format=torch.channels_last)
        with undisturbed(self.pose), self.run.passes():
            features = self.pose.features(image)
        network = self.learner.parallel if trains else self.learner.network
        with torch.set_grad_enabled(trains), self.run.passes():
            answer = network(features)
        if isinstance(answer, Tensor):
            answer = {self.type.name: answer.flatten(1)}
        return {name: logits.float() for name, logits in answer.items()}


def require_finite(shares: Tensor) -> None:
    """Check what an agent is about to draw from; a GPU is waited for.

    Raises:
        UserError: the agent has diverged.
    """
    if not shares.isfinite().all():
        raise UserError("the agent's outputs are not finite: try a smaller learning rate of the agent")


def exponential_noise(people: PersonBatch, choices: int, generator: Generator) -> Tensor:
    """The noise of these people's draws from so many choices: f32 [N, choices], on the CPU.

    A share is the rate of an exponential clock: shares / noise are largest for the choices that are drawn
    first, which are those of `torch.multinomial` on the CPU. It is drawn for the whole batch of all ranks.
    """
    return people.local_rows(torch.empty(people.total, choices).exponential_(generator=generator))


def mean_distribution(name: str, shares: Tensor, history: History) -> dict[str, float | list[float]]:
    """Columns of an epoch: the mean of people's distributions [N, bins], and how far it moved.

    The change is the total variation distance to that of the history's last epoch, where it has one.
    """
    last, column, mean = history.rows[-1] if history.rows else {}, f"{name}_distribution", shares.mean(dim=0)
    row = {column: mean.tolist()}
    if column in last:
        row[f"{name}_change"] = 0.5 * (mean - torch.tensor(last[column])).abs().sum().item()
    return row


def standard_error(values: Tensor) -> float:
    """Of the mean of people's values f64 [N]; NaN of a single one."""
    return (values.var(correction=0) / (len(values) - 1)).sqrt().item()


class Record:
    """The people of an epoch of an agent's training, and what it reports of them.

    name: the agent's, with which its columns begin. means: `<name>_loss` and `gap` so far.

    Args:
        gap: the column of the PCK under the reference's draws minus that under the agent's.
    """

    def __init__(self, name: str, gap: str | None = None) -> None:
        self.name, self.gap = name, gap or f"{name}_gap"
        self.means = Meters(f"{name}_loss", self.gap)
        self._batches: list[dict[str, Tensor]] = []

    def add(self, people: PersonBatch, loss: Tensor, trial: Trial, rewards: dict[str, Reward]) -> None:
        """A batch: its loss, what was tried, and what the agent was taught by that."""
        gap = (trial.pck[0] - trial.pck[1]).mean()
        self.means.add(people.count, **{f"{self.name}_loss": loss, self.gap: gap})
        if people.counted == 1 or ranks.rank() == 0:  # once where all ranks have the same people
            self._batches.append(
                {
                    "row": people.index,
                    "pck": trial.pck.permute(2, 0, 1),
                    "values": trial.values,
                    "rewarded": torch.stack([one.rewarded for one in rewards.values()], dim=1),
                    "limited": torch.stack([one.limited for one in rewards.values()], dim=1),
                    **{f"{name} shares": one.detach().softmax(dim=1) for name, one in trial.logits.items()},
                }
            )

    @cached_property
    def seen(self) -> dict[str, Tensor]:
        """What was seen of each person of all ranks, [N, ...] on the CPU; each rank must ask for it."""
        batches = [{name: rows.cpu() for name, rows in batch.items()} for batch in self._batches]
        every = [batch for one in ranks.gathered(batches) for batch in one]  # a rank may have none
        return {name: torch.cat([batch[name] for batch in every]) for name in every[0]}

    @property
    def shares(self) -> dict[str, Tensor]:
        """The distributions [N, bins] by the name of what they choose."""
        ending = " shares"
        return {name.removesuffix(ending): s for name, s in self.seen.items() if name.endswith(ending)}

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means over people; each rank must call this.

        `<name>_gap` is PCK under uniform draws minus PCK under the agent's: above 0, the agent is harder;
        `<name>_gap_error` is its standard error. `<name>_limit_share` is that of targets with a bin at the
        limit. Entropies are in nats.
        """
        _, agent, uniform = self.seen["pck"].double().mean(dim=2).unbind(1)
        gap, rewarded = uniform - agent, self.seen["rewarded"]
        tied = self.seen["pck"][:, 0] == self.seen["pck"][:, 1]
        row = {
            f"{self.name}_loss": self.means.read()[f"{self.name}_loss"],
            f"{self.name}_pck_uniform": uniform.mean().item(),
            f"{self.name}_pck_agent": agent.mean().item(),
            f"{self.name}_gap": gap.mean().item(),
            f"{self.name}_gap_error": standard_error(gap),
            f"{self.name}_reward_share": rewarded.double().mean().item(),
            f"{self.name}_tie_share": tied.double().mean().item(),
            f"{self.name}_limit_share": self.seen["limited"].double().mean().item(),
        }
        return row | self.distributions(history)

    def distributions(self, history: History) -> dict[str, float | list[float]]:
        """Of each choice `<choice>_entropy`, and the columns of `mean_distribution`."""
        row = {}
        for name, shares in self.shares.items():
            row[f"{name}_entropy"] = torch.special.entr(shares).sum(dim=1).mean().item()
        for name, shares in self.shares.items():
            row |= mean_distribution(name, shares, history)
        return row

    def hardest(self) -> list[dict]:
        """The draws that lost most against the reference's; each rank must call this.

        Of each: row (the person's), choice (its name), value, pck_reference and pck_agent.
        """
        pck, names = self.seen["pck"], list(self.shares)
        lost = (pck[:, 0] - pck[:, 1]).flatten()
        found = []
        for place in lost.topk(min(HARDEST, len(lost))).indices.tolist():
            person, k = divmod(place, len(names))
            found.append(
                {
                    "row": int(self.seen["row"][person]),
                    "choice": names[k],
                    "value": self.seen["values"][person, k].tolist(),
                    "pck_reference": pck[person, 0, k].item(),
                    "pck_agent": pck[person, 1, k].item(),
                }
            )
        return found
