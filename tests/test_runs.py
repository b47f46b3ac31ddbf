"""A run: its options, its loaders, its pose network, and the precision of its passes."""

import json

import pytest
import torch
from torch.testing import assert_close

from data.augmentation import MARGINS, Augmentation
from data.demo import ANNOTATIONS
from models.hourglass import StackedHourglass
from utils.devices import choose_device
from utils.epochs import save_epoch
from utils.errors import UserError
from utils.runs import Run


def test_options_are_listed_with_a_star_where_they_differ(nasty_run):
    lines = nasty_run.options_text().splitlines()
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


def test_every_stage_removes_the_temporary_files_of_killed_ones(nasty_run):
    (nasty_run.folder / "web").mkdir(exist_ok=True)
    half = [
        nasty_run.folder / name for name in (".train_scales.txt.01234567.tmp", "web/.index.html.89abcdef.tmp")
    ]
    for path in half:
        path.write_text("half")
    Run(nasty_run.opt, nasty_run.folder)
    assert not any(path.exists() for path in half)


def test_loaders(nasty_run, monkeypatch):
    people = nasty_run.dataset.train
    (batch,) = nasty_run.loader(people, "drawn")
    assert batch.index.tolist() == list(range(len(people))) and batch.margin > MARGINS["drawn"]
    people.normalizer[1] = 0
    (batch,) = nasty_run.loader(people, "identity", scored=True)
    assert batch.index.tolist() == [0, 2, 3] and batch.margin < MARGINS["drawn"]
    with pytest.raises(UserError, match="no people"):
        nasty_run.loader(people[:0], "identity")
    with pytest.raises(UserError, match="at least two"):
        nasty_run.loader(people[:1], "identity", nasty_run.generator)
    people.normalizer[:] = 0
    for some in (people, people[:1]):
        with pytest.raises(UserError, match=f"none of {len(some)} training people has PCK"):
            nasty_run.loader(some, "identity", scored=True)
    started = []
    monkeypatch.setattr("utils.runs.PatchLoader", lambda *arguments: started.append(arguments[5]) or [0])
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr(nasty_run.opt, "nThreads", 8)
    nasty_run.loader(people, "identity")
    monkeypatch.setattr(nasty_run.opt, "nThreads", 2)
    nasty_run.loader(people, "identity")
    assert started == [3, 2]


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
    for precision, multiply in (("tf32", "tf32"), ("bf16", "ieee"), ("tf32", "tf32"), ("fp32", "ieee")):
        monkeypatch.setattr(nasty_run.opt, "precision", precision)
        Run(nasty_run.opt, nasty_run.folder)
        backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        assert [backend.fp32_precision for backend in backends] == [multiply] * 2


def test_people_without_pck_are_counted_in_the_log(nasty_run):
    log, annotations = nasty_run.folder / "log.txt", nasty_run.opt.data_dir / "demo" / ANNOTATIONS
    assert len(Run(nasty_run.opt, nasty_run.folder).dataset.valid) == 6
    assert "people lack" not in log.read_text()
    before = annotations.read_text()
    rows = json.loads(before)
    rows[1]["normalizer"] = rows[1]["joint_self"][8][0] = 0
    try:
        annotations.write_text(json.dumps(rows))
        assert len(Run(nasty_run.opt, nasty_run.folder).dataset.train) == 4
    finally:
        annotations.write_text(before)
    assert "1 of 4 training people lack" in log.read_text()


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
