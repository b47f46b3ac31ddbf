"""Parsers of command-line values; an invalid value becomes an error of one line."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path


def boolean(text: str) -> bool:
    """Parse true/false, 1/0 or yes/no, in any case."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not a boolean: expected true or false")
    return values[text.lower()]


LARGEST = 2**63 - 1  # PyTorch's limit for sizes and seeds


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
    """Parse a finite number above 0."""
    value = _finite(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def non_negative(text: str) -> float:
    """Parse a finite number of at least 0."""
    value = _finite(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least 0")
    return value


def _finite(text: str) -> float:
    """Parse a finite number; NaN if the text is anything else."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


class LrSteps(argparse.Action):
    """Parses words EPOCH:FACTOR with increasing epochs; the value is one text, such as 100:0.2 140:0.5."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        steps, before = [], -1
        for word in " ".join(values).split() or [""]:
            epoch, _, factor = word.partition(":")
            if not epoch.isdecimal() or not _finite(factor) > 0:
                raise argparse.ArgumentError(
                    self, f"{word!r}: expected EPOCH:FACTOR, a whole number and a number above 0"
                )
            if int(epoch) <= before:
                raise argparse.ArgumentError(self, f"{word!r}: expected an epoch after {before}")
            before = int(epoch)
            steps.append(f"{before}:{_finite(factor)}")
        setattr(namespace, self.dest, " ".join(steps))


def gpu_number(text: str) -> int:
    """Parse the index of a GPU, or -1 for the CPU."""
    if re.fullmatch(r"\d+(,\d+)+", text):
        count = text.count(",") + 1
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected one number; to train on these GPUs, start the script with "
            f"CUDA_VISIBLE_DEVICES={text} torchrun --nproc_per_node {count}"
        )
    return whole_number(-1)(text)


def checkpoint_prefix(text: str, folder: Path) -> str:
    """The prefix of a checkpoint's file name in a folder, such as lr-0.00025-10.

    text: the prefix, or an absolute or relative path to the file; with or without .pth.tar.

    Raises:
        ValueError: the path leads to another folder.
    """
    path = Path(text.removesuffix(".pth.tar"))
    if str(path) != path.name and path.parent.resolve() != folder.resolve():
        raise ValueError(f"{text} is in {path.parent}: expected a checkpoint in {folder}")
    return path.name


def folder_name(text: str) -> str:
    """Parse the name of a folder, without a path."""
    if text in ("", ".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r}: expected the name of a folder, not a path")
    return text


def name_pair(text: str) -> str:
    """Parse two different names with a colon between them."""
    left, _, right = text.partition(":")
    if not left or not right or ":" in right or left == right:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two joints, such as left_knee:right_knee")
    return text


def cache_place(text: str) -> Path | str:
    """Parse the path of a folder, or the word gpu."""
    if not text:
        raise argparse.ArgumentTypeError("'': expected a folder, or gpu")
    return text if text == "gpu" else Path(text)
