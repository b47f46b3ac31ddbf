"""The page of the data: what it counts and shows, when it is written, and that training does not notice."""

import json
import re
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from support.experiment import kept_logging, run_here
from support.pages import NASTY, Page, read
from support.stages import QUIET, SMALL, demo_data
from support.stand_ins import generator_states

from data.datasets import load_dataset
from data.people import annotated
from options.parser import StageParser
from utils.display import data_page
from utils.display.data_page import PEOPLE, write_data_page
from utils.run import Run
from utils.system import ranks

NAMES = ["nose", "left_<b>", "right_<b>", f"left {NASTY}"]
"""The last one has no partner."""


def write_coco(folder, split, count, id):
    """A file of people in COCO's format, each in a photograph of its own; the nose is annotated for one."""
    images, annotations = [], []
    for k in range(count):
        images.append({"id": k, "file_name": f"{split}-{k}.png", "width": 80, "height": 60})
        Image.new("RGB", (80, 60), (0, 60, 120)).save(folder / images[-1]["file_name"])
        keypoints = [*(30, 10, 2 * (k == 1)), *(20, 30, 2), *(40, 30, 1), *(20, 50, 0)]
        one = {"image_id": k, "category_id": 1, "bbox": [10, 5, 40, 50 + k], "keypoints": keypoints}
        annotations.append({"id": id + k, **one})
    annotations.append(annotations[-1] | {"id": id + count, "iscrowd": 1})
    content = {"images": images, "annotations": annotations}
    skeleton = {"keypoints": NAMES, "skeleton": [[1, 2], [1, 9]]}
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "person", **skeleton}]}))
    return path


@pytest.fixture(scope="module")
def coco_run(tmp_path_factory):
    """A run on 40 training and 5 validation people."""
    folder = tmp_path_factory.mktemp("coco")
    files = [write_coco(folder, "train", 40, 100), write_coco(folder, "valid", 5, 900)]
    flags = (*SMALL, "--dataset", "coco", "--annotations", files[0], "--annotations_valid", files[1])
    place = ("--images", folder, "--exp_dir", folder, "--exp_id", "a", *QUIET)
    groups = ("train_or_evaluate", "resume_pose", "rate", "epochs", "ranks")
    with kept_logging():
        opt = StageParser("", *groups).parse([str(flag) for flag in (*flags, *place)])
        run = Run(opt, opt.exp_folder)
        assert len(run.dataset.people) == 45
    return run


def written(run):
    """The page that a run from the start would have written; | between the texts of its tags."""
    path = write_data_page(run)
    page = Page(path.read_text(encoding="utf-8"))
    path.unlink()
    page.text = re.sub(r"\s*\n\s*", "|", page.text)
    return page


def test_people_of_both_splits_are_shown(coco_run):
    page = written(coco_run)
    captions = [image["alt"] for image in page.all("img")]
    assert len(captions) == PEOPLE + 2  # and the mirrored one
    assert captions[0] == "train-0.png, person 0, annotation 100: 2 of 4 joints, box of 62 px"
    assert captions[18].startswith("train-39.png, person 39, annotation 139: 2 of 4 joints")
    assert [text.split(",")[0] for text in captions[19:24]] == [f"valid-{k}.png" for k in range(5)]
    assert captions[24:] == [
        f"train-0.png, person 0, annotation 100: {how}" for how in ("as it is", "mirrored")
    ]


def test_counts_and_what_was_left_out(coco_run):
    text = written(coco_run).text
    assert "4 joints, 1 left-right pairs, 0 bones" in text
    assert f"Never annotated in training, so the network cannot learn them: left {NASTY}." in text
    nose = "|0 nose|middle|–|yes|–|1 (2\u00a0%)|1 (20\u00a0%)|"
    hands = "|1 left_<b>|left|2 right_<b>|yes|–|40 (100\u00a0%)|5 (100\u00a0%)|"
    never = f"|3 left {NASTY}|middle|–|yes|–|\u26a0 never|\u26a0 never|"
    assert all(row in text for row in (nose, hands, never))
    assert "|training|40|40|40|2 · 2 · 3|62 · 87 · 111|" in text
    assert "PCK@0.1, where the reference length is the longer side of bbox" in text
    assert "40 people; left out 1 crowd regions" in text
    assert "left out all 2 bones" in text and "joints without a partner on the other side" in text


