"""The pages of an experiment's stages: how they link to each other, and where joint training begins."""

from argparse import Namespace

import pytest
from support.pages import NASTY, read, row, section

from utils.display.curves import draw_curves
from utils.display.pages import Pages
from utils.display.panels import PANELS
from utils.display.sections import Section
from utils.display.stages import experiment_folder, joint_start, page_title, write_stage_page
from utils.records.events import EVENTS

STAGES = {
    "Stage 1, pose network": "",
    "Stage 2, pretraining": "sr-dir",
    "Stage 3, joint training": "joint-#1 %25",
}
ROWS = [row(0), row(1, valid_pck=0.9), row(2, agent_epoch=0, pck_gap=0.1), row(3, agent_epoch=1)]


def stage(experiment, name, rows=()):
    folder = experiment / STAGES[name]
    return Pages(folder, experiment, f"{name}: {NASTY}", "script", "PCKh@0.5", {}, 0, 4, list(rows))


def links(page):
    return {link["href"] for link in read(page).all("a")}


@pytest.mark.parametrize("order", [list(STAGES), list(STAGES)[::-1]])
def test_the_entry_lists_all_stages_whichever_ran_last(tmp_path, order):
    for name in order:
        stage(tmp_path, name).close()
    entry = read(tmp_path / "web/index.html")  # its links lead to files
    assert entry.text.index("pretraining: " + NASTY) < entry.text.index("joint training: " + NASTY)
    assert "../joint-%231%20%2525/web/index.html" in links(tmp_path / "web/index.html")
    assert len(entry.all("nav")) == 1 and len(entry.all("li")) == 2
    assert page_title(tmp_path / "web/index.html") == f"Stage 1, pose network: {NASTY}"
    for folder in ("sr-dir", "joint-#1 %25"):
        assert "../../web/index.html" in links(tmp_path / folder / "web/index.html")


def test_without_pages_of_stage_1_the_entry_lists_the_others(tmp_path):
    stage(tmp_path, "Stage 3, joint training")
    assert links(tmp_path / "web/index.html") == {"../joint-%231%20%2525/web/index.html"}


def test_an_arm_belongs_to_the_experiment_of_its_base(tmp_path):
    base, arm = tmp_path / "base", tmp_path / "base/random-1"
    opt = Namespace(exp_dir=tmp_path, exp_folder=arm)
    assert experiment_folder(opt) == arm
    base.mkdir()
    (base / EVENTS).touch()
    assert experiment_folder(opt) == base


def test_the_best_epoch_has_its_stage_and_its_gallery(tmp_path):
    first = stage(tmp_path, "Stage 1, pose network")
    first.epoch(ROWS[:2], gallery=lambda: [section("x")])
    joint = stage(tmp_path, "Stage 3, joint training", ROWS[:2])
    for rows, best, gallery in (
        (ROWS[:3], "1 of stage 1: PCKh@0.5 90.0\u00a0%", "../../web/epoch-1.html"),
        ([*ROWS[:3], ROWS[3] | {"valid_pck": 0.95}], "3 of joint training", "epoch-3.html"),
    ):
        joint.epoch(rows, gallery=lambda: [section("x")])
        page = read(joint.index)
        assert best in page.text and gallery in links(joint.index)
    assert "4 of 4, 2 of stage 1" in page.text


def test_a_line_marks_where_joint_training_began(figures):
    assert joint_start(ROWS) == 2 and joint_start(ROWS[:2]) is None
    curves = draw_curves(ROWS, "PCKh@0.5")
    marks = [[line.get_xdata()[0] for line in figure.axes[0].lines[1:]] for figure in figures]
    titles = [curve.title for curve in curves]
    # stage 1 has no gap, which begins with joint training
    assert dict(zip(titles, marks, strict=True)) == {
        "Loss": [1.5],
        "PCKh@0.5, %": [1.5],
        "PCKh@0.5: random minus agent, points": [],
    }


def test_baselines_are_explained_where_they_are_drawn(figures):
    for more, explained in (({}, False), ({"valid_mean_row": 0.02}, True)):
        (loss,) = draw_curves([{"epoch": 0, "valid_loss": 0.01, **more}], "PCKh@0.5")
        assert ("one prediction for everyone" in loss.note) is explained


def test_rates_have_ticks_that_can_be_read(figures):
    draw_curves([{"epoch": 0, "lr": 2.5e-4}, {"epoch": 1, "lr": 5e-5}], "PCKh@0.5")
    axis = figures[0].axes[0].yaxis
    assert [axis.get_major_formatter()(rate) for rate in (0.0002, 5e-5)] == ["0.0002", "5e\u221205"]
    low, high = axis.get_view_interval()
    assert sum(low <= tick <= high for tick in axis.get_major_locator()()) >= 2


def test_every_panel_says_what_it_shows():
    for panel in PANELS:
        assert panel.note.format(metric_name="PCK").endswith(".")


def test_other_pages_are_listed_the_comparison_last(tmp_path):
    entry = tmp_path / "web/index.html"
    sections = [Section("How hard?", "Taller: harder.", table=[["", "x"], ["y", "1"]], plot=b"no picture")]
    write_stage_page(tmp_path / "comparison/web/index.html", tmp_path, "Comparison of a, b: x", sections)
    for kind in ("scale", "rotation"):
        page = tmp_path / f"sr-dir/web/collection-{kind}.html"
        write_stage_page(page, tmp_path, f"Stage 2, collection of {kind}s: x", sections)
    assert [link["href"] for link in read(entry).all("a")] == [
        *(f"../sr-dir/web/collection-{kind}.html" for kind in ("rotation", "scale")),
        "../comparison/web/index.html",
    ]
    assert "Taller: harder." in read(page).text and "../../web/index.html" in links(page)
