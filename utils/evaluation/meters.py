"""Means over an epoch."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from utils.system import ranks


class Meters:
    """Means of named values over an epoch; each batch counts with its number of people.

    Values may be tensors: they are added up where they are, and nothing waits for a GPU before `read`.
    """

    def __init__(self, *names: str) -> None:
        self._people, self._sums = 0.0, dict.fromkeys(names, 0.0)

    def add(self, people: float, **values: float | Tensor) -> None:
        """The means of a batch: scalars, or tensors of one element."""
        self._people += people
        for name, value in values.items():
            value = value.detach().double() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums[name] + people * value

    def read(self) -> Mapping[str, float]:
        """Each name with its mean over all ranks, each of which must call this."""
        sums = [torch.as_tensor(value, dtype=torch.float64) for value in (self._people, *self._sums.values())]
        device = next((value.device for value in sums if value.is_cuda), torch.device("cpu"))
        people, *sums = ranks.total(torch.stack([value.to(device) for value in sums])).tolist()
        return {
            name: value / people if people else math.nan for name, value in zip(self._sums, sums, strict=True)
        }
