"""Stage 2: train the agent to predict the collected scale and rotation distributions of each person.

With --occlusion true, train the occlusion agent instead, to predict in which cells of the crop joints are.
"""

from options.parser import StageParser

if __name__ == "__main__":
    groups = ("pose", "agent_folder", "resume_agent", "occlusion_agent", "pretraining", "agent_recipe")
    parser = StageParser(__doc__, *groups, "rate", "epochs", "ranks", "overwrite")
    opt = parser.parse()  # before the imports below, which take seconds

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from data.kinds import KINDS, OCCLUSION
from data.loading.loader import PatchLoader
from data.people import People, scorable
from models import PoseNetwork
from utils.agents.hits import Hits, best_constant_hits, constant_hits
from utils.agents.occlusion import build_occlusion_agent, vote_rows
from utils.agents.scale_rotation import agent_logits, agent_loss, build_agent, constant_loss, load_agent
from utils.display.gallery import agent_gallery
from utils.display.mask_gallery import occlusion_gallery
from utils.display.report import Report
from utils.display.sections import Section
from utils.evaluation.meters import Means
from utils.records.checkpoint import find_checkpoint
from utils.records.distributions import distribution_path, read_distributions
from utils.records.epochs import checkpoint_name, save_epoch
from utils.run import Run
from utils.system.files import locked
from utils.system.process import progress, run_stage
from utils.training import Learner, fresh_or_resumed, used_resources


def main(opt: argparse.Namespace) -> None:
    if opt.occlusion:
        task, prefix, folder = OCCLUDING, opt.load_prefix_occ, opt.occlusion_folder
    else:
        task, prefix, folder = SCALING_AND_ROTATING, opt.load_prefix_sr, opt.agent_folder
    run = Run(opt, folder)
    with locked(run.folder):
        train(run, task, prefix)


@dataclass(frozen=True)
class Task:
    """What pretraining is for one of the two agents.

    build: its initial network. rows: what it learns to predict of a split's people, [N, bins] by kind, on the
    device. gallery: what its pages show after an epoch. resume_flag: names the checkpoint to resume from.
    """

    build: Callable[[Run, PoseNetwork], nn.Module]
    rows: Callable[[Run, str, People], dict[str, Tensor]]
    gallery: Callable[[Run, nn.Module, nn.Module, int], list[Section]]
    resume_flag: str


def train(run: Run, task: Task, prefix: str | None) -> None:
    """Train from the start, or resume from the checkpoint of that prefix; each epoch is scored and saved."""
    opt = run.opt
    network = run.pose_network()
    run.load_pose(network)
    network.eval().requires_grad_(False)
    agent = Learner(task.build(run, network), opt.lr, opt.sync_bn, opt.weight_decay)
    path = checkpoint = None
    if prefix is not None:
        path = find_checkpoint(run.folder, prefix, task.resume_flag)
        checkpoint = load_agent(run, agent.network, path)
    kept = fresh_or_resumed(run, agent, checkpoint, path, task.resume_flag)
    train_people, valid_people = run.dataset.train, run.dataset.valid
    train_loader = run.loader(train_people, "identity", run.streams.order, scored=True)
    valid_loader = run.loader(valid_people, "identity", scored=True)
    train_rows = task.rows(run, "train", train_people)
    valid_rows = task.rows(run, "val", valid_people)

    with Report(run, "pretrain-s-r-agent", agent) as report:
        while agent.epoch < opt.nEpochs:
            began = time.monotonic()
            run.streams.start(agent.epoch)
            agent.set_lr(opt.lr)
            trained = train_epoch(run, network, agent, train_loader, train_rows, report)
            train_seconds = time.monotonic() - began
            resources = used_resources(run, train_loader, train_seconds)
            found = validate(run, network, agent.network, valid_loader, valid_rows)
            agent.history.append(
                {
                    "epoch": agent.epoch,
                    "lr": opt.lr,
                    "train_loss": trained.pop("loss"),
                    "valid_loss": found.pop("loss"),
                    **baselines("train", train_people, train_rows),
                    **baselines("valid", valid_people, valid_rows),
                    **{f"train_{name}": share for name, share in trained.items()},
                    **{f"valid_{name}": share for name, share in found.items()},
                    "train_seconds": train_seconds,
                    "valid_seconds": time.monotonic() - began - train_seconds,
                    **resources,
                }
            )
            report.epoch()
            best = agent.history.improved()
            checkpoint = agent.checkpoint(run) | {"pose": run.pose_identity}
            kept.add(save_epoch(run.folder, checkpoint_name(opt.lr, agent.epoch), checkpoint, best), best)
            report.show(partial(task.gallery, run, network, agent.network, agent.epoch))
            agent.epoch += 1


