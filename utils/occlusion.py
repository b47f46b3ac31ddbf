"""Occlusion in a run: the agent that draws masks, what it is pretrained on, and what is found under masks."""

import torch
from torch import Generator, Tensor, nn

from data.annotations import People, annotated
from data.augment import PersonBatch
from data.augmentation import Augmentation
from data.geometry import transform_points
from models import NETWORKS, PoseNetwork
from models.agent import OcclusionAgent
from models.occlusion import cell_mask, draw_cells, joint_votes, race
from utils.metrics import PckCounter
from utils.process import progress
from utils.runs import Run


def grid_side(run: Run) -> int:
    """Cells of the crop's grid along a side: the size of the pose network's neck."""
    return run.opt.in_res // NETWORKS[run.opt.network].stride


def build_occlusion_agent(run: Run, network: PoseNetwork) -> OcclusionAgent:
    """An agent as wide as the pose network's narrowest features, with initial weights, on the device."""
    return run.place(OcclusionAgent(network.feature_channels, min(network.feature_channels)))


def agent_cells(logits: Tensor, people: PersonBatch, generator: Generator) -> Tensor:
    """Two different cells a person, int64 [N, 2], drawn from softmax(logits [N, cells]); zeros are uniform.

    The noise is drawn for the whole batch, on the CPU; nothing waits for a GPU.
    """
    noise = people.own(race(people.total, logits.shape[1], generator))
    return draw_cells(logits.detach().softmax(dim=1), noise.to(logits.device, non_blocking=True))


def vote_rows(run: Run, people: People) -> Tensor:
    """Joint votes f32 [N, cells] on people's un-augmented crops, on the device: no photograph is read."""
    points, center, scale = map(torch.from_numpy, (people.points, people.center, people.scale))
    places = transform_points(points, center, scale, torch.zeros(len(people)), run.opt.out_res)
    return joint_votes(places * annotated(points)[..., None], run.opt.out_res, grid_side(run)).to(run.device)


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
