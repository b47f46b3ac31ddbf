"""Readers of the annotation files that exist for MPII Human Pose (Andriluka et al., CVPR 2014)."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from data import DataError
from data.people import People, joint_distance
from data.readers.checks import FORMATS, RowChecks, load_json, not_negative, parsing, positive, read_matlab
from data.readers.lsp import BOX_MARGIN, torso_length
from data.skeleton import HEAD_TOP, UPPER_NECK

log = logging.getLogger(__name__)

OFFICIAL, VALID_IMAGES = "mpii_human_pose_v1_u12_1.mat", "valid_images.txt"
HEAD_SIZE = 0.6  # reference length of PCKh / diagonal of the head box
POINT = "finite x and y"
JOINTS = "finite coordinates of 16 joints"
_LARGEST_SCALE = 100  # a box of 20,000 px, three times the largest of MPII; as px, 100 would be a small box
SCALE = f"a number > 0 and <= {_LARGEST_SCALE}, the side of the person's box in px / 200"
_LENGTH = "a finite number >= 0"
_SIDE = "a side of the photograph in px, or 0 where it is unknown"
_SPLIT = "true or false"
_JSON_NAMES = {"mpii": ("MPI", "MPII"), "lsp": ("LEEDS",)}
_HEAD_BOX = ("x1", "y1", "x2", "y2")


def head_size(points: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """PCKh reference length [N] px: 0.6 times the diagonal [N] px of the head box.

    That is the official evaluation's. Where the diagonal is 0, unknown, 0.75 times the distance of
    upper neck and head top in points [N, 16, 2] stands in (within about 3 % of it), and 0 where
    either joint is not annotated.
    """
    estimate = 0.75 * joint_distance(points, UPPER_NECK, HEAD_TOP)
    return np.where(diagonal > 0, HEAD_SIZE * diagonal, estimate)


def person_box(position: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center [N, 2] px and scale [N] of the square from MPII's `objpos` and `scale`.

    The published training code lowers the middle by 15 px per unit of scale and widens the square by
    a quarter, so that feet and hands are inside.
    """
    return position + np.stack([np.zeros_like(scale), 15 * scale], axis=1), 1.25 * scale


def is_scale(values: np.ndarray) -> np.ndarray:
    """Bool, shape of `values`: a box's side in px / 200, and not in px."""
    return positive(values) & (values <= _LARGEST_SCALE)


def read_json(path: Path, images: str, skip_bad: bool = False, dataset: str = "mpii") -> People:
    """A JSON list of people, plain or gzipped: pytorch-pose's `mpii_annotations.json` (rows of data
    set "MPI") or the method's authors' `mpii-hr-lsp-normalizer.json` (rows of "MPII" and "LEEDS").

    `dataset` is "mpii" or "lsp"; rows of the other one, which is measured differently, are left out
    with a logged line. Fields read: dataset, isValidation, img_paths (below the folder `images`),
    objpos (px), joint_self (16 x 3), scale_provided, and where present img_width and img_height (px)
    and normalizer, the diagonal of the head box in px. MPII rows: `person_box` and `head_size`; LEEDS
    rows: center = objpos, scale = 1.4375 times scale_provided, normalizer = the torso length.

    Raises DataError for an unreadable file or a bad row; `skip_bad` leaves bad rows out.
    """
    return people_of_json(path, load_entries(path), images, skip_bad, dataset)


def people_of_json(
    path: Path, entries: list[dict], images: str, skip_bad: bool = False, dataset: str = "mpii"
) -> People:
    """`read_json` of a file that `load_entries` has loaded."""
    own = _JSON_NAMES[dataset]
    foreign = [name for names in _JSON_NAMES.values() if names != own for name in names]
    rows = [row for row, entry in enumerate(entries) if entry.get("dataset") not in foreign]
    if len(rows) < len(entries):
        count = f"{len(entries) - len(rows)} of {len(entries)}"
        log.warning("%s: skipped %s rows of data set %s", path, count, " or ".join(foreign))
    checks = RowChecks(path, rows, skip_bad)

    def column(field: str, default: object = None) -> list:
        return [entries[row].get(field, default) for row in rows]

    names = column("dataset")
    unknown = np.array([name not in own for name in names], dtype=bool)
    checks.reject("dataset", names, unknown, " or ".join(own + tuple(foreign)))
    image = checks.names("img_paths", column("img_paths"), images)
    position = checks.numbers("objpos", column("objpos"), (2,), POINT)
    scale = checks.numbers("scale_provided", column("scale_provided"), (), SCALE, is_scale)
    joints = checks.numbers("joint_self", column("joint_self"), (16, 3), JOINTS)
    valid = checks.numbers(
        "isValidation", column("isValidation"), (), _SPLIT, lambda flags: np.isin(flags, (0, 1))
    )
    points = joints[..., :2]
    diagonal = checks.numbers("normalizer", column("normalizer", 0), (), _LENGTH, not_negative)
    if dataset == "mpii":
        center, scale = person_box(position, scale)
        normalizer = head_size(points, diagonal)
    else:
        center, scale = position, BOX_MARGIN * scale
        normalizer = torso_length(points)
    size = [
        checks.numbers(field, column(field, 0), (), _SIDE, not_negative)
        for field in ("img_width", "img_height")
    ]
    size = np.stack(size, axis=1)
    return checks.good_rows(People(image, center, scale, points, normalizer, valid, size))


