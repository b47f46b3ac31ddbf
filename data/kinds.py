"""The kinds of augmentation that an agent chooses from bins, and how random augmentation draws them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of augmentation.

    name: its name in files, flags and columns of a history. field: the field of `Augmentation` that it sets.
    means, std: each bin is a Gaussian around its mean, clamped to one standard deviation. random_std,
    random_limit, random_probability: random augmentation draws from N(0, random_std), clamped to
    +-random_limit, with this probability; otherwise the value is 0. unit: text after values. label: of axes.
    odd: whether mirroring a person changes the sign of the value. Then the means must be symmetric about 0,
    and mirroring reverses the order of the bins.
    """

    name: str
    field: str
    means: tuple[float, ...]
    std: float
    random_std: float
    random_limit: float
    unit: str
    label: str
    random_probability: float = 1.0
    odd: bool = False

    @property
    def extremes(self) -> list[float]:
        """The lower limit, middle and upper limit of each bin."""
        return [mean + side * self.std for mean in self.means for side in (-1, 0, 1)]

    @property
    def random_range(self) -> list[float]:
        """Evenly spaced values over the range of random augmentation."""
        return [self.random_limit * step / 20 for step in range(-20, 21)]


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "scale",
            "log2_scale",
            means=(-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6),
            std=0.05,
            random_std=0.25,
            random_limit=0.5,
            unit="",
            label="scale (log2, above 0 zooms out)",
        ),
        Kind(
            "rotation",
            "rotation",
            means=(-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0),
            std=5.0,
            random_std=30.0,
            random_limit=60.0,
            random_probability=0.4,
            unit="°",
            label="rotation (°)",
            odd=True,
        ),
    )
}
"""Each kind by its name, in the order of draws and of the agent's outputs.

Source of the numbers: Peng et al., CVPR 2018, section 4, and its published code.
"""
