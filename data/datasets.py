"""The data sets by name: their files, readers and metrics."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from data import DataError
from data.coco_truth import CocoTruth
from data.demo import write_demo
from data.demo.discs import paint_discs
from data.loading.fit import people_that_fit
from data.loading.presence import with_photographs
from data.people import People, annotated
from data.readers.checks import FORMATS
from data.readers.coco import read_coco
from data.readers.coco_skeleton import with_pairs
from data.readers.hrnet import read_mpii_json
from data.readers.lsp import read_lsp, read_lspet
from data.readers.mpii import OFFICIAL, VALID_IMAGES, read_h5, read_json, read_official
from data.skeleton import MPII, Skeleton

log = logging.getLogger(__name__)

_AUTHORS = "mpii-hr-lsp-normalizer.json"
Reader = Callable[[Path, str, bool], People]
"""(annotation file, folder of the photographs relative to the data folder, skip_bad) -> the table."""


@dataclass(frozen=True)
class Source:
    """The files and the metric of a data set.

    metric, threshold: how its literature scores joints; see `Dataset`. reference: its reference length, in
    words. files: sets of annotation files, of which the first complete one is read. readers: file suffix ->
    reader. draw: generates the data set in a folder, for one that needs no download. extension: a sibling
    folder and the reader of its joints.mat, whose people join the training split.
    """

    metric: str
    threshold: float
    reference: str
    files: tuple[tuple[str, ...], ...]
    readers: dict[str, Reader]
    draw: Callable[[Path], None] | None = None
    extension: tuple[str, Reader] | None = None


_COCO_ANNOTATIONS = "annotations/person_keypoints_{}2017.json"
_COCO_TRAIN, _COCO_VALID = (_COCO_ANNOTATIONS.format(split) for split in ("train", "val"))
_HEAD = "0.6 times the diagonal of the head box, or its estimate from upper neck and head top"
_MPII_READERS = {".json": read_mpii_json, ".gz": read_mpii_json, ".mat": read_official, ".h5": read_h5}
_LSP_JSON = partial(read_json, dataset="lsp")
DATASETS: dict[str, Source] = {
    "mpii": Source(
        "PCKh",
        0.5,
        _HEAD,
        # First files with exact head sizes and the published splits, then pytorch-pose's with estimated head
        # sizes, then the rest.
        (
            (_AUTHORS,),
            (f"{_AUTHORS}.gz",),
            ("valid.h5", "train.h5"),
            (OFFICIAL, VALID_IMAGES),
            ("annot/train.json", "annot/valid.json", "annot/gt_valid.mat"),
            ("annotations/mpii_train.json", "annotations/mpii_val.json", "annotations/mpii_gt_val.mat"),
            ("mpii_annotations.json",),
            ("mpii_annotations.json.gz",),
            ("annot/train.json", "annot/valid.json"),
            ("annotations/mpii_train.json", "annotations/mpii_val.json"),
            (OFFICIAL,),
            ("valid.h5",),
        ),
        _MPII_READERS,
    ),
    "lsp": Source(
        "PCK",
        0.2,
        "the distance from right hip to left shoulder",
        (("joints.mat",),),
        {".json": _LSP_JSON, ".gz": _LSP_JSON, ".mat": read_lsp},
        extension=("lspet", read_lspet),
    ),
    "coco": Source(
        "PCK",
        0.1,
        "the longer side of bbox",
        ((_COCO_TRAIN, _COCO_VALID), (_COCO_TRAIN,), (_COCO_VALID,)),
        {},
    ),
    "demo": Source("PCKh", 0.5, _HEAD, ((_AUTHORS,),), _MPII_READERS, draw=write_demo),
    "control": Source(
        *("PCKh", 0.5, _HEAD, ((_AUTHORS,),), _MPII_READERS),
        draw=partial(write_demo, train=1200, valid=300, paint=paint_discs, suffix=".png"),
    ),
}


@dataclass(frozen=True)
class Dataset:
    """The people of a data set, their skeleton, and the metric of its literature.

    Photographs are at `root / people.image[i]`. A joint is correct if its error is at most `threshold` times
    the person's normalizer: the head for `metric` "PCKh" (MPII), the torso (LSP) or the longer side of the
    box (COCO) for "PCK". `limited`: whether --limit leaves out validation people. `skeleton`: the joints of
    `people.points`. `coco`: the truth of a validation split in COCO's format. `notes`: what was logged while
    the data set was read, such as who is left out.
    """

    name: str
    root: Path
    people: People
    metric: str
    threshold: float
    limited: bool = False
    skeleton: Skeleton = MPII
    coco: CocoTruth | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def trained_joints(self) -> np.ndarray:
        """Bool [K]: joints that are annotated for any training person; all, if there are no such people."""
        return annotated(self.train.points).any(axis=0) | (not len(self.train))

    @property
    def metric_name(self) -> str:
        """The metric with its threshold, such as PCKh@0.5."""
        return f"{self.metric}@{self.threshold:g}"

    @property
    def train(self) -> People:
        """People of the training split, in the order of the annotation file; may be empty."""
        return self.people[~self.people.valid]

    @property
    def valid(self) -> People:
        """People of the validation split, in the order of the annotation file; may be empty."""
        return self.people[self.people.valid]


def load_dataset(
    name: str,
    data_dir: Path,
    annotations: Path | None = None,
    limit: int | None = None,
    skip_missing: bool = False,
    skip_bad: bool = False,
    annotations_valid: Path | None = None,
    images: Sequence[Path] | None = None,
    mirror_pairs: Sequence[str] | None = None,
) -> Dataset:
    """Load the data set `name`, of `DATASETS`, from `<data_dir>/<name>`.

    Photographs are in `<data_dir>/<name>/images`, the annotation file next to that folder: the first choice
    of `DATASETS` whose files exist. People of LSP's extension in `<data_dir>/lspet`, if it exists, join the
    training split. The demo set is generated if its folder does not exist. COCO's photographs are in
    `<data_dir>/coco/train2017` and `val2017`.

    Args:
        annotations: another annotation file, of a format given by its suffix (.json, .gz, .h5, .mat); the
            extension of LSP is then ignored. Of data set "coco" that of the training split.
        limit: keep only the first `limit` people of each split.
        skip_missing: skip people whose photograph is missing or incomplete, with a warning.
        skip_bad: skip invalid rows of the annotation file, and people who do not fit their photographs, with
            a warning.
        annotations_valid: the annotation file of coco's validation split; without either file, the usual two.
        images: the folder of coco's photographs, or those of the training and of the validation split.
        mirror_pairs: left-right pairs `left:right` of coco's joints; None: those that the names tell.

    Returns:
        The data set; either split may be empty, which callers must check.

    Raises:
        DataError: the data set, its annotation file or a photograph is missing or damaged, people do not fit
            their photographs, or nobody is left.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}: expected one of {', '.join(DATASETS)}")
    source, data_dir = DATASETS[name], Path(data_dir)
    if source.draw is not None and not (data_dir / name).exists():
        try:
            source.draw(data_dir / name)
        except OSError as error:
            if not (data_dir / name).exists():  # else another run has just drawn it
                raise DataError(f"{data_dir / name} cannot be written: {error.strerror}") from error
    if name == "coco":
        files = _coco_files(data_dir, annotations, annotations_valid)
        dataset = _read_coco(data_dir, files, images, mirror_pairs, skip_bad)
        path = next(iter(files.values()))
    else:
        path = Path(annotations) if annotations is not None else find_annotations(name, data_dir)
        people = _read_people(name, data_dir, path, skip_bad, extended=annotations is None)
        dataset = Dataset(name, data_dir, people, source.metric, source.threshold)
    people = dataset.people
    if not len(people):
        raise DataError(f"{path} has no people of data set {name}: expected at least one")
    shared = np.intersect1d(people.image[people.valid], people.image[~people.valid])
    if len(shared):
        count = f"{len(shared)} of {len(np.unique(people.image))}"
        log.warning("%s: %s photographs show people of both splits; first: %s", path, count, shared[0])
    everyone, people = people, with_photographs(people, dataset.root, limit, skip_missing)
    if limit is not None and len(people) == len(everyone):
        numbers = (len(rows) for rows in (dataset.train, dataset.valid))
        log.warning(
            "--limit %d has no effect: there are only %d people for training, %d for validation",
            *(limit, *numbers),
        )
    limited = np.count_nonzero(people.valid) == limit and np.count_nonzero(everyone.valid) > limit
    people = people_that_fit(people, dataset.root, skip_bad)
    truth = dataset.coco and replace(dataset.coco, ids=people.id[people.valid])
    return replace(dataset, people=people, limited=limited, coco=truth)


