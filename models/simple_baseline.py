"""SimpleBaseline: a ResNet and three deconvolutions, a pose network to compare others with."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models import NETWORKS
from models.layers import Features, check_sides, pool

CHAN = 256  # of the deconvolutions


class SimpleBaseline(nn.Module):
    """A ResNet down to 1/32 of the image and three deconvolutions up to 1/4; one set of heatmaps.

    Parameters have the names of torchvision's ResNet and, behind it, of the networks released with the paper.
    The published results start from a ResNet trained on ImageNet, with images normalised as there. Here all
    weights are drawn, and images are those of the other networks; `load_state_dict` takes published weights
    (of a ResNet alone with strict=False).

    Args:
        depth: layers of the ResNet: 50, 101 or 152 as in the paper, or the small 18 and 34.
        num_classes: heatmaps, one a joint.

    Source: Xiao, Wu and Wei, ECCV 2018, arXiv:1804.06208.
    """

    stride: ClassVar[int] = NETWORKS["simple_baseline"].stride

    def __init__(self, depth: int = 50, num_classes: int = 16):
        super().__init__()
        from torchvision.models import get_model  # takes as long to import as torch: not for other networks

        resnet = get_model(f"resnet{depth}", weights=None)
        self.conv1, self.bn1 = resnet.conv1, resnet.bn1
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        widest = resnet.fc.in_features
        self.feature_channels = (widest // 8, widest // 4, widest // 2, widest, widest)
        self.deconv_layers = nn.Sequential(
            *_deconvolution(widest), *_deconvolution(CHAN), *_deconvolution(CHAN)
        )
        self.final_layer = nn.Conv2d(CHAN, num_classes, kernel_size=1)
        for module in (*self.deconv_layers, self.final_layer):
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
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
        return [self.final_layer(self.deconv_layers(self._stages(image)[-1]))]

    def features(self, image: Tensor) -> Features:
        """The half pass: the network run only up to the deconvolutions, for the agent.

        As with `StackedHourglass.features`, mode and gradients are the caller's.

        Args:
            image: as for `forward`.

        Returns:
            the outputs of the ResNet's four stages, and the last one pooled to half its size:
            [N, feature_channels[i], h, w] with (h, w) = (H, W) / 4, 8, 16, 32 and 64.

        Raises:
            ValueError: as for `forward`.
        """
        stages = self._stages(image)
        return *stages, pool(stages[-1])

    def _stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        check_sides(image, self.stride)
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        stage1 = self.layer1(F.max_pool2d(x, kernel_size=3, stride=2, padding=1))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        return stage1, stage2, stage3, self.layer4(stage3)


def _deconvolution(chan_in: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """[N, chan_in, H, W] -> [N, CHAN, 2H, 2W]."""
    return (
        nn.ConvTranspose2d(chan_in, CHAN, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(CHAN),
        nn.ReLU(inplace=True),
    )
