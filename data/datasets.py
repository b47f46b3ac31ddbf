"""A data set by its name: where its files are, whose people it has, how it is measured."""

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.annotations import People
from data.demo import write_demo
from data.errors import DataError
from data.lsp import read_lsp, read_lspet
from data.mpii import VALID_IMAGES, read_h5, read_json, read_official

log = logging.getLogger(__name__)

DATASETS = ("mpii", "lsp", "demo")

_AUTHORS = "mpii-hr-lsp-normalizer.json"
_OFFICIAL = "mpii_human_pose_v1_u12_1.mat"
# The first choice whose files are all there is read. Exact head sizes come first, as long as both
# splits are the published ones; then pytorch-pose's estimated ones; then what there is.
_MPII_FILES = (
    (_AUTHORS,),
    (f"{_AUTHORS}.gz",),
    ("valid.h5", "train.h5"),
    (_OFFICIAL, VALID_IMAGES),
    ("mpii_annotations.json",),
    ("mpii_annotations.json.gz",),
    (_OFFICIAL,),
    ("valid.h5",),
)
_FILES = {"mpii": _MPII_FILES, "lsp": (("joints.mat",),), "demo": ((_AUTHORS,),)}
_MEASURES = {"mpii": ("PCKh", 0.5), "lsp": ("PCK", 0.2), "demo": ("PCKh", 0.5)}


@dataclass(frozen=True)
class Dataset:
    """A data set's people, and the measure that its literature reports.

    Photographs are at `root / people.image[i]`. A joint counts as correct within `threshold` times
    the person's normalizer: `measure` "PCKh" is relative to the head (MPII), "PCK" to the torso.
    """

    name: str
    root: Path
    people: People
    measure: str
    threshold: float

    @property
    def score(self) -> str:
        """The measure with its threshold, such as PCKh@0.5."""
        return f"{self.measure}@{self.threshold:g}"

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
) -> Dataset:
    """The data set `name` ("mpii", "lsp" or "demo") from `<data_dir>/<name>`.

    Photographs are in `<data_dir>/<name>/images`, the annotation file beside that folder. For MPII
    it is the first of: mpii-hr-lsp-normalizer.json, train.h5 with valid.h5,
    mpii_human_pose_v1_u12_1.mat with valid_images.txt (all with exact head sizes),
    mpii_annotations.json, the .mat alone, valid.h5 alone; a JSON may be gzipped. For LSP it is
    joints.mat, and where `<data_dir>/lspet` is there its people join the training split. The demo
    set is drawn when its folder is absent.

    annotations: another file instead, its kind told by its suffix (.json, .gz, .h5, .mat); it then
        names everyone, so nobody is added from LSPET.
    limit: keep the first so many people of each split.
    skip_missing: leave out people whose photograph is absent, with a logged count.
    skip_bad: leave out bad rows of the annotation file, with a logged warning.

    Either split may come out empty; callers check the one that they need. Raises DataError where
    the data set, its annotation file or a photograph is absent, for a bad annotation file, and when
    no people are left.
    """
    if name not in DATASETS:
        raise DataError(f"no data set is called {name!r}; there are {', '.join(DATASETS)}")
    data_dir = Path(data_dir)
    if name == "demo" and not (data_dir / name).exists():
        try:
            write_demo(data_dir / name)
        except OSError as error:
            if not (data_dir / name).exists():  # else another run has just drawn it
                raise DataError(f"{data_dir / name} cannot be written: {error.strerror}") from error
    source = _find_annotations(name, data_dir / name) if annotations is None else Path(annotations)
    people = _read(name, source, skip_bad)
    if name == "lsp" and annotations is None and (data_dir / "lspet").is_dir():
        extension = read_lspet(data_dir / "lspet" / "joints.mat", "lspet/images", skip_bad)
        people = People.concatenate([people, extension])
    if not len(people):
        raise DataError(f"{source} has no people of data set {name}")
    people = _with_photographs(people, data_dir, limit, skip_missing)
    measure, threshold = _MEASURES[name]
    return Dataset(name, data_dir, people, measure, threshold)


def _find_annotations(name: str, folder: Path) -> Path:
    for files in _FILES[name]:
        if all((folder / file).is_file() for file in files):
            log.info("annotations: %s", folder / files[0])
            return folder / files[0]
    wanted = ", ".join(" with ".join(files) for files in _FILES[name])
    raise DataError(f"no annotations of data set {name} in {folder}: looked for {wanted}")


def _read(name: str, source: Path, skip_bad: bool) -> People:
    images = f"{name}/images"
    match source.suffix.lower(), name:
        case ((".json" | ".gz"), _):
            return read_json(source, images, "lsp" if name == "lsp" else "mpii", skip_bad)
        case ".mat", "lsp":
            return read_lsp(source, images, skip_bad)
        case ".mat", _:
            return read_official(source, images, skip_bad)
        case ".h5", ("mpii" | "demo"):
            return read_h5(source, images, skip_bad)
    kinds = ".json, .json.gz, .mat" + ("" if name == "lsp" else ", .h5")
    raise DataError(f"{source}: annotations of data set {name} are {kinds} files")


def _with_photographs(people: People, root: Path, limit: int | None, skip_missing: bool) -> People:
    """The first `limit` people of each split; absent photographs are left out or an error."""
    present = _photograph_exists(root, people.image)
    if skip_missing and not present.all():
        log.warning("%d of %d people have a photograph in %s", present.sum(), len(people), root)
        people, present = people[present], present[present]
        if not len(people):
            raise DataError(f"no photograph of any annotated person is in {root}")
    if limit is not None:
        chosen = _first_of_each_split(people.valid, limit)
        people, present = people[chosen], present[chosen]
    if not present.all():
        missing = np.unique(people.image[~present])
        first = root / people.image[~present][0]
        count = f"{len(missing)} of {len(np.unique(people.image))}"
        raise DataError(f"{count} photographs are missing, the first is {first}")
    return people


def _photograph_exists(root: Path, image: np.ndarray) -> np.ndarray:
    # Listing each folder once is far quicker than asking for 25,204 files on a network disk.
    there = set()
    for folder in {path.rpartition("/")[0] for path in image.tolist()}:
        there.update(f"{folder}/{name}" for name in _names_in(root / folder))
    return np.array([path in there for path in image.tolist()], dtype=bool)


def _names_in(folder: Path) -> list[str]:
    """Names of what is in a folder; empty where there is no such folder, or can be none."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except ValueError:  # a character that no path can have
        return []
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return []
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def _first_of_each_split(valid: np.ndarray, limit: int) -> np.ndarray:
    """Row numbers, ascending, of the first `limit` people of either split."""
    return np.sort(np.concatenate([np.flatnonzero(split)[:limit] for split in (valid, ~valid)]))
