"""The base of all agents: prediction, drawing, trials, rewards, and the record of an epoch."""

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

HARDEST = 8  # number of draws of an epoch that its page shows


@dataclass(frozen=True)
class Trial:
    """The draws of an agent for N people in K choices, and how hard they were.

    logits: name of the choice -> [N, bins], with gradients. chosen: name -> bins drawn, int64 [N], or [N, M]
    if the choice is of M bins. values: what was drawn, [N, K] or [N, K, ...]. pck: f32 [3, K, N], under a
    draw of the reference, the agent's draw, and a uniform draw over the agent's bins.
    """

    logits: dict[str, Tensor]
    chosen: dict[str, Tensor]
    values: Tensor
    pck: Tensor

    def rewards(self) -> dict[str, Reward]:
        """Name of the choice -> targets of the agent: draws harder than the reference's are rewarded."""
        return {
            name: reward(
                logits.detach().softmax(dim=1), self.chosen[name].to(logits.device), *self.pck[:2, k]
            )
            for k, (name, logits) in enumerate(self.logits.items())
        }


class AgentStreams(NamedTuple):
    """The generators of an agent: for the pose network's batches, for trials, and for their uniform draws."""

    batches: Generator
    training: Generator
    uniform: Generator


class Agent(ABC):
    """An agent in a run.

    type: its entry in `AGENTS`. pose: the pose network whose features are its input. learner: its network in
    training. margin, pose_margin: the margins (see `data.augmentation.MARGINS`) of patches for its training,
    and for batches of the pose network that it augments.

    Args:
        lr, weight_decay: of its optimizer.
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
        """A new network with initial weights: features of the pose network -> logits.

        Logits are a dict, name of the choice -> [N, bins]; or [N, ...] for a single choice with the agent's
        name.
        """

    @abstractmethod
    def targets(self, split: str, people: People) -> dict[str, Tensor]:
        """The targets of pretraining for the people of a split, "train" or "val": choice -> [N, bins]."""

    def collected_pck(self, split: str, people: People) -> dict[str, Tensor]:
        """PCK [R, N, bins] by choice, where collecting has measured the people of a split more than once."""
        return {}

    def mirrored(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """The distributions of mirrored people; rows: choice -> distributions [N, bins]."""
        return rows

    @abstractmethod
    def augment(self, people: PersonBatch, random: Augmentation) -> tuple[Sample, Tensor | None]:
        """Augment a batch of the pose network; returns its mask, too, if any. random: random augmentation."""

    @abstractmethod
    def trial(self, people: PersonBatch) -> Trial:
        """Predict, draw, and measure how hard the draws are; the pose network is in eval mode."""

    def record(self) -> "Record":
        """A new record for an epoch of its training."""
        return Record(self.type.name)

    def exhibits(
        self, row: dict, hardest: Sequence[dict], targets: dict[str, Tensor] | None = None
    ) -> list[Exhibit | MeanDistribution]:
        """Its part of an epoch's page; row: the epoch's row of the history. hardest: see `Record.hardest`.

        targets: in pretraining, those of the validation people: choice -> [N, bins].
        """
        return []

    def predict_eval(self, sample: Sample) -> dict[str, Tensor]:
        """`predict` in eval mode; afterwards its network is in the same mode as before."""
        with undisturbed(self.learner.network):
            return self.predict(sample)

    def hardest_people(self, hardest: Sequence[dict], reference: str) -> tuple[People, np.ndarray, list[str]]:
        """People, rows and remarks for an exhibit of `Record.hardest`; reference: what the reference is."""
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
        """Its random generators."""
        name = self.type.name
        return AgentStreams(
            *(self.run.streams[f"{name}{purpose}"] for purpose in ("", " training", " uniform"))
        )

    def inputs(self, sample: Sample) -> tuple:
        """What its network is called with: the pose network's features of the crops; override to add to them.

        The half pass of the pose network runs in eval mode and without gradients, so it changes no weights or
        statistics; afterwards the pose network is in the same mode as before.
        """
        image = sample.image.contiguous(memory_format=torch.channels_last)
        with undisturbed(self.pose), self.run.passes():
            return (self.pose.features(image),)

    def predict(self, sample: Sample, trains: bool = False) -> dict[str, Tensor]:
        """Logits for crops: name of the choice -> f32 [N, bins]. trains: with gradients, averaged over ranks.

        The caller sets the agent's mode.
        """
        inputs = self.inputs(sample)
        network = self.learner.parallel if trains else self.learner.network
        with torch.set_grad_enabled(trains), self.run.passes():
            output = network(*inputs)
        if isinstance(output, Tensor):
            output = {self.type.name: output.flatten(1)}
        return {name: logits.float() for name, logits in output.items()}


def require_finite(shares: Tensor) -> None:
    """Raise a `UserError` unless the distributions of an agent are finite; waits for the GPU."""
    if not shares.isfinite().all():
        raise UserError("the agent's outputs are not finite: try a smaller learning rate of the agent")


def exponential_noise(people: PersonBatch, choices: int, generator: Generator) -> Tensor:
    """Noise to draw from distributions over `choices` bins: f32 [N, choices], on the CPU.

    The bins with the largest share / noise are a sample without replacement, the same one as that of
    `torch.multinomial` on the CPU. The noise is drawn for the global batch, of which each rank takes its
    rows.
    """
    return people.local_rows(torch.empty(people.total, choices).exponential_(generator=generator))


def mean_distribution(name: str, shares: Tensor, history: History) -> dict[str, float | list[float]]:
    """Columns of an epoch: the mean of the distributions [N, bins], and its change since the last epoch.

    The change is the total variation distance to the mean in the last row of the history, if it has one.
    """
    last, column, mean = history.rows[-1] if history.rows else {}, f"{name}_distribution", shares.mean(dim=0)
    row = {column: mean.tolist()}
    if column in last:
        row[f"{name}_change"] = 0.5 * (mean - torch.tensor(last[column])).abs().sum().item()
    return row


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of values f64 [N]; NaN if N is 1."""
    return (values.var(correction=0) / (len(values) - 1)).sqrt().item()


