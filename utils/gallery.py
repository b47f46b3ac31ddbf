"""What an epoch's page shows: people, and crops of them with what the networks say.

Nothing here touches the run's random numbers, the networks' modes or their statistics: training goes on as if
no page were written.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from data.annotations import People, annotated
from data.augment import BIN_MEANS, MARGINS, Augmentation, PersonBatch, augment
from data.errors import DataError
from data.geometry import transform_points
from data.heatmap import predict_points
from data.patches import Patches
from utils.agents import agent_logits
from utils.drawing import clear_peaks, draw_skeleton, encode_jpeg, enlarge, overlay_heatmaps
from utils.loops import Evaluation
from utils.metrics import SCORED_JOINTS, normalized_distances, person_pckh, scorable
from utils.runs import Run
from utils.sections import Bars, Grid, Person, Picture, Section

PEOPLE = 4  # in a row of a gallery
_MINUS = "\u2212"


def pose_gallery(run: Run, network: nn.Module, evaluation: Evaluation) -> list[Section]:
    """Validation people with predicted and true skeletons and heat maps: always the same, best, and worst."""
    people = run.dataset.valid
    share, distance = _shares(people, evaluation.preds, run.dataset.threshold)
    known = np.flatnonzero(~np.isnan(share))
    ranked = known[np.lexsort((distance[known], -share[known]))]
    count = min(PEOPLE, len(ranked) // 2)
    groups = {
        "The same people each epoch": fixed_rows(people),
        "Best of this epoch": ranked[:count],
        "Worst of this epoch": ranked[::-1][:count],
    }
    rows = np.unique(np.concatenate(list(groups.values())))
    if not len(rows):
        return []
    identity = Augmentation.identity(len(rows))
    crops = look(run, network, load(run, people, rows, "identity"), identity)
    preds, measure = evaluation.preds[torch.from_numpy(rows)], run.dataset.score
    made = {}
    for k, row in enumerate(rows):
        scored = "not scored" if np.isnan(share[row]) else f"{measure} {100 * share[row]:.0f}\u00a0%"
        skeleton = Picture(crops.skeletons(k, preds[k]), "prediction and truth")
        heat = Picture(crops.heat(k), f"heat maps, highest {crops.heatmaps[k].max():.2f}")
        made[row] = Person(f"{_name(people, row)}: {scored}", [skeleton, heat])
    note = "Skeletons are predicted with the flip test; heat maps are of the crop alone, without it."
    return [Section(title, note, [made[row] for row in group]) for title, group in groups.items()]


def agent_gallery(run: Run, network: nn.Module, agent: nn.Module, epoch: int) -> list[Section]:
    """The same validation people each epoch: not augmented, as the agent draws them, and drawn at random.

    epoch: seeds the draws, which are no draws of the run.
    """
    people, generator = run.dataset.valid, Generator().manual_seed(epoch)
    rows = fixed_rows(people)
    batch = load(run, people, rows, "drawn")
    identity = Augmentation.identity(len(rows))
    sample = augment(batch, identity, run.opt.in_res, run.opt.out_res)
    with undisturbed(network, agent):
        logits = agent_logits(run, network, agent, sample.image)
    shares = [logit.softmax(dim=1).cpu() for logit in logits]
    bins = [torch.multinomial(share, 1, generator=generator)[:, 0] for share in shares]
    drawn = Augmentation.drawn(*bins, generator)
    chance = Augmentation.random(len(rows), generator).only("log2_scale", "rotation")
    augmentation = Augmentation.cat([identity, drawn, chance])
    crops = look(run, network, batch, augmentation)
    persons = []
    for k, row in enumerate(rows):
        pictures = [
            _augmented(run, crops, augmentation, kind * len(rows) + k, title)
            for kind, title in enumerate(("not augmented", "agent", "random"))
        ]
        bars = [
            Bars(title, [f"{mean:g}" for mean in BIN_MEANS[kind]], share[k].tolist(), int(chosen[k]))
            for kind, title, share, chosen in zip(
                BIN_MEANS, ("scale (log2), %", "rotation (°), %"), shares, bins, strict=True
            )
        ]
        persons.append(Person(_name(people, row), pictures, bars))
    note = (
        f"Predictions without the flip test; {run.dataset.score} over the joints in the crop. The bars are "
        "what the agent predicts from the crop that is not augmented, the red ones what it drew."
    )
    return [Section("The agent against random augmentation", note, persons)]


def hardest_gallery(run: Run, network: nn.Module, hardest: Sequence[dict]) -> list[Section]:
    """The agent's draws of an epoch that lost most joints.

    hardest: of each the training person's `row`, `log2_scale`, `rotation` (degrees), and the shares of joints
    that were found under it, `pck_agent`, and under the random draw beside it, `pck_random`.
    """
    if not hardest:
        return []
    people, rows = run.dataset.train, np.array([one["row"] for one in hardest])
    augmentation = Augmentation(
        torch.tensor([float(one["log2_scale"]) for one in hardest]),
        torch.tensor([float(one["rotation"]) for one in hardest]),
        *(getattr(Augmentation.identity(len(rows)), name) for name in ("flip", "color")),
    )
    crops = look(run, network, load(run, people, rows, "drawn"), augmentation)
    persons = [
        Person(
            f"{_name(people, row)}: {run.dataset.score} {100 * one['pck_agent']:.0f}\u00a0%, "
            f"{100 * one['pck_random']:.0f}\u00a0% under the random draw",
            [
                _augmented(run, crops, augmentation, k, "at the epoch's end"),
                Picture(crops.heat(k), f"heat maps, highest {crops.heatmaps[k].max():.2f}"),
            ],
        )
        for k, (row, one) in enumerate(zip(rows, hardest, strict=True))
    ]
    note = "The agent's draws for training people that lost most against the random ones, looked at again."
    return [Section("Hardest augmentations of the epoch", note, persons)]


def grid_section(run: Run, shares: Tensor) -> list[Section]:
    """PCK [7, 7] of the validation people under each mean of a scale bin (row) and rotation bin (column)."""
    scales, rotations = ([f"{mean:g}" for mean in BIN_MEANS[kind]] for kind in ("scale", "rotation"))
    note = (
        f"{run.dataset.score} in %, without the flip test; rows: log2 of scale, columns: degrees of rotation."
    )
    return [Section("By scale and rotation", note, grid=Grid("", scales, rotations, shares.tolist()))]


@dataclass(frozen=True)
class Crops:
    """M crops as pictures. All in the crops' px, `side` of them.

    image: u8 [M, side, side, 3]. heatmaps: f32 [M, 16, h, w]. pred, truth: [M, 16, 2]. known: bool [M, 16],
    whether there is a truth. pck: f32 [M]. boxes: center [M, 2], scale [M], rotation [M] of the crops.
    """

    side: int
    image: np.ndarray
    heatmaps: np.ndarray
    pred: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    pck: np.ndarray
    boxes: tuple[Tensor, Tensor, Tensor]

    def skeletons(self, k: int, pred: Tensor | None = None) -> bytes:
        """Crop k with its true and its predicted skeleton, a JPEG; pred [16, 2] px of the photograph."""
        joints = self.pred[k]
        if pred is not None:
            box = (one[k : k + 1] for one in self.boxes)
            joints = transform_points(pred[None], *box, self.side)[0].numpy()
        image = draw_skeleton(self.image[k], self.truth[k], self.known[k], truth=True)
        drawn = clear_peaks(self.heatmaps[k].max(axis=(1, 2)))
        return encode_jpeg(draw_skeleton(image, joints, drawn))

    def heat(self, k: int) -> bytes:
        """Crop k under its heat maps, a JPEG."""
        return encode_jpeg(overlay_heatmaps(self.image[k], self.heatmaps[k]))


def look(run: Run, network: nn.Module, people: PersonBatch, augmentation: Augmentation) -> Crops:
    """Augment people and predict their joints, without the flip test."""
    sample = augment(people, augmentation, run.opt.in_res, run.opt.out_res)
    with undisturbed(network):
        heatmaps = torch.cat([run.forward(network, part)[-1] for part in sample.image.split(run.opt.bs)])
    boxes = (sample.center, sample.scale, sample.rotation)
    pred = predict_points(heatmaps, *boxes)
    pck = person_pckh(pred, sample.points, sample.normalizer, sample.heatmap, run.dataset.threshold)
    side = run.opt.display_winsize
    image = (255 * sample.image).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return Crops(
        side,
        np.stack([enlarge(one, side) for one in image]),
        heatmaps.cpu().numpy(),
        transform_points(pred, *boxes, side).cpu().numpy(),
        transform_points(sample.points, *boxes, side).cpu().numpy(),
        annotated(sample.points).cpu().numpy(),
        pck.cpu().numpy(),
        tuple(box.cpu() for box in boxes),
    )


def load(run: Run, people: People, rows: np.ndarray, augmentation: str) -> PersonBatch:
    """These people with patches for an augmentation of `data.augment.MARGINS`, on the run's device.

    Not by a `DataLoader`, which would draw from PyTorch's global random numbers.

    Raises:
        DataError: a photograph does not decode.
    """
    patches = Patches(people, run.dataset.root, run.opt.in_res, MARGINS[augmentation])
    batch = patches[[int(row) for row in rows]]
    if isinstance(batch, DataError):
        raise batch
    return batch.to(run.device)


@contextmanager
def undisturbed(*networks: nn.Module) -> Iterator[None]:
    """Networks in eval mode, without gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def fixed_rows(people: People) -> np.ndarray:
    """Rows of a few people who have PCK, evenly spread over the table."""
    known = np.flatnonzero(scorable(people))
    places = np.linspace(0, len(known) - 1, min(PEOPLE, len(known))).round().astype(int)
    return known[places]


def _shares(people: People, preds: Tensor, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Share of each person's scored joints found, and their mean distance; NaN where none is annotated."""
    points, normalizer = torch.from_numpy(people.points), torch.from_numpy(people.normalizer)
    distance = normalized_distances(preds, points, normalizer)[:, SCORED_JOINTS]
    total = (~distance.isnan()).sum(dim=1)
    share = torch.where(total > 0, (distance <= threshold).sum(dim=1) / total, torch.nan)
    return share.numpy(), distance.nanmean(dim=1).numpy()


def _augmented(run: Run, crops: Crops, augmentation: Augmentation, k: int, title: str) -> Picture:
    zoom, turn = 2 ** float(augmentation.log2_scale[k]), round(float(augmentation.rotation[k]))
    angle = f"{turn:+d}°".replace("-", _MINUS) if turn else "0°"
    what = [] if zoom == 1 and not turn else [f"scale ×{zoom:.2f}", angle]
    score = f"{run.dataset.measure} {100 * crops.pck[k]:.0f}\u00a0%"
    return Picture(crops.skeletons(k), f"{title}: {', '.join([*what, score])}")


def _name(people: People, row: int) -> str:
    return f"{people.image[row].rpartition('/')[2]}, person {row}"
