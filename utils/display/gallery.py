"""The galleries of a page: crops of people with predictions, and PCK by scale and rotation.

Nothing here changes the run's random generators, or the modes and statistics of networks: pages do not affect
training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from data.crops import Sample
from data.kinds import KINDS
from data.people import People, annotated, fixed_rows
from data.skeleton import Skeleton
from utils.display.drawing import (
    clear_peaks,
    cross_out,
    draw_skeleton,
    encode_jpeg,
    enlarge,
    overlay_heatmaps,
)
from utils.display.sections import Grid, Person, Picture, Section
from utils.evaluation.evaluate import Evaluation, sample_pck, undisturbed
from utils.evaluation.metrics import normalized_distances
from utils.run import Run

PEOPLE = 4  # in a row of a gallery


def pose_gallery(run: Run, network: nn.Module, evaluation: Evaluation) -> list[Section]:
    """Validation people with predicted and true skeletons and heatmaps: a fixed few, the best, the worst."""
    people = run.dataset.valid
    share, distance = _shares(run, people, evaluation.preds)
    known = np.flatnonzero(~np.isnan(share))
    ranked = known[np.lexsort((distance[known], -share[known]))]
    count = min(PEOPLE, len(ranked) // 2)
    groups = {
        "The same people on every page": fixed_rows(people, run.skeleton, PEOPLE),
        f"Highest {run.dataset.metric_name}": ranked[:count],
        f"Lowest {run.dataset.metric_name}": ranked[::-1][:count],
    }
    rows = np.unique(np.concatenate(list(groups.values())))
    if not len(rows):
        return []
    sample = run.augment(run.batch(people, rows, "identity"), Augmentation.identity(len(rows)))
    crops, metric_name = predict_crops(run, network, sample), run.dataset.metric_name
    preds = evaluation.preds[torch.from_numpy(rows)].to(run.device)
    flip_tested = sample.in_crop(preds, crops.side).cpu().numpy()
    shown = {}
    for k, row in enumerate(rows):
        scored = "not scored" if np.isnan(share[row]) else f"{metric_name} {100 * share[row]:.0f}\u00a0%"
        skeleton = Picture(crops.skeletons(k, flip_tested[k]), "prediction and truth")
        heat = Picture(crops.heat(k), f"heatmaps, highest {crops.heatmaps[k].max():.2f}")
        shown[row] = Person(f"{person_name(people, row)}: {scored}", [skeleton, heat])
    note = "Skeletons are predicted with the flip test, heatmaps without it."
    return [Section(title, note, [shown[row] for row in group]) for title, group in groups.items()]


def grid_section(shares: Tensor, metric_name: str) -> Section:
    """PCK [7, 7] of the validation people at the mean of each scale bin (rows) and rotation bin (columns)."""
    scales, rotations = ([f"{mean:g}" for mean in KINDS[name].means] for name in ("scale", "rotation"))
    rows, columns = KINDS["scale"].label, KINDS["rotation"].label
    note = f"{metric_name} in %, without the flip test; rows: {rows}, columns: {columns}."
    return Section("By scale and rotation", note, grid=Grid(scales, rotations, shares.tolist()))


@dataclass(frozen=True)
class Crops:
    """M crops as pictures of `side` x `side` px; coordinates are in px of these.

    image: u8 [M, side, side, 3]. heatmaps: f32 [M, K, h, w]. pred, truth: [M, K, 2]. known, found: bool
    [M, K], whether the joint is annotated, and whether pred is within the threshold. pck: f32 [M].
    """

    side: int
    skeleton: Skeleton
    image: np.ndarray
    heatmaps: np.ndarray
    pred: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    found: np.ndarray
    pck: np.ndarray

    def skeletons(self, k: int, pred: np.ndarray | None = None, lost: np.ndarray | None = None) -> bytes:
        """Crop k with its true and predicted skeletons, as a JPEG.

        pred: [K, 2] px, drawn instead of the crop's prediction. lost: bool [K], joints to cross out.
        """
        joints = self.pred[k] if pred is None else pred
        image = draw_skeleton(self.image[k], self.truth[k], self.known[k], truth=True, skeleton=self.skeleton)
        drawn = clear_peaks(self.heatmaps[k].max(axis=(1, 2)))
        image = draw_skeleton(image, joints, drawn, skeleton=self.skeleton)
        return encode_jpeg(image if lost is None else cross_out(image, self.truth[k][lost]))

    def heat(self, k: int) -> bytes:
        """Crop k with its heatmaps overlaid, as a JPEG."""
        return encode_jpeg(overlay_heatmaps(self.image[k], self.heatmaps[k], self.skeleton))


def predict_crops(run: Run, network: nn.Module, sample: Sample, mask: Tensor | None = None) -> Crops:
    """Predict the joints in M crops, without the flip test; mask: f32 [M, 1, cells, cells].

    Joints that no training person has are not found, and their heatmaps are 0.
    """
    images = sample.image.split(run.opt.bs)
    masks = [None] * len(images) if mask is None else mask.split(run.opt.bs)
    with undisturbed(network):
        parts = zip(images, masks, strict=True)
        heatmaps = torch.cat([run.forward(network, image, part)[-1] for image, part in parts])
    pck, trained = sample_pck(run, sample, heatmaps), torch.from_numpy(run.trained_joints)
    trained = trained.to(run.device)
    heatmaps = heatmaps * trained[:, None, None]
    pred = sample.predict(heatmaps)
    found = normalized_distances(pred, sample.points, sample.normalizer) <= run.dataset.threshold
    side = run.opt.display_winsize
    image = (255 * sample.image).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return Crops(
        side,
        run.skeleton,
        np.stack([enlarge(one, side) for one in image]),
        heatmaps.cpu().numpy(),
        sample.in_crop(pred, side).cpu().numpy(),
        sample.in_crop(sample.points, side).cpu().numpy(),
        annotated(sample.points).cpu().numpy(),
        (found & trained).cpu().numpy(),
        pck.cpu().numpy(),
    )


def _shares(run: Run, people: People, preds: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For each person, the share of scored joints within the threshold and their mean distance, or NaN."""
    points, normalizer = torch.from_numpy(people.points), torch.from_numpy(people.normalizer)
    distance = normalized_distances(preds, points, normalizer)[:, run.skeleton.scored]
    total = (~distance.isnan()).sum(dim=1)
    share = torch.where(total > 0, (distance <= run.dataset.threshold).sum(dim=1) / total, torch.nan)
    return share.numpy(), distance.nanmean(dim=1).numpy()


def person_name(people: People, row: int) -> str:
    """The name of a person on pages."""
    return f"{people.image[row].rpartition('/')[2]}, person {row}"
