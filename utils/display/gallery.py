"""What an epoch's page shows: people, and crops of them with what the networks say.

Nothing here touches the run's random numbers, the networks' modes or their statistics: training goes on as if
no page were written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from data import DataError
from data.augmentation import MARGINS, Augmentation
from data.crops import PersonBatch, Sample
from data.kinds import KINDS
from data.loading.patches import Patches
from data.people import People, annotated, scorable
from data.skeleton import SCORED_JOINTS
from utils.agents.scale_rotation import agent_logits, draw
from utils.display.drawing import (
    clear_peaks,
    cross_out,
    draw_skeleton,
    encode_jpeg,
    enlarge,
    overlay_heatmaps,
)
from utils.display.sections import Bars, Grid, Person, Picture, Section
from utils.evaluation.evaluate import Evaluation, undisturbed
from utils.evaluation.metrics import normalized_distances, person_pckh
from utils.run import Run

PEOPLE = 4  # in a row of a gallery
_MINUS = "\u2212"


def pose_gallery(run: Run, network: nn.Module, evaluation: Evaluation) -> list[Section]:
    """Validation people with predicted and true skeletons and heatmaps: always the same, best, and worst."""
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
    sample = run.augment(load(run, people, rows, "identity"), Augmentation.identity(len(rows)))
    crops, metric_name = look(run, network, sample), run.dataset.metric_name
    preds = evaluation.preds[torch.from_numpy(rows)].to(run.device)
    flip_tested = sample.in_crop(preds, crops.side).cpu().numpy()
    made = {}
    for k, row in enumerate(rows):
        scored = "not scored" if np.isnan(share[row]) else f"{metric_name} {100 * share[row]:.0f}\u00a0%"
        skeleton = Picture(crops.skeletons(k, flip_tested[k]), "prediction and truth")
        heat = Picture(crops.heat(k), f"heatmaps, highest {crops.heatmaps[k].max():.2f}")
        made[row] = Person(f"{person_name(people, row)}: {scored}", [skeleton, heat])
    note = "Skeletons are predicted with the flip test; heatmaps are of the crop alone, without it."
    return [Section(title, note, [made[row] for row in group]) for title, group in groups.items()]


def agent_gallery(run: Run, network: nn.Module, agent: nn.Module, epoch: int) -> list[Section]:
    """The same validation people each epoch: not augmented, as the agent draws them, and drawn at random.

    epoch: seeds the draws, which are no draws of the run.
    """
    people, generator = run.dataset.valid, Generator().manual_seed(epoch)
    rows = fixed_rows(people)
    batch = load(run, people, rows, "drawn")
    identity = Augmentation.identity(len(rows))
    sample = run.augment(batch, identity)
    with undisturbed(network, agent):
        logits = agent_logits(run, network, agent, sample.image)
    drawn, bins = draw(logits, batch, generator)
    random = Augmentation.random(len(rows), generator).only(*(kind.field for kind in KINDS.values()))
    augmentation = Augmentation.cat([identity, drawn, random])
    crops = look(run, network, run.augment(batch, augmentation))
    persons = []
    for k, row in enumerate(rows):
        pictures = [
            _augmented(run, crops, augmentation, place * len(rows) + k, title)
            for place, title in enumerate(("not augmented", "agent", "random"))
        ]
        bars = [
            Bars(
                f"{kind.label}, %",
                [f"{mean:g}" for mean in kind.means],
                logits[kind.name][k].softmax(dim=0).tolist(),
                int(bins[kind.name][k]),
            )
            for kind in KINDS.values()
        ]
        persons.append(Person(person_name(people, row), pictures, bars))
    note = (
        f"Predictions without the flip test; {run.dataset.metric_name} over the joints in the crop. The bars "
        "are what the agent predicts from the crop that is not augmented, the red ones what it drew."
    )
    return [Section("The agent against random augmentation", note, persons)]


def hardest_gallery(run: Run, network: nn.Module, hardest: Sequence[dict]) -> list[Section]:
    """The agent's draws of an epoch that lost most joints.

    hardest: of each the training person's `row`, the `kind` and the `value` that was drawn, and the shares of
    joints that were found under it, `pck_agent`, and under the random draw beside it, `pck_random`.
    """
    if not hardest:
        return []
    people, rows = run.dataset.train, np.array([one["row"] for one in hardest])
    augmentation = Augmentation.identity(len(rows))
    for k, one in enumerate(hardest):
        getattr(augmentation, KINDS[one["kind"]].field)[k] = one["value"]
    crops = look(run, network, run.augment(load(run, people, rows, "drawn"), augmentation))
    persons = [
        Person(
            f"{person_name(people, row)}: {run.dataset.metric_name} {100 * one['pck_agent']:.0f}\u00a0%, "
            f"{100 * one['pck_random']:.0f}\u00a0% under the random draw",
            [
                _augmented(run, crops, augmentation, k, "at the epoch's end"),
                Picture(crops.heat(k), f"heatmaps, highest {crops.heatmaps[k].max():.2f}"),
            ],
        )
        for k, (row, one) in enumerate(zip(rows, hardest, strict=True))
    ]
    note = "The agent's draws for training people that lost most against the random ones, re-evaluated."
    return [Section("Hardest augmentations of the epoch", note, persons)]


def grid_section(run: Run, shares: Tensor) -> list[Section]:
    """PCK [7, 7] of the validation people under each mean of a scale bin (row) and rotation bin (column)."""
    scales, rotations = ([f"{mean:g}" for mean in KINDS[name].means] for name in ("scale", "rotation"))
    rows, columns = KINDS["scale"].label, KINDS["rotation"].label
    note = f"{run.dataset.metric_name} in %, without the flip test; rows: {rows}, columns: {columns}."
    return [Section("By scale and rotation", note, grid=Grid("", scales, rotations, shares.tolist()))]


@dataclass(frozen=True)
class Crops:
    """M crops as pictures. All in the crops' px, `side` of them.

    image: u8 [M, side, side, 3]. heatmaps: f32 [M, 16, h, w]. pred, truth: [M, 16, 2]. known, found: bool
    [M, 16], whether there is a truth, and whether pred is within its threshold. pck: f32 [M].
    """

    side: int
    image: np.ndarray
    heatmaps: np.ndarray
    pred: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    found: np.ndarray
    pck: np.ndarray

    def skeletons(self, k: int, pred: np.ndarray | None = None, lost: np.ndarray | None = None) -> bytes:
        """Crop k with its true skeleton and its predicted one, or `pred` [16, 2] px instead; a JPEG.

        lost: bool [16], joints whose true places are crossed out.
        """
        joints = self.pred[k] if pred is None else pred
        image = draw_skeleton(self.image[k], self.truth[k], self.known[k], truth=True)
        drawn = clear_peaks(self.heatmaps[k].max(axis=(1, 2)))
        image = draw_skeleton(image, joints, drawn)
        return encode_jpeg(image if lost is None else cross_out(image, self.truth[k][lost]))

    def heat(self, k: int) -> bytes:
        """Crop k under its heatmaps, a JPEG."""
        return encode_jpeg(overlay_heatmaps(self.image[k], self.heatmaps[k]))


def look(run: Run, network: nn.Module, sample: Sample, mask: Tensor | None = None) -> Crops:
    """Predict the joints of augmented people, without the flip test; mask: f32 [M, 1, side, side], if any."""
    images = sample.image.split(run.opt.bs)
    masks = [None] * len(images) if mask is None else mask.split(run.opt.bs)
    with undisturbed(network):
        parts = zip(images, masks, strict=True)
        heatmaps = torch.cat([run.forward(network, image, part)[-1] for image, part in parts])
    pred = sample.predict(heatmaps)
    found = normalized_distances(pred, sample.points, sample.normalizer) <= run.dataset.threshold
    pck = person_pckh(pred, sample.points, sample.normalizer, sample.heatmap, run.dataset.threshold)
    side = run.opt.display_winsize
    image = (255 * sample.image).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return Crops(
        side,
        np.stack([enlarge(one, side) for one in image]),
        heatmaps.cpu().numpy(),
        sample.in_crop(pred, side).cpu().numpy(),
        sample.in_crop(sample.points, side).cpu().numpy(),
        annotated(sample.points).cpu().numpy(),
        found.cpu().numpy(),
        pck.cpu().numpy(),
    )


def load(run: Run, people: People, rows: np.ndarray, augmentation: str) -> PersonBatch:
    """These people with patches for an augmentation of `data.augmentation.MARGINS`, on the run's device.

    Not by a `DataLoader`, which would draw from PyTorch's global random numbers.

    Raises:
        DataError: a photograph does not decode.
    """
    patches = Patches(people, run.dataset.root, run.opt.in_res, MARGINS[augmentation])
    batch = patches[[int(row) for row in rows]]
    if isinstance(batch, DataError):
        raise batch
    return batch.to(run.device)


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
    values = {kind: getattr(augmentation, kind.field)[k].item() for kind in KINDS.values()}
    what = [
        f"{kind.name} {value:+.2g}{kind.unit}".replace("-", _MINUS) for kind, value in values.items() if value
    ]
    score = f"{run.dataset.metric} {100 * crops.pck[k]:.0f}\u00a0%"
    return Picture(crops.skeletons(k), f"{title}: {', '.join([*what, score])}")


def person_name(people: People, row: int) -> str:
    """How pages call a person."""
    return f"{people.image[row].rpartition('/')[2]}, person {row}"
