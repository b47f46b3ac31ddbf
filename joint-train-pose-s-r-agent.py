"""Stage 3: train the pose network against agents, which learn to draw what is hard; or evaluate."""

from options.parser import STAGE_3, StageParser
from utils.agents import AGENTS

if __name__ == "__main__":
    parser = StageParser(__doc__, *STAGE_3)
    opt = parser.parse()  # before the imports below, which take seconds
    named = [agent.load for agent in AGENTS.values() if getattr(opt, agent.load)]
    if opt.is_train and not (opt.load_checkpoint or named):
        loads = " or ".join(f"--{agent.load} (the {agent.title})" for agent in AGENTS.values())
        parser.error(f"no agent: expected a pretrained one, such as lr-0.00025-1.pth.tar, with {loads}")

import argparse
import math
import time
from functools import partial
from itertools import islice
from pathlib import Path

from data.augmentation import MARGINS, Augmentation
from data.loading.loader import PatchLoader
from models.losses import pose_loss
from utils.agents.base import Agent, Record
from utils.agents.joint import POSE, load_agents, save_networks, warn_of_default_rate, warn_of_missed_turns
from utils.agents.rules import RULES
from utils.display.evaluation_report import report_evaluation
from utils.display.exhibits import draw_exhibits
from utils.display.gallery import pose_gallery
from utils.display.report import Report
from utils.display.sections import Section
from utils.evaluation.evaluate import Evaluation, evaluate
from utils.evaluation.meters import Meters
from utils.evaluation.metrics import PckCounter
from utils.records.checkpoint import SUFFIX, load_checkpoint, load_weights, newest_checkpoint
from utils.run import Run
from utils.schedule import pose_schedule
from utils.system.files import locked
from utils.system.process import progress, run_stage
from utils.training import Learner, fresh_or_resumed, used_resources, warn_of_other_people


def main(opt: argparse.Namespace) -> None:
    resumed = None
    if opt.load_checkpoint:
        resumed = newest_checkpoint(opt.joint_folder, POSE, "--load_checkpoint true")
    run = Run(opt, opt.joint_folder if opt.is_train or resumed else opt.exp_folder)
    if opt.is_train:
        with locked(run.folder):
            train(run, resumed)
    else:
        network, path = run.pose_network(), resumed or run.pose_path
        checkpoint = load_checkpoint(path)
        load_weights(network, checkpoint, path, run.network_size, run.skeleton)
        report_evaluation(run, network, checkpoint, path.with_name(path.name.removesuffix(SUFFIX)))


def train(run: Run, resumed: Path | None) -> None:
    """Alternate between the pose network and the agents, an epoch each; each epoch is scored and saved."""
    opt, order = run.opt, run.streams["order"]
    pose = Learner(run.pose_network(), opt.lr, opt.sync_bn, opt.weight_decay, opt.optimizer)
    checkpoint = None
    if resumed is None:
        start = run.load_pose(pose.network)
        pose.restore(start, run.pose_path)
        warn_of_other_people(run, start, run.pose_path)
        warn_of_default_rate(run, start)
    else:
        start, checkpoint = load_checkpoint(run.pose_path), load_checkpoint(resumed)
        load_weights(pose.network, checkpoint, resumed, run.network_size, run.skeleton)
    agents = load_agents(run, pose.network, checkpoint, resumed)
    retention = fresh_or_resumed(run, pose, checkpoint, resumed, "--load_checkpoint true")
    pose.schedule = pose_schedule(opt, pose.epoch, start["epoch"] + 1)
    widest = max((agent.pose_margin for agent in agents), key=MARGINS.get)
    train_loader = run.loader(run.dataset.train, widest, order)
    learning = {
        agent.type.name: run.loader(run.dataset.train, agent.margin, agent.streams.training, scored=True)
        for agent in agents
        if agent.draws == "learned"
    }
    valid_loader = run.loader(run.dataset.valid, "identity")
    warn_of_missed_turns(agents, len(train_loader))

    with Report(run, "joint-train-pose-s-r-agent", pose, retention, "pose-training-summary.txt") as report:
        while pose.epoch < opt.nEpochs:
            began = time.monotonic()
            run.streams.start(pose.epoch)
            pose_row = train_pose(run, pose, agents, train_loader, report)
            pose_seconds = time.monotonic() - began
            resources = used_resources(run, train_loader, pose_seconds)
            agent_row, hardest = {}, {}
            for agent in agents:
                agent.learner.set_lr(opt.agent_lr)
                if loader := learning.get(agent.type.name):
                    record = train_agent(run, pose, agent, loader, report)
                    agent_row |= record.row(pose.history)
                    hardest[agent.type.name] = record.hardest()
            train_seconds = time.monotonic() - began
            valid = evaluate(run, pose.network, valid_loader)
            for agent in agents:
                loss = agent_row.get(f"{agent.type.name}_loss", math.nan)
                agent.learner.history.append(
                    {"epoch": agent.learner.epoch, "lr": opt.agent_lr, "train_loss": loss}
                )
            row = {
                "epoch": pose.epoch,
                "lr": pose.schedule.rate(pose.epoch, 0, len(train_loader)),
                **pose_row,
                **valid.row(),
                **{f"{agent.type.name}_epoch": agent.learner.epoch for agent in agents},
                "agent_lr": opt.agent_lr,
                **agent_row,
                "train_seconds": train_seconds,
                "agent_seconds": train_seconds - pose_seconds,
                "valid_seconds": time.monotonic() - began - train_seconds,
                **resources,
            }
            save = partial(save_networks, run, pose, agents, valid)
            report.end_epoch(row, save, partial(gallery, run, pose, agents, valid, hardest), valid)
            for agent in agents:
                agent.learner.epoch += 1


