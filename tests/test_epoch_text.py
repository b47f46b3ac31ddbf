"""What the log says of an epoch."""

import math

from utils.display.epoch_text import epoch_text
from utils.evaluation.metrics import LINE

SPEED = {"images_per_second": 123.4, "waiting_share": 0.05, "gpu_memory": 3.21}


def test_an_epoch_of_stage_1_is_one_line_in_per_cent():
    row = {"epoch": 7, "lr": 0.1, "train_loss": 0.0111616, "valid_loss": 0.0112, "train_pck": 0.147}
    assert epoch_text(row | {"valid_pck": math.nan, "valid_ap": 0.25} | SPEED, "PCK") == (
        "epoch 7: loss 0.01116, valid 0.0112; PCK 14.7 %; AP 25.0 %; 123 images/s; waiting 5.0 %; 3.2 GiB"
    )


def test_joint_training_has_a_line_for_each_agent_that_learned():
    row = {"epoch": 9, "train_pck": 0.5, "valid_pck": 0.625, "agent_epoch": 0}
    scale_rotation = {
        "uniform_gap": 0.0123,
        "uniform_gap_error": 0.004,
        "reward_share": 0.4,
        "agent_loss": 0.02,
    }
    occlusion = {"occlusion_gap": -0.01, "occlusion_gap_error": math.nan, "occlusion_loss": 0.1}
    assert epoch_text(row, "PCK") == "epoch 9: PCK 50.0 %, valid 62.5 %"
    assert epoch_text(row | scale_rotation | occlusion, "PCK").splitlines()[1:] == [
        "  scale-rotation agent: uniform minus agent +1.2 ± 0.4 points of PCK; 40.0 % rewarded; loss 0.02",
        "  occlusion agent: uniform minus agent -1.0 points of PCK; loss 0.1",
    ]


def test_lines_fit_a_terminal():
    losses = {f"{split}_{name}": 0.0123456 for split in ("train", "valid") for name in ("loss", "mean_row")}
    hits = {f"valid_{kind}_hit": 0.123 for kind in ("scale", "rotation")}
    text = epoch_text({"epoch": 100, "lr": 1e-3} | losses | hits | SPEED, "PCKh@0.5")
    assert all(len(line) <= LINE for line in text.splitlines())
    assert "mean row 0.01235; hardest bin found: scale 12.3 %, rotation 12.3 %" in " ".join(text.split())
