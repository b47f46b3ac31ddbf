"""Stage 2: train the agent to predict the collected scale and rotation distributions of each person.

With --occlusion true, train the occlusion agent instead, to predict in which cells of the crop joints are.
"""

from options.parser import StageParser
from utils.agents import chosen_agent

if __name__ == "__main__":
    groups = ("pose", "agents", "pretraining", "agent_recipe", "rate", "epochs", "ranks", "overwrite")
    opt = StageParser(__doc__, *groups).parse()  # before the imports below, which take seconds

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.loading.loader import PatchLoader
from data.people import scorable
from utils.agents.base import Agent
from utils.agents.joint import load_agent
from utils.agents.pretraining import (
    ExpectedPck,
    Hits,
    agent_loss,
    baselines,
    ceilings,
    warn_of_uniform_rows,
)
from utils.display.exhibits import draw_exhibits
from utils.display.report import Report
from utils.display.sections import Section
from utils.evaluation.meters import Meters
from utils.records.checkpoint import find_checkpoint
from utils.records.epochs import checkpoint_name, save_epoch
from utils.run import Run
from utils.system.files import locked
from utils.system.process import progress, run_stage
from utils.training import fresh_or_resumed, used_resources


def main(opt: argparse.Namespace) -> None:
    run = Run(opt, opt.agent_folders[chosen_agent(opt).name])
    with locked(run.folder):
        train(run)


def train(run: Run) -> None:
    """Train from the start, or resume from the checkpoint that is named; each epoch is scored and saved."""
    opt, which = run.opt, chosen_agent(run.opt)
    pose = run.pose_network()
    run.load_pose(pose)
    pose.eval().requires_grad_(False)
    agent = which.build(run, pose, opt.lr, opt.weight_decay)
    learner, path, checkpoint = agent.learner, None, None
    if prefix := getattr(opt, which.load):
        path = find_checkpoint(run.folder, prefix, f"--{which.load}")
        checkpoint = load_agent(agent, path)
    retention = fresh_or_resumed(run, learner, checkpoint, path, f"--{which.load}")
    train_people, valid_people = run.dataset.train, run.dataset.valid
    train_loader = run.loader(train_people, "identity", run.streams["order"], scored=True)
    valid_loader = run.loader(valid_people, "identity", scored=True)
    train_rows, valid_rows = agent.targets("train", train_people), agent.targets("val", valid_people)
    train_pck = agent.collected_pck("train", train_people)
    valid_pck = agent.collected_pck("val", valid_people)
    train_scored, valid_scored = (scorable(people, run.skeleton) for people in (train_people, valid_people))
    warn_of_uniform_rows({name: rows[torch.from_numpy(train_scored)] for name, rows in train_rows.items()})
    references = {
        **baselines("train", train_rows, train_scored),
        **baselines("valid", valid_rows, valid_scored),
        **ceilings("train", train_pck, train_scored),
        **ceilings("valid", valid_pck, valid_scored),
    }

    with Report(run, "pretrain-s-r-agent", learner, retention) as report:
        while learner.epoch < opt.nEpochs:
            began = time.monotonic()
            run.streams.start(learner.epoch)
            learner.set_lr(opt.lr)
            trained = train_epoch(run, agent, train_loader, train_rows, train_pck, report)
            train_seconds = time.monotonic() - began
            resources = used_resources(run, train_loader, train_seconds)
            found = validate(run, agent, valid_loader, valid_rows, valid_pck)
            row = {
                "epoch": learner.epoch,
                "lr": opt.lr,
                "train_loss": trained.pop("loss"),
                "valid_loss": found.pop("loss"),
                **references,
                **{f"train_{name}": share for name, share in trained.items()},
                **{f"valid_{name}": share for name, share in found.items()},
                "train_seconds": train_seconds,
                "valid_seconds": time.monotonic() - began - train_seconds,
                **resources,
            }
            report.end_epoch(row, partial(save, run, agent), partial(gallery, run, agent, valid_rows))


def save(run: Run, agent: Agent, best: bool) -> list[Path]:
    """The checkpoint of an epoch, which says whose features the agent was trained on."""
    checkpoint = agent.learner.checkpoint(run) | {"pose": run.pose_identity}
    return save_epoch(run.folder, checkpoint_name(run.opt.lr, agent.learner.epoch), checkpoint, best)


def gallery(run: Run, agent: Agent, rows: dict[str, Tensor]) -> list[Section]:
    """The pictures of an epoch's page; rows: the targets of the validation people."""
    return draw_exhibits(run, agent.pose, agent.exhibits(agent.learner.history.rows[-1], (), rows))


def train_epoch(
    run: Run,
    agent: Agent,
    loader: PatchLoader,
    rows: dict[str, Tensor],
    pck: dict[str, Tensor],
    report: Report,
) -> dict[str, float]:
    """One pass over the training people, un-augmented or, with --mirror true, half of them mirrored.

    rows, pck: everyone's `Agent.targets` and `Agent.collected_pck`.

    Returns:
        The mean loss, `<choice>_hit`, and `<choice>_pck` where there is PCK; see `utils.agents.pretraining`.
    """
    agent.learner.network.train()
    means, hits, expected = Meters("loss"), Hits(*rows), ExpectedPck(*pck)
    bar = progress(loader, f"epoch {agent.learner.epoch}", run.opt.bs)
    for index, people in enumerate(bar):
        augmentation = Augmentation.identity(len(people))
        targets, measured = at_rows(people, rows, pck)
        if run.opt.mirror:
            augmentation = people.local_rows(Augmentation.mirrored(people.total, run.streams["random"]))
            flip = augmentation.flip.to(run.device)[:, None]
            targets, measured = (
                {name: torch.where(flip, row, one[name]) for name, row in agent.mirrored(one).items()}
                for one in (targets, measured)
            )
        logits = agent.predict(run.augment(people, augmentation), trains=True)
        loss = agent.learner.step(agent_loss(logits, targets), people.weight)
        means.add(people.count, loss=loss)
        hits.add(people.count, logits, targets)
        expected.add(people.count, logits, measured)
        report.batch(bar, agent.learner.epoch, index, means.read)
    agent.learner.require_finite()
    return {**means.read(), **hits.read(), **expected.read()}


def validate(
    run: Run, agent: Agent, loader: PatchLoader, rows: dict[str, Tensor], pck: dict[str, Tensor]
) -> dict[str, float]:
    """The agent's mean loss over people, its hits and PCK, as `train_epoch` has them, in eval mode."""
    agent.learner.network.eval()
    means, hits, expected = Meters("loss"), Hits(*rows), ExpectedPck(*pck)
    for people in progress(loader, "valid", run.opt.bs):
        logits = agent.predict(run.augment(people, Augmentation.identity(len(people))))
        targets, measured = at_rows(people, rows, pck)
        means.add(len(people), loss=agent_loss(logits, targets))
        hits.add(len(people), logits, targets)
        expected.add(len(people), logits, measured)
    return {**means.read(), **hits.read(), **expected.read()}


def at_rows(
    people: PersonBatch, rows: dict[str, Tensor], pck: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The targets of a batch, and its mean PCK over measurements: choice -> [N, bins]."""
    targets = {name: one[people.index] for name, one in rows.items()}
    return targets, {name: one[:, people.index].mean(dim=0) for name, one in pck.items()}


if __name__ == "__main__":
    run_stage(lambda: main(opt))
