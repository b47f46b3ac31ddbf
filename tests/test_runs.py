"""A run: its options, its loaders, its pose network, and the precision of its passes."""

import argparse
import json
import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.pages import NASTY, read, refreshes
from torch.testing import assert_close

from data import DataError
from data.augmentation import MARGINS, Augmentation
from data.demo import ANNOTATIONS
from data.kinds import KINDS
from models.hourglass import StackedHourglass
from utils.display.evaluation_report import report_evaluation
from utils.display.report import Report
from utils.display.sections import Section
from utils.evaluation.evaluate import Evaluation
from utils.evaluation.metrics import PckCounter, PckTable
from utils.records.epochs import Retention, save_epoch
from utils.records.events import read_events
from utils.records.history import History
from utils.run import Run
from utils.system.devices import Streams, choose_device
from utils.system.errors import UserError
from utils.system.files import locked, write_file
from utils.system.process import progress


def test_options_are_listed_with_a_star_where_they_differ(nasty_run, monkeypatch):
    monkeypatch.setattr(nasty_run.opt, "mirror_pairs", ["l hip:r hip", "left:right"])
    lines = nasty_run.options_text().splitlines()
    assert "* mirror_pairs: 'l hip:r hip' left:right" in lines
    assert "* chan: 8" in lines and "  num_modules: 1" in lines
    assert "* chan: 8" in (nasty_run.folder / "log.txt").read_text()
    names = [line[2:].split(":")[0] for line in lines]
    assert names == sorted(nasty_run.opt.defaults.keys() & vars(nasty_run.opt).keys())
    assert nasty_run.network_size == {
        "network": "hourglass",
        "num_stacks": 1,
        "num_modules": 1,
        "chan": 8,
        "in_res": 64,
    }


def test_missing_data_is_said_before_all_else(quiet_run, tmp_path, caplog):
    for options in ({"dataset": "mpii"}, {"dataset": "lsp"}):
        with pytest.raises(DataError, match="--dataset demo"):
            quiet_run(**options)
    assert not caplog.messages and not list(tmp_path.iterdir())
    quiet_run(dataset="mpii", image=tmp_path / "a.jpg")  # one photograph needs no data set


def test_loaders(nasty_run, monkeypatch):
    people = nasty_run.dataset.train
    (batch,) = nasty_run.loader(people, "drawn")
    assert batch.index.tolist() == list(range(len(people))) and batch.margin == MARGINS["drawn"]
    people.normalizer[1] = 0
    (batch,) = nasty_run.loader(people, "identity", scored=True)
    assert batch.index.tolist() == [0, 2, 3] and batch.margin == MARGINS["identity"]
    with pytest.raises(UserError, match="at least two"):
        nasty_run.loader(people[:1], "identity", nasty_run.streams["order"])
    people.normalizer[:] = 0
    for some in (people, people[:1]):
        with pytest.raises(UserError, match=f"none of {len(some)} training people can be scored"):
            nasty_run.loader(some, "identity", scored=True)
    started = []
    monkeypatch.setattr("utils.run.PatchLoader", lambda *arguments: started.append(arguments[5]) or [0])
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr(nasty_run.opt, "nThreads", 8)
    nasty_run.loader(people, "identity")
    monkeypatch.setattr(nasty_run.opt, "nThreads", 2)
    nasty_run.loader(people, "identity")
    monkeypatch.setattr("os.cpu_count", lambda: None)  # a system that does not say
    nasty_run.loader(people, "identity")
    assert started == [3, 2, 1]


def test_the_split_that_lacks_people_is_named(nasty_run, monkeypatch):
    both = nasty_run.dataset
    monkeypatch.setattr(nasty_run, "dataset", replace(both, people=both.valid))
    with pytest.raises(UserError, match="--dataset demo has no training people"):
        nasty_run.loader(nasty_run.dataset.train, "identity")
    monkeypatch.setattr(nasty_run, "dataset", replace(both, people=both.train))
    with pytest.raises(UserError, match="--dataset demo has no validation people"):
        nasty_run.loader(nasty_run.dataset.valid, "identity")