class Record:
    """Per-person records of an epoch of an agent's training, and the statistics of the epoch.

    name: the agent's name, the first part of its columns. means: `<name>_loss` and `gap` so far.

    Args:
        gap: name of the running mean of PCK under the reference's draws minus PCK under the agent's.
    """

    def __init__(self, name: str, gap: str | None = None) -> None:
        self.name, self.gap = name, gap or f"{name}_gap"
        self.means = Meters(f"{name}_loss", self.gap)
        self._batches: list[dict[str, Tensor]] = []

    def add(self, people: PersonBatch, loss: Tensor, trial: Trial, rewards: dict[str, Reward]) -> None:
        """Add a batch: its loss, the agent's draws, and their rewards."""
        gap = (trial.pck[0] - trial.pck[1]).mean()
        self.means.add(people.count, **{f"{self.name}_loss": loss, self.gap: gap})
        if people.counted == 1 or ranks.rank() == 0:  # once, if all ranks have the same people
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
    def per_person(self) -> dict[str, Tensor]:
        """The records of the people of all ranks, name -> [N, ...] on the CPU; each rank must read this."""
        batches = [{name: rows.cpu() for name, rows in batch.items()} for batch in self._batches]
        every = [batch for one in ranks.gathered(batches) for batch in one]  # a rank may have no batch
        return {name: torch.cat([batch[name] for batch in every]) for name in every[0]}

    @property
    def shares(self) -> dict[str, Tensor]:
        """Name of the choice -> distributions [N, bins]."""
        ending = " shares"
        return {name.removesuffix(ending): s for name, s in self.per_person.items() if name.endswith(ending)}

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means over people; each rank must call this.

        `<name>_gap` is PCK under uniform draws minus PCK under the agent's: above 0, the agent's are harder;
        `<name>_gap_error` is its standard error. `<name>_limit_share` is the share of targets with a bin at
        the limit. Entropies are in nats.
        """
        _, agent, uniform = self.per_person["pck"].double().mean(dim=2).unbind(1)
        gap, rewarded = uniform - agent, self.per_person["rewarded"]
        tied = self.per_person["pck"][:, 0] == self.per_person["pck"][:, 1]
        row = {
            f"{self.name}_loss": self.means.read()[f"{self.name}_loss"],
            f"{self.name}_pck_uniform": uniform.mean().item(),
            f"{self.name}_pck_agent": agent.mean().item(),
            f"{self.name}_gap": gap.mean().item(),
            f"{self.name}_gap_error": standard_error(gap),
            f"{self.name}_reward_share": rewarded.double().mean().item(),
            f"{self.name}_tie_share": tied.double().mean().item(),
            f"{self.name}_limit_share": self.per_person["limited"].double().mean().item(),
        }
        return row | self.distributions(history)

    def distributions(self, history: History) -> dict[str, float | list[float]]:
        """For each choice `<choice>_entropy` and the columns of `mean_distribution`."""
        row = {}
        for name, shares in self.shares.items():
            row[f"{name}_entropy"] = torch.special.entr(shares).sum(dim=1).mean().item()
        for name, shares in self.shares.items():
            row |= mean_distribution(name, shares, history)
        return row

    def hardest(self) -> list[dict]:
        """The draws with the largest loss of PCK against the reference's; each rank must call this.

        Each has row (of the person), choice (its name), value, pck_reference and pck_agent.
        """
        pck, names = self.per_person["pck"], list(self.shares)
        lost = (pck[:, 0] - pck[:, 1]).flatten()
        found = []
        for place in lost.topk(min(HARDEST, len(lost))).indices.tolist():
            person, k = divmod(place, len(names))
            found.append(
                {
                    "row": int(self.per_person["row"][person]),
                    "choice": names[k],
                    "value": self.per_person["values"][person, k].tolist(),
                    "pck_reference": pck[person, 0, k].item(),
                    "pck_agent": pck[person, 1, k].item(),
                }
            )
        return found
