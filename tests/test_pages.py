"""The HTML pages: valid, escaped, self-contained, bounded, never half written, never a training's end."""

import logging
import math
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import torch
from browser import browser, console_errors, failed_requests  # noqa: F401
from stages import demo_data, run_stage

from data.demo import write_demo
from data.errors import DataError
from data.kinds import KINDS
from options.parser import StageParser
from utils.agents import build_agent
from utils.display import pages as pages_module
from utils.display.curves import draw_curves
from utils.display.gallery import agent_gallery, fixed_rows, grid_section, hardest_gallery, load, pose_gallery
from utils.display.markup import gallery_page
from utils.display.pages import MOST, Pages, best_epoch, kept, write_evaluation
from utils.display.sections import Bars, Grid, Person, Picture, Section
from utils.errors import UserError
from utils.evaluation import evaluate
from utils.runs import Run

NASTY = "a <b>&\"x\" 'y' ü"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """A page's tags, checked to be balanced as they come, its attributes and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []
        assert source.startswith("<!DOCTYPE html>") and source.rstrip().endswith("</html>")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    for image in page.all("img"):
        assert image["src"].startswith("data:image/") and image["alt"]
    for link in page.all("a"):
        url = urlparse(link["href"])
        assert not url.scheme and not url.netloc and not url.path.startswith("/")
        assert (path.parent / unquote(url.path)).exists(), link
    assert not page.all("script") and not page.all("link")
    return page


def refreshes(page: Page) -> bool:
    return any(meta.get("http-equiv") == "refresh" for meta in page.all("meta"))


def row(epoch: int, **fields: object) -> dict:
    return {"epoch": epoch, "train_loss": 1 / (epoch + 1), "valid_pck": 0.5 + 0.1 * math.sin(epoch)} | fields


def some_pages(folder: Path, epoch: int = 0, rows: list[dict] | None = None) -> Pages:
    options = {"lr": (NASTY, True), "bs": ("24", False)}
    return Pages(folder, NASTY, "stack-hg", "PCKh@0.5", options, epoch, 60, rows or [])


def section(text: str = NASTY) -> Section:
    bars = Bars(text, [f"{mean:g}" for mean in KINDS["scale"].means], [0.1, 0.4, 0, 0, 0.5, 0, 0], 4)
    grid = Grid(text, ["a", "b"], [text], [[0.5], [math.nan]])
    return Section(text, text, [Person(text, [Picture(b"no picture", text)], [bars])], grid)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a small demo set, with an id that is no plain word."""
    folder = tmp_path_factory.mktemp("pages")
    write_demo(folder / "data" / "demo", train=4, valid=6)
    sizes = "--num_stacks 1 --chan 8 --in_res 64 --bs 4 --gpu_id -1 --dataset demo --display_winsize 96"
    places = ["--exp_id", NASTY, "--exp_dir", str(folder / "exp"), "--data_dir", str(folder / "data")]
    groups = ("train_or_evaluate", "resume_pose", "rate", "epochs", "evaluation")
    opt = StageParser("", *groups).parse([*sizes.split(), *places])
    return Run(opt, opt.exp_folder)


@pytest.fixture(scope="module")
def site(run: Run) -> Pages:
    """Pages of two epochs with everything that a page can show."""
    network = run.pose_network()
    agent = build_agent(run, network)
    evaluation = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    hardest = [
        {"row": k, "kind": kind, "value": value, "pck_agent": 0.2, "pck_random": 0.8}
        for k, (kind, value) in enumerate((("scale", 0.5), ("rotation", -45.0), ("scale", -0.6)))
    ]
    share = [1 / 7] * 7
    rows = [row(k, scale_distribution=share, rotation_distribution=share, pck_gap=0.1) for k in range(2)]
    pages = some_pages(run.folder)
    for epoch in range(2):
        pages.rows, pages.table = rows[: epoch + 1], evaluation.table
        pages.write_epoch(
            [
                *pose_gallery(run, network, evaluation),
                *agent_gallery(run, network, agent, epoch),
                *hardest_gallery(run, network, hardest),
                *grid_section(run, torch.eye(7)),
            ]
        )
    return pages


def test_pages_are_valid_and_self_contained(site):
    index, gallery = read(site.index), read(site.folder / "epoch-1.html")
    assert len(index.all("img")) == 5  # panels of the fields that the rows have
    assert {link["href"] for link in index.all("a")} >= {"epoch-0.html", "epoch-1.html"}
    assert len(gallery.all("img")) >= 2 * 4 + 3 * 4 + 2 * 3
    assert "Ankle" in index.text and "PCKh@0.5" in gallery.text


def test_an_evaluation_has_a_page_with_and_without_an_index(run, tmp_path):
    network = run.pose_network()
    evaluation = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    sections = [*grid_section(run, torch.eye(7)), *pose_gallery(run, network, evaluation)]
    for links in (0, 1):
        path = write_evaluation(tmp_path, NASTY, "lr-0.00025-3", "PCKh@0.5", evaluation.table, sections)
        page = read(path)
        assert path == tmp_path / "web" / "evaluation-lr-0.00025-3.html"
        assert len(page.all("a")) == links and page.text.count("100.0") == 7 and "Ankle" in page.text
        some_pages(tmp_path)
    listed = tmp_path / "web" / "evaluations.html"
    assert listed.name in {link["href"] for link in read(tmp_path / "web" / "index.html").all("a")}
    for checkpoint in ("lr-0.00025-9", "lr-0.00025-10"):
        write_evaluation(tmp_path, NASTY, checkpoint, "PCKh@0.5", evaluation.table, sections)
        assert read(listed).all("a")[-1]["href"] == f"evaluation-{checkpoint}.html"


