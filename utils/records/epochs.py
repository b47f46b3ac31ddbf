"""The files of an epoch in the folder of a run: their names, saving them, and deleting earlier ones.

A run deletes only files whose names follow the patterns below, and none before it has saved an epoch.
"""

import io
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils.records.checkpoint import SUFFIX
from utils.system import ranks
from utils.system.errors import UserError
from utils.system.files import link_file, write_file

log = logging.getLogger(__name__)

_EPOCH = r"(?:[a-z]+-)?lr-[\d.]+-(?P<epoch>\d+)"
_PAGES = ("web/index.html", "web/evaluations.html")  # of a whole run
_SOME = r"(?:-[\w.-]+)?"  # the suffix of an evaluation's files: its people and what was evaluated
_NAMES = (
    re.compile(rf"{_EPOCH}(?P<best>-model-best\.pth\.tar|-preds-best\.(?:mat|json))"),
    re.compile(
        rf"{_EPOCH}(?P<best>)(?:\.pth\.tar|-preds{_SOME}\.(?:mat|json)|-(?:grid|occlusion){_SOME}\.(?:txt|png))"
    ),
    re.compile(rf"web/evaluation-{_EPOCH}(?P<best>){_SOME}\.html"),
    re.compile(r"web/epoch-(?P<epoch>\d+)(?P<best>)\.html"),
)


def learning_rate_text(lr: float) -> str:
    """A learning rate as written in file names: 0.00025, never 2.5e-04."""
    return np.format_float_positional(lr, trim="-")


def checkpoint_name(lr: float, epoch: int) -> str:
    """`lr-0.00025-10` for epoch 10 of a run that started with --lr 0.00025."""
    return f"lr-{learning_rate_text(lr)}-{epoch}"


def save_epoch(
    folder: Path, name: str, checkpoint: dict, best: bool, predictions: Mapping[str, bytes] | None = None
) -> list[Path]:
    """Write the `<name>.pth.tar` of an epoch and, for each suffix of `predictions`, `<name>-preds<suffix>`.

    The best epoch so far also gets `<name>-model-best.pth.tar` and `<name>-preds-best<suffix>`, as hard links
    where the file system supports them. An agent has no predictions.

    Returns:
        The paths of the files written.

    Raises:
        UserError: the folder cannot be written to.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    written = []
    contents = {(f"-preds-best{end}", f"-preds{end}"): one for end, one in (predictions or {}).items()}
    # resuming relies on the plain checkpoint: it comes last
    contents[f"-model-best{SUFFIX}", SUFFIX] = buffer.getvalue()
    for suffixes, content in contents.items():
        paths = [folder / f"{name}{suffix}" for suffix in (suffixes if best else suffixes[1:])]
        write_file(paths[0], content)
        for path in paths[1:]:
            link_file(path, paths[0])
        written += paths
    return written


@dataclass(frozen=True)
class EpochFile:
    """A file of an epoch. best: whether it is a `-model-best` or `-preds-best` file."""

    path: Path
    epoch: int
    best: bool

    @property
    def companion(self) -> bool:
        """Whether it belongs to an agent in joint training (`agent-lr-…`), which counts its own epochs."""
        return not self.path.name.startswith(("lr-", "pose-", "epoch-", "evaluation-"))


def epoch_files(folder: Path) -> list[EpochFile]:
    """The files and pages of epochs and their evaluations in a folder, recognized by their names."""
    found = []
    for path in sorted((*folder.glob("*"), *folder.glob("web/*"))):
        name = path.relative_to(folder).as_posix()
        match = next(filter(None, (pattern.fullmatch(name) for pattern in _NAMES)), None)
        if match:
            found.append(EpochFile(path, int(match["epoch"]), bool(match["best"])))
    return found


def refuse_to_overwrite(folder: Path, overwrite: bool, resume_flag: str) -> list[Path]:
    """The files of an earlier run, which a run that starts from scratch will replace.

    Raises:
        UserError: there are some, and `overwrite` is not set.
    """
    there = [file.path for file in epoch_files(folder)]
    if there and not overwrite:
        raise UserError(
            f"{folder} already has results, such as {there[0].name}: use {resume_flag} to resume, "
            "--overwrite true to replace them, or another --exp_id"
        )
    return there + [folder / page for page in _PAGES if (folder / page).exists()]


def later_best(folder: Path, epoch: int) -> list[Path]:
    """The `-model-best` and `-preds-best` files of `epoch` and later, which an earlier run has left.

    The plain files of these epochs stay until training reaches them; a warning says so.
    """
    later = [file for file in epoch_files(folder) if file.epoch >= epoch and not file.companion]
    later.sort(key=lambda file: file.epoch)
    plain = [file.path for file in later if not file.best and file.path.name.endswith(SUFFIX)]
    if plain:
        log.warning(
            "%s already exists: it and later epochs will be replaced when training reaches them", plain[0]
        )
    return [file.path for file in later if file.best]


class Retention:
    """Deletes the files of earlier epochs while a run saves new ones.

    resume_flag: the flag that resumes from one of them.

    Args:
        keep: the number of newest epochs of this run to keep, in addition to the best one; None: keep all.
        superseded: files of an earlier run, deleted once this run has saved an epoch.
    """

    def __init__(
        self, keep: int | None, superseded: Iterable[Path] = (), resume_flag: str = "--load_prefix_pose"
    ) -> None:
        self._keep, self._superseded, self.resume_flag = keep, set(superseded), resume_flag
        self._epochs: list[list[Path]] = []
        self._best: list[Path] = []

    @property
    def newest(self) -> Path | None:
        """The checkpoint of the newest epoch that this run has saved, if any; rank 0 only."""
        return self._epochs[-1][-1] if self._epochs else None  # `save_epoch` has it last

    def add(self, written: list[Path], best: bool) -> None:
        """Note the files of a saved epoch, and delete those that are no longer kept; rank 0 only."""
        if ranks.rank():
            return
        for path in self._superseded - set(written):
            path.unlink(missing_ok=True)
        self._superseded = set()
        self._epochs.append(written)
        if best:
            self._best = written
        if self._keep is not None:
            for old in self._epochs[: -self._keep]:
                if old is not self._best:
                    self._epochs.remove(old)
                    for path in old:
                        path.unlink(missing_ok=True)
