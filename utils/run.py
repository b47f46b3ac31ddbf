"""A run: its options, folder, device, random numbers, data set and pose network."""

import argparse
import logging
import os
import shlex
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn

from data import DataError
from data.augmentation import MARGINS, Augmentation
from data.crops import PersonBatch, Sample, augment
from data.datasets import Dataset, find_annotations, load_dataset
from data.loading.loader import PatchLoader
from data.loading.patches import Patches
from data.people import People, scorable
from data.skeleton import UNKNOWN_SIGMA, Skeleton
from models import NETWORKS, PoseNetwork
from utils.patch_store import Caches
from utils.records.checkpoint import (
    checkpoint_identity,
    checkpoint_skeleton,
    find_checkpoint,
    load_checkpoint,
    load_weights,
)
from utils.system import ranks
from utils.system.devices import Streams, choose_device, keep_freed_memory, require_compiler, set_precision
from utils.system.errors import UserError
from utils.system.process import logged_lines, start_log

log = logging.getLogger(__name__)


class Run:
    """One run of a stage: options, folder, device, random generators, data set and pose network.

    opt: the options. folder: the folder of its files. pose_path: the checkpoint of --load_prefix_pose, or
    None. device: where networks run. streams: the random generators. network_size: the flags that choose and
    size the pose network, with their values. compiled: whether networks run compiled.

    Raises:
        UserError: the folder, the device or the checkpoint is not available.
        DataError: the annotations of the data set do not exist.
    """

    def __init__(self, opt: argparse.Namespace, folder: Path) -> None:
        self.opt, self.folder = opt, folder
        self.pose_path = None
        if opt.load_prefix_pose is not None:
            flag = "--load_prefix_pose"
            self.pose_path = find_checkpoint(opt.exp_folder, opt.load_prefix_pose, flag)
        if opt.annotations is opt.annotations_valid is getattr(opt, "image", None) is None:
            find_annotations(opt.dataset, opt.data_dir)  # fails before the log starts
        start_log(folder)
        log.info("options (* differs from its default):\n%s", self.options_text())
        self.device = choose_device(opt.gpu_id)
        if ranks.world() > 1 and self.device.type == "cpu" and getattr(opt, "sync_bn", False):
            raise UserError("--sync_bn true needs GPUs: remove it on CPUs")
        ranks.init(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        set_precision(opt.precision)
        self.compiled = opt.compile and self.device.type == "cuda"
        if self.compiled:
            if getattr(opt, "sync_bn", False):
                raise UserError("--sync_bn true and --compile true cannot be combined: remove one of them")
            require_compiler(self.device)
        elif opt.compile:
            log.info("--compile true has no effect on the CPU, where compiled networks are no faster")
        torch.manual_seed(opt.seed)  # of initial weights
        self.streams = Streams(opt.seed)
        flags = ("network", *NETWORKS[opt.network].sizes, "in_res")
        self.network_size = {name: getattr(opt, name) for name in flags}
        self.caches = None if opt.cache is None else Caches(self.device if opt.cache == "gpu" else opt.cache)

    @cached_property
    def dataset(self) -> Dataset:
        """The people of --dataset, read on first use; logs how many cannot be scored.

        Raises:
            DataError: the data set is missing or invalid.
            UserError: none of its validation people can be scored, or pycocotools is not installed.
        """
        with logged_lines() as notes:
            dataset = self._read_dataset()
        log.info("people: %d for training, %d for validation", len(dataset.train), len(dataset.valid))
        return replace(dataset, notes=tuple(notes))

    def _read_dataset(self) -> Dataset:
        opt = self.opt
        dataset = load_dataset(
            *(opt.dataset, opt.data_dir, opt.annotations, opt.limit, opt.skip_missing, opt.skip_bad),
            *(opt.annotations_valid, opt.images, opt.mirror_pairs),
        )
        for split, people in (("training", dataset.train), ("validation", dataset.valid)):
            unscored = np.count_nonzero(~scorable(people, dataset.skeleton))
            if unscored:
                lacking = (
                    "have no reference length or no scored joint: PCK and the agent's training skip them"
                )
                log.info("%d of %d %s people %s", unscored, len(people), split, lacking)
        if len(dataset.valid):
            self._scored_rows(dataset.valid, dataset.skeleton)
        if dataset.coco is not None:
            _check_average_precision(dataset)
        return dataset

    @cached_property
    def skeleton(self) -> Skeleton:
        """The joints that the run's networks find: the data set's, or of --image the checkpoint's.

        Raises:
            DataError, UserError: the data set or the checkpoint cannot be read.
        """
        if getattr(self.opt, "image", None) is None:
            return self.dataset.skeleton
        return checkpoint_skeleton(load_checkpoint(self.pose_path))

    @cached_property
    def trained_joints(self) -> np.ndarray:
        """Bool [K]: joints that the pose network is trained to find, since training people have them.

        Those of earlier checkpoints, which do not say them, are this data set's; of --image, all joints.

        Raises:
            DataError, UserError: the data set or the checkpoint cannot be read.
        """
        checkpoint = {} if self.pose_path is None else load_checkpoint(self.pose_path)
        known = "trained_joints" in checkpoint
        trained = np.array(checkpoint["trained_joints"] if known else [False] * len(self.skeleton))
        if getattr(self.opt, "image", None) is not None:
            return trained | (not known)
        trains = not known or getattr(self.opt, "is_train", False)
        return trained | self.dataset.trained_joints if trains else trained

    def options_text(self) -> str:
        """The options, one per line, with a star at those that differ from their defaults."""
        return "\n".join(
            f"{'*' if value != self.opt.defaults.get(name) else ' '} {name}: {option_text(value)}"
            for name, value in sorted(vars(self.opt).items())
            if name in self.opt.defaults
        )

    def loader(
        self, people: People, augmentation: str, generator: Generator | None = None, scored: bool = False
    ) -> PatchLoader:
        """Batches of people, shuffled with a generator, for an augmentation of `data.augmentation.MARGINS`.

        scored: only people who can be scored; rows still count all people of the table. With --cache, patches
        that are not cached yet are decoded first.

        Raises:
            UserError: this split of the data set has too few people, or there is no space for the cache.
            DataError: a photograph does not decode, or the cache's file is damaged.
        """
        if not len(people):
            lacking = "validation" if len(self.dataset.train) else "training"  # one of the two has people
            raise UserError(
                f"--dataset {self.opt.dataset} has no {lacking} people, which this stage needs: add them, "
                "or use --annotations (coco: also --annotations_valid) with a file that has them; "
                "docs/data.md says how to split one"
            )
        rows = self._scored_rows(people, self.skeleton) if scored else None
        if generator is not None and 1 < ranks.world() > self.opt.bs // 2:
            raise UserError(
                f"--bs {self.opt.bs}: expected at least two people for each of {ranks.world()} ranks"
            )
        workers = min(self.opt.nThreads, max(1, (os.cpu_count() or 1) // ranks.local_world()))
        what = (people, self.dataset.root, self.opt.in_res, MARGINS[augmentation], self.opt.bs, workers)
        cache = None
        if self.caches is not None:
            split = "valid" if people.valid[0] else "train"
            name = f"{self.opt.dataset}-{split}-{augmentation}-{self.opt.in_res}px"
            cache = self.caches.get(name, PatchLoader(*what, torch.device("cpu")))
        loader = PatchLoader(*what, self.device, generator, rows, ranks.rank(), ranks.world(), cache)
        if generator is not None and not len(loader):
            raise UserError(f"--dataset {self.opt.dataset} has one person to train on: expected at least two")
        return loader

    def batch(
        self, people: People, rows: np.ndarray, augmentation: str, in_res: int | None = None
    ) -> PersonBatch:
        """The people in these rows with patches for an augmentation of `MARGINS`, on the device.

        in_res: side of the crops in px, instead of --in_res.

        A `DataLoader` is avoided here, since it draws from PyTorch's global random numbers.

        Raises:
            DataError: a photograph does not decode.
        """
        patches = Patches(people, self.dataset.root, in_res or self.opt.in_res, MARGINS[augmentation])
        batch = patches[[int(row) for row in rows]]
        if isinstance(batch, DataError):
            raise batch
        return batch.to(self.device)

    @property
    def cells(self) -> int:
        """The side of the pose network's smallest feature map, whose cells can be masked."""
        return self.opt.in_res // NETWORKS[self.opt.network].stride

    def _scored_rows(self, people: People, skeleton: Skeleton) -> np.ndarray:
        rows = np.flatnonzero(scorable(people, skeleton))
        if not len(rows):
            split = "validation" if people.valid[0] else "training"
            raise UserError(
                f"--dataset {self.opt.dataset}: none of {len(people)} {split} people can be scored: "
                "expected at least one with a reference length and a scored joint"
            )
        return rows

    def pose_network(self) -> PoseNetwork:
        """A new pose network of --network and its flags, with initial weights, on the device.

        Raises:
            NetworkError: there is no such network, or the weights that it starts from do not fit.
        """
        network = NETWORKS[self.opt.network]
        flags = (*network.sizes, *(name for name in network.weights if name in self.opt))
        arguments = {name: getattr(self.opt, name) for name in flags}
        return self.place(network.build(num_classes=len(self.skeleton), **arguments))

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in channels-last format, and compile it with --compile true."""
        network = network.to(self.device, memory_format=torch.channels_last)
        if self.compiled:
            network.compile()  # in place: its parameters keep their names
        return network

    def load_pose(self, network: PoseNetwork) -> dict:
        """Load the checkpoint of `--load_prefix_pose` into the network, and return it.

        Raises:
            UserError: it is missing, damaged or belongs to another network or skeleton.
        """
        checkpoint = load_checkpoint(self.pose_path)
        load_weights(network, checkpoint, self.pose_path, self.network_size, self.skeleton)
        log.info("pose network: %s", self.pose_path)
        return checkpoint

    @cached_property
    def pose_identity(self) -> dict[str, str]:
        """The `checkpoint_identity` of the --load_prefix_pose checkpoint."""
        return checkpoint_identity(self.pose_path)

    @cached_property
    def people(self) -> dict[str, str]:
        """The `dataset`'s name, and the fingerprints of its `train` and `valid` people."""
        dataset = self.dataset
        return {
            "dataset": dataset.name,
            "train": dataset.train.fingerprint,
            "valid": dataset.valid.fingerprint,
        }

    def distribution_source(self, split: str, kind: str, people: People) -> dict:
        """The source of a file of collected distributions: the people and the checkpoint's identity."""
        return {
            "kind": kind,
            "split": split,
            "dataset": self.dataset.name,
            "people": len(people),
            "fingerprint": people.fingerprint,
            **self.pose_identity,
            "in_res": self.opt.in_res,
        }

    def augment(self, people: PersonBatch, augmentation: Augmentation) -> Sample:
        """Crops and heatmaps of people at the run's resolutions; see `data.crops.augment`."""
        return augment(people, augmentation, self.opt.in_res, self.opt.out_res, self.skeleton)

    def passes(self) -> torch.autocast:
        """The context for forward passes: autocast to bf16 with --precision bf16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.opt.precision == "bf16")

    def forward(self, network: PoseNetwork, image: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The heatmaps of every stack in fp32, computed with --precision.

        image: [N, 3, H, W]. mask: [N, 1, cells, cells], for a network that is `maskable`.
        """
        image = image.contiguous(memory_format=torch.channels_last)
        with self.passes():
            outputs = network(image) if mask is None else network(image, mask)
        return [heatmaps.float() for heatmaps in outputs]


def option_text(value: object) -> str:
    """The value of an option as on the command line, where several have spaces between them."""
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)


def _check_average_precision(dataset: Dataset) -> None:
    """Log what average precision is computed on; without pycocotools raise a `UserError` before training."""
    if find_spec("pycocotools") is None:
        raise UserError(
            f"--dataset {dataset.name}: pycocotools is not installed, which computes average precision: "
            "install it with pip install pycocotools"
        )
    if dataset.skeleton.sigmas is None:
        log.info("average precision: the joints have no constants (sigmas): %g for each", UNKNOWN_SIGMA)
    truth, evaluated = dataset.coco, set(dataset.coco.evaluated)
    if len(evaluated) < len(truth.images):
        log.info(
            "average precision: on %d of %d people, in the %d of %d photographs that show people in use",
            *(sum(one["image_id"] in evaluated for one in truth.to_find), len(truth.to_find)),
            *(len(evaluated), len(truth.images)),
        )
