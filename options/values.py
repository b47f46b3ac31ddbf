"""Parsers of single values of the command line; what they refuse becomes one line."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path


def boolean(text: str) -> bool:
    """true/false, 1/0, yes/no, in any case."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not a boolean: expected true or false")
    return values[text.lower()]


LARGEST = 2**63 - 1  # what PyTorch takes for a size and for a seed


def whole_number(low: int, multiple_of: int = 1) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `LARGEST`, multiples of `multiple_of`."""
    expected = f"a whole number of at least {low}" + (
        f", a multiple of {multiple_of}" if multiple_of > 1 else ""
    )

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value > LARGEST:
            raise argparse.ArgumentTypeError(f"{text!r}: expected at most {LARGEST}")
        if value < low or value % multiple_of:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
        return value

    return parse


def learning_rate(text: str) -> float:
    """A finite number above 0."""
    value = _finite(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def weight_decay(text: str) -> float:
    """A finite number of at least 0."""
    value = _finite(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least 0")
    return value


def _finite(text: str) -> float:
    """The number that a text says; NaN where it is no finite one."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def gpu_number(text: str) -> int:
    """The number of a GPU, or -1 for the CPU."""
    if re.fullmatch(r"\d+(,\d+)+", text):
        count = text.count(",") + 1
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected one number; CUDA_VISIBLE_DEVICES={text} torchrun --nproc_per_node {count} "
            "starts the script on these GPUs"
        )
    return whole_number(-1)(text)


def checkpoint_prefix(text: str, folder: Path) -> str:
    """The bare prefix of a checkpoint in a folder, such as lr-0.00025-10.

    text: the prefix, or a path to the file from here or from the root; with or without .pth.tar.

    Raises:
        ValueError: it is a path into another folder.
    """
    path = Path(text.removesuffix(".pth.tar"))
    if str(path) != path.name and path.parent.resolve() != folder.resolve():
        raise ValueError(f"{text} is of {path.parent}: expected a checkpoint of {folder}")
    return path.name


def folder_name(text: str) -> str:
    """The name of a folder, without a path."""
    if text in ("", ".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a folder's name, not a path")
    return text


def cache_place(text: str) -> Path | str:
    """A folder, or the word gpu."""
    if not text:
        raise argparse.ArgumentTypeError("'': expected a folder, or gpu")
    return text if text == "gpu" else Path(text)
