"""The networks and their losses: tensors in, tensors out. `NETWORKS` has every pose network by its name."""

from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from models.hourglass import StackedHourglass
from models.layers import Features
from models.simple_baseline import SimpleBaseline


@runtime_checkable
class PoseNetwork(Protocol):
    """What an `nn.Module` offers to be a pose network of the stages.

    stride: the input's sides are multiples of it, px; the last of the features is so many times smaller.
    heatmap_stride: the heatmaps are so many times smaller than the input.
    sizes: names of the constructor's arguments that are flags of the command line too.
    maskable: whether `forward` takes a mask of the last feature's size, too: f32 [N, 1, h, w], 0 where it is
    occluded.
    feature_channels: channels of the five features.
    """

    stride: ClassVar[int]
    heatmap_stride: ClassVar[int]
    sizes: ClassVar[tuple[str, ...]]
    maskable: ClassVar[bool]
    feature_channels: tuple[int, ...]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Heatmaps [N, 16, H / heatmap_stride, W / heatmap_stride] of images f32 [N, 3, H, W], RGB in 0..1.

        All of the list are trained; the last is the prediction.
        """

    def features(self, image: Tensor) -> Features:
        """Five maps for the agent, from 1/4 to 1/64 of the image, each half as large as the one before.

        It runs no layer that they do not need, and neither changes the mode nor stops gradients.
        """


NETWORKS: dict[str, type[PoseNetwork]] = {
    "hourglass": StackedHourglass,
    "simple_baseline": SimpleBaseline,
}
