"""Backbones of timm: which fit, what they start from, and what their checkpoints hold."""

import shutil
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.experiment import POSE, assert_same_state, refusal, run_here
from support.stages import REPOSITORY, assert_user_error, demo_data, environment, run_stage
from torch import nn
from torchvision.models import resnet18

from models import NetworkError
from models.agent import agent_width
from models.feature_pyramid import FeaturePyramid
from models.simple_baseline import SimpleBaseline
from utils.records.checkpoint import load_checkpoint, load_weights
from utils.system.errors import UserError
from utils.system.ranks import synchronize_statistics

TINY = "test_efficientnet"  # its normalisations have activations in them
SIZE = {"network": "simple_baseline", "backbone": TINY, "chan": 8, "in_res": 64}


def baseline(backbone=TINY, seed=0, **more):
    torch.manual_seed(seed)
    return SimpleBaseline(backbone, chan=8, num_classes=3, **more).eval()


def pyramid():
    torch.manual_seed(0)
    return FeaturePyramid(TINY, chan=8, num_classes=3)


def photographs():
    return torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))


def classifier(name=TINY, seed=1, **more):
    """A network of timm with drawn statistics, too, as one that was trained has them."""
    torch.manual_seed(seed)
    network = timm.create_model(name, **more).eval()
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value + 0.1 * torch.rand_like(value))
    return network


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_resnet", TINY, "mobilenetv3_small_050", "test_convnext"])
def test_stages_of_any_network_with_the_right_strides(name):
    network = baseline(name)
    features = network.features(photographs())
    sizes = [tuple(feature.shape[2:]) for feature in features]
    assert sizes == [(64 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)]
    assert network.feature_channels == tuple(feature.shape[1] for feature in features)
    (heatmaps,) = network(photographs())
    assert heatmaps.shape == (2, 3, 16, 32)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet5", "timm has no such model: try resnet50"),
        ("hf-hub:timm/resnet18", "timm has no such model: try "),  # nothing is downloaded unasked
        ("test_resnet.none", "Invalid pretrained tag"),
        ("test_vit", "its stages are "),
        ("test_mambaout", "its stages are 16 x 16 x 16, "),  # channels last
        ("levit_128s", "takes no images of 64 x 64 px"),
    ],
)
def test_other_networks_are_refused_in_a_line(name, said):
    with pytest.raises(NetworkError) as refused:
        SimpleBaseline(name)
    line = str(refused.value)
    assert line.startswith(f"--backbone {name}") and said in line and ": try " in line
    assert "\n" not in line


@torch.no_grad()
def test_each_stage_reaches_the_heatmaps_of_a_pyramid(monkeypatch):
    network, image = pyramid().eval(), photographs()
    stages = network.stages(image)
    before = network(image)[0]
    for place in range(4):
        changed = [stage + (place == k) for k, stage in enumerate(stages)]
        monkeypatch.setattr(network, "stages", lambda _, changed=changed: changed)
        assert not torch.allclose(network(image)[0], before)


@torch.no_grad()
def test_a_stage_of_larger_values_does_not_drown_the_others(monkeypatch):
    network, image = pyramid().train(), photographs()
    stages = [10 * stage for stage in network.stages(image)]  # so that eps of the normalizations is nothing
    outputs = []
    for factors in ((1, 1, 1, 1), (100, 5, 1, 10)):
        scaled = [factor * stage for factor, stage in zip(factors, stages, strict=True)]
        monkeypatch.setattr(network, "stages", lambda _, scaled=scaled: scaled)
        outputs.append(network(image)[0])
    torch.testing.assert_close(*outputs, rtol=0.05, atol=0.05 * outputs[0].std().item())


@pytest.mark.parametrize("name", [TINY, "hrnet_w18_small"])
@pytest.mark.parametrize("network", [SimpleBaseline, FeaturePyramid])
def test_each_parameter_that_is_trained_gets_a_gradient(network, name):
    """Ranks wait for it."""
    network = network(name, chan=8).train()
    network(photographs())[0].sum().backward()
    frozen = [name for name, one in network.named_parameters() if not one.requires_grad]
    assert [name for name, one in network.named_parameters() if one.grad is None] == frozen
    network.requires_grad_(True)(photographs())[0].sum().backward()
    assert [name for name, one in network.named_parameters() if one.grad is None] == frozen, "it is used"
    assert bool(frozen) == (name != TINY and isinstance(network, SimpleBaseline))


