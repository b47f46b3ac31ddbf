"""The agent beside a pose network: its answers for images, its draws, losses, checkpoint and record."""

import logging
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from data.augmentation import Augmentation
from data.kinds import KINDS
from models import PoseNetwork
from models.agent import ScaleRotationAgent
from models.losses import distribution_loss
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import UserError
from utils.evaluation import undisturbed
from utils.history import History
from utils.means import Means
from utils.runs import Run

log = logging.getLogger(__name__)

HARDEST = 8  # draws of an epoch that its page shows


def build_agent(run: Run, network: PoseNetwork) -> ScaleRotationAgent:
    """An agent as wide as the pose network's narrowest features, with initial weights, on the device."""
    bins = {f"{kind.name}_num": len(kind.means) for kind in KINDS.values()}
    return run.place(ScaleRotationAgent(network.feature_channels, min(network.feature_channels), **bins))


def agent_logits(run: Run, network: PoseNetwork, agent: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Logits f32 [N, bins] by kind, for un-augmented images [N, 3, H, W].

    The pose network's half pass runs in eval mode without gradients, so that none of its weights and
    statistics can change; afterwards it is in the mode it was in. The agent's own mode is the caller's.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    with undisturbed(network), run.autocast():
        features = network.features(image)
    with run.autocast():
        logits = agent(features)
    return {kind: answer.float() for kind, answer in logits.items()}


def draw(logits: dict[str, Tensor], generator: Generator) -> tuple[Augmentation, dict[str, Tensor]]:
    """What the agent draws for N people: the augmentation, and the bins int64 [N] by kind, on the CPU.

    Raises:
        UserError: the agent has diverged.
    """
    shares = {kind: answer.detach().softmax(dim=1).cpu() for kind, answer in logits.items()}
    if not all(share.isfinite().all() for share in shares.values()):
        raise UserError("the agent's outputs are not finite: try a smaller learning rate of the agent")
    bins = {kind: torch.multinomial(share, 1, generator=generator)[:, 0] for kind, share in shares.items()}
    return Augmentation.drawn(bins, generator), bins


def agent_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """The sum over kinds of KL(target || softmax(logits)), averaged over people; [N, bins] each."""
    return sum(distribution_loss(answer, targets[kind]) for kind, answer in logits.items())


def constant_loss(rows: dict[str, Tensor], constants: dict[str, Tensor]) -> float:
    """The loss, over people with collected rows [N, bins], of predicting the same [bins] for everyone."""
    logits = {kind: constants[kind].clamp(min=1e-12).log().expand_as(row) for kind, row in rows.items()}
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

    hardest: the draws that lost most, a dict each: row (the person's), kind, value, pck_random and pck_agent.
    """

    def __init__(self) -> None:
        self.means = Means()
        self._distributions = dict.fromkeys(KINDS, 0.0)
        self.hardest: list[dict] = []

    def add(
        self,
        loss: float,
        predicted: dict[str, Tensor],
        pck: Tensor,
        rows: Tensor,
        drawn: Augmentation,
    ) -> None:
        """A batch: loss, predicted distributions [N, bins] by kind, PCK, people's rows, the agent's draws.

        PCK [2, K, N] is indexed by who drew (random, agent), the kind that was drawn, and the person.
        """
        # At once: each number by itself would wait for the GPU.
        predicted = {kind: shares.cpu() for kind, shares in predicted.items()}
        pck = pck.cpu()
        gap = pck[0] - pck[1]
        self.means.add(
            pck.shape[-1],
            agent_loss=loss,
            pck_random=pck[0].mean().item(),
            pck_agent=pck[1].mean().item(),
            pck_gap=gap.mean().item(),
            **{f"{kind}_gap": one.mean().item() for kind, one in zip(predicted, gap, strict=True)},
            reward_share=(gap > 0).float().mean().item(),
            **{
                f"{kind}_entropy": torch.special.entr(shares).sum(dim=1).mean().item()
                for kind, shares in predicted.items()
            },
        )
        for kind, shares in predicted.items():
            self._distributions[kind] += shares.sum(dim=0)
        self._keep_hardest(pck, rows.cpu(), drawn)

    def _keep_hardest(self, pck: Tensor, rows: Tensor, drawn: Augmentation) -> None:
        """`hardest` becomes the draws of a kind alone that lost most against random ones."""
        largest = (pck[0] - pck[1]).flatten().topk(min(HARDEST, pck[0].numel()))
        kinds = list(KINDS.values())
        for place in largest.indices.tolist():
            k, person = divmod(place, len(rows))
            self.hardest.append(
                {
                    "row": int(rows[person]),
                    "kind": kinds[k].name,
                    "value": getattr(drawn, kinds[k].field)[person].item(),
                    "pck_random": pck[0, k, person].item(),
                    "pck_agent": pck[1, k, person].item(),
                }
            )
        self.hardest.sort(key=lambda draw: draw["pck_agent"] - draw["pck_random"])
        del self.hardest[HARDEST:]

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means.

        pck_gap is PCK under random draws minus PCK under the agent's: above 0, the agent is harder.
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
