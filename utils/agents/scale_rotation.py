"""The scale-rotation agent: for each person, a distribution over the bins of each kind of augmentation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from data.augmentation import Augmentation
from data.crops import PersonBatch, Sample
from data.kinds import KINDS
from data.people import People, fixed_rows
from models.agent import ScaleRotationAgent, agent_width
from utils.agents.base import Agent, Record, Trial, exponential_noise, require_finite, standard_error
from utils.agents.exhibit import Distribution, Exhibit, View
from utils.evaluation.evaluate import crop_pck
from utils.records.distributions import distribution_path, pck_path, read_distributions, read_pck
from utils.records.history import History


class ScaleRotation(Agent):
    """Chooses a bin of each kind in `KINDS`, such as scale and rotation."""

    margin = pose_margin = "drawn"

    def network(self) -> ScaleRotationAgent:
        """It has as many channels as `agent_width` says for the features of the pose network."""
        bins = {f"{kind.name}_num": len(kind.means) for kind in KINDS.values()}
        channels = self.pose.feature_channels
        return ScaleRotationAgent(channels, agent_width(channels), **bins)

    def targets(self, split: str, people: People) -> dict[str, Tensor]:
        """The collected distributions."""
        return {
            kind: read_distributions(
                distribution_path(self.run.folder, split, kind),
                self.run.distribution_source(split, kind, people),
            ).to(self.run.device)
            for kind in KINDS
        }

    def collected_pck(self, split: str, people: People) -> dict[str, Tensor]:
        """By kind, from the files of --repeats above 1."""
        paths = {kind: pck_path(self.run.folder, split, kind) for kind in KINDS}
        return {
            kind: read_pck(path, self.run.distribution_source(split, kind, people)).to(self.run.device)
            for kind, path in paths.items()
            if path.exists()
        }

    def mirrored(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bins of odd kinds in reverse: mirroring changes the sign of a rotation."""
        return {kind: row.flip(1) if KINDS[kind].odd else row for kind, row in rows.items()}

    def augment(self, people: PersonBatch, random: Augmentation) -> tuple[Sample, None]:
        """The agent's draws replace the random values of all kinds; the agent sees un-augmented crops."""
        if self.draws == "uniform":
            logits = uniform_logits(people)
        else:
            logits = self.predict(self.run.augment(people, Augmentation.identity(len(people))))
        drawn, _ = draw(logits, people, self.streams.batches)
        return self.run.augment(people, random.with_draws(drawn)), None

    def trial(self, people: PersonBatch) -> Trial:
        """Each kind alone, with a random draw as the reference, the agent's draw, and a uniform draw."""
        generator = self.streams.training
        sample = self.run.augment(people, Augmentation.identity(len(people)))
        predicted = self.predict(sample, trains=True)
        logits = {kind: predicted[kind] for kind in KINDS}  # in the order of `pck` and `values`
        drawn, bins = draw(logits, people, generator)
        random = people.local_rows(Augmentation.random(people.total, generator))
        uniform, _ = draw(uniform_logits(people), people, self.streams.uniform)
        # Two batches: to the last bit, the output of a network may depend on the size of the batch.
        pck = torch.cat([self._pck(people, random, drawn), self._pck(people, uniform)])
        values = torch.stack([getattr(drawn, kind.field) for kind in KINDS.values()], dim=1)
        return Trial(logits, bins, values, pck)

    def _pck(self, people: PersonBatch, *draws: Augmentation) -> Tensor:
        """PCK f32 [D, K, N] of N people under each of D draws, applied for each of K kinds alone."""
        single = [one.only(kind.field) for one in draws for kind in KINDS.values()]
        pck = crop_pck(self.run, self.pose, people, Augmentation.cat(single))
        return pck.view(len(draws), len(KINDS), -1)

    def record(self) -> "ScaleRotationRecord":
        return ScaleRotationRecord(self.type.name, "pck_gap")

    def exhibits(
        self, row: dict, hardest: Sequence[dict], targets: dict[str, Tensor] | None = None
    ) -> list[Exhibit]:
        """Validation people under the agent's draws and under random ones; the hardest draws."""
        people, generator = self.run.dataset.valid, Generator().manual_seed(row["epoch"])
        rows = fixed_rows(people, self.run.skeleton)
        batch, identity = self.run.batch(people, rows, "drawn"), Augmentation.identity(len(rows))
        logits = self.predict_eval(self.run.augment(batch, identity))
        drawn, bins = draw(logits, batch, generator)
        random = Augmentation.random(len(rows), generator).only(*(kind.field for kind in KINDS.values()))
        note = (
            f"Predictions without the flip test; {self.run.dataset.metric_name} over the joints in the crop. "
            "A good agent's draws cost more than random ones. Bars: its distributions, predicted from the "
            "un-augmented crop; red: the bin it drew."
        )
        if targets:
            note += " Target: the collected row; the larger a bin, the more PCK it costs this person."
        views = [View("not augmented", identity), View("agent", drawn), View("random", random)]
        distributions = [
            Distribution(
                f"{kind.label}, %",
                [f"{mean:g}" for mean in kind.means],
                logits[kind.name].softmax(dim=1),
                bins[kind.name],
                targets and targets[kind.name][torch.from_numpy(rows)],
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
        note = "The agent's draws with the largest loss of PCK against random ones, evaluated again."
        views = [View("at the epoch's end", augmentation)]
        people, rows, remarks = self.hardest_people(hardest, "the random draw")
        return [Exhibit(title, note, people, rows, "drawn", views, remarks, heatmaps=True)]


class ScaleRotationRecord(Record):
    """The record of the scale-rotation agent, whose columns have the names of earlier versions."""

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means over people; each rank must call this.

        pck_gap is PCK under random draws minus PCK under the agent's: above 0, the agent's are harder.
        uniform_gap is PCK under uniform draws of the agent's bins minus PCK under the agent's draws. Both
        have the same range, so it measures the effect of the agent's choice. uniform_gap_error is its
        standard error over people, after averaging each person over kinds; NaN for a single person.
        """
        random, agent, uniform = self.per_person["pck"].double().unbind(1)
        gap, uniform_gap = random - agent, uniform - agent
        row = {
            "agent_loss": self.means.read()["agent_loss"],
            "pck_random": random.mean().item(),
            "pck_agent": agent.mean().item(),
            "pck_gap": gap.mean().item(),
            **{f"{kind}_gap": one.mean().item() for kind, one in zip(KINDS, gap.T, strict=True)},
            "reward_share": self.per_person["rewarded"].double().mean().item(),
            "pck_uniform": uniform.mean().item(),
        }
        by_kind = {f"{kind}_": gaps for kind, gaps in zip(KINDS, uniform_gap.T, strict=True)}
        for prefix, gaps in {"": uniform_gap.mean(dim=1), **by_kind}.items():
            row[f"{prefix}uniform_gap"] = gaps.mean().item()
            row[f"{prefix}uniform_gap_error"] = standard_error(gaps)
        return row | self.distributions(history)


def draw(
    logits: dict[str, Tensor], people: PersonBatch, generator: Generator
) -> tuple[Augmentation, dict[str, Tensor]]:
    """Draw for N people from the agent's distributions.

    logits: kind -> [N, bins].

    Returns:
        The augmentation, and kind -> bins drawn, int64 [N], on the CPU.

    Raises:
        UserError: the agent has diverged.
    """
    shares = torch.cat([prediction.detach().softmax(dim=1) for prediction in logits.values()], dim=1).cpu()
    require_finite(shares)
    sizes = [len(KINDS[kind].means) for kind in logits]
    bins = {}
    for kind, share in zip(logits, shares.split(sizes, dim=1), strict=True):
        bins[kind] = (share / exponential_noise(people, share.shape[1], generator)).argmax(dim=1)
    everyone = {kind: F.pad(chosen, (people.before, people.after)) for kind, chosen in bins.items()}
    return people.local_rows(Augmentation.drawn(everyone, generator)), bins


def uniform_logits(people: PersonBatch) -> dict[str, Tensor]:
    """Logits of uniform distributions over the agent's bins: kind -> [N, bins]."""
    return {kind.name: torch.zeros(len(people), len(kind.means)) for kind in KINDS.values()}
