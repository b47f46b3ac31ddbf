"""Stage 2: train the agent to predict the collected scale and rotation distributions of each person."""

import logging
import time

import torch
from torch import Tensor
from torch.optim import Optimizer

from data.augment import Augmentation, augment
from data.patches import PatchLoader
from models.agent import ScaleRotationAgent
from models.hourglass import StackedHourglass
from options.parser import StageParser
from utils.agents import KINDS, agent_logits, agent_loss, build_agent, constant_loss, load_agent
from utils.checkpoint import checkpoint_name, find_checkpoint, save_epoch
from utils.distributions import distribution_path, read_distributions
from utils.history import History
from utils.loops import Means, progress, require_finite
from utils.process import run_stage
from utils.report import Report
from utils.runs import Run
from utils.training import refuse_to_overwrite, resume, rmsprop, set_lr

log = logging.getLogger("pretrain-s-r-agent")


def main() -> None:
    groups = ("pose", "agent_folder", "resume_agent", "rate", "epochs", "overwrite")
    opt = StageParser(__doc__, *groups).parse()
    run = Run(opt, opt.agent_folder)
    network = run.pose_network()
    run.load_pose(network)
    network.eval().requires_grad_(False)
    agent = build_agent(run)
    optimizer = rmsprop(agent, opt.lr)
    history, start = History(), 0
    if opt.load_prefix_sr is None:
        refuse_to_overwrite(run.folder, opt.overwrite, "--load_prefix_sr")
    else:
        path = find_checkpoint(run.folder, opt.load_prefix_sr, "--load_prefix_sr")
        checkpoint = load_agent(run, agent, path)
        resume(checkpoint, optimizer, run.generator)
        history, start = History.of_checkpoint(checkpoint), checkpoint["epoch"] + 1

    train_rows = collected_rows(run, "train", len(run.dataset.train))
    valid_rows = collected_rows(run, "val", len(run.dataset.valid))
    train_loader = run.loader(run.dataset.train, "identity", run.generator)
    valid_loader = run.loader(run.dataset.valid, "identity")
    report = Report(run, "pretrain-s-r-agent", history, start)

    for epoch in range(start, opt.nEpochs):
        began = time.monotonic()
        set_lr(optimizer, opt.lr)
        train_loss = train_epoch(run, network, agent, optimizer, train_loader, train_rows, epoch, report)
        trained = time.monotonic()
        history.append(
            {
                "epoch": epoch,
                "lr": opt.lr,
                "train_loss": train_loss,
                "valid_loss": mean_loss(run, network, agent, valid_loader, valid_rows),
                **yardsticks("train", train_rows),
                **yardsticks("valid", valid_rows),
                "train_seconds": trained - began,
                "valid_seconds": time.monotonic() - trained,
            }
        )
        checkpoint = run.checkpoint(agent, optimizer, history, epoch) | {"pose": run.pose_identity()}
        best = history.improved("valid_loss", largest=False)
        save_epoch(run.folder, checkpoint_name(opt.lr, epoch), checkpoint, best)
        report.epoch()
    report.close()


def collected_rows(run: Run, split: str, people: int) -> tuple[Tensor, Tensor]:
    """Scale and rotation distributions [N, 7] of a split, as collected, on the device."""
    return tuple(
        read_distributions(
            distribution_path(run.folder, split, kind), run.distribution_source(split, kind, people)
        ).to(run.device)
        for kind in KINDS
    )


def yardsticks(split: str, rows: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Losses of predicting the same for everyone: the mean row, which is the best constant, and 1/7."""
    mean_row = tuple(row.mean(dim=0) for row in rows)
    uniform = tuple(torch.full_like(mean, 1 / len(mean)) for mean in mean_row)
    return {
        f"{split}_mean_row": constant_loss(rows, mean_row),
        f"{split}_uniform": constant_loss(rows, uniform),
    }


def train_epoch(
    run: Run,
    network: StackedHourglass,
    agent: ScaleRotationAgent,
    optimizer: Optimizer,
    loader: PatchLoader,
    rows: tuple[Tensor, Tensor],
    epoch: int,
    report: Report,
) -> float:
    """One pass over the training people, un-augmented; the mean loss."""
    agent.train()
    means = Means()
    for batch, people in enumerate(progress(loader, f"epoch {epoch}")):
        sample = augment(people, Augmentation.identity(len(people)), run.opt.in_res, run.opt.out_res)
        logits = agent_logits(run, network, agent, sample.image)
        loss = agent_loss(logits, tuple(row[people.index] for row in rows))
        require_finite(loss.item(), f"epoch {epoch}, batch {batch}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.add(len(people), loss=loss.item())
        report.batch(epoch, batch, len(loader), agent_loss=means["loss"])
    return means["loss"]


@torch.no_grad()
def mean_loss(
    run: Run,
    network: StackedHourglass,
    agent: ScaleRotationAgent,
    loader: PatchLoader,
    rows: tuple[Tensor, Tensor],
) -> float:
    """The agent's mean loss over people, in eval mode."""
    agent.eval()
    means = Means()
    for people in progress(loader, "valid"):
        sample = augment(people, Augmentation.identity(len(people)), run.opt.in_res, run.opt.out_res)
        logits = agent_logits(run, network, agent, sample.image)
        means.add(len(people), loss=agent_loss(logits, tuple(row[people.index] for row in rows)).item())
    return means["loss"]


if __name__ == "__main__":
    run_stage(main)
