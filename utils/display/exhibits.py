"""Draws the exhibits of agents as sections of a page."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.kinds import KINDS
from utils.agents.exhibit import Exhibit, MeanDistribution, View
from utils.display.drawing import encode_jpeg, label_cells, shade_cells
from utils.display.gallery import Crops, person_name, predict_crops
from utils.display.sections import Bars, Person, Picture, Section, cell_grid
from utils.run import Run

_MINUS = "\u2212"


def draw_exhibits(
    run: Run, network: nn.Module, exhibits: Sequence[Exhibit | MeanDistribution]
) -> list[Section]:
    """A section for each exhibit; the skeletons are the pose network's predictions."""
    return [
        Section(one.title, one.note, grid=cell_grid(one.shares))
        if isinstance(one, MeanDistribution)
        else Section(one.title, one.note, _people(run, network, one))
        for one in exhibits
    ]


def _people(run: Run, network: nn.Module, exhibit: Exhibit) -> list[Person]:
    batch = run.batch(exhibit.people, exhibit.rows, exhibit.margin)
    plain = predict_crops(run, network, run.augment(batch, Augmentation.identity(len(batch))))
    views = [(view, _crops(run, network, batch, view)) for view in exhibit.views]
    remarks = exhibit.remarks or [""] * len(batch)
    return [
        Person(
            person_name(exhibit.people, row) + remark,
            _pictures(run, exhibit, plain, views, k),
            [
                Bars(
                    *(one.title, one.labels, one.shares[k].tolist(), int(one.drawn[k])),
                    None if one.targets is None else one.targets[k].tolist(),
                )
                for one in exhibit.distributions
            ],
        )
        for k, (row, remark) in enumerate(zip(exhibit.rows, remarks, strict=True))
    ]


def _crops(run: Run, network: nn.Module, people: PersonBatch, view: View) -> Crops:
    """The people's crops in a view, with masked cells darkened."""
    crops = predict_crops(run, network, run.augment(people, view.augmentation), view.mask)
    if view.mask is None:
        return crops
    hidden = (view.mask[:, 0] == 0).cpu().numpy()
    return replace(
        crops, image=np.stack([shade_cells(*one) for one in zip(crops.image, hidden, strict=True)])
    )


def _pictures(
    run: Run, exhibit: Exhibit, plain: Crops, views: list[tuple[View, Crops]], k: int
) -> list[Picture]:
    """Pictures of person k in each view; joints lost to a mask are crossed out."""
    pictures = []
    for view, crops in views:
        lost = None if view.mask is None else plain.found[k] & ~crops.found[k]
        words = [*_changes(view.augmentation, k), f"{run.dataset.metric} {100 * crops.pck[k]:.0f}\u00a0%"]
        if lost is not None:
            words.append(f"{lost.sum()} {'joint' if lost.sum() == 1 else 'joints'} lost")
        pictures.append(Picture(crops.skeletons(k, lost=lost), f"{view.title}: {', '.join(words)}"))
    for place, (title, shares) in enumerate(exhibit.cells.items(), 1):
        cells = label_cells(plain.image[k], shares[k].double().cpu().numpy())
        pictures.insert(place, Picture(encode_jpeg(cells), title))
    if exhibit.heatmaps:
        crops = views[-1][1]
        pictures.append(Picture(crops.heat(k), f"heatmaps, highest {crops.heatmaps[k].max():.2f}"))
    return pictures


def _changes(augmentation: Augmentation, k: int) -> list[str]:
    """Text for each kind of augmentation applied to person k: its name and value."""
    values = {kind: getattr(augmentation, kind.field)[k].item() for kind in KINDS.values()}
    return [
        f"{kind.name} {value:+.2g}{kind.unit}".replace("-", _MINUS) for kind, value in values.items() if value
    ]
