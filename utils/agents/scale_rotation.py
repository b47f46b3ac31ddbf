"""The scale-rotation agent: for each person, a distribution over the bins of each kind of augmentation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from data.augmentation import Augmentation
from data.crops import PersonBatch, Sample
from data.kinds import KINDS
from data.people import People, fixed_rows
from models.agent import ScaleRotationAgent
from utils.agents.base import Agent, Record, Trial, exponential_noise, require_finite, standard_error
from utils.agents.exhibit import Distribution, Exhibit, View
from utils.evaluation.evaluate import crop_pck
from utils.records.distributions import distribution_path, read_distributions
from utils.records.history import History


class ScaleRotation(Agent):
    """Chooses a bin of each kind in `KINDS`: of scale, of rotation, and of further ones."""

    margin = pose_margin = "drawn"

    def network(self) -> ScaleRotationAgent:
        """As wide as the pose network's narrowest features."""
        bins = {f"{kind.name}_num": len(kind.means) for kind in KINDS.values()}
        channels = self.pose.feature_channels
        return ScaleRotationAgent(channels, min(channels), **bins)

    def targets(self, split: str, people: People) -> dict[str, Tensor]:
        """The collected distributions, by kind."""
        return {
            kind: read_distributions(
                distribution_path(self.run.folder, split, kind),
                self.run.distribution_source(split, kind, people),
            ).to(self.run.device)
            for kind in KINDS
        }

    def mirrored(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mirror image of a person under a rotation is that of the person under the opposite one."""
        return {kind: row.flip(1) if KINDS[kind].odd else row for kind, row in rows.items()}

    def augment(self, people: PersonBatch, random: Augmentation) -> tuple[Sample, None]:
        """Drawn values of every kind take the place of random ones; the agent sees un-augmented crops."""
        if self.draws == "uniform":
            logits = uniform_logits(people)
        else:
            logits = self.predict(self.run.augment(people, Augmentation.identity(len(people))))
        drawn, _ = draw(logits, people, self.streams.batches)
        return self.run.augment(people, random.with_draws(drawn)), None

    def trial(self, people: PersonBatch) -> Trial:
        """Each kind alone, under a random draw (the reference), the agent's and a uniform one."""
        generator = self.streams.training
        sample = self.run.augment(people, Augmentation.identity(len(people)))
        predicted = self.predict(sample, trains=True)
        logits = {kind: predicted[kind] for kind in KINDS}  # in the order of PCK and of values
        drawn, bins = draw(logits, people, generator)
        random = people.local_rows(Augmentation.random(people.total, generator))
        uniform, _ = draw(uniform_logits(people), people, self.streams.uniform)
        # Apart: to the last bit, what a network finds may depend on the number of crops in its batch.
        pck = torch.cat([self._pck(people, random, drawn), self._pck(people, uniform)])
        values = torch.stack([getattr(drawn, kind.field) for kind in KINDS.values()], dim=1)
        return Trial(logits, bins, values, pck)

    def _pck(self, people: PersonBatch, *draws: Augmentation) -> Tensor:
        """PCK f32 [D, K, N] of N people under each of D draws, of each of K kinds alone."""
        alone = [which.only(kind.field) for which in draws for kind in KINDS.values()]
        pck = crop_pck(self.run, self.pose, people, Augmentation.cat(alone))
        return pck.view(len(draws), len(KINDS), -1)

    def record(self) -> "ScaleRotationRecord":
        return ScaleRotationRecord(self.type.name, "pck_gap")

    def exhibits(self, row: dict, hardest: Sequence[dict]) -> list[Exhibit]:
        """Validation people as the agent draws them, beside random draws; and its hardest draws."""
        people, generator = self.run.dataset.valid, Generator().manual_seed(row["epoch"])
        rows = fixed_rows(people, self.run.skeleton)
        batch, identity = self.run.batch(people, rows, "drawn"), Augmentation.identity(len(rows))
        logits = self.shown(self.run.augment(batch, identity))
        drawn, bins = draw(logits, batch, generator)
        random = Augmentation.random(len(rows), generator).only(*(kind.field for kind in KINDS.values()))
        note = (
            f"Predictions without the flip test; {self.run.dataset.metric_name} over the joints in the crop. "
            "The bars are what the agent predicts from the un-augmented crop, the red ones what it drew."
        )
        views = [View("not augmented", identity), View("agent", drawn), View("random", random)]
        distributions = [
            Distribution(
                f"{kind.label}, %",
                [f"{mean:g}" for mean in kind.means],
                logits[kind.name].softmax(dim=1),
                bins[kind.name],
            )
            for kind in KINDS.values()
        ]
        title = "The agent against random augmentation"
        shown = [Exhibit(title, note, people, rows, "drawn", views, distributions=distributions)]
        return shown + self._hardest(hardest)

    def _hardest(self, hardest: Sequence[dict]) -> list[Exhibit]:
        if not hardest:
            return []
        augmentation = Augmentation.identity(len(hardest))
        for k, one in enumerate(hardest):
            getattr(augmentation, KINDS[one["choice"]].field)[k] = one["value"]
        title = "Hardest augmentations of the epoch"
        note = "The agent's draws for training people that lost most against the random ones, re-evaluated."
        views = [View("at the epoch's end", augmentation)]
        people, rows, remarks = self.shown_hardest(hardest, "the random draw")
        return [Exhibit(title, note, people, rows, "drawn", views, remarks, heatmaps=True)]


class ScaleRotationRecord(Record):
    """An epoch of the scale-rotation agent, with the columns that it has had from the start."""

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means over people; each rank must call this.

        pck_gap is PCK under random draws minus PCK under the agent's: above 0, the agent is harder.
        uniform_gap is PCK under uniform draws of the agent's bins minus PCK under the agent's own draws. Both
        have the same range, so that it shows what choosing is worth. uniform_gap_error is its standard error
        over people, each with the mean of their kinds; NaN of a single one.
        """
        random, agent, uniform = self.seen["pck"].double().unbind(1)
        gap, chosen = random - agent, uniform - agent
        row = {
            "agent_loss": self.means.read()["agent_loss"],
            "pck_random": random.mean().item(),
            "pck_agent": agent.mean().item(),
            "pck_gap": gap.mean().item(),
            **{f"{kind}_gap": one.mean().item() for kind, one in zip(KINDS, gap.T, strict=True)},
            "reward_share": self.seen["rewarded"].double().mean().item(),
            "pck_uniform": uniform.mean().item(),
        }
        apart = {f"{kind}_": one for kind, one in zip(KINDS, chosen.T, strict=True)}
        for start, one in {"": chosen.mean(dim=1), **apart}.items():
            row[f"{start}uniform_gap"] = one.mean().item()
            row[f"{start}uniform_gap_error"] = standard_error(one)
        return row | self.distributions(history)


def draw(
    logits: dict[str, Tensor], people: PersonBatch, generator: Generator
) -> tuple[Augmentation, dict[str, Tensor]]:
    """What the agent draws for N people: the augmentation, and the bins int64 [N] by kind, on the CPU.

    Raises:
        UserError: the agent has diverged.
    """
    shares = torch.cat([answer.detach().softmax(dim=1) for answer in logits.values()], dim=1).cpu()
    require_finite(shares)
    sizes = [len(KINDS[kind].means) for kind in logits]
    bins = {}
    for kind, share in zip(logits, shares.split(sizes, dim=1), strict=True):
        bins[kind] = (share / exponential_noise(people, share.shape[1], generator)).argmax(dim=1)
    everyone = {kind: F.pad(chosen, (people.before, people.after)) for kind, chosen in bins.items()}
    return people.local_rows(Augmentation.drawn(everyone, generator)), bins


def uniform_logits(people: PersonBatch) -> dict[str, Tensor]:
    """Logits [N, bins] by kind of all bins with equal probability: the agent's range without an agent."""
    return {kind.name: torch.zeros(len(people), len(kind.means)) for kind in KINDS.values()}
