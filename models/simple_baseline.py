"""SimpleBaseline: a backbone of timm and three deconvolutions; it can start from ImageNet."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from models import NETWORKS
from models.layers import Features, check_sides, pool

BACKBONE = "backbone."  # starts the backbone's names in the module, not in files


class SimpleBaseline(nn.Module):
    """A backbone down to 1/32 of the image and three deconvolutions up to 1/4; one set of heatmaps.

    Images are normalised by the mean and the standard deviation that the backbone was made for. The tensors
    of a ResNet have the names of torchvision's and, behind it, of the networks released with the paper, whose
    weights `load_state_dict` takes.

    Args:
        backbone: name of a model of timm, see `models.backbones`.
        chan: channels of the deconvolutions.
        num_classes: heatmaps, one per joint.
        pretrained, backbone_weights: what the backbone starts from: the weights that timm downloads, or a
            file; else they are drawn. The deconvolutions' are drawn.

    Raises:
        NetworkError: there is no such backbone, or its weights do not fit.

    Source: Xiao, Wu and Wei, ECCV 2018, arXiv:1804.06208.
    """

    stride: ClassVar[int] = NETWORKS["simple_baseline"].stride

    def __init__(
        self,
        backbone: str = "resnet50",
        chan: int = 256,
        num_classes: int = 16,
        pretrained: bool = False,
        backbone_weights: Path | None = None,
    ):
        super().__init__()
        from models.backbones import build_backbone  # which imports timm: not for other networks

        self.backbone, self._places, channels = build_backbone(backbone, pretrained, backbone_weights)
        self.feature_channels = (*channels, channels[-1])
        for name in ("mean", "std"):
            values = torch.tensor(self.backbone.pretrained_cfg[name])
            self.register_buffer(name, values.view(3, 1, 1))
        self.deconv_layers = nn.Sequential(
            *_deconvolution(channels[-1], chan), *_deconvolution(chan, chan), *_deconvolution(chan, chan)
        )
        self.final_layer = nn.Conv2d(chan, num_classes, kernel_size=1)
        for module in (*self.deconv_layers, self.final_layer):
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
        nn.init.zeros_(self.final_layer.bias)
        self.register_state_dict_post_hook(_to_files_names)
        self.register_load_state_dict_pre_hook(_from_files_names)

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
            the outputs of the backbone's four stages, and the last one pooled to half its size:
            [N, feature_channels[i], h, w] with (h, w) = (H, W) / 4, 8, 16, 32 and 64.

        Raises:
            ValueError: as for `forward`.
        """
        stages = self._stages(image)
        return *stages, pool(stages[-1])

    def _stages(self, image: Tensor) -> list[Tensor]:
        check_sides(image, self.stride)
        maps = self.backbone((image - self.mean) / self.std)
        return [maps[place] for place in self._places]


def _deconvolution(chan_in: int, chan: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """[N, chan_in, H, W] -> [N, chan, 2H, 2W]."""
    return (
        nn.ConvTranspose2d(chan_in, chan, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(chan),
        nn.ReLU(inplace=True),
    )


def _to_files_names(network: SimpleBaseline, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """In files the backbone's tensors stand beside the others, as in the released ones."""
    start = prefix + BACKBONE
    for name in [name for name in state if name.startswith(start)]:
        state[prefix + name.removeprefix(start)] = state.pop(name)


def _from_files_names(network: SimpleBaseline, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """The way back; mean and std, which released files lack, stay as they are."""
    own = tuple(f"{prefix}{name}" for name in ("mean", "std", "deconv_layers.", "final_layer."))
    for name in [name for name in state if name.startswith(prefix) and not name.startswith(own)]:
        state[prefix + BACKBONE + name.removeprefix(prefix)] = state.pop(name)
    for name in ("mean", "std"):
        state.setdefault(prefix + name, getattr(network, name))