def test_all_text_is_escaped(tmp_path):
    pages = some_pages(tmp_path)
    pages.rows = [row(0)]
    pages.write_epoch([section()])
    index, gallery = read(pages.index), read(pages.folder / "epoch-0.html")
    assert not index.all("b") or all(attributes == {} for attributes in index.all("b"))
    assert index.text.count(NASTY) == 3 and gallery.text.count(NASTY) >= 8
    assert gallery.all("img")[0]["alt"].count(NASTY) == 2


def test_an_index_refreshes_itself_until_the_run_ends(tmp_path):
    pages = some_pages(tmp_path)
    assert refreshes(read(pages.index))
    pages.epoch([row(0)], gallery=lambda: [section()])
    assert refreshes(read(pages.index)) and "Time left" in read(pages.index).text
    assert not refreshes(read(pages.folder / "epoch-0.html"))
    pages.close()
    index = read(pages.index)
    assert not refreshes(index) and "ended before its last epoch" in index.text
    pages.rows = [row(59)]
    pages.close()
    assert "finished" in read(pages.index).text


def test_the_number_of_galleries_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "draw_curves", lambda *_: [])
    pages, rows = some_pages(tmp_path), []
    for epoch in range(60):
        rows.append(row(epoch))
        pages.rows = rows
        pages.write_epoch([section("x")])
        assert len(list(pages.folder.iterdir())) <= MOST + 2
    index = read(pages.index)
    names = {path.name for path in pages.folder.iterdir()}
    linked = {link["href"] for link in index.all("a")}
    assert names == linked | {"index.html"}
    assert {f"epoch-{epoch}.html" for epoch in (0, best_epoch(rows), 16, 32, 59)} <= names


def test_pages_that_take_too_long_leave_epochs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "SHARE", 0)
    pages, asked = Pages(tmp_path, "x", "stack-hg", "PCKh@0.5", {}, 0, 5, []), []
    for epoch in range(5):
        pages.epoch([row(k) for k in range(epoch + 1)], None, lambda k=epoch: asked.append(k) or [section()])
    assert asked == [0, 4]
    assert {path.name for path in pages.folder.glob("epoch-*")} == {"epoch-0.html", "epoch-4.html"}


def test_kept_galleries():
    assert kept([], None) == set()
    assert kept([3], 3) == {3}
    assert kept(range(1000), 300) == {0, 64, 128, 256, 512, 300, *range(994, 1000)}
    assert all(len(kept(range(n), n // 3)) <= MOST for n in range(200))


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
    resumed = some_pages(tmp_path, epoch=2, rows=[row(0, train_seconds=60.0), row(1, valid_seconds=40.0)])
    links = {link["href"] for link in read(resumed.index).all("a")}
    assert links == {"epoch-0.html", "epoch-1.html", "evaluations.html"}
    assert "0:01:40" in read(resumed.index).text


def test_a_reader_never_sees_half_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "draw_curves", lambda *_: [("x", b"x" * 200_000)])
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
def test_a_failing_display_is_one_warning(tmp_path, caplog, failure):
    pages = some_pages(tmp_path)

    def gallery() -> list[Section]:
        raise failure

    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            pages.epoch([row(epoch)], gallery=gallery)
        pages.close()
    assert len(caplog.records) == 1 and "training goes on" in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(failure, KeyError)


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path, caplog):
    (tmp_path / "web").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        pages = some_pages(tmp_path)
        pages.epoch([row(0)], gallery=lambda: [section()])
        pages.close()
    assert len(caplog.records) == 1 and str(tmp_path / "web") in caplog.text


def test_galleries_leave_training_as_it_was(run):
    network = run.pose_network()
    agent = build_agent(run, network)
    network.train(), agent.train()
    network.bn1.eval()
    state = {k: v.clone() for part in (network, agent) for k, v in part.state_dict().items()}
    modes = [module.training for part in (network, agent) for module in part.modules()]
    draws = run.generator.get_state(), torch.get_rng_state()
    hardest_gallery(
        run, network, [{"row": 0, "kind": "scale", "value": 0.0, "pck_agent": 1.0, "pck_random": 1.0}]
    )
    first = agent_gallery(run, network, agent, 3)
    assert modes == [module.training for part in (network, agent) for module in part.modules()]
    for part in (network, agent):
        assert all(torch.equal(state[name], value) for name, value in part.state_dict().items())
    assert torch.equal(draws[0], run.generator.get_state()) and torch.equal(draws[1], torch.get_rng_state())
    assert agent_gallery(run, network, agent, 3) == first


def test_best_people_are_not_worse_than_the_worst(run):
    network = run.pose_network()
    evaluation = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    same, best, worst = pose_gallery(run, network, evaluation)
    assert len(same.people) == len(fixed_rows(run.dataset.valid)) == 4
    shares = [[float(p.title.split()[-2]) for p in part.people] for part in (best, worst)]
    assert min(shares[0]) >= max(shares[1])


def test_a_photograph_that_is_gone_is_named(run):
    people = run.dataset.valid[np.array([0])]
    people.image[0] = "demo/images/gone.jpg"
    with pytest.raises(DataError, match=r"gone\.jpg"):
        load(run, people, np.array([0]), "identity")


def test_curves_are_drawn_where_their_fields_are():
    assert draw_curves([], "PCK") == []
    rows = [
        {"epoch": k, "lr": 1e-4, "valid_loss": math.nan, "scale_distribution": [1 / 7] * 7} for k in (0, 1)
    ]
    titles = [
        title for title, svg in draw_curves(rows, "PCKh@0.5") if svg.startswith(b"<?xml") and b"</svg>" in svg
    ]
    assert titles == ["Loss", "Learning rate", "Mean distribution of scale, %"]


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
    assert (trained.stdout + trained.stderr).count("no visdom here") == 1


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