@torch.no_grad()
def test_images_are_normalised_inside_by_the_models_own_values():
    network, image = baseline(), photographs()
    mean, std = (
        torch.tensor(network.backbone.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std")
    )
    expected = network.backbone((image - mean) / std)[1:]
    assert all(torch.equal(*pair) for pair in zip(network.features(image), expected, strict=False))
    assert not torch.equal(network.features(image)[0], network.backbone(image)[1])
    assert baseline("test_resnet").mean.flatten().tolist() == [0.5, 0.5, 0.5]


@torch.no_grad()
@pytest.mark.parametrize("name", [TINY, "test_convnext"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_gives_the_backbone_its_weights(tmp_path, caplog, name, suffix):
    trained, path = classifier(name, num_classes=5), tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(trained.state_dict(), path)
    with caplog.at_level("INFO"):
        network = baseline(name, backbone_weights=path)
    loaded = sum("num_batches" not in key for key in network.backbone.state_dict())
    assert caplog.messages == [f"backbone: {loaded} tensors from {path}"]
    image = photographs()
    expected = trained.forward_intermediates((image - network.mean) / network.std, intermediates_only=True)[
        -4:
    ]
    for feature, stage in zip(network.features(image), expected, strict=False):
        torch.testing.assert_close(feature, stage)
    assert not torch.allclose(baseline(name).features(image)[0], expected[0])


@torch.no_grad()
def test_torchvisions_file_of_a_resnet_and_one_without_a_classifier(tmp_path):
    trained, path = resnet18().eval(), tmp_path / "resnet18.pth"
    named = trained.state_dict()
    old = {name: value for name, value in named.items() if not name.endswith("num_batches_tracked")}
    without = {name: value for name, value in named.items() if not name.startswith("fc.")}
    for state in (old, {"state_dict": without}):
        torch.save(state, path)
        loaded = SimpleBaseline("resnet18", backbone_weights=path).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in without.items())


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "code", "damaged", "other", "absent"])
def test_a_file_that_does_not_fit_is_refused_in_a_line(tmp_path, change):
    path, state = tmp_path / "weights.pth", dict(classifier().state_dict())
    name = "blocks.1.0.conv_exp.weight"
    said = f"1 tensors do not match; first: {name}: expected "
    if change == "missing":
        del state[name]
    elif change == "unexpected":  # of a deeper network with the same beginning
        state["blocks.9.0.conv.weight"] = torch.zeros(1)
        said = "first: blocks.9.0.conv.weight: expected None"
    elif change == "shape":
        state[name] = state[name][:1]
    elif change == "code":
        state, said = nn.Linear(1, 1), "cannot be read"
    elif change == "other":
        state, said = {"epoch": 3}, "cannot be read"
    torch.save(state, path)
    if change == "damaged":
        path.write_bytes(path.read_bytes()[:-1000])
        said = "cannot be read"
    elif change == "absent":
        path.unlink()
        said = "does not exist"
    with pytest.raises(NetworkError) as refused:
        baseline(backbone_weights=path)
    line = str(refused.value)
    assert line.startswith(f"--backbone_weights {path}") and said in line and "\n" not in line


def test_without_a_network_nothing_is_downloaded(monkeypatch):
    def offline(*_, **__):
        raise OSError("no\nnetwork.")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(NetworkError) as refused:
        baseline(pretrained=True)
    line = str(refused.value)
    assert f"the weights of {TINY} cannot be downloaded (no network): " in line
    assert "--backbone_weights" in line
    with pytest.raises(NetworkError, match="its stages are"):  # before anything is downloaded
        baseline("test_vit", pretrained=True)


@torch.no_grad()
def test_a_checkpoint_holds_everything(tmp_path):
    trained, other = baseline(), baseline(seed=1)
    trained.mean.fill_(0.25)  # as of another version of timm
    checkpoint = {"state_dict": trained.state_dict(), "network": SIZE}
    load_weights(other, checkpoint, tmp_path, SIZE)
    assert torch.equal(other(photographs())[0], trained(photographs())[0])
    with pytest.raises(UserError, match="--backbone resnet18 --chan 16: use --backbone test_eff"):
        load_weights(other, checkpoint, tmp_path, SIZE | {"backbone": "resnet18", "chan": 16})


def test_checkpoints_of_before_read_images_as_they_are(tmp_path):
    """They recorded no backbone: it was a ResNet-50, under the names of the released files."""
    network = baseline("test_resnet")
    state = {name: value for name, value in network.state_dict().items() if name not in ("mean", "std")}
    size = SIZE | {"backbone": "resnet50", "chan": 256}
    load_weights(
        network,
        {"state_dict": state, "network": {"network": "simple_baseline", "in_res": 64}},
        tmp_path,
        size,
    )
    assert not network.mean.any() and (network.std == 1).all()


