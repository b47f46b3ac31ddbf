"""Backbones: networks of timm, whose stages are maps of 1/4, 1/8, 1/16 and 1/32 of an image."""

import logging
from difflib import get_close_matches
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from models import NetworkError
from models.layers import Features, check_sides, pool

STRIDES = (4, 8, 16, 32)
SIDE = 64  # px of the image that shows which stages a network has
COUNTER = "num_batches_tracked"  # of batch normalisations, which do not use it here
SOME = "resnet50, resnet18, tf_efficientnet_lite0, mobilenetv3_large_100, convnext_tiny or regnety_032"


logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # else it warns of the classifier's tensors
logging.getLogger("timm.models._helpers").setLevel(logging.WARNING)  # `build_backbone` says what was loaded

log = logging.getLogger(__name__)


class BackboneNetwork(nn.Module):
    """What pose networks on a backbone share: it reads images, and its stages are the agent's features.

    Images are normalised by the mean and the standard deviation that the backbone was made for.

    Args:
        backbone: name of a model of timm, see `build_backbone`.
        pretrained, backbone_weights: what the backbone starts from: the weights that timm downloads, or a
            file; else they are drawn.

    Raises:
        NetworkError: there is no such backbone, or its weights do not fit.

    A network adds a `head` and a `final_layer`, which makes the heatmaps.
    """

    stride = 2 * STRIDES[-1]  # the last stage's, and 2 of the pooling that makes the agent's neck
    reads = slice(None)  # which of the four stages the `head` reads

    def __init__(self, backbone: str, pretrained: bool = False, backbone_weights: Path | None = None):
        super().__init__()
        self.backbone, self._places, self.stage_channels = build_backbone(
            backbone, pretrained, backbone_weights
        )
        _freeze_unused(self.backbone, self._places[self.reads])
        self.feature_channels = (*self.stage_channels, self.stage_channels[-1])
        for name in ("mean", "std"):
            values = torch.tensor(self.backbone.pretrained_cfg[name])
            self.register_buffer(name, values.view(3, 1, 1))

    def head(self, stages: list[Tensor]) -> Tensor:
        """What the network makes of the `stages`, [N, chan, H/4, W/4]."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> list[Tensor]:
        """Heatmaps of an image, the only ones in the list: [N, num_classes, H/4, W/4].

        Args, Raises: as for `features`.
        """
        return [self.final_layer(self.head(self.stages(image)))]

    def features(self, image: Tensor) -> Features:
        """The half pass: the network run only up to its head, for the agent.

        As with `StackedHourglass.features`, mode and gradients are the caller's.

        Args:
            image: [N, 3, H, W] float, RGB in 0..1; H and W are multiples of 64.

        Returns:
            the outputs of the backbone's four stages, and the last one pooled to half its size:
            [N, feature_channels[i], h, w] with (h, w) = (H, W) / 4, 8, 16, 32 and 64.

        Raises:
            ValueError: H or W is no multiple of 64.
        """
        stages = self.stages(image)
        return *stages, pool(stages[-1])

    def stages(self, image: Tensor) -> list[Tensor]:
        """The outputs of the backbone's four stages, [N, stage_channels[i], h, w]; see `features`."""
        check_sides(image, self.stride)
        maps = self.backbone((image - self.mean) / self.std)
        return [maps[place] for place in self._places]


def build_backbone(
    name: str, pretrained: bool = False, weights: Path | None = None
) -> tuple[nn.Module, list[int], tuple[int, ...]]:
    """A network of timm without its classifier: images [N, 3, H, W] -> a list of maps [N, C, h, w].

    Args:
        name: one of `timm.list_models()`, perhaps with the tag of its weights, as in resnet50.a1_in1k.
        pretrained: start from the weights that timm downloads.
        weights: a file to start from instead; see `read_weights`.

    Returns:
        The network; where in its list the stages of `STRIDES` are; their channels.

    Raises:
        NetworkError: timm has no such model, its stages are others, or the weights do not fit.
    """
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        raise NetworkError(f"--backbone {name}: timm has no such model: try {', '.join(close) or SOME}")
    try:
        backbone = timm.create_model(name, features_only=True)
    except Exception as error:  # each kind of model has its own
        raise NetworkError(f"--backbone {name}: {_reason(error)}: try {SOME}") from error
    stages = _find_stages(name, backbone)
    if weights is not None:  # by timm, which knows how names change without a classifier
        overlay = {"state_dict": read_weights(name, weights)}
        backbone = timm.create_model(
            name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay
        )
    elif pretrained:
        backbone = _downloaded(name, backbone.pretrained_cfg)
    if weights is not None or pretrained:
        loaded = [key for key in backbone.state_dict() if not key.endswith(COUNTER)]
        log.info("backbone: %d tensors from %s", len(loaded), weights or f"timm's weights of {name}")
    return backbone, *stages


