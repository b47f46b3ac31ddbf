"""The HTML pages: valid, escaped, self-contained, bounded, never half written, never a training's end."""

import logging
import math
import threading

import pytest
import torch
from support.browser import browser, console_errors, failed_requests  # noqa: F401
from support.pages import NASTY, Page, read, refreshes, row, section, some_pages
from support.stages import demo_data, run_stage

from data import DataError
from utils.agents import AGENTS
from utils.display import pages as pages_module
from utils.display.curves import draw_curves
from utils.display.exhibits import draw_exhibits
from utils.display.gallery import grid_section, pose_gallery
from utils.display.markup import gallery_page
from utils.display.pages import (
    NEWEST,
    Pages,
    best_epoch,
    joint_section,
    retained_galleries,
    scores,
    write_evaluation,
)
from utils.display.sections import Curve, Section
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import PckTable
from utils.run import Run
from utils.system.errors import UserError


@pytest.fixture(scope="module")
def site(nasty_run: Run) -> Pages:
    """Pages of two epochs with everything that a page can show."""
    network = nasty_run.pose_network()
    agent = AGENTS["agent"].build(nasty_run, network, 1e-3)
    evaluation = evaluate(nasty_run, network, nasty_run.loader(nasty_run.dataset.valid, "identity"))
    hardest = [
        {"row": k, "choice": kind, "value": value, "pck_agent": 0.2, "pck_reference": 0.8}
        for k, (kind, value) in enumerate((("scale", 0.5), ("rotation", -45.0), ("scale", -0.6)))
    ]
    share = [1 / 7] * 7
    rows = [row(k, scale_distribution=share, rotation_distribution=share, pck_gap=0.1) for k in range(2)]
    pages = some_pages(nasty_run.folder)
    for epoch in range(2):
        pages.rows, pages.table = rows[: epoch + 1], evaluation.table
        pages.write_epoch(
            [
                *pose_gallery(nasty_run, network, evaluation),
                *draw_exhibits(nasty_run, network, agent.exhibits({"epoch": epoch}, hardest)),
                grid_section(torch.eye(7), "PCKh@0.5"),
            ]
        )
    return pages


def test_pages_are_valid_and_self_contained(site):
    index, gallery = read(site.index), read(site.folder / "epoch-1.html")
    assert len(index.all("img")) == 5  # panels of the fields that the rows have
    assert {link["href"] for link in index.all("a")} >= {"epoch-0.html", "epoch-1.html"}
    assert len(gallery.all("img")) >= 2 * 4 + 3 * 4 + 2 * 3
    assert "Ankle" in index.text and "PCKh@0.5" in gallery.text
    assert all(
        part in index.text for part in ("Joint by joint, last epoch", "Curves", "Galleries", "Options")
    )
    assert "Predicted: thick bones, discs. True: thin bones, rings" in gallery.text


def test_an_evaluation_has_a_page_with_and_without_an_index(nasty_run, tmp_path):
    network = nasty_run.pose_network()
    evaluation = evaluate(nasty_run, network, nasty_run.loader(nasty_run.dataset.valid, "identity"))
    sections = [grid_section(torch.eye(7), "PCKh@0.5"), *pose_gallery(nasty_run, network, evaluation)]
    for links in (0, 1):
        path = write_evaluation(tmp_path, NASTY, "lr-0.00025-3", "PCKh@0.5", evaluation, sections)
        page = read(path)
        assert path == tmp_path / "web" / "evaluation-lr-0.00025-3.html"
        assert len(page.all("a")) == links and page.text.count("100.0") == 7 and "Ankle" in page.text
        some_pages(tmp_path)
    listed = tmp_path / "web" / "evaluations.html"
    assert listed.name in {link["href"] for link in read(tmp_path / "web" / "index.html").all("a")}
    for checkpoint in ("lr-0.00025-9", "lr-0.00025-10"):
        write_evaluation(tmp_path, NASTY, checkpoint, "PCKh@0.5", evaluation, sections)
        assert read(listed).all("a")[-1]["href"] == f"evaluation-{checkpoint}.html"