def test_released_weights_are_for_normalised_images(tmp_path):
    network = baseline("test_resnet")
    state = {name: value for name, value in network.state_dict().items() if name not in ("mean", "std")}
    load_weights(network, {"state_dict": state}, tmp_path, SIZE)
    network.load_state_dict(state)
    assert (network.mean == 0.5).all() and (network.std == 0.5).all()


@torch.no_grad()
def test_statistics_of_all_ranks_keep_activations():
    network, image = baseline(), photographs()
    before = network(image)[0]
    statistics = sum(name.endswith("running_mean") for name in network.state_dict())
    synchronize_statistics(network)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in network.modules()) == statistics
    assert torch.equal(network(image)[0], before)


def test_an_agent_is_as_wide_as_the_middle_stage():
    assert agent_width((24, 40, 112, 320, 320)) == 112
    assert agent_width((64, 128, 256, 512, 512)) == agent_width((256, 512, 1024, 2048, 2048)) == 256
    assert [agent_width((chan,) * 5) for chan in (16, 256, 512)] == [16, 256, 512]  # an hourglass's


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of two epochs of stage 1 from a file of weights, and the flags of its later stages."""
    root = tmp_path_factory.mktemp("backbones")
    flags = ("--data_dir", demo_data(root / "data"), "--network", "simple_baseline", "--backbone", TINY)
    torch.save(classifier().state_dict(), root / "weights.pth")
    start = ("--backbone_weights", root / "weights.pth", "--is_train", "true", "--nEpochs", 2)
    run_here("stack-hg.py", *flags, "--exp_dir", root, "--exp_id", "x", *start)
    (root / "weights.pth").unlink()
    return root / "x", flags


@pytest.mark.slow
def test_all_stages_run_and_ask_for_no_weights(trained):
    folder, flags = trained
    flags += ("--exp_dir", folder.parent, "--exp_id", "x", "--load_prefix_pose", POSE)
    run_here("collect-scale-distri.py", *flags)
    run_here("collect-rotation-distri.py", *flags)
    run_here("pretrain-s-r-agent.py", *flags, "--nEpochs", 1)
    training = ("--load_prefix_sr", POSE, "--is_train", "true", "--nEpochs", 2)
    run_here("joint-train-pose-s-r-agent.py", *flags, *training)
    run_here("joint-train-pose-s-r-agent.py", *flags, "--load_checkpoint", "true")
    photograph = next((folder.parent / "data" / "demo").rglob("*.jpg"))
    run_here("stack-hg.py", *flags, "--image", photograph)
    joint = folder / f"joint-{POSE}"
    checkpoint = load_checkpoint(joint / "pose-lr-0.00025-1.pth.tar")
    assert checkpoint["network"] == SIZE | {"chan": 16}
    assert {"mean", "std", "conv_stem.weight", "final_layer.bias"} <= checkpoint["state_dict"].keys()
    agent = load_checkpoint(joint / "agent-lr-0.00005-1.pth.tar")
    assert agent["state_dict"]["residual_neck.adapter.weight"].shape == (48, 64, 1, 1)


@pytest.mark.slow
def test_resuming_equals_going_on_and_needs_no_weights(trained, tmp_path):
    folder, flags = trained
    (tmp_path / "x").mkdir()
    shutil.copy(folder / f"{POSE}.pth.tar", tmp_path / "x")
    flags += ("--exp_dir", tmp_path, "--exp_id", "x", "--is_train", "true", "--nEpochs", 2)
    run_here("stack-hg.py", *flags, "--load_prefix_pose", POSE)
    assert_same_state(tmp_path / "x" / "lr-0.00025-1.pth.tar", folder / "lr-0.00025-1.pth.tar")
    line = refusal("stack-hg.py", *flags, "--load_prefix_pose", POSE, "--chan", 8)
    assert "a network with --chan 16, this run has --chan 8: use --chan 16" in line


@pytest.mark.slow
def test_a_stage_refuses_what_it_cannot_build(tmp_path):
    flags = (
        "--data_dir",
        demo_data(tmp_path / "data"),
        "--exp_dir",
        tmp_path,
        "--exp_id",
        "x",
        "--is_train",
        "true",
    )
    flags += ("--network", "simple_baseline", "--backbone")
    done = run_stage("stack-hg.py", *flags, "resnet5", check=False)
    assert_user_error(done, "--backbone resnet5: timm has no such model: try resnet50")
    assert not (tmp_path / "x").exists()
    done = run_stage("stack-hg.py", *flags, TINY, "--backbone_weights", tmp_path / "no.pth", check=False)
    assert_user_error(done, f"--backbone_weights {tmp_path / 'no.pth'}: the file does not exist")


@pytest.mark.slow
def test_the_hourglass_starts_without_timm():
    code = "import sys; import utils.run, options.parser, models.hourglass; sys.exit('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), check=False)
    assert done.returncode == 0