def _find_stages(name: str, backbone: nn.Module) -> tuple[list[int], tuple[int, ...]]:
    """Where in its answer the stages are, and their channels, by trying it out."""
    try:
        with torch.no_grad():
            maps = backbone.eval()(torch.zeros(1, 3, SIDE, SIDE))  # eval: statistics stay
    except Exception as error:  # each kind of model has its own
        raise NetworkError(f"--backbone {name} takes no images of {SIDE} x {SIDE} px: try {SOME}") from error
    backbone.train()
    places = {tuple(one.shape[2:]): place for place, one in enumerate(maps)}  # the last of a size
    sides = [SIDE // stride for stride in STRIDES]
    if not all((side, side) in places for side in sides):
        raise NetworkError(
            f"--backbone {name}: its stages are {_shapes(maps)} of an image of {SIDE} px, "
            f"expected maps of {', '.join(map(str, sides))} px: try {SOME}"
        )
    found = [places[side, side] for side in sides]
    return found, tuple(maps[place].shape[1] for place in found)


@torch.enable_grad()
def _freeze_unused(backbone: nn.Module, places: list[int]) -> None:
    """Train only what the stages in these places depend on: the last one needs less than all of an HRNet.

    With several ranks, each parameter that is trained has to get a gradient.
    """
    parameters = list(backbone.parameters())
    maps = backbone.eval()(torch.zeros(1, 3, SIDE, SIDE))
    read = sum(maps[place].sum() for place in places)
    gradients = torch.autograd.grad(read, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    backbone.train()


def _downloaded(name: str, config: dict) -> nn.Module:
    if not (config.get("hf_hub_id") or config.get("url")):
        raise NetworkError(f"--pretrained true: timm has no weights of {name}: remove it")
    try:
        return timm.create_model(name, features_only=True, pretrained=True)
    except Exception as error:  # the clients of the hub and of URLs raise many kinds
        raise NetworkError(
            f"--pretrained true: the weights of {name} cannot be downloaded ({_reason(error)}): "
            "without a network, use --backbone_weights with a file of them"
        ) from error


def read_weights(name: str, path: Path) -> dict[str, Tensor]:
    """The weights of a network of timm with its classifier, from a .safetensors or a PyTorch file.

    Names are timm's; those of torchvision's ResNets are the same. Only tensors and plain values are read. The
    classifier may be of any classes, or be left out.

    Raises:
        NetworkError: it is no such file, or tensors are missing, are too many or have other shapes.
    """
    flag = f"--backbone_weights {path}"
    if not path.is_file():
        raise NetworkError(f"{flag}: the file does not exist")
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        found = {key: tuple(value.shape) for key, value in state.items()}
    except Exception as error:  # the readers raise nearly any kind on other files
        raise NetworkError(f"{flag} cannot be read: expected named tensors, and nothing else") from error
    model = timm.create_model(name)
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    wrong = [
        f"{key}: expected {own.get(key)}, found {found.get(key)}"
        for key in dict.fromkeys([*own, *found])
        if own.get(key) != found.get(key)
        and not key.startswith(heads)
        and not (key.endswith(COUNTER) and key not in found)  # which old files lack
    ]
    if wrong:
        raise NetworkError(
            f"{flag} does not fit --backbone {name} ({len(wrong)} tensors do not match; first: {wrong[0]})"
        )
    return state


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")  # in one line


def _shapes(maps: list[Tensor]) -> str:
    return ", ".join(" x ".join(map(str, one.shape[1:])) for one in maps)
