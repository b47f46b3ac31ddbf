"""Stage 3: train the pose network against the agent, which learns to draw what is hard; or evaluate."""

if __name__ == "__main__":
    from utils.signals import end_at_once

    end_at_once()  # the imports below take seconds

import math
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from data.augment import PersonBatch
from data.augmentation import Augmentation
from data.kinds import KINDS
from data.patches import PatchLoader
from models import PoseNetwork
from models.losses import pose_loss, rewarded_distribution
from options.parser import StageParser
from utils import ranks
from utils.agents import AgentRecord, agent_logits, agent_loss, build_agent, draw, load_agent
from utils.checkpoint import (
    SUFFIX,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
)
from utils.devices import epoch_seed
from utils.display.evaluation import report_evaluation
from utils.display.gallery import agent_gallery, hardest_gallery, pose_gallery
from utils.display.report import Report
from utils.display.sections import Section
from utils.epochs import checkpoint_name, save_epoch
from utils.errors import UserError
from utils.evaluation import Evaluation, crop_pck, evaluate
from utils.files import locked
from utils.means import Means
from utils.metrics import PckCounter
from utils.predictions import encode_predictions
from utils.process import progress, run_stage
from utils.runs import Run
from utils.training import Learner, fresh_or_resumed, say_other_people, scheduled_lr, used_resources

POSE, AGENT = "pose-", "agent-"  # prefixes of the two networks' files in the joint folder


def main() -> None:
    groups = ("train_or_evaluate", "pose", "resume_agent", "agent_folder", "joint", "rate", "epochs", "ranks")
    opt = StageParser(__doc__, *groups, "overwrite", "evaluation").parse()
    resumed = newest_checkpoint(opt.joint_folder, POSE) if opt.load_checkpoint else None
    if opt.is_train and resumed is None and opt.load_prefix_sr is None:
        raise UserError("--load_prefix_sr is missing: the pretrained agent, such as lr-0.00025-1.pth.tar")
    run = Run(opt, opt.joint_folder if opt.is_train or resumed else opt.exp_folder)
    if opt.is_train:
        with locked(run.folder):
            train(run, resumed)
    else:
        network, path = run.pose_network(), resumed or run.pose_path
        checkpoint = load_checkpoint(path)
        load_weights(network, checkpoint, path, run.network_size)
        report_evaluation(run, network, checkpoint, path.with_name(path.name.removesuffix(SUFFIX)))


def train(run: Run, resumed: Path | None) -> None:
    """Alternate between the pose network and the agent, an epoch each; each epoch is scored and saved."""
    opt = run.opt
    pose = Learner(run.pose_network(), opt.lr, opt.sync_bn)
    agent = Learner(build_agent(run, pose.network), opt.agent_lr, opt.sync_bn)
    checkpoint = None
    if resumed is None:
        start = run.load_pose(pose.network)
        pose.restore(start, run.pose_path)
        say_other_people(run, start, run.pose_path)
        agent_path = find_checkpoint(opt.agent_folder, opt.load_prefix_sr, "--load_prefix_sr")
    else:
        checkpoint = load_checkpoint(resumed)
        load_weights(pose.network, checkpoint, resumed, run.network_size)
        if "agent" not in checkpoint:
            raise UserError(f"{resumed} does not say which agent belongs to it: it can only be evaluated")
        agent_path = find_checkpoint(run.folder, checkpoint["agent"], "--load_checkpoint true")
    agent.restore(load_agent(run, agent.network, agent_path), agent_path)
    kept = fresh_or_resumed(run, pose, checkpoint, resumed, "--load_checkpoint true")
    train_loader = run.loader(run.dataset.train, "drawn", run.generator)
    # The agent's training draws apart, so that the pose network sees the same with and without it.
    agent_generator = Generator()
    agent_loader = run.loader(run.dataset.train, "drawn", agent_generator, scored=True)
    valid_loader = run.loader(run.dataset.valid, "identity")

    with Report(run, "joint-train-pose-s-r-agent", pose, "pose-training-summary.txt") as report:
        while pose.epoch < opt.nEpochs:
            began = time.monotonic()
            lr = scheduled_lr(opt.lr, pose.epoch)
            pose.set_lr(lr)
            agent.set_lr(opt.agent_lr)
            pose_row = train_pose(run, pose, agent, train_loader, report)
            pose_seconds = time.monotonic() - began
            resources = used_resources(run, train_loader, pose_seconds)
            agent_row, hardest = {}, []
            if opt.agent_draws == "learned":
                agent_generator.manual_seed(epoch_seed(opt.seed, pose.epoch))
                record = train_agent(run, pose, agent, agent_loader, report, agent_generator)
                agent_row, hardest = record.row(pose.history), record.hardest()
            train_seconds = time.monotonic() - began
            valid = evaluate(run, pose.network, valid_loader)
            loss = agent_row.get("agent_loss", math.nan)
            agent.history.append({"epoch": agent.epoch, "lr": opt.agent_lr, "train_loss": loss})
            pose.history.append(
                {
                    "epoch": pose.epoch,
                    "lr": lr,
                    **pose_row,
                    **valid.row(),
                    "agent_epoch": agent.epoch,
                    "agent_lr": opt.agent_lr,
                    **agent_row,
                    "train_seconds": train_seconds,
                    "agent_seconds": train_seconds - pose_seconds,
                    "valid_seconds": time.monotonic() - began - train_seconds,
                    **resources,
                }
            )
            report.epoch(valid)
            best = pose.history.improved()
            if ranks.rank() == 0:
                kept.add(save(run, pose, agent, valid, best), best)
            report.show(partial(gallery, run, pose, agent, valid, hardest), valid)
            pose.epoch += 1
            agent.epoch += 1


