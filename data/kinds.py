"""The kinds of augmentation that an agent chooses from bins, and how random augmentation draws them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of augmentation.

    name: in files, flags and the columns of a history. field: the field of `Augmentation` that it sets.
    means, std: each bin is a Gaussian around its mean, clamped to one standard deviation.
    random_std, random_limit, random_probability: random augmentation draws from N(0, random_std), clamped to
    +-random_limit, with this probability; else the value is 0.
    unit: follows the numbers. label: what the numbers are, for axes.
    odd: whether the value changes its sign for a mirrored person; then the means are symmetric about 0, and
    the bins of a mirrored person are those of the person in reverse.
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
        """The ends and the middle of every bin's range."""
        return [mean + side * self.std for mean in self.means for side in (-1, 0, 1)]

    @property
    def random_range(self) -> list[float]:
        """Evenly spaced values from the least to the greatest that random augmentation draws."""
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
            label="scale (log2)",
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
"""Every kind by its name, in the order of draws and of the agent's answers.

The numbers are the paper's (Peng et al., CVPR 2018, section 4, and the release that came with it).
"""
