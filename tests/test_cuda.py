"""On a CUDA GPU: crops and networks as on the CPU, every stage from end to end, in every precision."""

import math
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from support.stages import demo_data, run_stage
from support.stand_ins import some_people
from torch._dynamo.utils import counters
from torch.testing import assert_close

from data.augmentation import Augmentation
from data.crops import augment
from data.datasets import load_dataset
from data.heatmap import predict_points
from data.loading.loader import PatchLoader
from models.agent import ScaleRotationAgent
from models.hourglass import StackedHourglass
from models.losses import pose_loss
from models.masks import cell_mask
from utils.agents import AGENTS
from utils.agents.pretraining import agent_loss
from utils.patch_store import Caches
from utils.records.checkpoint import load_checkpoint
from utils.system.devices import set_precision
from utils.training import Learner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is available"),
]

LAST = {"stack-hg.py": "lr-0.00025-1", "pretrain-s-r-agent.py": "lr-0.00025-0"}


def test_crops_heatmaps_and_predictions_are_the_cpus():
    people = some_people(6)
    augmentation = Augmentation.random(12, torch.Generator().manual_seed(0))
    here, there = (
        augment(people.to(torch.device(device)), augmentation, 64, 16) for device in ("cpu", "cuda")
    )
    for name, tensor in vars(here).items():
        assert_close(getattr(there, name).cpu(), tensor, atol=1e-4, rtol=1e-5)
    boxes = (there.center, there.scale, there.rotation)
    predicted = predict_points(there.heatmap, *boxes).cpu()
    assert_close(predicted, predict_points(here.heatmap, *(box.cpu() for box in boxes)), atol=1e-3, rtol=1e-5)


def test_networks_are_the_cpus():
    set_precision("fp32")  # PyTorch's own default is TF32 for convolutions
    torch.manual_seed(0)
    pose, agent = StackedHourglass(2, 1, chan=16).eval(), ScaleRotationAgent(16, 16).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        here = [*pose(image), *agent(pose.features(image)).values()]
        pose, agent, image = pose.cuda(), agent.cuda(), image.cuda()
        there = [*pose(image), *agent(pose.features(image)).values()]
    for cpu, gpu in zip(here, there, strict=True):
        assert_close(gpu.cpu(), cpu, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_steps_are_the_eager_ones(nasty_run, monkeypatch, precision):
    """50 steps on batches of two sizes, with masks and without; the agent looks in between."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(nasty_run, "device", cuda)
    for name, value in (("bs", 8), ("in_res", 128), ("chan", 32), ("precision", precision)):
        monkeypatch.setattr(nasty_run.opt, name, value)
    set_precision(precision)
    torch._dynamo.reset()
    counters.clear()
    losses, looks, graphs = {}, {}, []
    for compiled in (False, True):
        monkeypatch.setattr(nasty_run, "compiled", compiled)
        torch.manual_seed(0)
        pose = Learner(nasty_run.pose_network(), 2e-5)
        agent = AGENTS["agent"].build(nasty_run, pose.network, 2e-5)
        agent.learner.network.train()
        generator = torch.Generator().manual_seed(0)
        losses[compiled], looks[compiled] = [], []
        for step in range(50):
            crops = 5 if step % 10 == 9 else 8
            crop = nasty_run.augment(some_people(crops).to(cuda), Augmentation.identity(crops))
            image = torch.rand(crops, 3, 128, 128, generator=generator).to(cuda)
            heatmap = torch.rand(crops, 16, 32, 32, generator=generator).to(cuda)
            mask = None if step % 3 else cell_mask(torch.zeros(crops, 1, dtype=torch.int64, device=cuda), 2)
            outputs = nasty_run.forward(pose.network.train(), image, mask)
            losses[compiled].append(pose.step(pose_loss(outputs, heatmap)))
            logits = agent.predict(replace(crop, image=image), trains=True)
            with torch.no_grad():  # another network's pass before the agent's backward pass
                nasty_run.forward(pose.network.eval(), image.repeat(2, 1, 1, 1))
            uniform = {kind: torch.full_like(answer, 1 / answer.shape[1]) for kind, answer in logits.items()}
            looks[compiled].append(agent.learner.step(agent_loss(logits, uniform)))
            graphs.append(counters["stats"]["unique_graphs"])
    tolerance = 2e-2 if precision == "bf16" else 5e-3  # RMSprop enlarges rounding
    for found in (losses, looks):
        eager, compiled = (torch.stack(found[way]).cpu() for way in (False, True))
        assert_close(compiled, eager, atol=tolerance, rtol=tolerance)
    assert losses[True][-1] < losses[True][0]
    assert graphs[49] == 0 and graphs[79] == graphs[99] > 0  # after the first steps nothing is compiled anew


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "compiled"])
def test_the_five_stages(tmp_path, precision):
    place = ("--data_dir", demo_data(tmp_path / "data"), "--exp_dir", tmp_path, "--exp_id", "tiny")
    flags = (*place, "--gpu_id", 0, "--nThreads", 2)
    flags += ("--compile", "true") if precision == "compiled" else ("--precision", precision)
    pose = ("--load_prefix_pose", LAST["stack-hg.py"])
    stage = partial(run_stage, timeout=900)  # compiling takes minutes
    stage("stack-hg.py", *flags, "--is_train", "true", "--nEpochs", 1)
    stage("stack-hg.py", *flags, "--is_train", "true", "--nEpochs", 2, "--load_prefix_pose", "lr-0.00025-0")
    stage("stack-hg.py", *flags, *pose, "--eval_grid", "true")
    stage("collect-scale-distri.py", *flags, *pose)
    stage("collect-rotation-distri.py", *flags, *pose)
    stage("pretrain-s-r-agent.py", *flags, *pose, "--nEpochs", 1)
    joint, agent = (*flags, *pose, "--is_train", "true"), ("--load_prefix_sr", LAST["pretrain-s-r-agent.py"])
    stage("joint-train-pose-s-r-agent.py", *joint, *agent, "--nEpochs", 3, "--use_html", "true")
    stage("joint-train-pose-s-r-agent.py", *joint, "--nEpochs", 4, "--load_checkpoint", "true")
    folder = tmp_path / "tiny" / f"joint-{LAST['stack-hg.py']}"
    rows = load_checkpoint(folder / "pose-lr-0.00025-3.pth.tar")["train_history"]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert all(math.isfinite(row["train_loss"]) and math.isfinite(row["valid_loss"]) for row in rows)
    if find_spec("dominate"):  # without it there are no pages
        assert (folder / "web" / "epoch-2.html").exists()


@pytest.mark.parametrize("place", ["gpu", "folder"])
def test_cached_patches_are_the_decoded_ones(tmp_path, place):
    data, cuda = load_dataset("demo", demo_data(tmp_path / "data")), torch.device("cuda")

    def loader(device, cache=None):
        generator = torch.Generator().manual_seed(0)
        return PatchLoader(data.train, data.root, 64, 2.0, 5, 2, device, generator, cache=cache)

    ordered = PatchLoader(data.train, data.root, 64, 2.0, 5, 2, torch.device("cpu"))
    cache = Caches(cuda if place == "gpu" else tmp_path / "caches").get("train", ordered)
    for found, expected in zip(loader(cuda, cache), loader(cuda), strict=True):
        for name in ("patch", "width", "points", "index"):
            one, other = getattr(found, name), getattr(expected, name)
            assert one.is_cuda and torch.equal(one, other) and one.stride() == other.stride()