def test_the_pose_network_is_loaded(nasty_run, monkeypatch):
    torch.manual_seed(5)
    trained = StackedHourglass(1, 1, chan=8)
    checkpoint = {"state_dict": trained.state_dict(), "epoch": 2, "network": nasty_run.network_size}
    save_epoch(nasty_run.folder, "lr-1-2", checkpoint, best=False)
    monkeypatch.setattr(nasty_run, "pose_path", nasty_run.folder / "lr-1-2.pth.tar")
    network = nasty_run.pose_network()
    assert nasty_run.load_pose(network)["epoch"] == 2
    assert_close(network.state_dict(), trained.state_dict(), atol=0, rtol=0)
    (nasty_run.folder / "lr-1-2.pth.tar").unlink()


def test_a_run_sets_how_a_gpu_multiplies(nasty_run, monkeypatch):
    for precision in ("tf32", "bf16", "tf32", "fp32"):
        monkeypatch.setattr(nasty_run.opt, "precision", precision)
        Run(nasty_run.opt, nasty_run.folder)
        backends = torch.backends.cuda.matmul, torch.backends.cudnn
        assert [backend.allow_tf32 for backend in backends] == [precision == "tf32"] * 2
        newer = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        assert [backend.fp32_precision == "tf32" for backend in newer] == [precision == "tf32"] * 2
        torch.get_float32_matmul_precision()  # as the compiler does: an error if switches disagree


def test_people_without_pck_are_counted_in_the_log(nasty_run):
    log, annotations = nasty_run.folder / "log.txt", nasty_run.opt.data_dir / "demo" / ANNOTATIONS
    assert len(Run(nasty_run.opt, nasty_run.folder).dataset.valid) == 6
    assert "no scored joint" not in log.read_text()
    before = annotations.read_text()
    rows = json.loads(before)
    rows[1]["normalizer"] = rows[1]["joint_self"][8][0] = 0
    try:
        annotations.write_text(json.dumps(rows))
        assert len(Run(nasty_run.opt, nasty_run.folder).dataset.train) == 4
    finally:
        annotations.write_text(before)
    assert "1 of 4 training people have no reference length" in log.read_text()
    assert "people: 4 for training, 6 for validation" in log.read_text()