def collected_rows(run: Run, split: str, people: People) -> dict[str, Tensor]:
    """Distributions [N, bins] of a split's people by kind, as collected, on the device."""
    return {
        kind: read_distributions(
            distribution_path(run.folder, split, kind), run.distribution_source(split, kind, people)
        ).to(run.device)
        for kind in KINDS
    }


def joint_votes(run: Run, split: str, people: People) -> dict[str, Tensor]:
    """In which cells of the crop people's joints are, [N, cells]; nothing is collected for it."""
    return {OCCLUSION: vote_rows(run, people)}


SCALING_AND_ROTATING = Task(build_agent, collected_rows, agent_gallery, "--load_prefix_sr")
OCCLUDING = Task(build_occlusion_agent, joint_votes, occlusion_gallery, "--load_prefix_occ")


def baselines(split: str, people: People, rows: dict[str, Tensor]) -> dict[str, float]:
    """What predicting the same for everyone is worth, of the people who have PCK, as in training.

    The losses of the mean row, which is the best constant, and of 1 / bins; and how often the mean row's
    largest bin is a person's hardest, `<kind>_mean_row_hit`, and the bin that most often is,
    `<kind>_constant_hit`. Both are of the split itself: of new people nobody knows them beforehand.
    """
    rows = {kind: row[torch.from_numpy(scorable(people))] for kind, row in rows.items()}
    mean_row = {kind: row.mean(dim=0) for kind, row in rows.items()}
    uniform = {kind: torch.full_like(mean, 1 / len(mean)) for kind, mean in mean_row.items()}
    return {
        f"{split}_mean_row": constant_loss(rows, mean_row),
        f"{split}_uniform": constant_loss(rows, uniform),
        **{f"{split}_{kind}_mean_row_hit": constant_hits(mean_row[kind], row) for kind, row in rows.items()},
        **{f"{split}_{kind}_constant_hit": best_constant_hits(row) for kind, row in rows.items()},
    }


def train_epoch(
    run: Run,
    network: PoseNetwork,
    agent: Learner,
    loader: PatchLoader,
    rows: dict[str, Tensor],
    report: Report,
) -> dict[str, float]:
    """One pass over the training people, un-augmented or, with --mirror true, half of them mirrored.

    Returns:
        The mean loss, and `<kind>_hit` of `utils.agents.hits`.
    """
    agent.network.train()
    means, hits = Means("loss"), Hits(*rows)
    bar = progress(loader, f"epoch {agent.epoch}", run.opt.bs)
    for index, people in enumerate(bar):
        augmentation = Augmentation.identity(len(people))
        targets = {kind: row[people.index] for kind, row in rows.items()}
        if run.opt.mirror:
            augmentation = people.own(Augmentation.mirrored(people.total, run.streams.random))
            targets = mirrored(targets, augmentation.flip.to(run.device))
        sample = run.augment(people, augmentation)
        logits = agent_logits(run, network, agent.parallel, sample.image)
        loss = agent.step(agent_loss(logits, targets), people.weight)
        means.add(people.count, loss=loss)
        hits.add(people.count, logits, targets)
        report.batch(bar, agent.epoch, index, means.read)
    agent.require_finite()
    return {**means.read(), **hits.read()}


def mirrored(rows: dict[str, Tensor], flip: Tensor) -> dict[str, Tensor]:
    """Distributions [N, bins] by kind, as those [N] (bool) who are mirrored have them.

    The mirror image of a person under a rotation is that of the person under the opposite one. Cells change
    places in each row of the grid.
    """
    turned = {}
    for kind, row in rows.items():
        if kind == OCCLUSION:
            turned[kind] = row.unflatten(1, (math.isqrt(row.shape[1]), -1)).flip(2).flatten(1)
        else:
            turned[kind] = row.flip(1) if KINDS[kind].odd else row
    return {kind: torch.where(flip[:, None], turned[kind], row) for kind, row in rows.items()}


@torch.no_grad()
def validate(
    run: Run,
    network: PoseNetwork,
    agent: nn.Module,
    loader: PatchLoader,
    rows: dict[str, Tensor],
) -> dict[str, float]:
    """The agent's mean loss over people and its hits, as `train_epoch` has them, in eval mode."""
    agent.eval()
    means, hits = Means("loss"), Hits(*rows)
    for people in progress(loader, "valid", run.opt.bs):
        sample = run.augment(people, Augmentation.identity(len(people)))
        logits = agent_logits(run, network, agent, sample.image)
        targets = {kind: row[people.index] for kind, row in rows.items()}
        means.add(len(people), loss=agent_loss(logits, targets))
        hits.add(len(people), logits, targets)
    return {**means.read(), **hits.read()}


if __name__ == "__main__":
    run_stage(lambda: main(opt))
