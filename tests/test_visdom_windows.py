"""Events of a run turned into visdom's windows."""

from support.visdom_events import JOINT, POSE, RUNNING, epochs, start

from utils.agents import AGENTS
from utils.display.curves import draw_curves
from utils.display.panels import CHOICES, DISTRIBUTIONS, OTHERS, PANELS, bin_names
from utils.display.visdom_windows import draw_windows

PRETRAINING = {
    "loss": [
        RUNNING,
        "training",
        "validation",
        "training, mean row",
        "validation, mean row",
        "training, uniform",
        "validation, uniform",
    ],
    "learning rates": ["of the network"],
}


def legends(events: list[dict]) -> dict[str, list[str]]:
    windows = draw_windows(events)
    return {n: [curve["name"] for curve in w["data"]] for n, w in windows.items() if "layout" in w}


def test_the_joint_stage_has_every_window():
    assert legends([start(), *epochs(0, 2)]) == JOINT
    titles = [window["opts"]["title"] for window in draw_windows([start(), *epochs(0, 2)]).values()]
    assert titles[:3] == ["options", "Loss", "PCKh@0.5, %"]


def test_what_a_window_shows():
    windows = draw_windows([start(), *epochs(0, 2)])
    scales = {
        name: window["layout"]["yaxis"]["type"] for name, window in windows.items() if "layout" in window
    }
    assert scales == dict.fromkeys(JOINT, "linear") | {"learning rates": "log"}
    training, validation = windows["PCK"]["data"]
    assert training["y"] == [100 * 3 / 2, 100 * 3 / 3] and validation["x"] == [0, 1]  # in per cent
    assert windows["loss"]["data"][1]["y"] == [1 / 2, 1 / 3]
    row = {"kind": "epoch", "epoch": 0, "train_loss": 1.0, "train_mean_row": 2.0}
    curves = draw_windows([start(), row])["loss"]["data"]
    assert [curve["line"]["dash"] for curve in curves] == ["solid", "dash"]
    assert [curve["mode"] for curve in windows["loss"]["data"]] == ["lines", *["lines+markers"] * 2]
    assert len({curve["line"]["color"] for curve in windows["rotation distribution"]["data"]}) == 7


def test_what_is_in_per_cent_and_what_is_a_baseline():
    numbers = {"loss", "agent loss", "entropy", "learning rates"}
    numbers |= {f"loss of the {agent.title}" for agent in OTHERS}
    assert {panel.name for panel in PANELS if not panel.percent} == numbers
    assert {panel.name for panel in PANELS if panel.log} == {"learning rates"}
    lines = [line for panel in PANELS for line in panel.lines]
    running = {
        "loss",
        "agent_loss",
        *(f"{agent.name}_{what}" for agent in OTHERS for what in ("gap", "loss")),
    }
    assert {line.field for line in lines if line.running} == running
    constant = (
        "mean_row",
        "uniform",
        *(f"{k}_{what}_hit" for k in CHOICES for what in ("mean_row", "constant")),
    )
    expected = {f"{split}_{what}" for split in ("train", "valid") for what in constant}
    collected = [choice for choice, agent in CHOICES.items() if agent.collects]
    references = ("uniform", "same_limited", "same_bin", "own_bin")
    expected |= {f"valid_{choice}_pck_{what}" for choice in collected for what in references}
    assert {line.field for line in lines if line.baseline} == expected


def test_a_stage_has_the_windows_of_its_fields():
    rows = [{"kind": "epoch", "epoch": 0, **dict.fromkeys(POSE, 0.5)}]
    assert legends([start(stage="stack-hg"), *rows]) == {
        "loss": ["training", "validation"],
        "PCK": ["training crops", "validation"],
        "learning rates": ["of the network"],
    }
    names = ("lr", "train_loss", "valid_loss", "train_mean_row", "valid_mean_row", "train_uniform")
    rows = [
        {"kind": "batch", "epoch": 0, "batch": 1, "batches": 2, "loss": 2.0},
        {"kind": "epoch", "epoch": 0, **dict.fromkeys((*names, "valid_uniform"), 0.5)},
    ]
    assert legends([start(stage="pretrain-s-r-agent"), *rows]) == PRETRAINING
    assert legends([start()]) == {}


def test_points_of_batches_stand_within_their_epoch():
    running = draw_windows([start(), *epochs(3, 4)])["loss"]["data"][0]
    assert running["x"] == [3.5, 4.0] and running["y"] == [1 / 8, 1 / 13]


def test_a_later_start_replaces_its_epochs():
    events = [start(), *epochs(0, 4), *epochs(4, 5)[:1], start(2), *epochs(2, 3)]
    windows = draw_windows(events)
    assert windows["loss"]["data"][0]["x"] == [0.5, 1, 1.5, 2, 2.5, 3]
    assert windows["loss"]["data"][1]["x"] == [0, 1, 2]


