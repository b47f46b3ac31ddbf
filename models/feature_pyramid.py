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
        backbone, pretrained, backbone_weights: see `BackboneNetwork`.

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
        pretrained: bool = False,
        backbone_weights: Path | None = None,
    ):
        super().__init__(backbone, pretrained, backbone_weights)
        self.laterals = nn.ModuleList(_convolution(width, chan, 1) for width in self.stage_channels)
        self.merges = nn.ModuleList(
            nn.Sequential(*_convolution(chan, chan, 3), nn.ReLU(inplace=True)) for _ in self.stage_channels
        )
        self.final_layer = nn.Conv2d(chan, num_classes, kernel_size=1)
        nn.init.normal_(self.final_layer.weight, std=0.001)  # as in SimpleBaseline: heatmaps start near 0
        nn.init.zeros_(self.final_layer.bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Heatmaps of an image, the only ones in the list.

        Args:
            image: [N, 3, H, W] float, RGB in 0..1; H and W are multiples of 64.

        Returns:
            one tensor [N, num_classes, H/4, W/4].

        Raises:
            ValueError: H or W is no multiple of 64.
        """
        *finer, coarsest = zip(self.stages(image), self.laterals, self.merges, strict=True)
        stage, lateral, merge = coarsest
        x = merge(lateral(stage))
        for stage, lateral, merge in reversed(finer):
            x = merge(lateral(stage) + upsample(x))
        return [self.final_layer(x)]


def _convolution(chan_in: int, chan: int, side: int) -> nn.Sequential:
    """A convolution and its normalization: [N, chan_in, H, W] -> [N, chan, H, W]."""
    return nn.Sequential(
        nn.Conv2d(chan_in, chan, kernel_size=side, padding=side // 2, bias=False), nn.BatchNorm2d(chan)
    )
