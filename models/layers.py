"""Parts of all networks: the residual block, resizing, checks of sizes, and initial weights."""

import torch.nn.functional as F
from torch import Tensor, nn

Features = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""The input of an agent: [N, C, h, w] each, half as large as the one before."""


class Residual(nn.Module):
    """Bottleneck residual block: 1x1, 3x3 and 1x1 convolutions around a shortcut.

    Batch normalization and ReLU follow each of the first two convolutions and the sum with the
    shortcut. The shortcut is the input itself, or a 1x1 convolution (`adapter`) of it if the
    number of channels changes. All convolutions have a bias.

    Args:
        chan_in: channels of the input.
        chan_out: channels of the output, an even number; the 3x3 convolution works on half of it.

    Source: the stacked hourglass (Newell et al., ECCV 2016, arXiv:1603.06937), with normalization
    after the convolutions as in Peng, Tang et al., CVPR 2018, arXiv:1805.09707.
    """

    def __init__(self, chan_in: int, chan_out: int):
        super().__init__()
        middle = chan_out // 2
        self.conv1 = nn.Conv2d(chan_in, middle, kernel_size=1)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, kernel_size=3, padding=1)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, chan_out, kernel_size=1)
        self.bn3 = nn.BatchNorm2d(chan_out)
        if chan_in == chan_out:
            self.adapter = nn.Identity()
        else:
            self.adapter = nn.Conv2d(chan_in, chan_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, chan_in, H, W] float -> [N, chan_out, H, W], never negative."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.conv3(y) + self.adapter(x)
        return F.relu(self.bn3(y), inplace=True)


def residuals(count: int, chan: int) -> nn.Sequential:
    """A sequence of `count` residual blocks of `chan` channels."""
    return nn.Sequential(*(Residual(chan, chan) for _ in range(count)))


def pool(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H/2, W/2] by 2x2 max-pooling."""
    return F.max_pool2d(x, kernel_size=2)


def upsample(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H, 2W] by nearest-neighbour up-sampling."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def check_sides(image: Tensor, stride: int) -> None:
    """Raise a `ValueError` unless the sides of images [N, 3, H, W] are multiples of a network's stride."""
    height, width = image.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(f"the image is {width} x {height} px; both sides must be multiples of {stride}")


def initialize(network: nn.Module) -> None:
    """Set the initial weights of a network, in place, with torch's global generator.

    Weights and biases of convolutions and linear layers are uniform in +-1/sqrt(fan_in), weights of
    batch normalizations uniform in 0..1 and their biases 0: the values of the networks of Peng,
    Tang et al., CVPR 2018, arXiv:1805.09707.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
            nn.init.zeros_(module.bias)
