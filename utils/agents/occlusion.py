"""Occlusion in a run: the agent that draws masks, what it is pretrained on, and what is found under masks."""

import torch
from torch import Generator, Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch, Sample
from data.geometry import transform_points
from data.kinds import OCCLUSION
from data.people import People, annotated
from models import NETWORKS, PoseNetwork
from models.agent import OcclusionAgent
from models.masks import cell_mask, draw_cells, joint_votes
from utils.agents.scale_rotation import (
    HARDEST,
    Record,
    mean_distribution,
    race,
    require_finite,
    standard_error,
)
from utils.evaluation.metrics import PckCounter, person_pckh
from utils.records.history import History
from utils.run import Run
from utils.system.process import progress

ROUNDING = 1e-6  # relative, of shares that are at their limit


def grid_side(run: Run) -> int:
    """Cells of the crop's grid along a side: the size of the pose network's neck."""
    return run.opt.in_res // NETWORKS[run.opt.network].stride


def build_occlusion_agent(run: Run, network: PoseNetwork) -> OcclusionAgent:
    """An agent as wide as the pose network's narrowest features, with initial weights, on the device."""
    return run.place(OcclusionAgent(network.feature_channels, min(network.feature_channels)))


def agent_cells(logits: Tensor, people: PersonBatch, generator: Generator) -> Tensor:
    """Two different cells a person, int64 [N, 2], drawn from softmax(logits [N, cells]); zeros are uniform.

    The noise is drawn for the whole batch, on the CPU.

    Raises:
        UserError: the agent has diverged.
    """
    shares = logits.detach().softmax(dim=1)
    require_finite(shares)
    noise = people.own(race(people.total, logits.shape[1], generator))
    return draw_cells(shares, noise.to(logits.device, non_blocking=True))


def vote_rows(run: Run, people: People) -> Tensor:
    """Joint votes f32 [N, cells] on people's un-augmented crops, on the device: no photograph is read."""
    points, center, scale = map(torch.from_numpy, (people.points, people.center, people.scale))
    places = transform_points(points, center, scale, torch.zeros(len(people)), run.opt.out_res)
    return joint_votes(places * annotated(points)[..., None], run.opt.out_res, grid_side(run)).to(run.device)


@torch.no_grad()
def masked_pck(
    run: Run, network: nn.Module, people: PersonBatch, sample: Sample, drawn: list[Tensor]
) -> Tensor:
    """PCK f32 [K, N] of N people's crops under K masks each, of cells int64 [N, M].

    The network is in eval mode.
    """
    side, crops = grid_side(run), len(drawn)
    image, mask = sample.image.repeat(crops, 1, 1, 1), cell_mask(torch.cat(drawn), side)
    heatmaps = run.forward(network, image, mask)[-1]
    pck = [
        person_pckh(
            sample.predict(maps), sample.points, sample.normalizer, sample.heatmap, run.dataset.threshold
        )
        for maps in heatmaps.split(len(sample.image))
    ]
    return torch.stack(pck)


class OcclusionRecord(Record):
    """What a researcher in augmentation wants to know of an epoch of the occlusion agent.

    means: `occlusion_loss`, and `occlusion_gap` (PCK under uniform masks minus PCK under the agent's) while
    it goes on.
    """

    def __init__(self) -> None:
        super().__init__("occlusion_loss", "occlusion_gap")

    def add(
        self,
        loss: Tensor,
        predicted: Tensor,
        target: Tensor,
        pck: Tensor,
        people: PersonBatch,
        cells: Tensor,
    ) -> None:
        """A batch: loss, distributions [N, cells] and their targets, PCK, the people, the cells drawn [N, 2].

        PCK [2, N] is that under uniform cells, and under the agent's.
        """
        gap = (pck[0] - pck[1]).mean()
        self.means.add(people.count, occlusion_loss=loss, occlusion_gap=gap)
        self._keep(people, pck=pck.T, cells=cells, predicted=predicted, target=target)

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means over people; each rank must call this.

        occlusion_gap is PCK under uniform masks minus PCK under the agent's: above 0, the agent is harder;
        occlusion_gap_error is its standard error. The limit is that of a cell's share in a target.
        """
        uniform, agent = self._seen["pck"].double().unbind(1)
        gap, predicted, target = uniform - agent, self._seen["predicted"], self._seen["target"]
        limited = target.amax(dim=1) >= (1 - ROUNDING) * 2 / target.shape[1]
        return {
            "occlusion_loss": self.means.read()["occlusion_loss"],
            "occlusion_pck_uniform": uniform.mean().item(),
            "occlusion_pck_agent": agent.mean().item(),
            "occlusion_gap": gap.mean().item(),
            "occlusion_gap_error": standard_error(gap),
            "occlusion_reward_share": (gap > 0).double().mean().item(),
            "occlusion_tie_share": (gap == 0).double().mean().item(),
            "occlusion_limit_share": limited.double().mean().item(),
            "occlusion_entropy": torch.special.entr(predicted).sum(dim=1).mean().item(),
            **mean_distribution(OCCLUSION, predicted, history),
        }

    def hardest(self) -> list[dict]:
        """The agent's masks that lost most against uniform ones; each rank must call this.

        Of each: row (the person's), cells, pck_uniform and pck_agent.
        """
        pck = self._seen["pck"]
        most = (pck[:, 0] - pck[:, 1]).topk(min(HARDEST, len(pck))).indices
        rows, cells, pck = (self._seen[name][most].tolist() for name in ("row", "cells", "pck"))
        return [
            {"row": row, "cells": drawn, "pck_uniform": uniform, "pck_agent": agent}
            for row, drawn, (uniform, agent) in zip(rows, cells, pck, strict=True)
        ]


@torch.no_grad()
def occlusion_grid(run: Run, network: nn.Module) -> tuple[Tensor, float]:
    """PCK of the validation people with each single cell masked, f64 [side, side], and without a mask.

    Un-augmented, without the flip test; the network is put in eval mode.
    """
    network.eval()
    side = grid_side(run)
    plain = PckCounter(run.dataset.threshold)
    masked = [PckCounter(run.dataset.threshold) for _ in range(side * side)]
    for people in progress(run.loader(run.dataset.valid, "identity"), "occlusion", run.opt.bs):
        sample = run.augment(people, Augmentation.identity(len(people)))
        plain.add(run.forward(network, sample.image)[-1], sample)
        for cell, counter in enumerate(masked):
            mask = cell_mask(torch.full((len(people), 1), cell, device=run.device), side)
            counter.add(run.forward(network, sample.image, mask)[-1], sample)
    grid = torch.tensor([counter.read() for counter in masked], dtype=torch.float64)
    return grid.view(side, side), plain.read()
