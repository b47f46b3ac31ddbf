"""The networks: against golden numbers, and what must hold for any weights and input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.agent import OcclusionAgent, ScaleRotationAgent
from models.hourglass import StackedHourglass
from models.layers import initialize
from models.losses import pose_loss

NAMES = json.loads((Path(__file__).parent / "golden" / "h_names.json").read_text())
FEATURES = ("skip1", "skip2", "skip3", "skip4", "neck")


def image_of(pixels: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(pixels).float() / 255).double()


def with_weights(network: nn.Module, arrays: dict[str, np.ndarray], prefix: str) -> nn.Module:
    """`network` with the weights stored under `prefix`, which lack only the batch counters.

    In float64: the golden numbers have rounding of their own, and a processor's should not add to it.
    """
    stored = [name for name in arrays if name.startswith(prefix)]
    state = {name.removeprefix(prefix): torch.from_numpy(arrays[name]) for name in stored}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    return network.double()


@pytest.fixture
def pose_net(golden):
    return with_weights(StackedHourglass(chan=32), golden("h_hg_weights"), "sd/")


@pytest.fixture
def agent(golden):
    return with_weights(ScaleRotationAgent(chan_in=32, chan_out=32), golden("h_agent"), "sd_agent/")


@pytest.fixture
def small_net():
    torch.manual_seed(0)
    return StackedHourglass(num_stacks=2, num_classes=3, chan=8)


def assert_close(actual: torch.Tensor, expected: np.ndarray, atol: float, rtol: float = 0):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("pose_net_chan256", StackedHourglass),
        ("pose_net_chan32", lambda: StackedHourglass(chan=32)),
        ("agent_aug_chan256", ScaleRotationAgent),
        ("agent_dropout_chan256", OcclusionAgent),
    ],
)
def test_names_shapes_and_counts_are_golden(name, build):
    with torch.device("meta"):
        network = build()
    expected = NAMES[name]
    parameters = dict(network.named_parameters())
    buffers = {k: b for k, b in network.named_buffers() if not k.endswith("num_batches_tracked")}
    assert list(parameters) == expected["registration_order"]
    assert [[k, list(parameters[k].shape)] for k in sorted(parameters)] == expected["parameters"]
    assert [[k, list(buffers[k].shape)] for k in sorted(buffers)] == expected["buffers"]
    assert sum(p.numel() for p in parameters.values()) == expected["parameter_count"]


def test_eval_heatmaps_are_golden(golden, pose_net):
    arrays = golden("h_hg_eval")
    with torch.no_grad():
        outputs = pose_net.eval()(image_of(arrays["in_image_u8"]))
    assert len(outputs) == 2
    for stack, output in enumerate(outputs):
        assert_close(output, arrays[f"out_stack{stack}"], atol=2e-5)


def test_train_heatmaps_and_running_statistics_are_golden(golden, pose_net):
    arrays = golden("h_hg_train")
    outputs = pose_net.train()(image_of(arrays["in_image_u8"]))
    for stack, output in enumerate(outputs):
        assert_close(output, arrays[f"out_stack{stack}"], atol=1e-4)
    buffers = dict(pose_net.named_buffers())
    statistics = {k: v for k, v in arrays.items() if k.startswith("out_bn/")}
    assert len(statistics) == len(NAMES["pose_net_chan32"]["buffers"])
    for name, expected in statistics.items():
        assert_close(buffers[name.removeprefix("out_bn/")], expected, atol=1e-4)


def test_features_of_the_half_pass_are_golden(golden, pose_net):
    arrays = golden("h_agent")
    with torch.no_grad():
        features = pose_net.eval().features(image_of(arrays["in_image_u8"]))
    assert [feature.shape[-1] for feature in features] == [64, 32, 16, 8, 4]
    for name, feature in zip(FEATURES, features, strict=True):
        assert_close(feature.mean(dim=(2, 3)), arrays[f"out_feat_mean_{name}"], atol=2e-5)


@pytest.mark.parametrize(("mode", "atol"), [("eval", 2e-5), ("train", 2e-4)])
def test_agent_logits_are_golden(golden, pose_net, agent, mode, atol):
    arrays = golden("h_agent")
    with torch.no_grad():
        features = pose_net.eval().features(image_of(arrays["in_image_u8"]))
        logits = agent.train(mode == "train")(features)
    assert list(logits) == ["scale", "rotation"]
    for kind, found in logits.items():
        assert_close(found, arrays[f"out_{mode}_{kind}"], atol=atol)


def test_occlusion_logits_are_golden(golden, pose_net):
    arrays = golden("h_agent")
    body = {
        name: values for name, values in arrays.items() if name.startswith("sd_agent/") and "/fc_" not in name
    }
    head = {
        name.replace("sd_dropout/", "sd_agent/"): arrays[name] for name in arrays if "sd_dropout/" in name
    }
    agent = with_weights(OcclusionAgent(chan_in=32, chan_out=32), body | head, "sd_agent/").eval()
    with torch.no_grad():
        logits = agent(pose_net.eval().features(image_of(arrays["in_image_u8"])))
    assert_close(logits, arrays["out_dropout_logits"], atol=2e-5)


def test_masked_heatmaps_are_golden(golden, pose_net):
    arrays, image = golden("h_dropout"), image_of(golden("h_agent")["in_image_u8"])
    seen = []
    pose_net.eval().hg[0].register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        masked = pose_net(image, torch.from_numpy(arrays["in_mask"]).float())
        plain = pose_net(image)
    assert_close(masked[0][:, :, ::4, ::4], arrays["out_stack0"], atol=5e-5)
    assert_close(masked[1][:, :, ::2, ::2], arrays["out_stack1"], atol=5e-5)
    assert_close(seen[0][:, ::4, ::4, ::4], arrays["out_hourglass0"], atol=5e-5)
    assert_close(plain[1][:, :, ::4, ::4], arrays["out_nodrop_stack1"], atol=5e-5)


def test_a_mask_of_ones_changes_nothing_and_one_of_another_shape_is_refused(small_net):
    image = torch.rand(2, 3, 64, 128)
    with torch.no_grad():
        for plain, masked in zip(
            small_net.eval()(image), small_net(image, torch.ones(2, 1, 1, 2)), strict=True
        ):
            assert torch.equal(plain, masked)
        for shape in ((2, 1, 2, 1), (1, 1, 1, 2), (2, 16, 1, 2), (2, 1, 2)):
            with pytest.raises(ValueError, match="mask has the shape"):
                small_net(image, torch.ones(shape))


@pytest.mark.parametrize("size", [64, 128])
def test_five_steps_of_rmsprop_are_golden_in_float64(golden, pose_net, size):
    arrays = golden("j_rmsprop")
    pose_net.train()
    optimizer = torch.optim.RMSprop(pose_net.parameters(), lr=2.5e-4, alpha=0.99, eps=1e-8)
    image = image_of(arrays[f"in_image_u8_{size}"])
    target = torch.from_numpy(arrays[f"in_target_{size}"]).double()
    losses = []
    for step in range(5):
        loss = pose_loss(pose_net(image), target)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            norms = {name: p.grad.norm() for name, p in pose_net.named_parameters()}
        optimizer.step()
        if step == 0:
            weight = pose_net.out_conv[1].weight[:, :, 0, 0].detach().clone()
        losses.append(loss.detach())
    losses.append(pose_loss(pose_net(image), target).detach())
    norms = torch.stack([norms[name] for name in sorted(norms)])
    assert_close(torch.stack(losses), arrays[f"out_loss_{size}_f64"], atol=0, rtol=1e-6)
    assert_close(norms, arrays[f"out_gradnorm_{size}_f64"], atol=1e-10, rtol=1e-6)
    assert_close(weight, arrays[f"out_w1_{size}_f64"], atol=1e-9)


def test_features_are_what_forward_computes(small_net):
    small_net.eval()
    seen = {}
    for name in FEATURES:
        block = getattr(small_net.hg[0], name)
        block.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        small_net(image)
        whole = dict(seen)
        half = small_net.features(image)
    for name, feature in zip(FEATURES, half, strict=True):
        assert torch.equal(feature, whole[name])


def test_half_pass_in_eval_mode_changes_no_buffer(small_net):
    before = {name: buffer.clone() for name, buffer in small_net.named_buffers()}
    with torch.no_grad():
        small_net.eval().features(torch.rand(2, 3, 64, 64))
    for name, buffer in small_net.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_half_pass_runs_nothing_behind_the_neck(small_net):
    for late in (small_net.hg[0].up4, small_net.hg[1], small_net.post_res, small_net.out_conv):
        for parameter in late.parameters():
            nn.init.constant_(parameter, float("nan"))
    with torch.no_grad():
        features = small_net.eval().features(torch.rand(1, 3, 64, 64))
    assert all(feature.isfinite().all() for feature in features)


def test_channels_last_input_gives_the_same(small_net):
    small_net.eval()
    image = torch.rand(2, 3, 128, 64)
    with torch.no_grad():
        plain = small_net(image)
        last = small_net(image.contiguous(memory_format=torch.channels_last))
    for a, b in zip(plain, last, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stacks", "modules", "joints", "chan"), [(1, 2, 14, 6), (3, 1, 16, 128)])
def test_any_number_of_stacks_modules_joints_and_channels(stacks, modules, joints, chan):
    network = StackedHourglass(stacks, modules, joints, chan).eval()
    with torch.no_grad():
        outputs = network(torch.rand(1, 3, 64, 128))
    assert [tuple(output.shape) for output in outputs] == [(1, joints, 16, 32)] * stacks
    assert len(network.hg[0].neck) == len(network.post_res[0]) == modules


@pytest.mark.parametrize("shape", [(1, 3, 96, 64), (1, 3, 64, 100)])
def test_a_size_that_is_no_multiple_of_64_is_refused(small_net, shape):
    with pytest.raises(ValueError, match="multiples of 64"):
        small_net(torch.rand(shape))
    with pytest.raises(ValueError, match="multiples of 64"):
        small_net.features(torch.rand(shape))


@pytest.mark.parametrize("size", [64, 128, 192])
def test_agent_takes_features_of_any_image_size(small_net, size):
    agent = ScaleRotationAgent(chan_in=8, chan_out=4, scale_num=5, rotation_num=3)
    features = small_net.eval().features(torch.rand(2, 3, size, size))
    logits = agent(features)
    assert {kind: tuple(found.shape) for kind, found in logits.items()} == {
        "scale": (2, 5),
        "rotation": (2, 3),
    }
    occlusion = OcclusionAgent(chan_in=8, chan_out=4)(features)
    assert occlusion.shape == (2, 1, size // 64, size // 64)


def test_an_agent_answers_for_further_kinds(small_net):
    agent = ScaleRotationAgent(chan_in=8, chan_out=4, shear_num=3)
    logits = agent(small_net.eval().features(torch.rand(2, 3, 64, 64)))
    assert list(logits) == ["scale", "rotation", "shear"] and logits["shear"].shape == (2, 3)
    assert list(agent.state_dict())[-1] == "fc_shear.bias"


def test_no_gradient_of_the_agent_reaches_the_pose_network(small_net):
    agent = ScaleRotationAgent(chan_in=8, chan_out=8)
    sum(logits.sum() for logits in agent(small_net.features(torch.rand(2, 3, 128, 128))).values()).backward()
    assert all(parameter.grad is None for parameter in small_net.parameters())
    assert all(parameter.grad is not None for parameter in agent.parameters())


@pytest.mark.parametrize("build", [StackedHourglass, ScaleRotationAgent, OcclusionAgent])
def test_initial_values_follow_the_rule_and_the_global_generator(build):
    torch.manual_seed(7)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            assert 0.95 * bound < module.weight.abs().max() <= bound
            assert 0.5 * bound * (len(module.bias) > 1) < module.bias.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)  # uniform
            assert len(module.bias) == 1 or module.bias.min() < 0 < module.bias.max()
        elif isinstance(module, nn.BatchNorm2d):
            assert 0 <= module.weight.min() < 0.2 < 0.8 < module.weight.max() <= 1
            assert not module.bias.any()
    torch.manual_seed(7)
    again = build().state_dict()
    assert all(torch.equal(again[name], value) for name, value in network.state_dict().items())


def test_initial_values_do_not_depend_on_what_was_there():
    network, drawn = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5)), []
    for value in (0.0, 9.0):
        for parameter in network.parameters():
            nn.init.constant_(parameter, value)
        torch.manual_seed(7)
        initialize(network)
        drawn.append([parameter.detach().clone() for parameter in network.parameters()])
    assert all(map(torch.equal, *drawn))
