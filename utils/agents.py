"""The agent beside a pose network: its logits for images, its checkpoint, and yardsticks of its loss."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from data.augment import Augmentation
from models import PoseNetwork
from models.agent import ScaleRotationAgent
from models.losses import distribution_loss
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import UserError
from utils.history import History
from utils.means import Means
from utils.runs import Run

log = logging.getLogger(__name__)

KINDS = ("scale", "rotation")
HARDEST = 8  # draws of an epoch that its page shows


def build_agent(run: Run, network: PoseNetwork) -> ScaleRotationAgent:
    """An agent as wide as the pose network's narrowest features, with initial weights, on the device."""
    return run.place(ScaleRotationAgent(network.feature_channels, min(network.feature_channels)))


def agent_logits(run: Run, network: PoseNetwork, agent: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
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
        logits = agent(features)
    return tuple(logits[kind].float() for kind in KINDS)


def agent_loss(logits: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    """Scale loss + rotation loss: KL(target || softmax(logits)) of each, averaged over people."""
    return sum(distribution_loss(*pair) for pair in zip(logits, targets, strict=True))


def constant_loss(rows: tuple[Tensor, Tensor], constants: tuple[Tensor, Tensor]) -> float:
    """The loss, over people with collected rows ([N, 7] each), of predicting the same [7] for everyone."""
    logits = tuple(
        constant.clamp(min=1e-12).log().expand_as(row) for row, constant in zip(rows, constants, strict=True)
    )
    return agent_loss(logits, rows).item()


def load_agent(run: Run, agent: ScaleRotationAgent, path: Path) -> dict:
    """Load an agent's checkpoint and return it.

    Raises:
        UserError: it is damaged, of another size, or was trained on another pose network's features.
    """
    checkpoint = load_checkpoint(path)
    load_weights(agent, checkpoint, path, run.network_size)
    trained_on, loaded = checkpoint.get("pose"), run.pose_identity
    if trained_on is not None and trained_on != loaded:
        raise UserError(
            f"{path} was trained on features of {trained_on['checkpoint']} ({trained_on['sha256']}), "
            f"this run loads {loaded['checkpoint']} ({loaded['sha256']}): pretrain an agent on that"
        )
    log.info("agent: %s", path)
    return checkpoint


class AgentRecord:
    """What a researcher in augmentation wants to know of an epoch of the agent.

    hardest: the draws that lost most, a dict each: row (the person's), log2_scale, rotation, pck_random and
    pck_agent.
    """

    def __init__(self) -> None:
        self.means = Means()
        self._distributions = dict.fromkeys(KINDS, 0.0)
        self.hardest: list[dict] = []

    def add(
        self,
        loss: float,
        predicted: list[Tensor],
        pckh: Tensor,
        rows: Tensor,
        drawn: Augmentation,
    ) -> None:
        """A batch: loss, predicted distributions ([N, 7] each), PCKh, people's rows, the agent's draws.

        PCKh [2, 2, N] is indexed by who drew (random, agent), what was drawn (scale, rotation) and person.
        """
        # At once: each number by itself would wait for the GPU.
        predicted, pckh = [shares.cpu() for shares in predicted], pckh.cpu()
        people = pckh.shape[-1]
        gap = pckh[0] - pckh[1]
        entropy = [torch.special.entr(shares).sum(dim=1).mean().item() for shares in predicted]
        self.means.add(
            people,
            agent_loss=loss,
            pck_random=pckh[0].mean().item(),
            pck_agent=pckh[1].mean().item(),
            pck_gap=gap.mean().item(),
            scale_gap=gap[0].mean().item(),
            rotation_gap=gap[1].mean().item(),
            reward_share=(gap > 0).float().mean().item(),
            scale_entropy=entropy[0],
            rotation_entropy=entropy[1],
        )
        for kind, shares in zip(KINDS, predicted, strict=True):
            self._distributions[kind] += shares.sum(dim=0)
        self._keep_hardest(pckh, rows.cpu(), drawn)

    def _keep_hardest(self, pckh: Tensor, rows: Tensor, drawn: Augmentation) -> None:
        """`hardest` becomes the draws of scale or rotation alone that lost most against random ones."""
        largest = (pckh[0] - pckh[1]).flatten().topk(min(HARDEST, pckh[0].numel()))
        for place in largest.indices.tolist():
            kind, person = divmod(place, len(rows))
            log2_scale, rotation = drawn.log2_scale[person].item(), drawn.rotation[person].item()
            self.hardest.append(
                {
                    "row": int(rows[person]),
                    "log2_scale": 0.0 if kind else log2_scale,
                    "rotation": rotation if kind else 0.0,
                    "pck_random": pckh[0, kind, person].item(),
                    "pck_agent": pckh[1, kind, person].item(),
                }
            )
        self.hardest.sort(key=lambda draw: draw["pck_agent"] - draw["pck_random"])
        del self.hardest[HARDEST:]

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means.

        pck_gap is PCKh under random draws minus PCKh under the agent's: above 0, the agent is harder.
        Entropies are means over people, in nats; a change is the total variation distance between the mean
        distribution and that of the history's last epoch, where it has one.
        """
        row = dict(self.means.items())
        last = history.rows[-1] if history.rows else {}
        for kind, total in self._distributions.items():
            mean = total / self.means.people
            row[f"{kind}_distribution"] = mean.tolist()
            if f"{kind}_distribution" in last:
                before = torch.tensor(last[f"{kind}_distribution"])
                row[f"{kind}_change"] = 0.5 * (mean - before).abs().sum().item()
        return row
