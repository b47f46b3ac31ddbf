"""The occlusion agent: for each person, a distribution over the cells of the crop; two are masked."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from data.augmentation import Augmentation
from data.crops import PersonBatch, Sample
from data.geometry import transform_points
from data.people import People, annotated, fixed_rows
from models.agent import OcclusionAgent, agent_width
from models.masks import cell_mask, draw_cells, joint_votes
from utils.agents.base import Agent, Trial, exponential_noise, require_finite
from utils.agents.exhibit import Exhibit, MeanDistribution, View
from utils.evaluation.evaluate import masked_pck


class Occlusion(Agent):
    """Chooses two cells of the crop, which are masked in the pose network."""

    def network(self) -> OcclusionAgent:
        """It has as many channels as `agent_width` says for the features of the pose network."""
        channels = self.pose.feature_channels
        return OcclusionAgent(channels, agent_width(channels))

    def targets(self, split: str, people: People) -> dict[str, Tensor]:
        """Joint votes on the un-augmented crops, from the annotations alone."""
        points, center, scale = map(torch.from_numpy, (people.points, people.center, people.scale))
        res = self.run.opt.out_res
        places = transform_points(points, center, scale, torch.zeros(len(people)), res)
        votes = joint_votes(places * annotated(points)[..., None], res, self.run.cells)
        return {self.type.name: votes.to(self.run.device)}

    def mirrored(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each row of cells in reverse."""
        side = self.run.cells
        return {name: row.view(-1, side, side).flip(2).flatten(1) for name, row in rows.items()}

    def augment(self, people: PersonBatch, random: Augmentation) -> tuple[Sample, Tensor]:
        """Random augmentation, then masks; the agent sees the randomly augmented crops."""
        sample = self.run.augment(people, random)
        if self.draws == "uniform":
            logits = self._uniform(len(people))
        else:
            logits = self.predict(sample)[self.type.name]
        return sample, cell_mask(agent_cells(logits, people, self.streams.batches), self.run.cells)

    def trial(self, people: PersonBatch) -> Trial:
        """The un-augmented crops with two cells masked: uniform ones as the reference, and the agent's."""
        sample = self.run.augment(people, Augmentation.identity(len(people)))
        logits = self.predict(sample, trains=True)
        uniform = agent_cells(self._uniform(len(people)), people, self.streams.uniform)
        drawn = agent_cells(logits[self.type.name], people, self.streams.training)
        pck = masked_pck(self.run, self.pose, sample, [uniform, drawn])
        return Trial(logits, {self.type.name: drawn}, drawn[:, None], pck[[0, 1, 0], None])

    def _uniform(self, people: int) -> Tensor:
        return torch.zeros(people, self.run.cells**2, device=self.run.device)

    def exhibits(
        self, row: dict, hardest: Sequence[dict], targets: dict[str, Tensor] | None = None
    ) -> list[Exhibit | MeanDistribution]:
        """Validation people without a mask, with the agent's and with a uniform one; the hardest masks."""
        people, generator = self.run.dataset.valid, Generator().manual_seed(row["epoch"])
        rows, side = fixed_rows(people, self.run.skeleton), self.run.cells
        batch, identity = self.run.batch(people, rows, "identity"), Augmentation.identity(len(rows))
        logits = self.predict_eval(self.run.augment(batch, identity))[self.type.name]
        masks = [
            cell_mask(agent_cells(one, batch, generator), side) for one in (logits, torch.zeros_like(logits))
        ]
        views = [
            View("not masked", identity),
            View("agent", identity, masks[0]),
            View("uniform", identity, masks[1]),
        ]
        cells = {"the agent's distribution, %": logits.softmax(dim=1).view(-1, side, side)}
        if targets:
            votes = targets[self.type.name][torch.from_numpy(rows)]
            cells["target: each cell's share of the joints, %"] = votes.view(-1, side, side)
        title = "Occlusion: the agent's masks against uniform ones"
        shown = [Exhibit(title, self._note, people, rows, "identity", views, cells=cells)]
        return shown + self._mean(row) + self._hardest(hardest)

    def _mean(self, row: dict) -> list[MeanDistribution]:
        shares = row.get(f"{self.type.name}_distribution")
        if shares is None:
            return []
        grid = np.reshape(shares, (math.isqrt(len(shares)), -1)).tolist()
        note = "Mean over training people of each cell's share in %; equal shares: no preference."
        return [MeanDistribution("Which cells the occlusion agent masks", note, grid)]

    def _hardest(self, hardest: Sequence[dict]) -> list[Exhibit]:
        if not hardest:
            return []
        cells = torch.tensor([one["value"] for one in hardest], device=self.run.device)
        mask, identity = cell_mask(cells, self.run.cells), Augmentation.identity(len(hardest))
        views = [View("at the epoch's end", identity, mask)]
        people, rows, remarks = self.hardest_people(hardest, "the uniform mask")
        return [Exhibit("Hardest masks of the epoch", self._note, people, rows, "identity", views, remarks)]

    @property
    def _note(self) -> str:
        return (
            f"Predictions without the flip test; {self.run.dataset.metric_name} over the joints in the crop. "
            "Dark cells are masked in the network, not in its input; crosses: joints lost due to the mask. "
            "A good agent's masks cost more joints than uniform ones."
        )


def agent_cells(logits: Tensor, people: PersonBatch, generator: Generator) -> Tensor:
    """Two different cells per person, int64 [N, 2], drawn from softmax(logits [N, cells]).

    Raises:
        UserError: the agent has diverged.
    """
    shares = logits.detach().softmax(dim=1)
    require_finite(shares)
    noise = exponential_noise(people, logits.shape[1], generator)
    return draw_cells(shares, noise.to(logits.device, non_blocking=True))
