"""Stage 3: train the pose network against agents, which learn to draw what is hard; or evaluate."""

from options.parser import STAGE_3, StageParser

if __name__ == "__main__":
    parser = StageParser(__doc__, *STAGE_3)
    opt = parser.parse()  # before the imports below, which take seconds
    if opt.is_train and not (opt.load_checkpoint or opt.load_prefix_sr or opt.load_prefix_occ):
        parser.error(
            "--load_prefix_sr is missing: the pretrained agent, such as lr-0.00025-1.pth.tar "
            "(or --load_prefix_occ, the occlusion agent)"
        )

import argparse
import logging
import math
import time
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.kinds import KINDS, OCCLUSION
from data.loading.loader import PatchLoader
from models import PoseNetwork
from models.losses import pose_loss, rewarded_distribution
from models.masks import cell_mask
from utils.agents.joint import POSE, SCALE_ROTATION, load_agents, save_networks
from utils.agents.occlusion import OcclusionRecord, agent_cells, grid_side, masked_pck
from utils.agents.scale_rotation import AgentRecord, agent_logits, agent_loss, draw, uniform_logits
from utils.display.evaluation_report import report_evaluation
from utils.display.gallery import agent_gallery, hardest_gallery, pose_gallery
from utils.display.mask_gallery import cells_section, hidden_gallery, occlusion_gallery
from utils.display.report import Report
from utils.display.sections import Section
from utils.evaluation.evaluate import Evaluation, crop_pck, evaluate
from utils.evaluation.meters import Means
from utils.evaluation.metrics import PckCounter
from utils.records.checkpoint import SUFFIX, load_checkpoint, load_weights, newest_checkpoint
from utils.run import Run
from utils.system.files import locked
from utils.system.process import progress, run_stage
from utils.training import Learner, fresh_or_resumed, say_other_people, scheduled_lr, used_resources

log = logging.getLogger(__name__)


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
        load_weights(network, checkpoint, path, run.network_size)
        report_evaluation(run, network, checkpoint, path.with_name(path.name.removesuffix(SUFFIX)))