@pytest.mark.parametrize(
    ("train", "valid", "shown"),
    [(118_000, 6_000, (12, 12)), (40, 5, (19, 5)), (3, 90, (3, 21)), (4, 6, (4, 6))],
)
def test_how_many_are_shown(train, valid, shown):
    rows = data_page._shown_rows(train, valid)
    assert tuple(map(len, rows)) == shown
    for some, total in zip(rows, (train, valid), strict=True):
        assert (some[0], some[-1]) == (0, total - 1) and (np.diff(some) > 0).all()


def test_only_photographs_of_those_shown_are_read(coco_run, monkeypatch):
    opened, batch = [], Run.batch
    monkeypatch.setattr(Run, "batch", lambda run, *args: opened.extend(args[1]) or batch(run, *args))
    write_data_page(coco_run)
    assert len(opened) == PEOPLE + 2


def test_a_mirrored_person_has_the_colors_of_the_other_side(coco_run, monkeypatch):
    drawn = []
    monkeypatch.setattr(data_page, "_picture", lambda image, joints, known, *_: drawn.append((joints, known)))
    people = coco_run.dataset.train
    for mirrored in (False, True):
        data_page._draw(coco_run, people, np.array([1]), mirrored)
    (plain, known), (mirror, _) = drawn
    assert known.tolist() == [True, True, True, False]
    np.testing.assert_allclose(mirror[[0, 2, 1], 1], plain[:3, 1], atol=1e-3)
    np.testing.assert_allclose(mirror[[0, 2, 1], 0], data_page._SIDE - plain[:3, 0], atol=1e-3)


def test_training_does_not_notice(nasty_run):
    for name in ("order", "random"):
        nasty_run.streams[name]
    before = generator_states(nasty_run.streams) | {"default": torch.default_generator.get_state()}
    page = written(nasty_run)
    after = generator_states(nasty_run.streams) | {"default": torch.default_generator.get_state()}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert len(page.all("img")) == len(nasty_run.dataset.people) + 2
    counts = annotated(nasty_run.dataset.train.points).sum(axis=0)
    assert f"|0 right ankle|right|5 left ankle|yes|–|{counts[0]} (" in page.text


def test_notes_are_the_lines_of_the_log(coco_run):
    dataset = coco_run.dataset
    assert dataset.notes[0].startswith("annotations: ") and dataset.notes[0].endswith("train.json")
    assert any("average precision: the joints have no constants" in note for note in dataset.notes)
    assert load_dataset("demo", coco_run.folder).notes == ()


@pytest.fixture
def stage(tmp_path):
    """Runs stage 1 for an epoch, with pages and further flags."""
    demo_data(tmp_path / "data")
    place = ("--data_dir", tmp_path / "data", "--exp_dir", tmp_path, "--exp_id", "a", "--use_html", "true")
    return lambda *flags: run_here("stack-hg.py", *place, "--is_train", "true", *flags)


@pytest.mark.slow
def test_the_page_is_there_before_the_first_epoch_and_only_of_a_new_start(stage, tmp_path):
    page, there = tmp_path / "a" / "web" / "data.html", []
    with mock.patch(
        "torch.nn.Module.train", lambda network, mode=True: there.append(page.exists()) or network
    ):
        said = stage("--nEpochs", 1)
    assert there[0] and str(page) in said
    assert {"href": "data.html"} in read(page.with_name("index.html")).all("a")
    page.unlink()
    stage("--nEpochs", 2, "--load_prefix_pose", "lr-0.00025-0")
    assert not page.exists()
    assert {"href": "data.html"} not in read(page.with_name("index.html")).all("a")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--use_html", "false"), ()])
def test_other_ranks_and_runs_without_pages_write_none(stage, tmp_path, monkeypatch, flags):
    if not flags:
        monkeypatch.setattr("utils.display.report.ranks", mock.Mock(wraps=ranks, rank=lambda: 1))
    stage("--nEpochs", 1, *flags)
    assert (tmp_path / "a" / "lr-0.00025-0.pth.tar").exists() and not (tmp_path / "a" / "web").exists()


@pytest.mark.slow
def test_a_page_that_fails_is_a_warning(stage, tmp_path, monkeypatch):
    def fail(run):
        raise KeyError("ours")

    monkeypatch.setattr(data_page, "write_data_page", fail)
    assert "training continues: 'ours'" in stage("--nEpochs", 1)
    assert (tmp_path / "a" / "lr-0.00025-0.pth.tar").exists()
