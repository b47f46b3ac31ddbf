"""SimpleBaseline: a backbone of timm and three deconvolutions; it can start from ImageNet."""

from pathlib import Path

from torch import Tensor, nn

from models.backbones import BackboneNetwork

BACKBONE = "backbone."  # starts the backbone's names in the module, not in files


class SimpleBaseline(BackboneNetwork):
    """A backbone down to 1/32 of the image and three deconvolutions up to 1/4; one set of heatmaps.

    The tensors of a ResNet have the names of torchvision's and, behind it, of the networks released with the
    paper, whose weights `load_state_dict` takes.

    Args:
        chan: channels of the deconvolutions, whose weights are drawn.
        num_classes: heatmaps, one per joint.
        backbone, weights: see `BackboneNetwork`.

    Raises:
        NetworkError: see `BackboneNetwork`.

    Source: Xiao, Wu and Wei, ECCV 2018, arXiv:1804.06208.
    """

    reads = slice(-1, None)

    def __init__(
        self,
        backbone: str = "resnet50",
        chan: int = 256,
        num_classes: int = 16,
        **weights: bool | Path | None,
    ):
        super().__init__(backbone, **weights)
        channels = self.stage_channels
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

    def head(self, stages: list[Tensor]) -> Tensor:
        """The last stage after the deconvolutions, [N, chan, H/4, W/4]."""
        return self.deconv_layers(stages[-1])


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