def train(run: Run, resumed: Path | None) -> None:
    """Alternate between the pose network and the agents, an epoch each; each epoch is scored and saved."""
    opt, streams = run.opt, run.streams
    pose = Learner(run.pose_network(), opt.lr, opt.sync_bn)
    checkpoint = None
    if resumed is None:
        start = run.load_pose(pose.network)
        pose.restore(start, run.pose_path)
        say_other_people(run, start, run.pose_path)
    else:
        checkpoint = load_checkpoint(resumed)
        load_weights(pose.network, checkpoint, resumed, run.network_size)
    agents = load_agents(run, pose.network, checkpoint, resumed)
    kept = fresh_or_resumed(run, pose, checkpoint, resumed, "--load_checkpoint true")
    train_loader = run.loader(
        run.dataset.train, "drawn" if SCALE_ROTATION in agents else "random", streams.order
    )
    trained = {
        name: run.loader(run.dataset.train, margin, order, scored=True)
        for name, margin, draws, order in (
            (SCALE_ROTATION, "drawn", opt.agent_draws, streams.agent_training),
            (OCCLUSION, "identity", opt.occ_draws, streams.occlusion_training),
        )
        if name in agents and draws == "learned"
    }
    valid_loader = run.loader(run.dataset.valid, "identity")

    with Report(run, "joint-train-pose-s-r-agent", pose, "pose-training-summary.txt") as report:
        while pose.epoch < opt.nEpochs:
            began = time.monotonic()
            streams.start(pose.epoch)
            lr = scheduled_lr(opt.lr, pose.epoch)
            pose.set_lr(lr)
            for agent in agents.values():
                agent.set_lr(opt.agent_lr)
            pose_row = train_pose(run, pose, agents, train_loader, report)
            pose_seconds = time.monotonic() - began
            resources = used_resources(run, train_loader, pose_seconds)
            agent_row, hardest = {}, dict.fromkeys(agents, ())
            for name, loader in trained.items():
                record = TRAINING[name](run, pose, agents[name], loader, report)
                agent_row |= record.row(pose.history)
                hardest[name] = record.hardest()
            train_seconds = time.monotonic() - began
            valid = evaluate(run, pose.network, valid_loader)
            for name, agent in agents.items():
                loss = agent_row.get(f"{name}_loss", math.nan)
                agent.history.append({"epoch": agent.epoch, "lr": opt.agent_lr, "train_loss": loss})
            pose.history.append(
                {
                    "epoch": pose.epoch,
                    "lr": lr,
                    **pose_row,
                    **valid.row(),
                    **{f"{name}_epoch": agent.epoch for name, agent in agents.items()},
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
            kept.add(save_networks(run, pose, agents, valid, best), best)
            report.show(partial(gallery, run, pose, agents, valid, hardest), valid)
            for learner in (pose, *agents.values()):
                learner.epoch += 1


def gallery(
    run: Run, pose: Learner, agents: dict[str, Learner], valid: Evaluation, hardest: dict[str, list[dict]]
) -> list[Section]:
    """The pictures of an epoch's page; hardest: each agent's draws that lost most."""
    sections = pose_gallery(run, pose.network, valid)
    if SCALE_ROTATION in agents:
        sections += agent_gallery(run, pose.network, agents[SCALE_ROTATION].network, pose.epoch)
        sections += hardest_gallery(run, pose.network, hardest[SCALE_ROTATION])
    if OCCLUSION in agents:
        sections += occlusion_gallery(run, pose.network, agents[OCCLUSION].network, pose.epoch)
        sections += cells_section(pose.history.rows[-1])
        sections += hidden_gallery(run, pose.network, hardest[OCCLUSION])
    return sections


def train_pose(
    run: Run, pose: Learner, agents: dict[str, Learner], loader: PatchLoader, report: Report
) -> dict[str, float]:
    """One pass over the training people, whose batches take turns.

    One is augmented at random, the next as --agent_draws says, the third at random and masked as --occ_draws
    says; the turn of an agent that takes no part is left out. Whose turn it is follows from how many updates
    the network has had, stage 1's included: from epoch to epoch, and after resuming, turns go on.
    """
    pose.network.train()
    for agent in agents.values():
        agent.network.eval()
    means, turns = Means("loss"), ("random", *agents)
    pck, first = {}, pose.updates

    def seen() -> float:
        return sum(pck.values(), PckCounter(run.dataset.threshold)).read()

    bar = progress(loader, f"epoch {pose.epoch}, pose", run.opt.bs)
    for index, people in enumerate(bar):
        augmentation = people.own(Augmentation.random(people.total, run.streams.random))
        turn, mask = turns[(first + index) % len(turns)], None
        if turn == SCALE_ROTATION:
            augmentation = augmentation.with_draws(drawn_augmentation(run, pose, agents[turn], people))
        sample = run.augment(people, augmentation)
        if turn == OCCLUSION:
            mask = drawn_mask(run, pose, agents[turn], people, sample.image)
        outputs = run.forward(pose.parallel, sample.image, mask)
        loss = pose.step(pose_loss(outputs, sample.heatmap), people.weight)
        means.add(people.count, loss=loss)
        counter = pck.setdefault(turn, PckCounter(run.dataset.threshold))
        counter.add(outputs[-1].detach(), sample, people.counted)
        report.batch(bar, pose.epoch, index, lambda: {**means.read(), "pck": seen()})
    pose.require_finite()
    if missed := [turn for turn in turns if turn not in pck]:
        without = "epoch %d had no batch for the turn of %s: turns go on in the next epoch"
        log.info(without, pose.epoch, " and ".join(missed))
    return {
        "train_loss": means.read()["loss"],
        "train_pck": seen(),
        **{f"train_pck_{turn}": pck[turn].read() for turn in turns if turn in pck},
    }


def drawn_augmentation(run: Run, pose: Learner, agent: Learner, people: PersonBatch) -> Augmentation:
    """The scales and rotations of N people that take the place of random ones."""
    if run.opt.agent_draws == "uniform":
        logits = uniform_logits(people)
    else:
        with torch.no_grad():
            logits = look(run, pose.network, agent.network, people)
    return draw(logits, people, run.streams.agent)[0]


def drawn_mask(run: Run, pose: Learner, agent: Learner, people: PersonBatch, image: Tensor) -> Tensor:
    """Masks f32 [N, 1, side, side] for augmented people: the agent looks at the very crops that get them."""
    side = grid_side(run)
    if run.opt.occ_draws == "uniform":
        logits = torch.zeros(len(people), side * side, device=run.device)
    else:
        with torch.no_grad():
            logits = agent_logits(run, pose.network, agent.network, image)[OCCLUSION]
    return cell_mask(agent_cells(logits, people, run.streams.occlusion), side)


def train_agent(run: Run, pose: Learner, agent: Learner, loader: PatchLoader, report: Report) -> AgentRecord:
    """One pass over people who have PCK, or --agent_iters batches of it; what the agent did and learned.

    Each person is seen under a random scale alone, a random rotation alone, the agent's scale alone and the
    agent's rotation alone (and so on, kind by kind). A draw that was harder than the random one is rewarded,
    any other penalised. PCK under uniform draws of the agent's bins is measured beside, and teaches nothing.
    """
    pose.network.eval()
    agent.network.train()
    record, generator = AgentRecord(), run.streams.agent_training
    iters = min(len(loader), run.opt.agent_iters or len(loader))
    bar = progress(islice(loader, iters), f"epoch {pose.epoch}, agent", run.opt.bs, iters)
    for index, people in enumerate(bar):
        logits = look(run, pose.network, agent.parallel, people)
        drawn, bins = draw(logits, people, generator)
        random = people.own(Augmentation.random(people.total, generator))
        uniform, _ = draw(uniform_logits(people), people, run.streams.uniform)
        pck = tried(run, pose, people, random, drawn)
        # Apart: to the last bit, what a network finds may depend on the number of crops in its batch.
        pck_uniform = tried(run, pose, people, uniform)
        predicted = {kind: answer.detach().softmax(dim=1) for kind, answer in logits.items()}
        targets = {
            kind: rewarded_distribution(predicted[kind], bins[kind].to(run.device), *pck[:, k])
            for k, kind in enumerate(KINDS)
        }
        loss = agent.step(agent_loss(logits, targets), people.weight)
        record.add(loss, predicted, torch.cat([pck, pck_uniform]), people, drawn)
        report.batch(bar, pose.epoch, index, record.means.read)
    agent.require_finite()
    return record


def tried(run: Run, pose: Learner, people: PersonBatch, *draws: Augmentation) -> Tensor:
    """PCK f32 [D, K, N] of N people under each of D draws, of each of K kinds alone."""
    alone = [which.only(kind.field) for which in draws for kind in KINDS.values()]
    return crop_pck(run, pose.network, people, Augmentation.cat(alone)).view(len(draws), len(KINDS), -1)


def train_occlusion(
    run: Run, pose: Learner, agent: Learner, loader: PatchLoader, report: Report
) -> OcclusionRecord:
    """As `train_agent`, for the occlusion agent.

    Each person is seen un-augmented under two cells drawn uniformly and under the agent's two. Where these
    were harder, both are rewarded; elsewhere both are penalised.
    """
    pose.network.eval()
    agent.network.train()
    record, generator = OcclusionRecord(), run.streams.occlusion_training
    iters = min(len(loader), run.opt.agent_iters or len(loader))
    bar = progress(islice(loader, iters), f"epoch {pose.epoch}, occlusion", run.opt.bs, iters)
    for index, people in enumerate(bar):
        sample = run.augment(people, Augmentation.identity(len(people)))
        logits = agent_logits(run, pose.network, agent.parallel, sample.image)
        uniform = agent_cells(torch.zeros_like(logits[OCCLUSION]), people, generator)
        drawn = agent_cells(logits[OCCLUSION], people, generator)
        pck = masked_pck(run, pose.network, people, sample, [uniform, drawn])
        predicted = logits[OCCLUSION].detach().softmax(dim=1)
        target = rewarded_distribution(predicted, drawn, *pck)
        loss = agent.step(agent_loss(logits, {OCCLUSION: target}), people.weight)
        record.add(loss, predicted, target, pck, people, drawn)
        report.batch(bar, pose.epoch, index, record.means.read)
    agent.require_finite()
    return record


TRAINING = {SCALE_ROTATION: train_agent, OCCLUSION: train_occlusion}


def look(run: Run, network: PoseNetwork, agent: nn.Module, people: PersonBatch) -> dict[str, Tensor]:
    """The agent looks at un-augmented people: its logits [N, bins] by kind."""
    sample = run.augment(people, Augmentation.identity(len(people)))
    return agent_logits(run, network, agent, sample.image)


if __name__ == "__main__":
    run_stage(lambda: main(opt))
