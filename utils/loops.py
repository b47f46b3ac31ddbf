"""Loops that several stages share: predicting with the flip test, and scoring a data set."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.augment import Augmentation, augment
from data.heatmap import mirror_heatmaps, predict_points
from data.patches import PatchLoader
from models.losses import pose_loss
from utils.errors import UserError
from utils.metrics import PckTable, pck_table
from utils.runs import Run


def progress(batches: Iterable, title: str) -> tqdm:
    """The batches, with a bar where there is a terminal."""
    return tqdm(batches, desc=title, disable=None, leave=False, unit="batch")


class Means:
    """Means of named values over an epoch; each batch counts with its number of people."""

    def __init__(self) -> None:
        self.people, self._sums = 0, {}

    def add(self, people: int, **values: float) -> None:
        self.people += people
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + people * value

    def __getitem__(self, name: str) -> float:
        return self._sums[name] / self.people if self.people else math.nan


def require_finite(loss: float, place: str) -> None:
    """Stop a training that has diverged.

    Raises:
        UserError: the loss is infinite or NaN.
    """
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} in {place}: training stops; try a smaller --lr")


@dataclass(frozen=True)
class Evaluation:
    """How a pose network does on people; preds: f32 [N, 16, 2] px of the photographs, in their order."""

    loss: float
    table: PckTable
    preds: Tensor


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
    for people in progress(loader, title):
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
