"""Checkpoints: all that is needed to resume a run exactly, in one file that is written atomically.

A checkpoint is a dict of
    state_dict      the network's weights and statistics
    optimizer       the optimiser's state
    optimizer_name  --optimizer, of which it is the state; rmsprop where it is missing
    train_history   rows of `utils.records.history.History`
    epoch           the last finished epoch, from 0
    seed            --seed, from which, with the epoch, random draws follow
    network         the flags that choose and size the pose network, with their values
    skeleton        the fields of the `data.skeleton.Skeleton` whose joints the pose network finds
    trained_joints  for each joint, whether a training person had it; earlier files do not say it
    people          data set, and fingerprints of the training and validation people
    recipe          the flags that decide how its epoch was trained, with their values
An agent's checkpoint also has pose, the `checkpoint_identity` of the pose network that it learned from; that
of a pose network in joint training has agent and occlusion, the names of those agents' checkpoints in the
same folder. Files of the 2018 release have only the first three keys, and the epoch in their names. The
state of a random generator, which older files have, is ignored; those without a skeleton are MPII's.
"""

import hashlib
import pickle
import re
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from data.skeleton import MPII, Skeleton
from utils.system.errors import UserError
from utils.system.files import natural

SUFFIX = ".pth.tar"
_EPOCH = re.compile(r"-(\d+)(-model-best)?\.pth\.tar$")


def find_checkpoint(folder: Path, prefix: str, flag: str) -> Path:
    """The file that `flag` names by its prefix, with or without `.pth.tar`.

    Raises:
        UserError: it does not exist; the message lists the checkpoints of the folder.
    """
    path = folder / (prefix if prefix.endswith(SUFFIX) else prefix + SUFFIX)
    if path.is_file() and path.parent == folder:
        return path
    there = sorted((file.name for file in folder.glob(f"*{SUFFIX}")), key=natural)
    listing = ", ".join(there) if there else "no checkpoints"
    raise UserError(f"{flag} {prefix}: {path} does not exist; {folder} has {listing}")


def saved_epochs(folder: Path, prefix: str = "", best: bool = False) -> dict[Path, int]:
    """The checkpoints `<prefix>lr-*-<epoch>.pth.tar` of a folder, or the `-model-best`, with their epochs."""
    found = {path: _EPOCH.search(path.name) for path in folder.glob(f"{prefix}lr-*{SUFFIX}")}
    return {path: int(match[1]) for path, match in found.items() if match and bool(match[2]) == best}


def newest_checkpoint(folder: Path, prefix: str, flag: str) -> Path:
    """The checkpoint of the latest epoch among `saved_epochs`; `flag` is named in the error.

    Raises:
        UserError: there is none.
    """
    epochs = saved_epochs(folder, prefix)
    if not epochs:
        raise UserError(f"{flag}: {folder} has no checkpoint {prefix}lr-…{SUFFIX}")
    return max(epochs, key=epochs.get)


def best_checkpoint(folder: Path, flag: str) -> Path:
    """The latest of the files `lr-*-<epoch>-model-best.pth.tar`: each is better than all earlier ones.

    Raises:
        UserError: there is none.
    """
    epochs = saved_epochs(folder, best=True)
    if not epochs:
        raise UserError(f"{flag} best: {folder} has no lr-…-model-best{SUFFIX}: name an epoch's checkpoint")
    return max(epochs, key=epochs.get)


def checkpoint_identity(path: Path) -> dict[str, str]:
    """The identity of a checkpoint, as agents, distributions and logs record it: its name and two hashes.

    `checkpoint` is the file's name. `weights` is the hash of the weights: equal for an epoch that was
    trained again, bit for bit. `sha256` is the hash of the file, the only one that older records have.

    Raises:
        OSError: it cannot be read. UserError: it is damaged.
    """
    file, weights = hashlib.sha256(path.read_bytes()), hashlib.sha256()
    for name, value in sorted(load_checkpoint(path)["state_dict"].items()):
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        weights.update(value.detach().flatten().view(torch.uint8).numpy())
    return {"checkpoint": path.name, "weights": weights.hexdigest()[:16], "sha256": file.hexdigest()[:16]}


