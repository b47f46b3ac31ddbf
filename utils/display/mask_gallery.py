"""Galleries of masks."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.kinds import OCCLUSION
from models.masks import cell_mask
from utils.agents.occlusion import agent_cells, grid_side
from utils.agents.scale_rotation import agent_logits
from utils.display.drawing import encode_jpeg, label_cells, shade_cells
from utils.display.gallery import Crops, fixed_rows, load, look, person_name
from utils.display.sections import Person, Picture, Section, cell_grid
from utils.evaluation.evaluate import undisturbed
from utils.run import Run


def occlusion_gallery(run: Run, network: nn.Module, agent: nn.Module, epoch: int) -> list[Section]:
    """The same validation people each epoch: without a mask, under the agent's mask and under a uniform one.

    epoch: seeds the draws, which are no draws of the run.
    """
    people, generator = run.dataset.valid, Generator().manual_seed(epoch)
    rows = fixed_rows(people)
    batch = load(run, people, rows, "identity")
    image = run.augment(batch, Augmentation.identity(len(rows))).image
    with undisturbed(network, agent):
        logits = agent_logits(run, network, agent, image)[OCCLUSION]
    drawn = agent_cells(logits, batch, generator)
    uniform = agent_cells(torch.zeros_like(logits), batch, generator)
    side = grid_side(run)
    shares = logits.softmax(dim=1).view(-1, side, side).double().cpu().numpy()
    plain, masks = _under_masks(run, network, batch, {"agent": drawn, "uniform": uniform})
    persons = [
        Person(
            person_name(people, row),
            [
                Picture(plain.skeletons(k), f"not masked: {_score(run, plain, k)}"),
                Picture(encode_jpeg(label_cells(plain.image[k], shares[k])), "the agent's distribution, %"),
                *(_masked(run, plain, crops, k, title) for title, crops in masks.items()),
            ],
        )
        for k, row in enumerate(rows)
    ]
    return [Section("Occlusion: the agent's masks against uniform ones", _note(run), persons)]


def cells_section(row: dict) -> list[Section]:
    """The occlusion agent's mean distribution of an epoch, from its row in the history."""
    shares = row.get(f"{OCCLUSION}_distribution")
    if shares is None:
        return []
    grid = np.reshape(shares, (math.isqrt(len(shares)), -1)).tolist()
    note = "Mean over training people of how likely each cell of the crop is, in %; all alike: no preference."
    return [Section("Which cells the occlusion agent masks", note, grid=cell_grid(grid))]


def hidden_gallery(run: Run, network: nn.Module, hardest: list[dict]) -> list[Section]:
    """The agent's masks of an epoch that lost most joints.

    hardest: of each the training person's `row`, the `cells` that were drawn, and the shares of joints found
    under them, `pck_agent`, and under the uniform mask beside it, `pck_uniform`.
    """
    if not hardest:
        return []
    people, rows = run.dataset.train, np.array([one["row"] for one in hardest])
    batch = load(run, people, rows, "identity")
    cells = torch.tensor([one["cells"] for one in hardest], device=run.device)
    plain, masks = _under_masks(run, network, batch, {"at the epoch's end": cells})
    persons = [
        Person(
            f"{person_name(people, row)}: {run.dataset.metric_name} {100 * one['pck_agent']:.0f}\u00a0%, "
            f"{100 * one['pck_uniform']:.0f}\u00a0% under the uniform mask",
            [_masked(run, plain, crops, k, title) for title, crops in masks.items()],
        )
        for k, (row, one) in enumerate(zip(rows, hardest, strict=True))
    ]
    return [Section("Hardest masks of the epoch", _note(run), persons)]


def _note(run: Run) -> str:
    return (
        f"Predictions without the flip test; {run.dataset.metric_name} over the joints in the crop. Dark "
        "cells are masked in the network, not in its input; crosses are joints that it loses by that."
    )


def _under_masks(
    run: Run, network: nn.Module, people: PersonBatch, drawn: dict[str, Tensor]
) -> tuple[Crops, dict[str, Crops]]:
    """Un-augmented people without a mask, and under each, of cells [N, M], which is drawn over the crops."""
    sample = run.augment(people, Augmentation.identity(len(people)))
    side, masked = grid_side(run), {}
    for title, cells in drawn.items():
        mask = cell_mask(cells, side)
        crops = look(run, network, sample, mask)
        hidden = (mask[:, 0] == 0).cpu().numpy()
        shaded = np.stack([shade_cells(*one) for one in zip(crops.image, hidden, strict=True)])
        masked[title] = replace(crops, image=shaded)
    return look(run, network, sample), masked


def _masked(run: Run, plain: Crops, masked: Crops, k: int, title: str) -> Picture:
    lost = plain.found[k] & ~masked.found[k]
    joints = "joint" if lost.sum() == 1 else "joints"
    caption = f"{title}: {_score(run, masked, k)}, {lost.sum()} {joints} lost"
    return Picture(masked.skeletons(k, lost=lost), caption)


def _score(run: Run, crops: Crops, k: int) -> str:
    return f"{run.dataset.metric} {100 * crops.pck[k]:.0f}\u00a0%"
