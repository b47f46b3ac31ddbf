"""A feature pyramid: a backbone of timm whose stages are merged from coarse to fine."""

from pathlib import Path

from torch import Tensor, nn

from models.backbones import BackboneNetwork
from models.layers import upsample


class FeaturePyramid(BackboneNetwork):
    """A backbone, and lateral connections from all of its stages up to 1/4; one set of heatmaps.

    From the coarsest stage on, each is brought to `chan` channels by a 1x1 convolution and normalized, added
    to the upsampled result of the one before, and merged by a 3x3 convolution, normalization and ReLU.
    Without the first normalization the fine stages, whose values are larger, would drown the coarse ones.

    Args:
        chan: channels of the pyramid, whose weights are drawn.
        num_classes: heatmaps, one per joint.
        backbone, weights: see `BackboneNetwork`.

    Raises:
        NetworkError: see `BackboneNetwork`.

    Source: Lin et al., CVPR 2017, arXiv:1612.03144; for poses as in the GlobalNet of Chen et al., CVPR 2018,
    arXiv:1711.07319. The normalizations are ours, as is the ReLU.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        chan: int = 256,
        num_classes: int = 16,
        **weights: bool | Path | None,
    ):
        super().__init__(backbone, **weights)
        self.laterals = nn.ModuleList(_convolution(width, chan, 1) for width in self.stage_channels)
        self.merges = nn.ModuleList(
            nn.Sequential(*_convolution(chan, chan, 3), nn.ReLU(inplace=True)) for _ in self.stage_channels
        )
        self.final_layer = nn.Conv2d(chan, num_classes, kernel_size=1)
        nn.init.normal_(self.final_layer.weight, std=0.001)  # as in SimpleBaseline: heatmaps start near 0
        nn.init.zeros_(self.final_layer.bias)

    def head(self, stages: list[Tensor]) -> Tensor:
        """The finest result, [N, chan, H/4, W/4]."""
        *finer, coarsest = zip(stages, self.laterals, self.merges, strict=True)
        stage, lateral, merge = coarsest
        x = merge(lateral(stage))
        for stage, lateral, merge in reversed(finer):
            x = merge(lateral(stage) + upsample(x))
        return x


def _convolution(chan_in: int, chan: int, side: int) -> nn.Sequential:
    """A convolution and its normalization: [N, chan_in, H, W] -> [N, chan, H, W]."""
    return nn.Sequential(
        nn.Conv2d(chan_in, chan, kernel_size=side, padding=side // 2, bias=False), nn.BatchNorm2d(chan)
    )
