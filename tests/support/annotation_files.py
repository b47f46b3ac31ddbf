"""Writers of small annotation files in the formats that users have."""

import json

import h5py
import numpy as np
import scipy.io

ALL_JOINTS = tuple(range(16))


def entry(**changes):
    """A row of the authors' JSON: joint k at (100 + k, 200 + 2 k)."""
    row = {
        "dataset": "MPII",
        "isValidation": False,
        "img_paths": "a.jpg",
        "objpos": [120.0, 230.0],
        "joint_self": [[100.0 + k, 200.0 + 2 * k, 1.0] for k in range(16)],
        "scale_provided": 2.0,
        "normalizer": 50.0,
    }
    return row | changes


def joints_with(k, x, y):
    return [[x, y, 1.0] if k == i else joint for i, joint in enumerate(entry()["joint_self"])]


def write_json(folder, *rows):
    path = folder / "people.json"
    path.write_text(json.dumps(rows))
    return path


def write_h5(folder, split, n=2, **changes):
    columns = {
        "imgname": np.array([f"{split}{i}.jpg".encode() for i in range(n)]),
        "center": np.full((n, 2), 50.0),
        "scale": np.full(n, 1.5),
        "part": np.arange(32.0 * n).reshape(n, 16, 2),
        "normalize": np.full(n, 20.0),
    }
    path = folder / f"{split}.h5"
    with h5py.File(path, "w") as file:
        for field, values in (columns | changes).items():
            if values is not None:
                file[field] = values
    return path


def structs(*rows):
    """A 1 x N MATLAB struct array; fields that a row lacks are empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for column, row in enumerate(rows):
        array[0, column] = tuple(row.get(name, np.zeros((0, 0))) for name in names)
    return array


def person(ids=ALL_JOINTS, **changes):
    """An `annorect`: joint k at (100 + k, 200 + 2 k), a head box of 30 x 40 px."""
    points = [{"x": 100.0 + k, "y": 200.0 + 2 * k, "id": float(k), "is_visible": 1} for k in ids]
    row = {
        **{"x1": 10.0, "y1": 25.0, "x2": 40.0, "y2": 65.0},
        "annopoints": structs({"point": structs(*points)}),
        "scale": 2.0,
        "objpos": structs({"x": 120.0, "y": 230.0}),
    }
    return row | changes


def write_official(folder, *photographs, train=None):
    """Photographs are lists of people, None for an empty `annorect`; named 0.jpg and so on."""
    annolist = structs(
        *(
            {"image": structs({"name": f"{i}.jpg"})}
            | ({} if people is None else {"annorect": structs(*people)})
            for i, people in enumerate(photographs)
        )
    )
    train = np.ones((1, len(photographs))) if train is None else np.array([train], dtype=float)
    release = structs({"annolist": annolist, "img_train": train, "version": "12"})
    path = folder / "mpii_human_pose_v1_u12_1.mat"
    scipy.io.savemat(path, {"RELEASE": release}, do_compression=True)
    return path


def assert_same_people(one, other, **tolerance):
    for name in ("image", "valid"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("center", "scale", "points", "normalizer"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), **tolerance)
