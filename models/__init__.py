"""The networks and their losses: tensors in, tensors out. `NETWORKS` has every pose network by its name.

This module imports no torch: the command line is read first, and needs no more than this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from models.layers import Features


class NetworkError(Exception):
    """A pose network cannot be built as asked, or its initial weights do not fit.

    The message is one line: what was found, what was expected. Stage scripts print it and exit with code 2.
    """


@runtime_checkable
class PoseNetwork(Protocol):
    """The interface of a pose network, an `nn.Module`. feature_channels: channels of the five features."""

    feature_channels: tuple[int, ...]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Heatmaps [N, K, H / heatmap_stride, W / heatmap_stride] of images f32 [N, 3, H, W], RGB in 0..1.

        All outputs of the list are trained; the last one is the prediction.
        """

    def features(self, image: Tensor) -> Features:
        """Five feature maps for the agents, from 1/4 to 1/64 of the image, each half of the one before.

        Runs only the layers that they need, and changes neither the mode nor the gradients.
        """


@dataclass(frozen=True)
class NetworkType:
    """The description of a pose network, known before it is built.

    path: module and name of its class, a `PoseNetwork`.
    stride: side of the input / side of the last feature map; the sides of inputs are multiples of it.
    heatmap_stride: side of the input / side of the heatmaps.
    sizes: arguments of the constructor that are also flags of the command line.
    weights: further arguments that are flags of stage 1: the initial weights, unless a checkpoint is loaded.
    maskable: whether `forward` also takes a mask of the last feature map: f32 [N, 1, h, w], 0 where masked.
    """

    path: str
    stride: int
    heatmap_stride: int
    sizes: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    maskable: bool = False

    def build(self, **arguments: object) -> PoseNetwork:
        """The network with initial weights; arguments by the names of `sizes` and `weights`.

        Every network has the size num_classes, the number of joints, which no flag gives.

        Raises:
            NetworkError: there is no such network, or the weights do not fit.
        """
        return resolve_name(self.path)(**arguments)


_on_backbone = partial(
    NetworkType,
    stride=64,  # the backbone's 32, and 2 of the pooling that makes the agent's neck
    heatmap_stride=4,
    sizes=("backbone", "chan"),
    weights=("pretrained", "backbone_weights"),
)

NETWORKS: dict[str, NetworkType] = {
    "hourglass": NetworkType(
        "models.hourglass.StackedHourglass",
        stride=64,  # 4 in the stem, 16 in the hourglass
        heatmap_stride=4,
        sizes=("num_stacks", "num_modules", "chan"),
        maskable=True,
    ),
    "simple_baseline": _on_backbone("models.simple_baseline.SimpleBaseline"),
    "feature_pyramid": _on_backbone("models.feature_pyramid.FeaturePyramid"),
    "control": NetworkType(
        "models.known_answer.KnownAnswer", stride=64, heatmap_stride=4, sizes=("chan",), maskable=True
    ),
}

MASKED_CELLS = 2
"""The number of cells per person that the occlusion agent masks."""
