"""--compile true: the same numbers and names of parameters; one line where the compiler does not work."""

from dataclasses import replace
from functools import partialmethod

import pytest
import torch
from support.stand_ins import some_people
from torch import nn

from data.augmentation import Augmentation
from utils.agents import AGENTS
from utils.run import Run
from utils.system.devices import require_compiler
from utils.system.errors import UserError


@pytest.fixture
def run(nasty_run, monkeypatch):
    """A run that compiles, as it would on a GPU; what PyTorch traces runs without its code generator."""
    torch._dynamo.reset()
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    monkeypatch.setattr(nasty_run, "compiled", True)
    yield nasty_run
    torch._dynamo.reset()


def pair(run, build):
    """A network that is not compiled, and one that is, with the same weights."""
    run.compiled = False
    plain = build()
    run.compiled = True
    network = build()
    network.load_state_dict(plain.state_dict())
    assert plain._compiled_call_impl is None and network._compiled_call_impl is not None
    assert list(network.state_dict()) == list(plain.state_dict())
    return plain, network


def test_compiled_networks_find_the_same(run):
    plain, network = pair(run, run.pose_network)
    for crops, training in ((4, True), (3, True), (8, False), (2, False)):
        image = torch.rand(crops, 3, 64, 64)
        for mask in ((), (torch.zeros(crops, 1, 1, 1),)):
            found, expected = (run.forward(one.train(training), image, *mask) for one in (network, plain))
            assert all(map(torch.equal, found, expected))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


@pytest.mark.parametrize("name", AGENTS)
def test_compiled_agents_answer_the_same(run, name):
    network, agents = run.pose_network(), []

    def build():
        agents.append(AGENTS[name].build(run, network, 1e-3))
        return agents[-1].learner.network.train()

    pair(run, build)
    for crops in (4, 3):
        sample = run.augment(some_people(crops), Augmentation.identity(crops))
        sample = replace(sample, image=torch.rand(crops, 3, 64, 64))
        expected, found = (agent.predict(sample, trains=True) for agent in agents)
        assert all(torch.equal(found[kind], expected[kind]) for kind in expected)
        assert all(answer.requires_grad for answer in found.values())


def test_a_compiler_that_does_not_work_ends_in_one_line(monkeypatch):
    def broken(function):
        raise RuntimeError("no Triton\nand more lines")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match="--compile true: PyTorch's compiler does not work here") as error:
        require_compiler(torch.device("cpu"))
    assert "no Triton" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_on_a_gpu_the_compiler_is_tried_first_and_refuses_sync_bn(nasty_run, monkeypatch):
    tried = []
    monkeypatch.setattr("utils.run.choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("utils.run.require_compiler", tried.append)
    monkeypatch.setattr(nasty_run.opt, "compile", True)
    assert Run(nasty_run.opt, nasty_run.folder).compiled and tried == [torch.device("cuda")]
    monkeypatch.setattr(nasty_run.opt, "sync_bn", True, raising=False)
    with pytest.raises(UserError, match="--sync_bn true and --compile true cannot be combined"):
        Run(nasty_run.opt, nasty_run.folder)


def test_on_the_cpu_nothing_is_compiled_and_the_log_says_so(nasty_run, monkeypatch):
    monkeypatch.setattr(nasty_run.opt, "compile", True)
    run = Run(nasty_run.opt, nasty_run.folder)
    assert not run.compiled and run.pose_network()._compiled_call_impl is None
    assert "--compile true has no effect on the CPU" in (nasty_run.folder / "log.txt").read_text()
