"""Evaluates a pose network: over a data set with the flip test, under augmentations, and with masks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch, Sample
from data.heatmap import mirror_heatmaps, whole_pixels
from data.kinds import KINDS
from data.loading.loader import PatchLoader
from data.people import People
from data.skeleton import MEAN
from models.losses import pose_loss
from models.masks import cell_mask
from utils.evaluation.average_precision import KeypointScores, average_precision, keypoint_results
from utils.evaluation.meters import Meters
from utils.evaluation.metrics import PckCounter, PckTable, pck_table, person_pckh
from utils.records.predictions import encode_predictions, encode_results
from utils.run import Run
from utils.system import ranks
from utils.system.process import progress


@dataclass(frozen=True)
class Evaluation:
    """The results of a pose network on people.

    preds: f32 [N, K, 2] px of the photographs, in the people's order. keypoints: results and average
    precision on a data set in COCO's format.
    """

    loss: float
    table: PckTable
    preds: Tensor
    keypoints: KeypointScores | None = None

    def row(self) -> dict[str, float]:
        """The columns of an epoch's row in the history."""
        return {
            "valid_loss": self.loss,
            "valid_pck": self.table.mean,
            "valid_auc": self.table.auc[MEAN],
            **(self.keypoints.row() if self.keypoints else {}),
        }

    def files(self, people: People) -> dict[str, bytes]:
        """The files of its predictions for these people, by suffix."""
        files = {".mat": encode_predictions(self.preds, people)}
        if self.keypoints:
            files[".json"] = encode_results(self.keypoints.results)
        return files

    def __str__(self) -> str:
        return "\n".join(map(str, filter(None, (self.table, self.keypoints))))


def flip_tested_heatmaps(run: Run, network: nn.Module, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Outputs of all stacks for images [M, 3, H, W], and the last one averaged with the mirror image's."""
    outputs = run.forward(network, image)
    mirrored = run.forward(network, image.flip(-1))[-1]
    return outputs, (outputs[-1] + mirror_heatmaps(mirrored, run.skeleton)) / 2


@torch.no_grad()
def evaluate(run: Run, network: nn.Module, loader: PatchLoader, title: str = "valid") -> Evaluation:
    """Score a pose network on the validation people, un-augmented, with the flip test.

    The network is put in eval mode. Ranks share the people; each of them returns the same.
    """
    valid, truth = run.dataset.valid, run.dataset.coco
    found, loss = find_joints(run, network, valid, loader, title)
    points, normalizer = torch.from_numpy(valid.points), torch.from_numpy(valid.normalizer)
    preds = whole_pixels(found[..., :2])
    metric, threshold = run.dataset.metric, run.dataset.threshold
    table = pck_table(preds, points, normalizer, metric, threshold, run.skeleton)
    keypoints = None
    if truth is not None:
        ids = ([row[name] for row in truth.rows] for name in ("image_id", "category_id"))
        results = keypoint_results(found.numpy(), *ids)
        keypoints = average_precision(truth, results, run.skeleton)
    return Evaluation(loss, table, preds, keypoints)


@torch.no_grad()
def find_joints(
    run: Run, network: nn.Module, people: People, loader: PatchLoader, title: str
) -> tuple[Tensor, float]:
    """Predict the joints of all people of a table, un-augmented, with the flip test.

    loader: their batches. The network is put in eval mode. Ranks share the people; each returns the same.

    Returns:
        f64 [N, K, 3], in the order of the table: x and y in px of the photograph, not rounded, and the
        maximum of the joint's heatmap; and the mean loss.
    """
    network.eval()
    means = Meters("loss")
    found = torch.zeros(*people.points.shape[:2], 3, dtype=torch.float64, device=run.device)
    for batch in progress(loader, title, run.opt.bs):
        sample = run.augment(batch, Augmentation.identity(len(batch)))
        outputs, heatmaps = flip_tested_heatmaps(run, network, sample.image)
        means.add(len(batch), loss=pose_loss(outputs, sample.heatmap))
        found[batch.index] = torch.cat((sample.locate(heatmaps), heatmaps.amax((2, 3))[..., None]), dim=-1)
    return ranks.total(found).cpu(), means.read()["loss"]


def sample_pck(run: Run, sample: Sample, heatmaps: Tensor) -> Tensor:
    """PCK f32 [M] of M crops, from the network's heatmaps."""
    pred, threshold = sample.predict(heatmaps), run.dataset.threshold
    return person_pckh(pred, sample.points, sample.normalizer, sample.heatmap, threshold, run.skeleton)


@torch.no_grad()
def crop_pck(run: Run, network: nn.Module, people: PersonBatch, augmentation: Augmentation) -> Tensor:
    """PCK f32 [C, N] of N people under C augmentations each (C * N rows); the network is in eval mode."""
    sample = run.augment(people, augmentation)
    return sample_pck(run, sample, run.forward(network, sample.image)[-1]).view(-1, len(people))


@torch.no_grad()
def evaluation_grid(run: Run, network: nn.Module) -> Tensor:
    """PCK f64 [7, 7] of the validation people by scale bin (rows) and rotation bin (columns).

    Without the flip test; the network is put in eval mode.
    """
    network.eval()
    scales, rotations = KINDS["scale"].means, KINDS["rotation"].means
    counters = [[PckCounter(run.dataset.threshold, run.skeleton) for _ in rotations] for _ in scales]
    for people in progress(run.loader(run.dataset.valid, "drawn"), "grid", run.opt.bs):
        for i, scale in enumerate(scales):
            for j, rotation in enumerate(rotations):
                sample = run.augment(people, Augmentation.fixed(len(people), scale, rotation))
                heatmaps = run.forward(network, sample.image)[-1]
                counters[i][j].add(heatmaps, sample)
    return torch.tensor([[counter.read() for counter in row] for row in counters], dtype=torch.float64)


@torch.no_grad()
def masked_pck(run: Run, network: nn.Module, sample: Sample, cells: list[Tensor]) -> Tensor:
    """PCK f32 [C, N] of N crops under C masks each, of cells int64 [N, M]; the network is in eval mode."""
    crops = len(cells)
    image, mask = sample.image.repeat(crops, 1, 1, 1), cell_mask(torch.cat(cells), run.cells)
    heatmaps = run.forward(network, image, mask)[-1]
    return torch.stack([sample_pck(run, sample, maps) for maps in heatmaps.split(len(sample.image))])


@torch.no_grad()
def occlusion_grid(run: Run, network: nn.Module) -> tuple[Tensor, float]:
    """PCK of the validation people with each single cell masked, f64 [side, side], and without a mask.

    Un-augmented, without the flip test; the network is put in eval mode.
    """
    network.eval()
    side = run.cells
    plain = PckCounter(run.dataset.threshold, run.skeleton)
    masked = [PckCounter(run.dataset.threshold, run.skeleton) for _ in range(side * side)]
    for people in progress(run.loader(run.dataset.valid, "identity"), "occlusion", run.opt.bs):
        sample = run.augment(people, Augmentation.identity(len(people)))
        plain.add(run.forward(network, sample.image)[-1], sample)
        for cell, counter in enumerate(masked):
            mask = cell_mask(torch.full((len(people), 1), cell, device=run.device), side)
            counter.add(run.forward(network, sample.image, mask)[-1], sample)
    grid = torch.tensor([counter.read() for counter in masked], dtype=torch.float64)
    return grid.view(side, side), plain.read()


@contextmanager
def undisturbed(*networks: nn.Module) -> Iterator[None]:
    """Put networks in eval mode, without gradients; afterwards each module is in the same mode as before."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
