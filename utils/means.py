"""Means over an epoch."""

import math
from collections.abc import Iterator


class Means:
    """Means of named values over an epoch; each batch counts with its number of people."""

    def __init__(self) -> None:
        self.people, self._sums = 0, {}

    def add(self, people: int, **values: float) -> None:
        self.people += people
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + people * value

    def __getitem__(self, name: str) -> float:
        return self._sums[name] / self.people if self.people else math.nan

    def items(self) -> Iterator[tuple[str, float]]:
        """Each name with its mean."""
        return ((name, self[name]) for name in self._sums)