def load_entries(path: Path) -> list[dict]:
    """The entries of a JSON list, plain or gzipped; one that is no object becomes {}.

    Raises:
        DataError: the file cannot be read or has no list.
    """
    entries = load_json(path)
    if isinstance(entries, dict) and "annotations" in entries:
        raise DataError(f"{path} is a file in COCO's format: use --dataset coco to read it")
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a JSON list with one entry per person; {FORMATS}")
    # An entry that is no object lacks every field, which the checks of its row then say.
    return [entry if isinstance(entry, dict) else {} for entry in entries]


def read_h5(path: Path, images: str, skip_bad: bool = False) -> People:
    """pose-hg-train's `train.h5` and `valid.h5`: given one, the other one beside it is read too.

    People of train.h5 come first. Fields read: imgname, center (px), scale, part (N x 16 x 2 px)
    and normalize (head size in px; without it, the estimate of `head_size`). Center and scale carry
    MPII's adjustments already. Image names are N x 16 character codes or N byte strings; without
    them `train_images.txt` / `valid_images.txt` beside the file holds one per line. Coordinates were
    cut to whole px when these files were made, which matters for neck and head top only.

    Raises DataError for an unreadable file, another file name or a bad row; `skip_bad` leaves bad
    rows out.
    """
    splits = ("train", "valid")
    if path.stem not in splits:
        raise DataError(f"{path}: expected a name that tells the split, train.h5 or valid.h5")
    files = [path.with_stem(stem) for stem in splits]
    files = [file for file in files if file == path or file.exists()]
    return People.concatenate([_read_h5_split(file, images, skip_bad) for file in files])


def _read_h5_split(path: Path, images: str, skip_bad: bool) -> People:
    with parsing(path, "HDF5"), h5py.File(path) as file:
        center, scale, part = (file[field][:] for field in ("center", "scale", "part"))
        normalize = file["normalize"][:] if "normalize" in file else None
        names = _decode_names(file["imgname"][:]) if "imgname" in file else None
    if names is None:
        names = _read_lines(path.with_name(f"{path.stem}_images.txt"))
    checks = RowChecks(path, range(len(center)), skip_bad)
    image = checks.names("imgname", names, images)
    center = checks.numbers("center", center, (2,), POINT)
    scale = checks.numbers("scale", scale, (), SCALE, is_scale)
    points = checks.numbers("part", part, (16, 2), JOINTS)
    if normalize is None:
        normalizer = head_size(points, np.zeros(len(points)))
    else:
        normalizer = checks.numbers("normalize", normalize, (), _LENGTH, not_negative)
    valid = np.full(len(points), path.stem == "valid")
    return checks.good_rows(People(image, center, scale, points, normalizer, valid))


def _decode_names(stored: np.ndarray) -> list[str]:
    if stored.ndim == 2:
        codes = np.ascontiguousarray(stored.astype(np.uint8))
        stored = codes.view(f"S{codes.shape[1]}")[:, 0]
    return [name.decode() for name in stored]


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the blanks around them and a byte-order mark."""
    with parsing(path, "text"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def read_official(path: Path, images: str, skip_bad: bool = False) -> People:
    """The data set's own `mpii_human_pose_v1_u12_1.mat`, as its documentation describes it.

    People of the photographs with img_train = 1 that have annopoints, scale and objpos; the others
    are not annotated. `person_box` and `head_size` from the head box x1, y1, x2, y2 apply. The file
    has no validation split: photographs named in `valid_images.txt` beside it are that, and without
    the text file every tenth photograph that has people, with a logged warning. In messages a
    row is the photograph's place in `annolist`.

    Raises DataError for an unreadable file, a bad row, or a `valid_images.txt` that is empty or names a
    photograph that `annolist` does not have; `skip_bad` leaves bad rows out.
    """
    people, photographs = _read_release(path, images, skip_bad)
    listed = _validation_names(path, photographs)
    return replace(people, valid=np.isin(people.image, [f"{images}/{name}" for name in listed]))


def official_head_sizes(path: Path, images: str, image: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Head sizes [N] px that the official .mat has of people, 0 of those it does not have.

    image: [N] str, photographs in the folder `images`. position: [N, 2] px, `objpos`, in MPII whole px.

    Raises:
        DataError: the file cannot be read.
    """
    people, _ = _read_release(path, images, skip_bad=True)
    offset, _ = person_box(np.zeros((len(people), 2)), people.scale / 1.25)
    known = zip(people.image.tolist(), *np.rint(people.center - offset).T.tolist(), strict=True)
    sizes = dict(zip(known, people.normalizer.tolist(), strict=True))
    asked = zip(image.tolist(), *np.rint(position).T.tolist(), strict=True)
    return np.array([sizes.get(person, 0.0) for person in asked])


