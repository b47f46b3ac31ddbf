"""Real files in COCO's format through all stages, with a tiny network."""

import pytest
import scipy.io
from support.experiment import POSE, run_here

from data.kinds import KINDS
from data.skeleton import MEAN

pytestmark = pytest.mark.slow
FILES = {"coco": 17, "crowdpose": 14, "ap10k": 17}
"""Samples of COCO, CrowdPose and AP-10K, and their numbers of joints."""


@pytest.mark.parametrize("name", FILES)
def test_all_stages_the_grid_and_one_photograph(name, real_data, tmp_path):
    folder = real_data / "coco" / name
    file = folder / f"test_{name}.json"
    flags = (
        *("--dataset", "coco", "--annotations", file, "--annotations_valid", file, "--images", folder),
        *("--data_dir", tmp_path / "none", "--exp_dir", tmp_path, "--exp_id", "tiny"),
        *("--chan", 8, "--bs", 2, "--use_html", "true"),
    )
    later, experiment = (*flags, "--load_prefix_pose", POSE), tmp_path / "tiny"
    run_here("stack-hg.py", *flags, "--is_train", "true", "--nEpochs", 1)
    assert scipy.io.loadmat(experiment / f"{POSE}-preds.mat")["preds"].shape[1:] == (FILES[name], 2)

    for kind in KINDS:
        run_here(f"collect-{kind}-distri.py", *later, "--cache", tmp_path / "cache")
    run_here("pretrain-s-r-agent.py", *later, "--nEpochs", 1)
    agent = ("--load_prefix_sr", "lr-0.00025-0")
    run_here("joint-train-pose-s-r-agent.py", *later, *agent, "--is_train", "true", "--nEpochs", 2)
    assert (experiment / f"joint-{POSE}" / "pose-lr-0.00025-1.pth.tar").exists()
    assert (experiment / f"joint-{POSE}" / "pose-lr-0.00025-1-preds.json").exists()
    assert "valid_ap75" in (experiment / f"joint-{POSE}" / "pose-training-summary.txt").read_text()

    assert MEAN in run_here("stack-hg.py", *later, "--eval_grid", "true")
    assert (experiment / f"{POSE}-grid.txt").exists()
    photograph = next(folder.glob("*.jpg"))
    run_here("stack-hg.py", *later, "--image", photograph)
    assert (experiment / f"{photograph.stem}-pose.jpg").exists()
