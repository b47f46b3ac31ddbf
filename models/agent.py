"""The agent: it looks at a person through the pose network and picks hard augmentations."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.layers import Residual, initialize, pool, residuals


class ScaleRotationAgent(nn.Module):
    """Predicts, for each person, distributions over bins of scale and bins of rotation.

    Parameters have the names and the order of the agents released with the paper.

    Args:
        chan_in: channels of each of the five features (`feature_channels` of the pose network), or one
            number for all of them.
        chan_out: channels of the agent, an even number.
        scale_num: bins of scale.
        rotation_num: bins of rotation.

    Source: Peng, Tang et al., CVPR 2018, arXiv:1805.09707.
    """

    def __init__(
        self,
        chan_in: int | Sequence[int] = 256,
        chan_out: int = 256,
        scale_num: int = 7,
        rotation_num: int = 7,
    ):
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
        self.fc_scale = nn.Linear(chan_out, scale_num)
        self.fc_rotation = nn.Linear(chan_out, rotation_num)
        initialize(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of both distributions; no gradient reaches the features.

        Args:
            features: skip1, skip2, skip3, skip4 and neck as `PoseNetwork.features` returns
                them: [N, C, h, w] float, each half as large as the one before.

        Returns:
            scale logits [N, scale_num] and rotation logits [N, rotation_num].

        Raises:
            ValueError: there are not five features; or, in training mode, they are of one single
                person with a neck of 1 x 1, one value a channel that cannot be normalised.
        """
        skip1, skip2, skip3, skip4, neck = (feature.detach() for feature in features)
        x = self.residual_skip1(skip1)
        x = self.merge1(pool(x) + self.residual_skip2(skip2))
        x = self.merge2(pool(x) + self.residual_skip3(skip3))
        x = self.merge3(pool(x) + self.residual_skip4(skip4))
        x = self.merge4(pool(x) + self.residual_neck(neck))
        x = self.deep_merge(x).mean(dim=(2, 3))
        return self.fc_scale(x), self.fc_rotation(x)
