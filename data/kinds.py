"""The kinds of augmentation that an agent chooses, each from bins of its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of augmentation.

    name: as files, flags and the columns of a history have it. field: of `Augmentation`, that it sets.
    means, std: each bin is a Gaussian round its mean, clamped to one standard deviation. unit: stands behind
    numbers. label: what the numbers are, for axes. odd: whether it turns its sign for a mirrored person; then
    the means are symmetric about 0, and the bins of a mirrored person are those of the person in reverse.
    """

    name: str
    field: str
    means: tuple[float, ...]
    std: float
    unit: str
    label: str
    odd: bool = False

    @property
    def extremes(self) -> list[float]:
        """The ends and the middle of every bin's range."""
        return [mean + side * self.std for mean in self.means for side in (-1, 0, 1)]


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("scale", "log2_scale", (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6), 0.05, "", "scale (log2)"),
        Kind(
            "rotation",
            "rotation",
            (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0),
            5.0,
            "°",
            "rotation (°)",
            odd=True,
        ),
    )
}
"""Every kind by its name, in the order of draws and of the agent's answers.

Bins are the paper's (Peng et al., CVPR 2018, and the release that came with it).
"""