def _read_release(path: Path, images: str, skip_bad: bool) -> tuple[People, list[tuple[int, str, list]]]:
    """The official file's people, as yet of no split, and its `_photographs`."""
    photographs = _photographs(path)
    people = [(row, name, person) for row, name, persons in photographs for person in persons]
    checks = RowChecks(path, [row for row, _, _ in people], skip_bad)

    def column(read: Callable, *field: str) -> list:
        return [read(person, *field) for _, _, person in people]

    image = checks.names("image.name", [name for _, name, _ in people], images)
    position = checks.numbers("objpos", column(_position), (2,), POINT)
    scale = checks.numbers("scale", column(_present, "scale"), (), SCALE, is_scale)
    points = checks.numbers("annopoints", column(_joints), (16, 2), "finite x, y of ids 0 to 15")
    head = checks.numbers(", ".join(_HEAD_BOX), column(_head_box), (4,), "four finite numbers")
    diagonal = np.hypot(head[:, 2] - head[:, 0], head[:, 3] - head[:, 1])
    box, nobody = person_box(position, scale), np.zeros(len(people))
    table = checks.good_rows(People(image, *box, points, head_size(points, diagonal), valid=nobody))
    return table, photographs


def _photographs(path: Path) -> list[tuple[int, str, list]]:
    """Place in the file, name and annotated people of each photograph; test photographs have none."""
    release = read_matlab(path, struct_as_record=False, squeeze_me=True).get("RELEASE")
    annolist, img_train = (np.atleast_1d(getattr(release, field, ())) for field in ("annolist", "img_train"))
    if not len(annolist) or len(annolist) != len(img_train):
        raise DataError(f"{path}: expected RELEASE with annolist and as many img_train; {FORMATS}")
    photographs = []
    for row, (photograph, train) in enumerate(zip(annolist, img_train, strict=True)):
        persons = np.atleast_1d(getattr(photograph, "annorect", ())) if train == 1 else ()
        name = _present(getattr(photograph, "image", None), "name")
        photographs.append((row, name, [person for person in persons if _is_annotated(person)]))
    return photographs


def _present(struct: object, field: str) -> object:
    """The field's value, None where MATLAB has no such field or left it empty."""
    value = getattr(struct, field, None)
    return None if value is None or np.size(value) == 0 else value


def _is_annotated(person: object) -> bool:
    point = _present(_present(person, "annopoints"), "point")
    return all(x is not None for x in (point, _present(person, "scale"), _position(person)))


def _position(person: object) -> tuple | None:
    objpos = _present(person, "objpos")
    return None if objpos is None else (_present(objpos, "x"), _present(objpos, "y"))


def _head_box(person: object) -> list:
    corners = [_present(person, field) for field in _HEAD_BOX]
    return [0] * 4 if any(corner is None for corner in corners) else corners


def _joints(person: object) -> np.ndarray | list:
    """Points [16, 2] px by joint id; the (id, x, y) as they stand where they are not that."""
    points = np.atleast_1d(person.annopoints.point)
    found = [tuple(_present(point, field) for field in ("id", "x", "y")) for point in points]
    joints = np.zeros((16, 2))
    for joint, x, y in found:
        if not all(isinstance(value, int | float) for value in (joint, x, y)) or joint not in range(16):
            return found
        joints[int(joint)] = x, y
    return joints


def _validation_names(path: Path, photographs: list[tuple[int, str, list]]) -> list[str]:
    listed = path.with_name(VALID_IMAGES)
    if not listed.exists():
        log.warning(
            "%s does not exist: every tenth photograph becomes the validation split, "
            "so results will not be comparable with published ones",
            listed,
        )
        return [name for _, name, persons in photographs if persons][9::10]
    names = _read_lines(listed)
    known = {name for _, name, _ in photographs if isinstance(name, str)}
    if not names:
        raise DataError(f"{listed} is empty: expected the names of the validation photographs, one per line")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"{listed}: {len(unknown)} of {len(names)} names match no photograph of {path.name}; "
            f"first: {unknown[0]!r}, expected names such as {min(known, default='')!r}"
        )
    return names