def test_the_scores_of_an_epoch_are_told_where_it_has_them():
    assert scores({"epoch": 1}, "PCK@0.1") == scores({"valid_pck": math.nan}, "PCK@0.1") == ""
    assert scores({"valid_pck": 0.5}, "PCK@0.1") == ": PCK@0.1 50.0\u00a0%"
    assert scores({"valid_pck": 0.5, "valid_ap": 0.25}, "PCK@0.1") == ": AP 25.0\u00a0%, PCK@0.1 50.0\u00a0%"


def test_results_are_told_joint_by_joint_in_per_cent():
    pck, auc = {"Head": 0.5, "Hip": math.nan, "Mean": 0.25}, {"Head": 1.0, "Hip": math.nan, "Mean": 0.5}
    table = PckTable("PCKh", 0.5, 3, pck, auc)
    assert joint_section("PCKh@0.5", None) is None
    told = joint_section("PCKh@0.5", table)
    assert told.note == "Only 3 people are scored, too few to say how uncertain PCKh@0.5 is."
    assert told.table == [
        ["", "Head", "Hip", "Mean"],
        ["PCKh@0.5", "50.0", "–", "25.0"],
        ["AUC", "100.0", "–", "50.0"],
    ]


def test_all_text_is_escaped(tmp_path):
    pages = some_pages(tmp_path)
    pages.rows = [row(0)]
    pages.write_epoch([section()])
    index, gallery = read(pages.index), read(pages.folder / "epoch-0.html")
    assert not index.all("b") or all(attributes == {} for attributes in index.all("b"))
    assert index.text.count(NASTY) == 3 and gallery.text.count(NASTY) == 8
    assert gallery.all("img")[0]["alt"].count(NASTY) == 2
    bars = [bar["style"] for bar in gallery.all("b") if "style" in bar]
    assert bars == [f"height: {share}%" for share in ("11.0", "44.0", "0.0", "0.0", "55.0", "0.0", "0.0")]
    assert gallery.text.split(NASTY)[-1].split()[:4] == ["10", "-0.6", "40", "-0.4"]  # shares in %, by bin
    known, unknown = [cell["style"] for cell in gallery.all("td") if "style" in cell]
    assert known == "background: rgba(0, 114, 178, 0.30)" and not unknown
    assert "50.0" in gallery.text and "–" in gallery.text


def test_an_index_refreshes_itself_until_the_run_ends(tmp_path):
    pages = some_pages(tmp_path)
    assert refreshes(read(pages.index)) and {"class": "badge running"} in read(pages.index).all("span")
    pages.epoch([row(0)], gallery=lambda: [section()])
    assert refreshes(read(pages.index)) and "Time left" in read(pages.index).text
    assert not refreshes(read(pages.folder / "epoch-0.html"))
    pages.close()
    index = read(pages.index)
    assert not refreshes(index) and "ended before its last epoch" in index.text
    for epoch, state in ((58, "ended before its last epoch"), (59, "finished"), (60, "finished")):
        pages.rows = [row(3), row(epoch)]
        pages.close()
        index = read(pages.index)
        assert state in index.text and {"class": "badge"} in index.all("span")


def test_the_number_of_galleries_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "draw_curves", lambda *_: [])
    pages, rows = some_pages(tmp_path), []
    for epoch in range(60):
        rows.append(row(epoch))
        pages.rows = rows
        pages.write_epoch([section("x")])
        assert len(list(pages.folder.iterdir())) <= NEWEST + 3
    index = read(pages.index)
    names = {path.name for path in pages.folder.iterdir()}
    linked = {link["href"] for link in index.all("a")}
    assert names == linked | {"index.html"}
    assert {f"epoch-{epoch}.html" for epoch in (best_epoch(rows), 50, 59)} <= names