def gallery(
    run: Run, pose: Learner, agents: list[Agent], valid: Evaluation, hardest: dict[str, list[dict]]
) -> list[Section]:
    """The pictures of an epoch's page; hardest: each agent's draws that lost most."""
    sections = pose_gallery(run, pose.network, valid)
    for agent in agents:
        exhibits = agent.exhibits(pose.history.rows[-1], hardest.get(agent.type.name, ()))
        sections += draw_exhibits(run, pose.network, exhibits)
    return sections


def train_pose(
    run: Run, pose: Learner, agents: list[Agent], loader: PatchLoader, report: Report
) -> dict[str, float]:
    """One pass over the training people, whose batches take turns.

    One is augmented at random, the next as the first agent draws, and so on. Whose turn it is follows from
    how many updates the network has had, stage 1's included, so that turns go on from epoch to epoch, and
    after resuming.
    """
    pose.network.train()
    for agent in agents:
        agent.learner.network.eval()
    turns = [("random", None), *((agent.type.name, agent) for agent in agents)]
    means, pck, first = Meters("loss"), {}, pose.updates

    def seen() -> float:
        return sum(pck.values(), PckCounter(run.dataset.threshold, run.skeleton)).read()

    bar = progress(loader, f"epoch {pose.epoch}, pose", run.opt.bs)
    for index, people in enumerate(bar):
        pose.set_lr(pose.schedule.rate(pose.epoch, index, len(loader)))
        augmentation = people.local_rows(Augmentation.random(people.total, run.streams["random"]))
        turn, agent = turns[(first + index) % len(turns)]
        if agent is None:
            sample, mask = run.augment(people, augmentation), None
        else:
            sample, mask = agent.augment(people, augmentation)
        outputs = run.forward(pose.parallel, sample.image, mask)
        loss = pose.step(pose_loss(outputs, sample.heatmap), people.weight)
        means.add(people.count, loss=loss)
        counter = pck.setdefault(turn, PckCounter(run.dataset.threshold, run.skeleton))
        counter.add(outputs[-1].detach(), sample, people.counted)
        report.batch(bar, pose.epoch, index, lambda: {**means.read(), "pck": seen()})
    pose.require_finite()
    return {
        "train_loss": means.read()["loss"],
        "train_pck": seen(),
        **{f"train_pck_{turn}": pck[turn].read() for turn, _ in turns if turn in pck},
    }


def train_agent(run: Run, pose: Learner, agent: Agent, loader: PatchLoader, report: Report) -> Record:
    """One pass over people who have PCK, or --agent_iters batches of it; what the agent did and learned.

    It learns by --agent_rule. As published, a draw that was harder than the reference's is rewarded, any
    other penalised. PCK under uniform draws of the agent's bins is measured, too, and teaches nothing.
    """
    rule = RULES[run.opt.agent_rule]
    pose.network.eval()
    agent.learner.network.train()
    record = agent.record()
    iters = min(len(loader), run.opt.agent_iters or len(loader))
    bar = progress(islice(loader, iters), f"epoch {pose.epoch}, {agent.type.name}", run.opt.bs, iters)
    for index, people in enumerate(bar):
        trial = agent.trial(people)
        rewards = trial.rewards()
        loss = agent.learner.step(rule(trial, rewards), people.weight)
        record.add(people, loss, trial, rewards)
        report.batch(bar, pose.epoch, index, record.means.read)
    agent.learner.require_finite()
    return record


if __name__ == "__main__":
    run_stage(lambda: main(opt))