def test_a_start_replaces_nothing_before_it_has_trained():
    """Epochs count until one is trained anew; the running means of a batch replace earlier ones at once."""
    events = [start(), *epochs(0, 4), start(1)]
    drawn = draw_windows(events)["loss"]["data"]
    assert [curve["x"] for curve in drawn[:2]] == [[0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4], [0, 1, 2, 3]]
    batch, _, epoch = epochs(1, 2)
    drawn = draw_windows([*events, batch])["loss"]["data"]
    assert [curve["x"] for curve in drawn[:2]] == [[0.5, 1, 1.5], [0, 1, 2, 3]]
    drawn = draw_windows([*events, batch, epoch, start(3)])["loss"]["data"]
    assert [curve["x"] for curve in drawn[:2]] == [[0.5, 1, 1.5], [0, 1]]


def test_standard_errors_stand_round_their_means():
    """In points; that of a single person is not known."""
    values = ((0.04, 0.01), (0.02, None))
    rows = [
        {
            "kind": "epoch",
            "epoch": k,
            "uniform_gap": gap,
            "uniform_gap_error": error,
            "scale_uniform_gap": 0.1,
        }
        for k, (gap, error) in enumerate(values)
    ]
    mean, scale = draw_windows([start(), *rows])["uniform gap"]["data"]
    assert (mean["name"], mean["y"], mean["error_y"]["array"]) == ("mean", [4, 2], [1, None])
    assert (scale["name"], scale["error_y"]["array"]) == ("scale", [None, None])


def test_options_are_escaped_and_what_is_not_finite_is_a_gap():
    row = {"kind": "epoch", "epoch": 0, "train_loss": float("nan"), "valid_loss": float("inf")}
    windows = draw_windows([start(exp_id="<script>alert(1)</script>"), row])
    assert "<script>" not in windows["options"]["data"][0]["content"]
    assert "&lt;script&gt;" in windows["options"]["data"][0]["content"]
    assert [curve["y"] for curve in windows["loss"]["data"]] == [[None], [None]]


def test_the_occlusion_agent_has_windows_of_its_own():
    shares = ("occlusion_reward_share", "occlusion_tie_share", "occlusion_limit_share")
    names = ("occlusion_pck_uniform", "occlusion_pck_agent", "occlusion_loss", "occlusion_entropy", *shares)
    row = {"kind": "epoch", "epoch": 0, **dict.fromkeys(names, 0.5), "occlusion_gap": 0.04}
    row |= {"occlusion_gap_error": 0.01, "occlusion_distribution": [k / 120 for k in range(16)]}
    batch = {
        "kind": "batch",
        "epoch": 0,
        "batch": 1,
        "batches": 2,
        "occlusion_loss": 2.0,
        "occlusion_gap": 0.1,
    }
    events = [start(), batch, row]
    cells = [f"{row}, {column}" for row in range(1, 5) for column in range(1, 5)]
    assert legends(events) == {
        "PCK by draws of the occlusion agent": ["uniform", "agent"],
        "gap of the occlusion agent": [RUNNING, "mean"],
        "reward of the occlusion agent": ["rewarded", "ties", "targets at their limit"],
        "loss of the occlusion agent": [RUNNING, "training"],
        "entropy": ["occlusion"],
        "occlusion distribution": cells,
    }
    windows = draw_windows(events)
    gap = windows["gap of the occlusion agent"]["data"][1]
    assert (gap["y"], gap["error_y"]["array"]) == ([4.0], [1.0])
    looks = {(c["line"]["color"], c["line"]["dash"]) for c in windows["occlusion distribution"]["data"]}
    assert len(looks) == 16
    titles = [curve.title for curve in draw_curves([row], "PCKh@0.5") if b"</svg>" in curve.svg]
    assert "Mean distribution of occlusion, %" in titles
    assert len(titles) == 6


def test_each_choice_of_an_agent_has_curves():
    """Those of agents that are not the first too: entropy, hits of pretraining, the mean distribution."""
    fields = {line.field for panel in PANELS for line in panel.lines}
    for agent in AGENTS.values():
        for choice in agent.choices:
            assert {f"{choice}_entropy", f"train_{choice}_hit", f"valid_{choice}_constant_hit"} <= fields
            assert choice in DISTRIBUTIONS
    assert bin_names("occlusion", 4) == ["1, 1", "1, 2", "2, 1", "2, 2"]


def test_every_panel_can_have_all_of_its_lines():
    """Also one with more lines than there are colors; those of one color are dashed and not."""
    for panel in PANELS:
        lines = [line for line in panel.lines if not line.running]
        row = {"kind": "epoch", "epoch": 0, **{line.field: 0.5 for line in lines}}
        curves = draw_windows([start(), row])[panel.name]["data"]
        looks = {(curve["line"]["color"], curve["line"]["dash"]) for curve in curves}
        assert len(looks) == len(curves) == len(lines), panel.name