def _read_people(name: str, data_dir: Path, path: Path, skip_bad: bool, extended: bool) -> People:
    """The people of an annotation file, and with `extended` those of the extension, if its folder exists."""
    source = DATASETS[name]
    log.info("annotations: %s", path)
    reader = source.readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: expected a {', '.join(source.readers)} file for data set {name}; {FORMATS}")
    people = reader(path, f"{name}/images", skip_bad)
    if source.extension is not None and extended:
        folder, read = source.extension
        if (data_dir / folder).is_dir():
            extension = read(data_dir / folder / "joints.mat", f"{folder}/images", skip_bad)
            people = People.concatenate([people, extension])
    return people


def _coco_files(data_dir: Path, annotations: Path | None, annotations_valid: Path | None) -> dict[str, Path]:
    """Split (train, val) -> its annotation file: those that are given, else those of the usual names."""
    given = {"train": annotations, "val": annotations_valid}
    files = {split: Path(path) for split, path in given.items() if path is not None}
    if not files:
        find_annotations("coco", data_dir)  # raises if there is none
        usual = {split: data_dir / "coco" / _COCO_ANNOTATIONS.format(split) for split in given}
        files = {split: path for split, path in usual.items() if path.is_file()}
    return files


def _read_coco(
    data_dir: Path,
    files: dict[str, Path],
    images: Sequence[Path] | None,
    mirror_pairs: Sequence[str] | None,
    skip_bad: bool,
) -> Dataset:
    """The people of COCO's annotation files, by split, all of one skeleton."""
    if images:
        if len(images) > 2:
            raise DataError(f"--images: found {len(images)} folders, expected one, or one for each split")
        folders = {"train": Path(images[0]).absolute(), "val": Path(images[-1]).absolute()}
        root = Path(os.path.commonpath(folders.values()))
    else:
        folders = {split: data_dir / "coco" / f"{split}2017" for split in files}
        root = data_dir
    for split in files:
        if not folders[split].is_dir():
            raise DataError(
                f"{folders[split]} does not exist: expected the photographs there, or --images FOLDER"
            )
    read = {}
    for split, path in files.items():
        log.info("annotations: %s", path)
        folder = folders[split].relative_to(root)
        images_folder = "" if folder == Path() else folder.as_posix()
        read[split] = read_coco(path, images_folder, split == "val", skip_bad)
    if len({file.skeleton.joints for file in read.values()}) > 1:
        numbers = " and ".join(str(len(file.skeleton)) for file in read.values())
        raise DataError(
            f"{files['train']} and {files['val']} have different joints, {numbers}: expected the same names "
            "in the same order"
        )
    last = list(read.values())[-1]  # validation, unless there is only training
    people = People.concatenate([file.people for file in read.values()])
    source = DATASETS["coco"]
    return Dataset(
        *("coco", root, people, source.metric, source.threshold),
        skeleton=with_pairs(last.skeleton, mirror_pairs),
        coco=last.truth,
    )


def find_annotations(name: str, data_dir: Path) -> Path:
    """The path of the annotation file that `load_dataset` reads; for a generated data set it may not exist.

    Raises:
        DataError: there is no such file; the message says where to get one.
    """
    source, folder = DATASETS[name], data_dir / name
    if source.draw is not None and not folder.exists():
        return folder / source.files[0][0]
    for files in source.files:
        if all((folder / file).is_file() for file in files):
            return folder / files[0]
    other = " or another of its files" if len(source.files) > 1 else ""
    own = (
        ", or files of your own by --annotations, --annotations_valid and --images" if name == "coco" else ""
    )
    raise DataError(
        f"no annotations of data set {name} in {folder}: expected {source.files[0][0]}{other}{own}; "
        "see docs/data.md for where to get them, or use --dataset demo, which needs no download"
    )
