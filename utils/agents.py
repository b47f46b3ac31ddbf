"""The agent beside a pose network: its logits for images, its checkpoint, and yardsticks of its loss."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from models.agent import ScaleRotationAgent
from models.hourglass import StackedHourglass
from models.losses import distribution_loss
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import UserError
from utils.runs import Run

log = logging.getLogger(__name__)

KINDS = ("scale", "rotation")


def build_agent(run: Run) -> ScaleRotationAgent:
    """An agent as wide as the run's pose network, with initial weights, on the device."""
    return run.place(ScaleRotationAgent(run.opt.chan, run.opt.chan))


def agent_logits(
    run: Run, network: StackedHourglass, agent: nn.Module, image: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale and rotation logits, f32 [N, 7] each, for un-augmented images [N, 3, H, W].

    The pose network's half pass runs in eval mode without gradients, so that none of its weights and
    statistics can change; afterwards it is in the mode it was in. The agent's own mode is the caller's.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    training = network.training
    network.eval()
    with torch.no_grad(), run.autocast():
        features = network.features(image)
    network.train(training)
    with run.autocast():
        scale, rotation = agent(features)
    return scale.float(), rotation.float()


def agent_loss(logits: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    """Scale loss + rotation loss: KL(target || softmax(logits)) of each, averaged over people."""
    return sum(distribution_loss(*pair) for pair in zip(logits, targets, strict=True))


def constant_loss(rows: tuple[Tensor, Tensor], constants: tuple[Tensor, Tensor]) -> float:
    """The loss, over people with collected rows ([N, 7] each), of predicting the same [7] for everyone."""
    logits = tuple(constant.log().expand_as(row) for row, constant in zip(rows, constants, strict=True))
    return agent_loss(logits, rows).item()


def load_agent(run: Run, agent: ScaleRotationAgent, path: Path) -> dict:
    """Load an agent's checkpoint and return it.

    Raises:
        UserError: it is damaged, of another size, or was trained on another pose network's features.
    """
    checkpoint = load_checkpoint(path)
    load_weights(agent, checkpoint, path, run.network_size)
    trained_on, loaded = checkpoint.get("pose"), run.pose_identity()
    if trained_on is not None and trained_on != loaded:
        raise UserError(
            f"{path} was trained on features of {trained_on['checkpoint']} ({trained_on['sha256']}), "
            f"this run loads {loaded['checkpoint']} ({loaded['sha256']}): pretrain an agent on that"
        )
    log.info("agent: %s", path)
    return checkpoint
