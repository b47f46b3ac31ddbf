"""Compiled networks: the same numbers, full batches only, and copies of what leaves a graph."""

from dataclasses import replace

import pytest
import torch
from support.stand_ins import some_people

from models.losses import pose_loss
from utils.agents.occlusion import build_occlusion_agent
from utils.agents.scale_rotation import agent_logits, build_agent
from utils.run import Run
from utils.system import compiling
from utils.system.errors import UserError
from utils.training import Learner

BS = 4


class Graphs:
    """A compiler that runs what it was given, and keeps how many crops or people each run had."""

    def __init__(self):
        self.compiled, self.runs, self.outputs = 0, [], []

    def __call__(self, module, inputs):
        self.compiled += 1

        def graph(*arguments):
            outputs = module(*arguments)
            sizes = {len(one) for one in arguments if one.dim() == 4 and not one.requires_grad}
            self.runs.append(max(sizes & {2, 3, 4, 8}, default=0))
            self.outputs += outputs
            return outputs

        return graph


@pytest.fixture
def graphs(monkeypatch):
    torch._dynamo.reset()
    graphs = Graphs()
    monkeypatch.setattr(compiling, "HOW", {"backend": graphs, "dynamic": False})
    yield graphs
    torch._dynamo.reset()


@pytest.fixture
def run(nasty_run, monkeypatch):
    """A run that compiles, as it would on a GPU."""
    monkeypatch.setattr(nasty_run.opt, "bs", BS)
    monkeypatch.setattr(nasty_run, "compiled", True)
    return nasty_run


def pair(run, build):
    """A network that is not compiled, and one that is, with the same weights."""
    run.compiled = False
    plain = build()
    run.compiled = True
    network = build()
    network.load_state_dict(plain.state_dict())
    return plain, network


def test_forward_passes_of_full_batches_are_compiled(run, graphs):
    plain, network = pair(run, run.pose_network)
    assert list(network.state_dict()) == list(plain.state_dict())
    for crops, mode in ((BS, True), (3, True), (2 * BS, False), (BS, False), (2, False), (BS, True)):
        image, before = torch.rand(crops, 3, 64, 64), len(graphs.runs)
        found, expected = (
            run.forward(one.train(mode), image, full=crops % BS == 0) for one in (network, plain)
        )
        assert all(map(torch.equal, found, expected))
        assert graphs.runs[before:] == ([crops] if crops % BS == 0 else [])
    assert graphs.compiled == 3  # training; two numbers of crops in eval mode
    image, mask = torch.rand(BS, 3, 64, 64), torch.zeros(BS, 1, 1, 1)
    found, expected = (run.forward(one, image, mask, full=True) for one in (network, plain))
    assert all(map(torch.equal, found, expected))
    assert graphs.compiled == 4
    for name, tensor in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


@pytest.mark.parametrize("build", [build_agent, build_occlusion_agent])
def test_agents_and_the_half_pass_are_compiled(run, graphs, build):
    plain, network = pair(run, run.pose_network)
    plain_agent, agent = pair(run, lambda: build(run, network))
    for crops in (BS, 3):
        image, before = torch.rand(crops, 3, 64, 64), len(graphs.runs)
        found = agent_logits(run, network, agent.train(), image, full=crops == BS)
        run.compiled = False
        expected = agent_logits(run, plain, plain_agent.train(), image)
        run.compiled = True
        assert all(torch.equal(found[kind], expected[kind]) for kind in expected)
        assert all(answer.requires_grad for answer in found.values())
        assert graphs.runs[before:] == ([BS, BS] if crops == BS else [])


def test_what_leaves_a_graph_is_copied(run, graphs):
    network = run.pose_network()
    agent = build_agent(run, network)
    image = torch.rand(BS, 3, 64, 64)
    looked_at = []
    agent.register_forward_pre_hook(lambda _, features: looked_at.extend(features[0]))
    logits = agent_logits(run, network, agent, image, full=True)
    kept = [*run.forward(network, image, full=True), *logits.values(), *looked_at]
    assert len(looked_at) == 5
    graph_memory = {tensor.untyped_storage().data_ptr() for tensor in graphs.outputs}
    assert len(graph_memory) == len(kept) == 1 + 2 + 5
    assert not graph_memory & {tensor.untyped_storage().data_ptr() for tensor in kept}


def test_training_steps_are_the_eager_ones(run, graphs):
    plain, network = (Learner(one, 0.01) for one in pair(run, run.pose_network))
    generator = torch.Generator().manual_seed(0)
    for crops in (BS, BS, 3, BS):
        image = torch.rand(crops, 3, 64, 64, generator=generator)
        for learner in (plain, network):
            outputs = run.forward(learner.network.train(), image, full=crops == BS)
            learner.step(pose_loss(outputs, torch.zeros_like(outputs[0])))
    assert graphs.compiled == 1 and graphs.runs == [BS] * 3
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(network.network.state_dict()[name], tensor), name


def test_an_epochs_last_batch_is_not_full(run):
    people = run.dataset.train
    assert len(people) == BS
    assert [run.full(batch) for batch in run.loader(people, "identity")] == [True]
    assert [run.full(batch) for batch in run.loader(people[:3], "identity")] == [False]
    some = some_people(3)
    assert not run.full(some) and run.full(replace(some, before=1)) and run.full(replace(some, after=1))


def test_a_compiler_that_does_not_work_ends_in_one_line(monkeypatch):
    def broken(module, inputs):
        raise RuntimeError("no Triton\nand more lines")

    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "HOW", {"backend": broken})
    with pytest.raises(UserError, match="--compile true: PyTorch's compiler does not work here") as error:
        compiling.require_compiler(torch.device("cpu"))
    assert "no Triton" in str(error.value) and len(str(error.value).splitlines()) == 1
    monkeypatch.setattr(compiling, "HOW", {"backend": "eager"})
    compiling.require_compiler(torch.device("cpu"))


def test_on_a_gpu_the_compiler_is_tried_first_and_refuses_sync_bn(nasty_run, monkeypatch):
    tried = []
    monkeypatch.setattr("utils.run.choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("utils.run.require_compiler", tried.append)
    monkeypatch.setattr(nasty_run.opt, "compile", True)
    assert Run(nasty_run.opt, nasty_run.folder).compiled and tried == [torch.device("cuda")]
    monkeypatch.setattr(nasty_run.opt, "sync_bn", True, raising=False)
    with pytest.raises(UserError, match="--sync_bn true with --compile true"):
        Run(nasty_run.opt, nasty_run.folder)


def test_on_the_cpu_nothing_is_compiled_and_the_log_says_so(nasty_run, monkeypatch):
    monkeypatch.setattr(nasty_run.opt, "compile", True)
    run = Run(nasty_run.opt, nasty_run.folder)
    assert not run.compiled and run.pose_network()._compiled_call_impl is None
    assert "--compile true changes nothing on the CPU" in (nasty_run.folder / "log.txt").read_text()