def test_pages_that_take_too_long_leave_epochs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "SHARE", 0)
    pages, asked = Pages(tmp_path, tmp_path, "x", "stack-hg", "PCKh@0.5", {}, 0, 5, []), []
    for epoch in range(5):
        pages.epoch([row(k) for k in range(epoch + 1)], None, lambda k=epoch: asked.append(k) or [section()])
    assert asked == [0, 4]
    assert {path.name for path in pages.folder.glob("epoch-*")} == {"epoch-0.html", "epoch-4.html"}


def test_retained_galleries():
    assert retained_galleries([], None) == set()
    assert retained_galleries([3], 3) == {3}
    assert retained_galleries(range(1000), 300) == {300, *range(990, 1000)}
    assert retained_galleries(range(1000), 995) == {*range(990, 1000)}


def test_best_epoch_is_of_the_validation_people():
    assert best_epoch([]) is None
    assert best_epoch([{"epoch": 0, "valid_loss": 2.0}, {"epoch": 1, "valid_loss": 1.0}]) == 1
    rows = [{"epoch": k, "valid_pck": pck, "valid_loss": 0.0} for k, pck in enumerate((0.1, math.nan, 0.2))]
    assert best_epoch(rows) == 2


def test_a_new_start_drops_galleries_of_the_epochs_to_come(tmp_path):
    first = some_pages(tmp_path)
    for epoch in range(4):
        first.rows = [row(k) for k in range(epoch + 1)]
        first.write_epoch([section()])
    resumed = some_pages(tmp_path, epoch=2, rows=[row(0, train_seconds=3e4), row(1, valid_seconds=6e3)])
    links = {link["href"] for link in read(resumed.index).all("a")}
    assert links == {"epoch-0.html", "epoch-1.html", "evaluations.html"}
    assert "10:0" in read(resumed.index).text  # 10 hours of the history, and the minutes of this test


def test_a_reader_never_sees_half_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "draw_curves", lambda *_: [Curve("x", "", b"x" * 200_000)])
    pages, done, seen = some_pages(tmp_path), threading.Event(), []

    def reader() -> None:
        while not done.is_set():
            seen.append(pages.index.read_text(encoding="utf-8"))

    thread = threading.Thread(target=reader)
    thread.start()
    for epoch in range(20):
        pages.rows = [row(k) for k in range(epoch + 1)]
        pages.write_epoch([section("x")])
    done.set()
    thread.join()
    assert len(set(seen)) > 1
    for source in set(seen):
        Page(source)


@pytest.mark.parametrize(
    "failure", [OSError("no space"), UserError("not writable"), DataError("no photo"), KeyError("ours")]
)
def test_a_failing_display_is_one_warning(tmp_path, caplog, monkeypatch, failure):
    monkeypatch.setattr(pages_module, "SHARE", 1e9)  # no epoch is left out
    pages, asked = some_pages(tmp_path), []

    def gallery() -> list[Section]:
        asked.append(failure)
        raise failure

    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            pages.epoch([row(epoch)], gallery=gallery)
        pages.close()
    assert len(asked) == 3
    assert len(caplog.records) == 1 and "training continues" in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(failure, KeyError)


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path, caplog):
    (tmp_path / "web").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        pages = some_pages(tmp_path)
        pages.epoch([row(0)], gallery=lambda: [section()])
        pages.close()
    assert len(caplog.records) == 1 and str(tmp_path / "web") in caplog.text


def test_curves_are_drawn_where_their_fields_are():
    assert draw_curves([], "PCK") == []
    for share, top in ((0.0, b"<!-- 1.0 -->"), (0.04, b"<!-- 4.2 -->")):
        (curve,) = draw_curves([{"epoch": 0, "valid_pck": share}], "PCK")
        assert top in curve.svg  # a tick: the axis of what is 0 throughout ends at 1
    rows = [
        {"epoch": k, "lr": 1e-4, "valid_loss": math.nan, "scale_distribution": [1 / 7] * 7} for k in (0, 1)
    ]
    curves = draw_curves(rows, "PCKh@0.5")
    assert all(curve.svg.startswith(b"<?xml") and b"</svg>" in curve.svg for curve in curves)
    # nothing for a loss that has no number
    assert [curve.title for curve in curves] == ["Learning rate", "Mean distribution of scale, %"]


