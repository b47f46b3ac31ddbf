"""Loops that several stages share: predicting with the flip test, and scoring a data set."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.augment import Augmentation, augment
from data.heatmap import mirror_heatmaps, predict_points
from data.patches import PatchLoader
from models.losses import pose_loss
from utils.means import Means
from utils.metrics import PckTable, pck_table
from utils.runs import Run

log = logging.getLogger(__name__)


def progress(batches: Iterable, title: str, people: int, total: int | None = None) -> tqdm:
    """The batches, with a bar in people where there is a terminal.

    people: how many a batch. total: the number of batches, where `batches` does not know it.
    """
    return tqdm(batches, title, total, disable=None, leave=False, unit=" people", unit_scale=people)


@dataclass(frozen=True)
class Evaluation:
    """How a pose network does on people; preds: f32 [N, 16, 2] px of the photographs, in their order."""

    loss: float
    table: PckTable
    preds: Tensor

    def row(self) -> dict[str, float]:
        """Its part of an epoch's row in the history."""
        return {
            "valid_loss": self.loss,
            "valid_pck": self.table.mean,
            "valid_auc": self.table.auc["Mean"],
        }


def flip_tested_heatmaps(run: Run, network: nn.Module, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Outputs of every stack for images [M, 3, H, W]; the last one averaged with the mirrored image's."""
    outputs = run.forward(network, image)
    mirrored = run.forward(network, image.flip(-1))[-1]
    return outputs, (outputs[-1] + mirror_heatmaps(mirrored)) / 2


@torch.no_grad()
def evaluate(run: Run, network: nn.Module, loader: PatchLoader, title: str = "valid") -> Evaluation:
    """Score a pose network on un-augmented people with the flip test; the network is put in eval mode."""
    network.eval()
    means, preds, points, normalizer = Means(), [], [], []
    for people in progress(loader, title, run.opt.bs):
        sample = augment(people, Augmentation.identity(len(people)), run.opt.in_res, run.opt.out_res)
        outputs, heatmaps = flip_tested_heatmaps(run, network, sample.image)
        means.add(len(people), loss=pose_loss(outputs, sample.heatmap).item())
        preds.append(predict_points(heatmaps, sample.center, sample.scale, sample.rotation).cpu())
        points.append(people.points.cpu())
        normalizer.append(people.normalizer.cpu())
    preds = torch.cat(preds)
    table = pck_table(
        preds, torch.cat(points), torch.cat(normalizer), run.dataset.measure, run.dataset.threshold
    )
    return Evaluation(means["loss"], table, preds)
