"""Damaged files in COCO's format end in one line or are read; none ends in a traceback."""

import copy
import json
import math

import numpy as np
from PIL import Image

from data import DataError
from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.datasets import load_dataset
from data.loading.patches import Patches

ODD = (
    *(None, True, False, 0, 1, 2, 3, -1, 0.5, -0.5, 7.0, 1e7, 1e308, 2**31, 2**62, 2**70, 10**400),
    *(math.nan, math.inf, "", "1", "a", "a\nb", "../1.jpg", "/1.jpg", "1.jpg", "\ud800", "\0", "x" * 5000),
    *([], {}, [[]], [1], [1, 2, 3, 4], ["a"], {"id": 1}, [[1, 2], [3]], [None] * 9, [[1, 2, 2]] * 3),
)
FILES = 100


def whole_file():
    names = ["nose", "left_hand", "right_hand"]
    keypoints = [10, 20, 2, 0, 0, 0, 30.5, 12, 1]
    common = {
        "bbox": [4, 6, 20, 40],
        "area": 400.5,
        "iscrowd": 0,
        "num_keypoints": 2,
        "segmentation": [[1, 2]],
    }
    return {
        "info": {},
        "sigmas": [0.1, 0.1, 0.2],
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 50} for i in (1, 2)],
        "annotations": [
            {"id": i, "image_id": 1 + i % 2, "category_id": 1 + i % 2, "keypoints": keypoints, **common}
            for i in range(4)
        ],
        "categories": [
            {"id": i, "name": f"kind {i}", "keypoints": names, "skeleton": [[1, 2], [1, 3]]} for i in (1, 2)
        ],
    }


def places(tree, path=()):
    """The paths of all values below the top of a JSON tree."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [one for key, value in inside for one in ((*path, key), *places(value, (*path, key)))]


def mutate(tree, rng):
    """Drop, replace, repeat, cut, convert or move one value of a JSON tree."""
    *path, key = (found := places(tree))[rng.integers(len(found))]
    holder = tree
    for step in path:
        holder = holder[step]
    kind, value = rng.choice(["drop", "odd", "odd", "repeat", "cut", "text", "wrap", "move"]), holder[key]
    if kind == "drop":
        del holder[key]
    elif kind == "repeat" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(value))
    elif kind == "cut" and isinstance(value, list):
        del value[int(rng.integers(len(value) + 1)) :]
    elif kind == "text":
        holder[key] = str(value)
    elif kind == "wrap":
        holder[key] = [value]
    elif kind == "move" and isinstance(holder, dict):
        holder[rng.choice([*holder])] = holder.pop(key)
    else:
        holder[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])


def load_mutated(folder, seed):
    """The data set of a file with up to four mutations, which may be cut, and crops of its people."""
    rng = np.random.default_rng(seed)
    tree = whole_file()
    for _ in range(rng.integers(1, 5)):
        mutate(tree, rng)
    text = json.dumps(tree)
    cut = len(text) if rng.random() < 0.95 else int(rng.integers(len(text)))
    (path := folder / "own.json").write_text(text[:cut])
    skip_bad = bool(rng.integers(2))
    splits = {"annotations": path} if rng.integers(2) else {"annotations_valid": path}
    dataset = load_dataset("coco", folder, **splits, skip_bad=skip_bad, skip_missing=True, images=[folder])
    batch = Patches(dataset.people, dataset.root, 64, MARGINS["identity"])[list(range(len(dataset.people)))]
    if isinstance(batch, DataError):
        raise batch
    return dataset, augment(batch, Augmentation.identity(len(dataset.people)), 64, 16, dataset.skeleton)


def add_photographs(folder):
    for name in (1, 2):
        Image.new("RGB", (40, 50), "white").save(folder / f"{name}.jpg")


def check(folder, seed):
    """Whether a mutated file was read."""
    try:
        dataset, sample = load_mutated(folder, seed)
    except DataError as error:
        assert "\n" not in str(error), seed
        assert len(str(error)) < 500, seed
        return False
    assert np.isfinite(dataset.people.points).all(), seed
    assert (dataset.people.normalizer > 0).all(), seed
    assert sample.heatmap.isfinite().all(), seed
    assert dataset.coco is None or json.dumps(dataset.coco.annotations, allow_nan=False), seed
    return True


def test_mutated_files_end_in_one_line_or_are_read(tmp_path):
    add_photographs(tmp_path)
    assert {check(tmp_path, seed) for seed in range(FILES)} == {True, False}


def test_a_file_without_mutations_is_read(tmp_path, monkeypatch):
    add_photographs(tmp_path)
    monkeypatch.setattr(f"{__name__}.mutate", lambda tree, rng: None)
    assert check(tmp_path, 0)