def test_standard_errors_are_a_band_round_their_line():
    """Also where an epoch lacks it."""
    rows = [{"epoch": k, "uniform_gap": 0.01 * k} for k in range(3)]
    (plain,) = draw_curves(rows, "PCK")
    assert plain.title == "PCK: uniform minus agent, points, with standard error"
    for known in rows[1:]:
        known["uniform_gap_error"] = 0.004
    (banded,) = draw_curves(rows, "PCK")
    assert b"FillBetween" in banded.svg and len(banded.svg) > len(plain.svg)


def test_curves_show_the_rows(figures):
    rows = [
        {"epoch": 3, "train_loss": 2.0, "valid_pck": 0.5, "lr": 1e-3},
        {"epoch": 4, "train_loss": 1.0, "valid_pck": 0.75, "lr": 1e-4, "train_mean_row": 0.5}
        | {"rotation_distribution": [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]},
    ]
    draw_curves(rows, "PCKh@0.5")
    loss, pck, rate, shares = (figure.axes[0] for figure in figures)
    training, mean_row = loss.lines
    assert (training.get_label(), training.get_linestyle()) == ("training", "-")
    assert (mean_row.get_label(), mean_row.get_linestyle()) == ("training, mean row", "--")
    assert training.get_xdata().tolist() == [3, 4] and training.get_ydata().tolist() == [2, 1]
    assert math.isnan(mean_row.get_ydata()[0]) and mean_row.get_ydata()[1] == 0.5
    assert pck.lines[0].get_ydata().tolist() == [50, 75]  # in per cent
    assert [axes.get_yscale() for axes in (loss, pck, rate)] == ["linear", "linear", "log"]
    assert [bool(figure.legends) for figure in figures] == [True, False, False, False]
    (image,) = shares.images
    assert image.get_array()[:, 0].tolist() == pytest.approx([40, 10, 10, 10, 10, 10, 10])
    assert list(image.get_extent()) == [3.5, 4.5, -0.5, 6.5] and image.origin == "lower"


def test_a_page_of_nothing_is_valid():
    Page(gallery_page("", "", []))


@pytest.mark.slow
def test_without_the_packages_of_displays_stages_run(tmp_path, monkeypatch):
    """Where neither dominate nor visdom is to be had; both displays are on."""
    for package in ("dominate", "visdom"):
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('no {package} here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    place = ("--data_dir", demo_data(tmp_path / "data"), "--exp_dir", tmp_path, "--exp_id", "run")
    on = ("--use_html", "true", "--use_visdom", "true")
    trained = run_stage("stack-hg.py", *place, *on, "--is_train", "true", "--nEpochs", 1, check=False)
    assert trained.returncode == 0 and (tmp_path / "run" / "lr-0.00025-0.pth.tar").exists()
    evaluated = run_stage("stack-hg.py", *place, *on, "--load_prefix_pose", "lr-0.00025-0", check=False)
    assert evaluated.returncode == 0
    for done in (trained, evaluated):
        assert (done.stdout + done.stderr).count("no dominate here") == 1
        assert "no visdom here" not in done.stdout + done.stderr  # curves need no package


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_everything(site, browser, width):  # noqa: F811
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for path in (site.index, site.folder / "epoch-0.html", site.folder / "epoch-1.html"):
        browser.get(path.resolve().as_uri())
        broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length"
        assert browser.execute_script(broken) == 0
        assert browser.execute_script("return document.images.length") > 0
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert console_errors(browser) == [] and failed_requests(browser) == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
