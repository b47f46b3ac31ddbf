"""LSP and LSP Extended: `joints.mat`."""

import numpy as np
import pytest
import scipy.io

from data import DataError
from data.readers.lsp import read_lsp, read_lspet
from data.skeleton import MPII

LSP_NAMES = [
    *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
    *("right wrist", "right elbow", "right shoulder"),
    *("left shoulder", "left elbow", "left wrist", "upper neck", "head top"),
]


def lsp_joints(n):
    """[14, 2, n] coordinates, all positive, none alike."""
    return np.arange(28.0 * n).reshape(14, 2, n) % 97 + np.arange(1.0, n + 1)


def test_lsp(tmp_path):
    xy = lsp_joints(1001)
    joints = np.concatenate([xy, np.ones((14, 1, 1001))], axis=1).transpose(1, 0, 2)
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, {"joints": joints})
    people = read_lsp(path, "lsp/images")
    assert people.image[[0, 1000]].tolist() == ["lsp/images/im0001.jpg", "lsp/images/im1001.jpg"]
    assert np.flatnonzero(people.valid).tolist() == [1000]
    for k, name in enumerate(LSP_NAMES):
        np.testing.assert_array_equal(people.points[:, MPII.joints.index(name)], xy[k].T)
    assert not people.points[:, [6, 7]].any()
    low, high = xy.min(axis=0).T, xy.max(axis=0).T
    np.testing.assert_allclose(people.center, (low + high) / 2, rtol=1e-6)
    np.testing.assert_allclose(people.scale, (high - low).max(axis=1) / 200 * 1.4375, rtol=1e-6)
    torso = np.linalg.norm(xy[LSP_NAMES.index("right hip")] - xy[LSP_NAMES.index("left shoulder")])
    assert torso > 0
    np.testing.assert_allclose(np.linalg.norm(people.normalizer), torso, rtol=1e-5)


def test_lspet_ignores_what_is_not_labelled(tmp_path):
    xy = lsp_joints(4)
    labels = np.ones((14, 1, 4))
    labels[0, 0, 1] = 0
    xy[0, :, 1] = -900, np.nan
    labels[LSP_NAMES.index("head top"), 0, 2] = 0
    xy[LSP_NAMES.index("left hip"), :, 3] = np.nan
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, {"joints": np.concatenate([xy, labels], axis=1)})
    with pytest.raises(DataError, match=r"row 3 .*nan at"):
        read_lspet(path, "lspet/images")
    people = read_lspet(path, "lspet/images", skip_bad=True)
    assert people.image.tolist() == ["lspet/images/im00001.jpg", "lspet/images/im00002.jpg"]
    assert not people.valid.any()
    labelled = xy[1:, :, 1]
    low, high = labelled.min(axis=0), labelled.max(axis=0)
    np.testing.assert_allclose(people.center[1], (low + high) / 2, rtol=1e-6)
    np.testing.assert_allclose(people.scale[1], (high - low).max() / 200 * 1.4375, rtol=1e-6)
    np.testing.assert_array_equal(people.points[1, 0], [0, 0])


def test_lsp_bad_rows(tmp_path):
    joints = np.concatenate([lsp_joints(3), np.zeros((14, 1, 3))], axis=1).transpose(1, 0, 2)
    joints[1, 4, 2] = np.inf
    joints[:2, :, 1] = 7
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, {"joints": joints})
    with pytest.raises(DataError, match=r"row 1 .*expected joints that span a box"):
        read_lsp(path, "lsp/images")
    assert len(read_lsp(path, "lsp/images", skip_bad=True)) == 1


def test_real_lsp_and_lspet(real_data):
    people = read_lsp(real_data / "lsp" / "joints.mat", "lsp/images")
    assert (len(people), people.valid.sum()) == (2000, 1000)
    labelled = np.delete(people.points, [6, 7], axis=1)
    assert (labelled > 0).all()
    side = 200 * people.scale[:, None, None]
    offset = np.abs(labelled - people.center[:, None])
    assert (offset <= side / 2).all()
    assert (people.normalizer > 0).all()

    extension = read_lspet(real_data / "lspet" / "joints.mat", "lspet/images")
    assert len(extension) == 93
    assert (extension.normalizer > 0).all()
    assert not extension.valid.any()
