"""The page of a data set: what is known of its people before training, and how some of them look."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.augmentation import Augmentation
from data.crops import augment
from data.datasets import DATASETS
from data.geometry import PIXELS_PER_SCALE
from data.people import People, annotated, evenly_spread, scorable
from data.skeleton import Skeleton
from utils.display.drawing import draw_frame, draw_skeleton, encode_jpeg, number_joints
from utils.display.gallery import person_name
from utils.display.markup import gallery_page
from utils.display.sections import Bars, Person, Picture, Section
from utils.run import Run
from utils.system.files import write_file

DATA_PAGE = "data.html"
PEOPLE = 24
_SIDE = 384  # px of a picture
_ZOOM = 1.25  # side of a picture / side of the box
_MARGIN = "scale"  # the augmentation whose patches are large enough for it
_BINS = 10  # of the histogram of boxes
_KEY = "Rings: annotated joints, with their numbers. White frame: the person's box, which the network sees."


def write_data_page(run: Run) -> Path:
    """Write `web/data.html` in the run's folder: counts, what was left out, joints, and a few people.

    Only the photographs of these few are read, and no random numbers are drawn.

    Raises:
        DataError: a photograph does not decode.
        OSError, UserError: the folder cannot be written to.
    """
    splits = {"training": run.dataset.train, "validation": run.dataset.valid}
    shown = dict(zip(splits, _shown_rows(*map(len, splits.values())), strict=True))
    sections = [
        _people_section(run, splits),
        Section("Messages", "What the log says of reading the data.", lines=run.dataset.notes),
        _joints_section(run.skeleton, splits),
        *(_gallery(run, split, splits[split], rows) for split, rows in shown.items() if len(rows)),
        _mirror_section(run, splits["training"], shown["training"]),
        _boxes_section(splits),
    ]
    path = run.folder / "web" / DATA_PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    heading, back = f"Data set {run.dataset.name}", ("index.html", run.opt.exp_id)
    write_file(path, gallery_page(run.opt.exp_id, heading, sections, back=back, key=_KEY))
    return path


def _shown_rows(train: int, valid: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `PEOPLE` training and validation people, half of them of each split if it has so many."""
    shown = min(train, max(PEOPLE // 2, PEOPLE - valid))
    return evenly_spread(train, shown), evenly_spread(valid, PEOPLE - shown)


def _people_section(run: Run, splits: dict[str, People]) -> Section:
    dataset, skeleton = run.dataset, run.skeleton
    header = ["", "photographs", "people", "scored", "joints per person", "side of the box, px"]
    rows = []
    for split, people in splits.items():
        joints = annotated(people.points).sum(axis=1)
        numbers = [len(np.unique(people.image)), len(people), np.count_nonzero(scorable(people, skeleton))]
        rows.append([split, *map(str, numbers), _range(joints), _range(_sides(people))])
    note = (
        f"Metric: {dataset.metric_name}, where the reference length is {DATASETS[dataset.name].reference}. "
        "People without it or without a scored joint are not scored. Ranges: smallest, median, largest."
    )
    return Section("People", note, table=[header, *rows])


def _range(values: np.ndarray) -> str:
    return " · ".join(f"{value:.0f}" for value in np.quantile(values, (0, 0.5, 1))) if len(values) else "–"


def _sides(people: People) -> np.ndarray:
    """Sides of the people's boxes, [N] px."""
    return PIXELS_PER_SCALE * people.scale


def _joints_section(skeleton: Skeleton, splits: dict[str, People]) -> Section:
    """Counts of annotated joints by split, and what a mirror and the metrics make of each joint."""
    counts = {split: annotated(people.points).sum(axis=0) for split, people in splits.items()}
    rows = [["joint", "side", "mirrored to", "scored", "sigma", *splits]]
    for joint, name in enumerate(skeleton.joints):
        partner = skeleton.mirror[joint]
        mirrored = f"{partner} {skeleton.joints[partner]}" if partner != joint else "–"
        scored = "yes" if joint in skeleton.scored else "no"
        cells = [_count(counts[split][joint], len(people)) for split, people in splits.items()]
        sigma = f"{skeleton.sigmas[joint]:g}" if skeleton.sigmas else "–"
        rows.append([f"{joint} {name}", skeleton.sides[joint], mirrored, scored, sigma, *cells])
    never = [name for name, count in zip(skeleton.joints, counts["training"], strict=True) if not count]
    note = (
        f"{len(skeleton)} joints, {len(skeleton.pairs)} left-right pairs, {len(skeleton.bones)} bones. "
        "Counts: people with this joint annotated."
    )
    if never:
        note += f" Never annotated in training, so the network cannot learn them: {', '.join(never)}."
    return Section("Joints", note, table=rows)


def _count(count: int, people: int) -> str:
    return f"{count} ({100 * count / people:.0f}\u00a0%)" if count else "\u26a0 never"


def _boxes_section(splits: dict[str, People]) -> Section:
    sides = {split: _sides(people) for split, people in splits.items() if len(people)}
    every = np.concatenate(list(sides.values()))
    edges = np.geomspace(0.99 * every.min(), 1.01 * every.max(), _BINS + 1)
    labels = [f"{edge:.0f}" for edge in edges[:-1]]
    bars = [
        Bars(split, labels, (np.histogram(side, edges)[0] / len(side)).tolist())
        for split, side in sides.items()
    ]
    note = "Share of people in %, by the side of the box in px. Numbers below are where bars begin."
    return Section("Sizes of boxes", note, bars=bars)


def _gallery(run: Run, split: str, people: People, rows: np.ndarray) -> Section:
    """Pictures of the people in these rows."""
    pictures = _draw(run, people, rows, mirrored=False)
    note = f"{len(rows)} of {len(people)} people, evenly spread over the annotation file."
    shown = [
        Person(_name(people, row), [Picture(picture, _describe(people, row))])
        for row, picture in zip(rows, pictures, strict=True)
    ]
    return Section(f"{split.capitalize()} people", note, shown)


def _mirror_section(run: Run, people: People, rows: np.ndarray) -> Section:
    """The person in these rows with most joints in pairs, and the mirror image that training makes."""
    paired = annotated(people.points[rows])[:, np.ravel(run.skeleton.pairs).astype(int)].sum(axis=1)
    row = rows[[int(paired.argmax())]]
    pictures = [
        Picture(_draw(run, people, row, mirrored)[0], "mirrored" if mirrored else "as it is")
        for mirrored in (False, True)
    ]
    note = (
        "Training mirrors people. In a mirror a left hand is a right one: each limb must have the color and "
        "number of the other side. If it keeps its own, pairs are missing: name them with --mirror_pairs."
    )
    return Section("A mirrored person", note, [Person(_name(people, row[0]), pictures)])


def _draw(run: Run, people: People, rows: np.ndarray, mirrored: bool) -> list[bytes]:
    """JPEGs of crops with some surroundings of the box, with the annotated skeletons."""
    batch = run.batch(people, rows, _MARGIN, _SIDE)
    flip = torch.full((len(rows),), mirrored)
    augmentation = replace(Augmentation.fixed(len(rows), math.log2(_ZOOM), 0), flip=flip)
    sample = augment(batch, augmentation, _SIDE, _SIDE // 4, run.skeleton)
    images = (255 * sample.image).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    points = sample.in_crop(sample.points, _SIDE).cpu().numpy()
    known = annotated(sample.points).cpu().numpy()
    return [_picture(*one, _SIDE / _ZOOM, run.skeleton) for one in zip(images, points, known, strict=True)]


def _picture(
    image: np.ndarray, joints: np.ndarray, known: np.ndarray, side: float, skeleton: Skeleton
) -> bytes:
    image = draw_frame(image, side)
    image = draw_skeleton(image, joints, known, truth=True, skeleton=skeleton)
    return encode_jpeg(number_joints(image, joints, known))


def _name(people: People, row: int) -> str:
    annotation = f", annotation {people.id[row]}" if people.id.any() else ""
    return person_name(people, row) + annotation


def _describe(people: People, row: int) -> str:
    known = annotated(people.points[row])
    return f"{known.sum()} of {len(known)} joints, box of {_sides(people)[row]:.0f} px"
