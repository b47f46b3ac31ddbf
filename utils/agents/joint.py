"""The networks of joint training: which agents take part, and the files of them all in its folder."""

import argparse
import logging
from pathlib import Path

from data.kinds import OCCLUSION
from models import PoseNetwork
from utils.agents.occlusion import build_occlusion_agent
from utils.agents.scale_rotation import build_agent, load_agent
from utils.evaluation.evaluate import Evaluation
from utils.records.checkpoint import best_checkpoint, find_checkpoint, load_checkpoint
from utils.records.epochs import checkpoint_name, save_epoch
from utils.records.predictions import encode_predictions
from utils.run import Run
from utils.system.errors import UserError
from utils.training import Learner

log = logging.getLogger(__name__)

SCALE_ROTATION = "agent"
POSE = "pose-"  # prefix of the pose network's files
PREFIXES = {SCALE_ROTATION: "agent-", OCCLUSION: "occ-"}  # of the agents' files


def load_agents(
    run: Run, network: PoseNetwork, checkpoint: dict | None, resumed: Path | None
) -> dict[str, Learner]:
    """The agents that take part, by name: of --load_prefix_sr and --load_prefix_occ, or of the resumed epoch.

    checkpoint, resumed: the pose network's of that epoch, and its path; None at the start.

    Raises:
        UserError: the resumed epoch has none; or one is missing, does not fit, or took no part in it.
    """
    opt, agents = run.opt, {}
    if checkpoint is not None and not PREFIXES.keys() & checkpoint.keys():
        raise UserError(f"{resumed} does not say which agent belongs to it: it can only be evaluated")
    for name, build, folder, prefix, flag in (
        (SCALE_ROTATION, build_agent, opt.agent_folder, opt.load_prefix_sr, "--load_prefix_sr"),
        (OCCLUSION, build_occlusion_agent, opt.occlusion_folder, opt.load_prefix_occ, "--load_prefix_occ"),
    ):
        if checkpoint is not None:
            folder, prefix, flag = run.folder, checkpoint.get(name), "--load_checkpoint true"
        if prefix is not None:
            path = find_pretrained(folder, prefix, flag)
            agents[name] = Learner(build(run, network), opt.agent_lr, opt.sync_bn)
            agents[name].restore(load_agent(run, agents[name].network, path), path)
    if checkpoint is not None:
        _refuse_idle_flags(opt, agents, resumed)
    return agents


def _refuse_idle_flags(opt: argparse.Namespace, agents: dict[str, Learner], resumed: Path) -> None:
    """Only the resumed epoch tells which agents there are, and so which of their flags do anything."""
    draws = {SCALE_ROTATION: "agent_draws", OCCLUSION: "occ_draws"}
    idle = [flag for name, flag in draws.items() if name not in agents]
    if not any(getattr(opt, draws[name]) == "learned" for name in agents):
        idle.append("agent_iters")
    for flag in idle:
        if flag in opt.given:
            raise UserError(f"--{flag}: {resumed} has no agent that it applies to: leave it out")


def find_pretrained(folder: Path, prefix: str, flag: str) -> Path:
    """The agent that `flag` names by its prefix; "best" is that of the epoch of least validation loss.

    Raises:
        UserError: it is not there.
    """
    if prefix != "best":
        return find_checkpoint(folder, prefix, flag)
    path = best_checkpoint(folder, flag)
    log.info("%s best: epoch %d has the least validation loss", flag, load_checkpoint(path)["epoch"])
    return path


def save_networks(
    run: Run, pose: Learner, agents: dict[str, Learner], valid: Evaluation, best: bool
) -> list[Path]:
    """All networks' checkpoints; the agents' come first, so that the pose network's never lacks them."""
    names = {
        name: PREFIXES[name] + checkpoint_name(run.opt.agent_lr, agent.epoch)
        for name, agent in agents.items()
    }
    written = []
    for name, agent in agents.items():
        checkpoint = agent.checkpoint(run) | {"pose": run.pose_identity}
        written += save_epoch(run.folder, names[name], checkpoint, best=False)
    predictions = encode_predictions(valid.preds, run.dataset.valid)
    pose_name = POSE + checkpoint_name(run.opt.lr, pose.epoch)
    return written + save_epoch(run.folder, pose_name, pose.checkpoint(run) | names, best, predictions)
