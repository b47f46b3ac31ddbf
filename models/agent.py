"""The agents' networks: they predict hard augmentations from the pose network's features of a person.

Source: Peng, Tang et al., CVPR 2018, arXiv:1805.09707.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.layers import Residual, initialize, pool, residuals

WIDEST = 256  # channels of the paper's agent


def agent_width(channels: Sequence[int]) -> int:
    """Channels of an agent for a pose network's `feature_channels`.

    Those of an hourglass, which are all alike. The stages of a backbone begin narrow: there it is those of
    the middle one, but no more than the paper's agent has, unless all stages have more.
    """
    return max(min(channels), min(WIDEST, sorted(channels)[len(channels) // 2]))


class AgentBody(nn.Module):
    """The common part of agents: residual blocks that merge the five feature maps from fine to coarse.

    Args:
        chan_in: channels of each of the five features (`feature_channels` of the pose network), or one
            number for all of them.
        chan_out: channels of the agent, an even number.
    """

    def __init__(self, chan_in: int | Sequence[int], chan_out: int):
        super().__init__()
        skip1, skip2, skip3, skip4, neck = (chan_in,) * 5 if isinstance(chan_in, int) else chan_in
        self.residual_skip1 = Residual(skip1, chan_out)
        self.residual_skip2 = Residual(skip2, chan_out)
        self.residual_skip3 = Residual(skip3, chan_out)
        self.residual_skip4 = Residual(skip4, chan_out)
        self.residual_neck = Residual(neck, chan_out)
        self.merge1 = Residual(chan_out, chan_out)
        self.merge2 = Residual(chan_out, chan_out)
        self.merge3 = Residual(chan_out, chan_out)
        self.merge4 = Residual(chan_out, chan_out)
        self.deep_merge = residuals(3, chan_out)

    def merge(self, features: Sequence[Tensor]) -> Tensor:
        """One feature map of the neck's size; gradients do not reach the input.

        Args:
            features: skip1, skip2, skip3, skip4 and neck as `PoseNetwork.features` returns
                them: [N, C, h, w] float, each half as large as the one before.

        Returns:
            [N, chan_out, h, w] of the neck's h and w.

        Raises:
            ValueError: there are not five features; or, in training mode, the batch is a single person with
                a neck of 1 x 1: one value per channel, which cannot be normalized.
        """
        skip1, skip2, skip3, skip4, neck = (feature.detach() for feature in features)
        x = self.residual_skip1(skip1)
        x = self.merge1(pool(x) + self.residual_skip2(skip2))
        x = self.merge2(pool(x) + self.residual_skip3(skip3))
        x = self.merge3(pool(x) + self.residual_skip4(skip4))
        x = self.merge4(pool(x) + self.residual_neck(neck))
        return self.deep_merge(x)


class ScaleRotationAgent(AgentBody):
    """Predicts, for each person, a distribution over bins of each kind of augmentation.

    Parameters have the names and the order of the agents released with the paper.

    Args:
        chan_in, chan_out: see `AgentBody`.
        scale_num, rotation_num, more_num: number of bins of each kind; for further kinds `<kind>_num`.
    """

    def __init__(
        self,
        chan_in: int | Sequence[int] = 256,
        chan_out: int = 256,
        scale_num: int = 7,
        rotation_num: int = 7,
        **more_num: int,
    ):
        super().__init__(chan_in, chan_out)
        bins = {"scale_num": scale_num, "rotation_num": rotation_num, **more_num}
        self.kinds = [name.removesuffix("_num") for name in bins]
        for kind, number in zip(self.kinds, bins.values(), strict=True):
            self.add_module(f"fc_{kind}", nn.Linear(chan_out, number))
        initialize(self)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Kind -> logits of its distribution, [N, bins]: "scale", "rotation" and further kinds.

        Args, Raises: see `AgentBody.merge`.
        """
        x = self.merge(features).mean(dim=(2, 3))
        return {kind: self.get_submodule(f"fc_{kind}")(x) for kind in self.kinds}


class OcclusionAgent(AgentBody):
    """Predicts, for each person, which cells of the neck's grid to mask.

    Parameters have the names and the order of the release's occlusion agents.

    Args:
        chan_in, chan_out: see `AgentBody`.
    """

    def __init__(self, chan_in: int | Sequence[int] = 256, chan_out: int = 256):
        super().__init__(chan_in, chan_out)
        self.out_conv = nn.Conv2d(chan_out, 1, kernel_size=1)
        initialize(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits [N, 1, h, w] of the neck's h and w; the distribution is over all h * w cells.

        Args, Raises: see `AgentBody.merge`.
        """
        return self.out_conv(self.merge(features))
