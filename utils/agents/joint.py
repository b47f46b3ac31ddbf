"""Loading and saving the agents and the pose network of joint training."""

import logging
from pathlib import Path

from models import PoseNetwork
from utils.agents import AGENTS
from utils.agents.base import Agent
from utils.evaluation.evaluate import Evaluation
from utils.records.checkpoint import (
    best_checkpoint,
    common_hash,
    find_checkpoint,
    load_checkpoint,
    load_weights,
)
from utils.records.epochs import checkpoint_name, save_epoch
from utils.run import Run
from utils.system.errors import UserError
from utils.training import Learner

log = logging.getLogger(__name__)

POSE = "pose-"  # first part of the names of the pose network's files


def load_agents(run: Run, network: PoseNetwork, checkpoint: dict | None, resumed: Path | None) -> list[Agent]:
    """Load the agents that take part: those whose checkpoints the flags name, or those of the resumed epoch.

    checkpoint, resumed: the pose network's checkpoint of the resumed epoch, and its path; None at the start.

    Raises:
        UserError: the resumed epoch names no agent, a checkpoint is missing or does not fit, or a flag has no
            effect on the agents of the resumed epoch.
    """
    opt, agents = run.opt, []
    if checkpoint is not None and not AGENTS.keys() & checkpoint.keys():
        raise UserError(f"{resumed} does not name its agent: it can be evaluated, but not resumed from")
    for name, which in AGENTS.items():
        folder, prefix, flag = opt.agent_folders[name], getattr(opt, which.load), f"--{which.load}"
        if checkpoint is not None:
            folder, prefix, flag = run.folder, checkpoint.get(name), "--load_checkpoint true"
        if prefix is not None:
            path = find_pretrained(folder, prefix, flag)
            agent = which.build(run, network, opt.agent_lr)
            agent.learner.restore(load_agent(agent, path), path)
            agents.append(agent)
    if checkpoint is not None:
        _refuse_idle_flags(run, agents, resumed)
    return agents


def load_agent(agent: Agent, path: Path) -> dict:
    """Load an agent's checkpoint and return it.

    Raises:
        UserError: it is damaged, belongs to another agent or a network of another size, or was trained on
            features of another pose network.
    """
    checkpoint, run, network = load_checkpoint(path), agent.run, agent.learner.network
    for other in AGENTS.values():
        if other.parameter in checkpoint["state_dict"].keys() - network.state_dict().keys():
            raise UserError(
                f"{path} is a checkpoint of the {other.title}: expected one of the {agent.type.title}"
            )
    load_weights(network, checkpoint, path, run.network_size, run.skeleton)
    loaded = run.pose_identity
    trained_on = checkpoint.get("pose", loaded)
    name = common_hash(trained_on, loaded)
    if trained_on[name] != loaded[name]:
        raise UserError(
            f"{path} was trained on features of {trained_on['checkpoint']} ({name} {trained_on[name]}), "
            f"this run loads {loaded['checkpoint']} ({name} {loaded[name]}): pretrain an agent for it"
        )
    log.info("agent: %s", path)
    return checkpoint


def warn_of_missed_turns(agents: list[Agent], batches: int) -> None:
    """Log a warning if an epoch has too few batches for random augmentation and every agent to have one."""
    turns = ["random augmentation", *(f"the {agent.type.title}" for agent in agents)]
    if batches < len(turns):
        log.warning(
            "an epoch has %d batch%s for %d turns (%s): not every epoch trains on the draws of each, and its "
            "PCK in training depends on whose turn it was: use a smaller --bs or more people",
            *(batches, "es" * (batches > 1), len(turns), ", ".join(turns)),
        )


def warn_of_default_rate(run: Run, checkpoint: dict) -> None:
    """Log a warning if --lr is not given, and a checkpoint of stage 1 was trained with another one."""
    theirs = checkpoint.get("recipe", {}).get("lr", run.opt.lr)
    if "lr" not in run.opt.given and theirs != run.opt.lr:
        log.warning(
            "the pose network trains on with --lr %g, the default; stage 1 had --lr %g", run.opt.lr, theirs
        )


def _refuse_idle_flags(run: Run, agents: list[Agent], resumed: Path) -> None:
    """Raise a `UserError` for flags of agents that the resumed epoch lacks; the parser cannot know them."""
    idle = [which.draws for which in AGENTS.values() if all(agent.type is not which for agent in agents)]
    if all(agent.draws != "learned" for agent in agents):
        idle += ["agent_rule", "agent_iters"]
    for flag in idle:
        if flag in run.opt.given:
            raise UserError(f"--{flag}: {resumed} has no agent that it applies to: remove it")


def find_pretrained(folder: Path, prefix: str, flag: str) -> Path:
    """The agent's checkpoint that `flag` names by its prefix; "best": that with the lowest validation loss.

    Raises:
        UserError: it does not exist.
    """
    if prefix != "best":
        return find_checkpoint(folder, prefix, flag)
    path = best_checkpoint(folder, flag)
    log.info("%s best: epoch %d has the lowest validation loss", flag, load_checkpoint(path)["epoch"])
    return path


def save_networks(run: Run, pose: Learner, agents: list[Agent], valid: Evaluation, best: bool) -> list[Path]:
    """Save all networks; agents first, so that the agents named by a pose network's checkpoint always exist.

    Returns:
        The paths of the files written.
    """
    names = {
        agent.type.name: agent.type.prefix + checkpoint_name(run.opt.agent_lr, agent.learner.epoch)
        for agent in agents
    }
    written = []
    for agent in agents:
        checkpoint = agent.learner.checkpoint(run) | {"pose": run.pose_identity}
        written += save_epoch(run.folder, names[agent.type.name], checkpoint, best=False)
    pose_name = POSE + checkpoint_name(run.opt.lr, pose.epoch)
    return written + save_epoch(
        run.folder, pose_name, pose.checkpoint(run) | names, best, valid.files(run.dataset.valid)
    )