def gallery(run: Run, pose: Learner, agent: Learner, valid: Evaluation, hardest: list[dict]) -> list[Section]:
    """The pictures of an epoch's page."""
    return [
        *pose_gallery(run, pose.network, valid),
        *agent_gallery(run, pose.network, agent.network, pose.epoch),
        *hardest_gallery(run, pose.network, hardest),
    ]


def save(run: Run, pose: Learner, agent: Learner, valid: Evaluation, best: bool) -> list[Path]:
    """Both networks' checkpoints; the agent's comes first, so that the pose network's never lacks it."""
    agent_name = AGENT + checkpoint_name(run.opt.agent_lr, agent.epoch)
    pose_name = POSE + checkpoint_name(run.opt.lr, pose.epoch)
    agent_checkpoint = agent.checkpoint(run) | {"pose": run.pose_identity}
    pose_checkpoint = pose.checkpoint(run) | {"agent": agent_name}
    predictions = encode_predictions(valid.preds, run.dataset.valid)
    return [
        *save_epoch(run.folder, agent_name, agent_checkpoint, best=False),
        *save_epoch(run.folder, pose_name, pose_checkpoint, best, predictions),
    ]


def train_pose(
    run: Run, pose: Learner, agent: Learner, loader: PatchLoader, report: Report
) -> dict[str, float]:
    """One pass over the training people: even batches augmented at random, odd ones as --agent_draws says."""
    pose.network.train()
    agent.network.eval()
    means = Means("loss")
    pck = {drawn: PckCounter(run.dataset.threshold) for drawn in ("random", "agent")}
    bar = progress(loader, f"epoch {pose.epoch}, pose", run.opt.bs)
    for index, people in enumerate(bar):
        augmentation = people.own(Augmentation.random(people.total, run.generator))
        if index % 2:
            if run.opt.agent_draws == "uniform":
                logits = {kind.name: torch.zeros(len(people), len(kind.means)) for kind in KINDS.values()}
            else:
                with torch.no_grad():
                    logits = look(run, pose.network, agent.network, people)
            drawn, _ = draw(logits, people, run.generator)
            fields = {kind.field: getattr(drawn, kind.field) for kind in KINDS.values()}
            augmentation = replace(augmentation, **fields)
        sample = run.augment(people, augmentation)
        outputs = run.forward(pose.parallel, sample.image)
        loss = pose.step(pose_loss(outputs, sample.heatmap), people.weight)
        means.add(people.counted * len(people), loss=loss)
        pck["agent" if index % 2 else "random"].add(outputs[-1].detach(), sample, people.counted)
        report.batch(
            bar, pose.epoch, index, lambda: {**means.read(), "pck": (pck["random"] + pck["agent"]).read()}
        )
    pose.require_finite()
    return {
        "train_loss": means.read()["loss"],
        "train_pck": (pck["random"] + pck["agent"]).read(),
        "train_pck_random": pck["random"].read(),
        "train_pck_agent": pck["agent"].read(),
    }


def train_agent(
    run: Run, pose: Learner, agent: Learner, loader: PatchLoader, report: Report, generator: Generator
) -> AgentRecord:
    """One pass over people who have PCK, or --agent_iters batches of it; what the agent did and learned.

    Each person is seen under a random scale alone, a random rotation alone, the agent's scale alone and the
    agent's rotation alone (and so on, kind by kind). A draw that was harder than the random one is rewarded,
    any other penalised.
    """
    pose.network.eval()
    agent.network.train()
    record = AgentRecord()
    iters = min(len(loader), run.opt.agent_iters or len(loader))
    bar = progress(islice(loader, iters), f"epoch {pose.epoch}, agent", run.opt.bs, iters)
    for index, people in enumerate(bar):
        logits = look(run, pose.network, agent.parallel, people)
        drawn, bins = draw(logits, people, generator)
        random = people.own(Augmentation.random(people.total, generator))
        trials = [which.only(kind.field) for which in (random, drawn) for kind in KINDS.values()]
        pck = crop_pck(run, pose.network, people, Augmentation.cat(trials)).view(2, len(KINDS), -1)
        predicted = {kind: answer.detach().softmax(dim=1) for kind, answer in logits.items()}
        targets = {
            kind: rewarded_distribution(predicted[kind], bins[kind].to(run.device), *pck[:, k])
            for k, kind in enumerate(KINDS)
        }
        loss = agent.step(agent_loss(logits, targets), people.weight)
        record.add(loss, predicted, pck, people, drawn)
        report.batch(bar, pose.epoch, index, record.means.read)
    agent.require_finite()
    return record


def look(run: Run, network: PoseNetwork, agent: nn.Module, people: PersonBatch) -> dict[str, Tensor]:
    """The agent looks at un-augmented people: its logits [N, bins] by kind."""
    sample = run.augment(people, Augmentation.identity(len(people)))
    return agent_logits(run, network, agent, sample.image)


if __name__ == "__main__":
    run_stage(main)