def common_hash(*identities: dict[str, str]) -> str:
    """The name of the hash to compare identities by: "weights" if all have it, else "sha256"."""
    return "weights" if all("weights" in identity for identity in identities) else "sha256"


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint onto the CPU. Only tensors and plain values are read: code in the file is never run.

    Raises:
        UserError: the file is truncated, is not a checkpoint, or holds more than tensors and plain values.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds objects other than tensors and plain values: not loaded, since it could run code"
        ) from error
    except Exception as error:  # the reader raises nearly any kind on damaged bytes
        raise UserError(f"{path} cannot be read as a checkpoint: it is truncated or damaged") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a checkpoint: expected a dict with a state_dict of tensors")
    checkpoint["state_dict"] = {name.removeprefix("module."): value for name, value in state.items()}
    if "epoch" not in checkpoint:
        found = _EPOCH.search(path.name)
        if found is None:
            raise UserError(f"{path} has no epoch: expected one in the file or in its name (…-10{SUFFIX})")
        checkpoint["epoch"] = int(found[1])
    return checkpoint


def checkpoint_skeleton(checkpoint: dict) -> Skeleton:
    """The skeleton whose joints the pose network of a checkpoint finds."""
    return Skeleton(**checkpoint["skeleton"]) if "skeleton" in checkpoint else MPII


def require_skeleton(checkpoint: dict, path: Path, expected: Skeleton) -> None:
    """Raise a `UserError` unless the joints of a checkpoint, read from `path`, are those of this run."""
    found = checkpoint_skeleton(checkpoint)
    for joint, (theirs, ours) in enumerate(zip_longest(found.joints, expected.joints)):
        if theirs != ours:
            raise UserError(
                f"{path} has the {len(found)} joints of {found.name!r}, this run the {len(expected)} of "
                f"{expected.name!r} (joint {joint}: {theirs!r}, not {ours!r}): expected a checkpoint and "
                "data of the same joints"
            )


def load_weights(
    network: nn.Module, checkpoint: dict, path: Path, expected: dict, skeleton: Skeleton = MPII
) -> None:
    """Load a checkpoint's weights into a network of the same size and the same skeleton.

    Args:
        expected: the flags that choose and size the network, with this run's values; the checkpoint's must
            agree. skeleton: that of this run.

    Raises:
        UserError: the checkpoint is of another skeleton, or of a network of another size; the message says
            which joints or flags differ.
    """
    require_skeleton(checkpoint, path, skeleton)
    own = network.state_dict()
    recorded, state = _completed(checkpoint, own)
    differing = [name for name in recorded if recorded[name] != expected.get(name)]
    if differing:
        theirs = " ".join(f"--{name} {recorded[name]}" for name in differing)
        ours = " ".join(f"--{name} {expected[name]}" for name in differing if name in expected)
        raise UserError(f"{path} belongs to a network with {theirs}, this run has {ours}: use {theirs}")
    wrong = _misfits(own, state)
    if wrong:
        raise UserError(
            f"{path} belongs to another network ({len(wrong)} tensors do not match; first: {wrong[0]})"
        )
    network.load_state_dict(state)


def _completed(checkpoint: dict, own: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """A checkpoint's size flags and weights, with what older and released files lack of a network's `own`."""
    recorded, state = checkpoint.get("network", {}), dict(checkpoint["state_dict"])
    constants = {name: own[name] for name in ("mean", "std") if name in own}  # of a backbone's images
    if recorded:
        recorded = {"network": "hourglass"} | recorded  # older files name no network: it was the only one
    if recorded.get("network") == "simple_baseline" and "backbone" not in recorded:
        # older files are of a ResNet-50 that read images as they are
        recorded = recorded | {"backbone": "resnet50", "chan": 256}
        constants = {name: torch.full_like(own[name], name == "std") for name in constants}
    for name in own:
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, torch.tensor(0))
    return recorded, constants | state


def _misfits(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    expected, found = ({name: tuple(one.shape) for name, one in each.items()} for each in (own, state))
    return [
        f"{name}: expected {expected.get(name)}, found {found.get(name)}"
        for name in dict.fromkeys([*own, *state])
        if expected.get(name) != found.get(name)
    ]
