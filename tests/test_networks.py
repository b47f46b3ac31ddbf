"""What every pose network offers, and SimpleBaseline with a ResNet."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from models import NETWORKS, PoseNetwork
from models.agent import ScaleRotationAgent
from models.simple_baseline import SimpleBaseline

SMALL = {"chan": 8, "backbone": "test_resnet"}  # a network's other `sizes` are at their defaults


@pytest.fixture(params=NETWORKS)
def network(request):
    """Each of the table's networks, small, in eval mode."""
    torch.manual_seed(0)
    which = NETWORKS[request.param]
    network = which.build(**{name: size for name, size in SMALL.items() if name in which.sizes}).eval()
    network.type = which
    return network


@pytest.fixture
def image():
    return torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_network_offers_what_the_stages_use(network, image):
    assert isinstance(network, PoseNetwork)
    height, width = 128 // network.type.heatmap_stride, 192 // network.type.heatmap_stride
    assert all(tuple(heatmaps.shape) == (2, 16, height, width) for heatmaps in network(image))
    features, strides = network.features(image), (4, 8, 16, 32, network.type.stride)
    for feature, chan, stride in zip(features, network.feature_channels, strides, strict=True):
        assert tuple(feature.shape) == (2, chan, 128 // stride, 192 // stride)


@pytest.mark.parametrize("side", [32, 100])
def test_a_side_that_is_no_multiple_of_the_stride_is_refused(network, side):
    for call in (network, network.features):
        with pytest.raises(ValueError, match="multiples of 64"):
            call(torch.rand(1, 3, side, 64))


@torch.no_grad()
def test_the_half_pass_changes_no_buffer(network, image):
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.features(image)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_the_agent_reads_the_features_and_sends_no_gradient_back(network, image):
    agent = ScaleRotationAgent(network.feature_channels, 8)
    logits = agent(network.features(image)).values()
    assert all(tuple(answer.shape) == (2, 7) for answer in logits)
    sum(answer.sum() for answer in logits).backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.grad is not None for parameter in agent.parameters())


def test_one_number_of_channels_is_that_of_all_features():
    torch.manual_seed(0)
    one = ScaleRotationAgent(8, 4).state_dict()
    torch.manual_seed(0)
    five = ScaleRotationAgent((8,) * 5, 4).state_dict()
    assert list(one) == list(five) and all(torch.equal(one[name], five[name]) for name in one)


@pytest.fixture(scope="module")
def baseline():
    torch.manual_seed(0)
    return SimpleBaseline()


def test_simple_baseline_has_the_published_names_and_size(baseline):
    resnet = {name: value for name, value in resnet50().state_dict().items() if not name.startswith("fc.")}
    behind = {
        name: tuple(value.shape)
        for name, value in baseline.state_dict().items()
        if name not in (*resnet, "mean", "std") and not name.endswith("num_batches_tracked")
    }
    normalization = {
        f"deconv_layers.{layer}.{name}": (256,)
        for layer in (1, 4, 7)
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    assert behind == normalization | {
        "deconv_layers.0.weight": (2048, 256, 4, 4),
        "deconv_layers.3.weight": (256, 256, 4, 4),
        "deconv_layers.6.weight": (256, 256, 4, 4),
        "final_layer.weight": (16, 256, 1, 1),
        "final_layer.bias": (16,),
    }
    missing, unexpected = baseline.load_state_dict(resnet, strict=False)
    assert not unexpected and all(name.startswith(("deconv_layers.", "final_layer.")) for name in missing)
    assert baseline.feature_channels == (256, 512, 1024, 2048, 2048)
    assert sum(parameter.numel() for parameter in baseline.parameters()) == 33_999_440


def test_simple_baseline_starts_as_in_the_paper(baseline):
    drawn = [m for m in baseline.deconv_layers if isinstance(m, nn.ConvTranspose2d)] + [baseline.final_layer]
    assert all(module.weight.std().item() == pytest.approx(0.001, rel=0.05) for module in drawn)
    assert not baseline.final_layer.bias.any()
    for module in baseline.deconv_layers:
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()


@torch.no_grad()
def test_the_features_of_simple_baseline_are_what_forward_computes(image):
    network = SimpleBaseline("resnet18").eval()
    stages = []
    resnet = network.backbone
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        stage.register_forward_hook(lambda _, __, out: stages.append(out.clone()))
    network(image)
    whole = [*stages, nn.functional.max_pool2d(stages[-1], 2)]
    for parameter in (*network.deconv_layers.parameters(), *network.final_layer.parameters()):
        parameter.fill_(float("nan"))  # the half pass does not get so far
    half = network.features(image)
    assert all(torch.equal(feature, stage) for feature, stage in zip(half, whole, strict=True))


@torch.no_grad()
def test_the_features_of_simple_baseline_are_a_resnets(image):
    network, resnet = SimpleBaseline("resnet18").eval(), resnet18().eval()
    resnet.load_state_dict(network.state_dict(), strict=False)
    stages = []
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        stage.register_forward_hook(lambda _, __, out: stages.append(out))
    resnet((image - network.mean) / network.std)
    assert all(torch.equal(*pair) for pair in zip(network.features(image), stages, strict=False))