def test_initial_weights_follow_from_the_seed(nasty_run, monkeypatch):
    weights = []
    for seed in (3, 3, 4):
        monkeypatch.setattr(nasty_run.opt, "seed", seed)
        weights.append(Run(nasty_run.opt, nasty_run.folder).pose_network().conv1.weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_which_device_computes(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    assert choose_device(-1) == torch.device("cpu") and not torch.backends.cudnn.benchmark
    assert [choose_device(k) for k in (0, 1)] == [torch.device("cuda", k) for k in (0, 1)]
    assert chosen == [0, 1] and torch.backends.cudnn.benchmark
    with pytest.raises(UserError, match="GPUs 0 to 1"):
        choose_device(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(0) == torch.device("cpu")


def test_precision_is_of_the_networks_passes_alone(nasty_run, monkeypatch):
    network, image = nasty_run.pose_network().eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = nasty_run.forward(network, image)[-1]
        assert torch.equal(exact, network(image)[-1])
        monkeypatch.setattr(nasty_run.opt, "precision", "bf16")
        rough = nasty_run.forward(network, image)[-1]
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert_close(rough, exact, atol=0.1, rtol=0.1)


def test_crops_have_the_runs_resolution(nasty_run):
    (people,) = nasty_run.loader(nasty_run.dataset.train, "identity")
    sample = nasty_run.augment(people, Augmentation.identity(len(people)))
    assert sample.image.shape[-2:] == (64, 64) and sample.heatmap.shape[-2:] == (16, 16)


@pytest.fixture
def quiet_run(nasty_run, tmp_path):
    """`quiet_run(**options)`: a run in an empty folder, without displays, where nothing else is said."""

    def run(**options):
        quiet = {"use_visdom": False, "use_html": False, "nEpochs": 5, "nThreads": 0, "exp_folder": tmp_path}
        return Run(argparse.Namespace(**vars(nasty_run.opt) | quiet | options), tmp_path)

    return run


def scored(pck):
    columns = {"Head": 1.0, "Mean": pck}
    interval = (0.1, 0.9) if pck > 0.3 else (math.nan, math.nan)
    return Evaluation(2.0, PckTable("PCKh", 0.5, 3, columns, columns, interval), torch.zeros(6, 16, 2))


def test_a_report_tells_of_batches_and_epochs(quiet_run, tmp_path):
    run = quiet_run(print_freq=2, display_freq=3)
    learner = SimpleNamespace(history=History([{"epoch": 0, "loss": 1.0}]), epoch=1, updates=0)
    with Report(run, "the stage", learner, Retention(None), "table.txt") as report:
        assert "nEpochs: 5\n" in (tmp_path / "opt.txt").read_text()
        bar = progress(range(6), "", 4)
        for batch in range(6):
            report.batch(bar, 1, batch, lambda batch=batch: {"loss": batch / 2})
        report.end_epoch(
            {"epoch": 1, "train_loss": 0.5},
            lambda best: [],
            lambda: pytest.fail("there are no pages"),
            scored(0.25),
        )
        for pck in (0.5, 0.6):
            report.end_epoch({"epoch": learner.epoch}, lambda best: [], list, scored(pck))
        assert (tmp_path / "table.txt").read_text() == learner.history.table() and learner.epoch == 4
    first, *batches, epoch, _, _, last = read_events(tmp_path / "log.jsonl")
    assert (first["kind"], first["stage"], first["measure"]) == ("start", "the stage", "PCKh@0.5")
    assert (first["epoch"], first["epochs"], first["people"]) == (1, 5, run.people)
    assert first["options"]["print_freq"] == "2" and "exp_folder" not in first["options"]
    assert [(event["batch"], event["batches"], event["loss"]) for event in batches] == [
        (3, 6, 1),
        (6, 6, 2.5),
    ]
    columns = {"Head": 1.0, "Mean": 0.25}
    told = {"kind": "epoch", "epoch": 1, "train_loss": 0.5, "updates": 0, "pck": columns, "auc": columns}
    assert epoch == told
    assert last["kind"] == "end" and last["time"] >= first["time"] > 1.7e9
    told = (tmp_path / "log.txt").read_text()
    for batch in range(1, 7):
        assert (f"epoch 1, batch {batch} of 6: loss {(batch - 1) / 2:g}\n" in told) == (batch % 2 == 0)
    assert "epoch 1: loss 0.5\n" in told and "25.00" in told
    caution = "WARNING validation: only 3 people are scored: the 95 % interval of PCKh@0.5 is 10.0 to 90.0 %"
    assert told.count(caution) == told.count("people are scored") == 1
    assert told.endswith(f"done: {tmp_path}\n") and not (tmp_path / "web").exists()


def test_a_report_of_a_run_that_fails_does_not_say_done(quiet_run, tmp_path):
    learner = SimpleNamespace(history=History(), epoch=0, updates=0)
    with pytest.raises(UserError, match="the reason"), Report(quiet_run(), "a", learner, Retention(None)):
        raise UserError("the reason")
    assert [event["kind"] for event in read_events(tmp_path / "log.jsonl")] == ["start", "end"]
    assert "done:" not in (tmp_path / "log.txt").read_text()
    write_file(tmp_path / "agent-lr-1-9.pth.tar", "it counts epochs of its own")
    Report(quiet_run(seed=1), "a", learner, Retention(None)).close()
    assert "* seed: 1" in (tmp_path / "opt.txt").read_text()
    assert (tmp_path / "log.txt").read_text().endswith(f"done: {tmp_path}\n")


@pytest.mark.parametrize("env", [None, "an environment"])
def test_a_report_draws_where_the_flags_say(quiet_run, tmp_path, monkeypatch, env):
    displays = []

    class Display(list):
        def __init__(self, *place):
            self.place, self.add, self.closed = place, self.append, False
            displays.append(self)

        def close(self):
            self.closed = True

    monkeypatch.setattr("utils.display.report.VisdomDisplay", Display)
    learner = SimpleNamespace(history=History([{"epoch": 0, "loss": 1.0}]), epoch=0, updates=0)
    Report(quiet_run(), "a", learner, Retention(None)).close()
    assert not displays  # --use_visdom false
    where = {"use_visdom": True, "vis_env": env, "vis_server": "http://there", "vis_port": 9}
    with Report(quiet_run(**where), "a", learner, Retention(None)) as report:
        report.end_epoch({"epoch": 1}, lambda best: [], list)
        (display,) = displays
        assert not display.closed
    assert display.closed and [event["kind"] for event in display] == ["start", "epoch", "end"]
    log, name, *address = display.place
    assert log == tmp_path / "log.jsonl" and address == ["http://there", 9]
    assert name == (env or f"{NASTY}/{tmp_path.name}")


def test_pages_and_options_of_later_epochs_stay_until_one_is_saved(quiet_run, tmp_path):
    write_file(tmp_path / "lr-1-1.pth.tar", "of another way")
    learner = SimpleNamespace(history=History([{"epoch": 0}]), epoch=1, updates=0)
    report = Report(quiet_run(use_html=True, seed=1), "stack-hg", learner, Retention(None))
    assert not (tmp_path / "opt.txt").exists() and not (tmp_path / "web").exists()
    row, saved = {"epoch": 1, "valid_pck": 0.25}, []
    report.end_epoch(
        row, lambda best: saved.append(best) or [], lambda: [Section("Some people", "")], scored(0.25)
    )
    assert saved == [True]
    index, gallery = (read(tmp_path / "web" / f"{name}.html") for name in ("index", "epoch-1"))
    assert "Some people" in gallery.text and "25.0" in index.text and refreshes(index)
    changed, defaults = index.text.split("Set for this run")[1].split("Left at their defaults")
    assert "seed" in changed and "keep" in defaults and "seed" not in defaults and "keep" not in changed
    assert (tmp_path / "opt.txt").exists()
    report.close()
    assert not refreshes(read(tmp_path / "web" / "index.html"))
    assert f"pages: {tmp_path / 'web' / 'index.html'}\n" in (tmp_path / "log.txt").read_text()


def test_an_evaluation_leaves_its_files(quiet_run, tmp_path, figures):
    run = quiet_run(eval_grid=True, use_html=True, overwrite=False)
    network = run.pose_network()
    run.dataset.people.normalizer[:] *= 12  # heads so large that it finds some joints
    report_evaluation(run, network, {"epoch": 3}, tmp_path / "lr-1-3")
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    expected = {"lr-1-3-preds.mat", "lr-1-3-grid.txt", "lr-1-3-grid.png", "web/evaluation-lr-1-3.html"}
    assert names - {"log.txt", "log.jsonl", "web/evaluations.html"} == expected
    title, head, *rows, mean = (tmp_path / "lr-1-3-grid.txt").read_text().splitlines()
    assert title.startswith("PCKh@0.5 by scale")
    assert [float(number) for number in head.split()] == list(KINDS["rotation"].means)
    table = torch.tensor([[float(number) for number in row.split()] for row in rows])
    assert table[:, 0].tolist() == pytest.approx(KINDS["scale"].means)
    assert float(mean.split()[-1]) == pytest.approx(table[:, 1:].mean().item(), abs=0.01)
    counter = PckCounter(0.5)
    for people in run.loader(run.dataset.valid, "drawn"):
        sample = run.augment(people, Augmentation.fixed(len(people), -0.4, 20.0))
        with torch.no_grad():
            counter.add(network.eval()(sample.image)[-1], sample)
    assert table[1, 1 + 4].item() == pytest.approx(100 * counter.read(), abs=0.01) != table[4, 1 + 1].item()
    (event,) = read_events(tmp_path / "log.jsonl")
    assert [event[name] for name in ("kind", "checkpoint", "epoch", "of")] == ["grid", "lr-1-3", 3, ""]
    torch.testing.assert_close(100 * torch.tensor(event["shares"]), table[:, 1:], atol=0.00501, rtol=0)
    told = (tmp_path / "log.txt").read_text()
    assert "WARNING only 6 people are scored" in told
    assert "6 people scored, loss" in told and f"predictions: {tmp_path / 'lr-1-3-preds.mat'}\n" in told
    page = (tmp_path / "web" / "evaluation-lr-1-3.html").read_text()
    assert "By scale and rotation" in page and "The same people on every page" in page
    run, checkpoint = quiet_run(limit=2, overwrite=False, eval_grid=False), {"people": {"dataset": "mpii"}}
    report_evaluation(run, network, checkpoint, tmp_path / "lr-1-3")
    assert (tmp_path / "lr-1-3-preds-demo-first-2.mat").exists()
    everybody = quiet_run(limit=6, overwrite=False, eval_grid=False, use_html=False)
    report_evaluation(everybody, network, checkpoint, tmp_path / "lr-1-3")
    assert (tmp_path / "lr-1-3-preds-demo.mat").exists() and not list(tmp_path.glob("*first-6*"))
    assert not list(tmp_path.glob("*grid-demo*")) and not list(tmp_path.glob("web/*first-2*"))


def test_one_run_at_a_time_is_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/a.py"])
    folder = tmp_path / "a" / "b"
    for _ in range(2):  # it is free again after the first
        with locked(folder):
            holder = (folder / ".lock-holder").read_text()
            assert holder.startswith(f"a.py, process {os.getpid()} on ") and ", since 20" in holder
            for _ in range(2):
                with pytest.raises(UserError, match=r"b is in use by a\.py, process"), locked(folder):
                    pass
        assert not list(folder.iterdir())
    for name in (".lock", ".lock-holder"):  # of a process that was killed
        (folder / name).write_text(f"of a process that was killed, {'and a longer line ' * 9}")
    half = [folder / name for name in (".a.01234567.tmp", ".b.01234567.tmp.lock", "web/.c.89abcdef.tmp")]
    half[2].parent.mkdir()
    for path in half:
        path.touch()
        os.utime(path, (0, 0))
    with locked(folder):
        text = (folder / ".lock-holder").read_text()
        assert text.startswith("a.py, process") and "longer" not in text
        assert not any(path.exists() for path in half)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be written to"), locked(tmp_path / "file"):
        pass


def test_a_lock_ends_with_its_context_though_processes_go_on(tmp_path):
    """This one, and one that it has forked, as loaders are."""
    fork = multiprocessing.get_context("fork")
    started = fork.Event()
    loader = fork.Process(target=lambda: (started.set(), time.sleep(60)), daemon=True)
    with locked(tmp_path):
        loader.start()
        assert started.wait(30)
    with locked(tmp_path):
        pass
    loader.kill()
    loader.join()


def test_every_stream_draws_anew_in_every_epoch_by_the_seed():
    def firsts(seed, epoch, before=0):
        streams = Streams(seed)
        generators = [streams[purpose] for purpose in ("order", "random", "agent", "agent training")]
        for one in generators[:before]:
            torch.rand(5, generator=one)  # that one has drawn moves no other and no later epoch
        streams.start(epoch)
        return [torch.rand(1, generator=one).item() for one in generators]

    found = [firsts(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({value for values in found for value in values}) == 6 * len(found[0])
    assert firsts(1, 2, before=2) == found[-1]


def test_a_forked_process_does_not_keep_the_lock_of_a_killed_one(tmp_path):
    fork = multiprocessing.get_context("fork")
    pipe, child_pipe = fork.Pipe()

    def hold():
        with locked(tmp_path):
            sleeper = fork.Process(target=time.sleep, args=(60,))
            sleeper.start()
            child_pipe.send(sleeper.pid)
            time.sleep(60)

    holder = fork.Process(target=hold)
    holder.start()
    sleeper = pipe.recv()
    try:
        with pytest.raises(UserError, match=f"process {holder.pid}"), locked(tmp_path):
            pass
        holder.kill()
        holder.join()
        with locked(tmp_path):
            os.kill(sleeper, 0)  # it is alive
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_a_run_that_asked_for_a_gpu_says_that_there_is_none(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choose_device(-1)
    assert caplog.messages == []
    choose_device(0)
    assert caplog.messages == ["no CUDA GPU is available: running on the CPU"]
