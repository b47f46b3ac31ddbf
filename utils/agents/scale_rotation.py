"""The agent beside a pose network: its answers for images, its draws, losses, checkpoint and record."""

import logging
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.kinds import KINDS, OCCLUSION
from models import PoseNetwork
from models.agent import ScaleRotationAgent
from models.losses import distribution_loss
from utils.evaluation.evaluate import undisturbed
from utils.evaluation.meters import Means
from utils.records.checkpoint import common_hash, load_checkpoint, load_weights
from utils.records.history import History
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError

log = logging.getLogger(__name__)

HARDEST = 8  # draws of an epoch that its page shows
_TELLING = {
    "fc_scale.weight": "a scale-rotation agent: expected an occlusion agent, of `--occlusion true`",
    "out_conv.weight": "an occlusion agent: expected a scale-rotation agent",
}  # tensors by which a file shows of which agent it is


def build_agent(run: Run, network: PoseNetwork) -> ScaleRotationAgent:
    """An agent as wide as the pose network's narrowest features, with initial weights, on the device."""
    bins = {f"{kind.name}_num": len(kind.means) for kind in KINDS.values()}
    return run.place(ScaleRotationAgent(network.feature_channels, min(network.feature_channels), **bins))


def agent_logits(run: Run, network: PoseNetwork, agent: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Logits f32 [N, bins] by kind, for images [N, 3, H, W]; of an occlusion agent they are [N, cells].

    The pose network's half pass runs in eval mode without gradients, so that none of its weights and
    statistics can change; afterwards it is in the mode it was in. The agent's own mode is the caller's.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    with undisturbed(network), run.passes():
        features = network.features(image)
    with run.passes():
        logits = agent(features)
    if isinstance(logits, Tensor):
        logits = {OCCLUSION: logits.flatten(1)}
    return {kind: answer.float() for kind, answer in logits.items()}


def draw(
    logits: dict[str, Tensor], people: PersonBatch, generator: Generator
) -> tuple[Augmentation, dict[str, Tensor]]:
    """What the agent draws for N people: the augmentation, and the bins int64 [N] by kind, on the CPU.

    Raises:
        UserError: the agent has diverged.
    """
    shares = torch.cat([answer.detach().softmax(dim=1) for answer in logits.values()], dim=1).cpu()
    require_finite(shares)
    bins = {}
    for kind, share in zip(
        logits, shares.split([len(KINDS[kind].means) for kind in logits], dim=1), strict=True
    ):
        noise = people.own(race(people.total, share.shape[1], generator))
        bins[kind] = (share / noise).argmax(dim=1)
    whole = {kind: F.pad(chosen, (people.before, people.after)) for kind, chosen in bins.items()}
    return people.own(Augmentation.drawn(whole, generator)), bins


def require_finite(shares: Tensor) -> None:
    """Check what an agent is about to draw from; a GPU is waited for.

    Raises:
        UserError: the agent has diverged.
    """
    if not shares.isfinite().all():
        raise UserError("the agent's outputs are not finite: try a smaller learning rate of the agent")


def race(people: int, choices: int, generator: Generator) -> Tensor:
    """The noise of so many people's draws from so many choices: f32 [people, choices], on the CPU.

    A share is the rate of an exponential clock: shares / noise are largest for the choices that are drawn
    first, which are those of `torch.multinomial` on the CPU.
    """
    return torch.empty(people, choices).exponential_(generator=generator)


def uniform_logits(people: PersonBatch) -> dict[str, Tensor]:
    """Logits [N, bins] by kind of all bins with equal probability: the agent's range without an agent."""
    return {kind.name: torch.zeros(len(people), len(kind.means)) for kind in KINDS.values()}


def agent_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """The sum over kinds of KL(target || softmax(logits)), averaged over people; [N, bins] each."""
    return sum(distribution_loss(answer, targets[kind]) for kind, answer in logits.items())


def constant_loss(rows: dict[str, Tensor], constants: dict[str, Tensor]) -> float:
    """The loss, over people with collected rows [N, bins], of predicting the same [bins] for everyone."""
    logits = {kind: constants[kind].clamp(min=1e-12).log().expand_as(row) for kind, row in rows.items()}
    return agent_loss(logits, rows).item()


def load_agent(run: Run, agent: nn.Module, path: Path) -> dict:
    """Load an agent's checkpoint and return it.

    Raises:
        UserError: it is damaged, of another size, of the other agent, or was trained on another pose
            network's features.
    """
    checkpoint = load_checkpoint(path)
    for name, which in _TELLING.items():
        if name in checkpoint["state_dict"].keys() - agent.state_dict().keys():
            raise UserError(f"{path} is {which}")
    load_weights(agent, checkpoint, path, run.network_size)
    loaded = run.pose_identity
    trained_on = checkpoint.get("pose", loaded)
    name = common_hash(trained_on, loaded)
    if trained_on[name] != loaded[name]:
        raise UserError(
            f"{path} was trained on features of {trained_on['checkpoint']} ({name} {trained_on[name]}), "
            f"this run loads {loaded['checkpoint']} ({name} {loaded[name]}): pretrain an agent on that"
        )
    log.info("agent: %s", path)
    return checkpoint


def joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The rows of all batches of all ranks by name, on the CPU; each rank must call this."""
    mine = [{name: rows.cpu() for name, rows in batch.items()} for batch in batches]
    each = [batch for one in ranks.gathered(mine) for batch in one]  # a rank may have none
    return {name: torch.cat([batch[name] for batch in each]) for name in each[0]}


def mean_distribution(kind: str, shares: Tensor, history: History) -> dict[str, float | list[float]]:
    """Columns of an epoch: the mean of people's distributions [N, bins], and how far it moved.

    The change is the total variation distance to that of the history's last epoch, where it has one.
    """
    last, name, mean = history.rows[-1] if history.rows else {}, f"{kind}_distribution", shares.mean(dim=0)
    row = {name: mean.tolist()}
    if name in last:
        row[f"{kind}_change"] = 0.5 * (mean - torch.tensor(last[name])).abs().sum().item()
    return row


def standard_error(values: Tensor) -> float:
    """Of the mean of people's values f64 [N]; NaN of a single one."""
    return (values.var(correction=0) / (len(values) - 1)).sqrt().item()


class Record:
    """The people of an agent's epoch; means: those of the names given, while it goes on."""

    def __init__(self, *means: str) -> None:
        self.means = Means(*means)
        self._batches: list[dict[str, Tensor]] = []

    def _keep(self, people: PersonBatch, **seen: Tensor) -> None:
        """What was seen of a batch, [N, ...] each; once where all ranks have the same people."""
        if people.counted == 1 or ranks.rank() == 0:
            self._batches.append({"row": people.index, **seen})

    @cached_property
    def _seen(self) -> dict[str, Tensor]:
        """What was kept, of each person, on the CPU, and their `row` [N]; each rank must ask for it."""
        return joined(self._batches)


class AgentRecord(Record):
    """What a researcher in augmentation wants to know of an epoch of the agent.

    means: `agent_loss`, and `pck_gap` (PCK under random draws minus PCK under the agent's) while it goes on.
    """

    def __init__(self) -> None:
        super().__init__("agent_loss", "pck_gap")

    def add(
        self,
        loss: Tensor,
        predicted: dict[str, Tensor],
        pck: Tensor,
        people: PersonBatch,
        drawn: Augmentation,
    ) -> None:
        """A batch: loss, predicted distributions [N, bins] by kind, PCK, the people, the agent's draws.

        PCK [3, K, N] is indexed by who drew (random, agent, uniform), the kind that was drawn, the person.
        """
        self.means.add(people.count, agent_loss=loss, pck_gap=(pck[0] - pck[1]).mean())
        values = torch.stack([getattr(drawn, kind.field) for kind in KINDS.values()], dim=1)
        self._keep(people, pck=pck.permute(2, 0, 1), value=values, **predicted)

    def row(self, history: History) -> dict[str, float | list[float]]:
        """The epoch's means over people; each rank must call this.

        pck_gap is PCK under random draws minus PCK under the agent's: above 0, the agent is harder.
        uniform_gap is PCK under uniform draws of the agent's bins minus PCK under the agent's own draws. Both
        have the same range, so that it shows what choosing is worth. uniform_gap_error is its standard error
        over people, each with the mean of their kinds; NaN of a single one.
        Entropies are in nats; a change is the total variation distance between the mean distribution and that
        of the history's last epoch, where it has one.
        """
        random, agent, uniform = self._seen["pck"].double().unbind(1)
        gap, chosen = random - agent, uniform - agent
        row = {
            "agent_loss": self.means.read()["agent_loss"],
            "pck_random": random.mean().item(),
            "pck_agent": agent.mean().item(),
            "pck_gap": gap.mean().item(),
            **{f"{kind}_gap": one.mean().item() for kind, one in zip(KINDS, gap.T, strict=True)},
            "reward_share": (gap > 0).double().mean().item(),
            "pck_uniform": uniform.mean().item(),
        }
        apart = {f"{kind}_": one for kind, one in zip(KINDS, chosen.T, strict=True)}
        for start, one in {"": chosen.mean(dim=1), **apart}.items():
            row[f"{start}uniform_gap"] = one.mean().item()
            row[f"{start}uniform_gap_error"] = standard_error(one)
        for kind in KINDS:
            row[f"{kind}_entropy"] = torch.special.entr(self._seen[kind]).sum(dim=1).mean().item()
        for kind in KINDS:
            row |= mean_distribution(kind, self._seen[kind], history)
        return row

    def hardest(self) -> list[dict]:
        """The draws of a kind alone that lost most against random ones; each rank must call this.

        Of each: row (the person's), kind, value, pck_random and pck_agent.
        """
        pck, kinds = self._seen["pck"], list(KINDS.values())
        lost = (pck[:, 0] - pck[:, 1]).flatten()
        found = []
        for place in lost.topk(min(HARDEST, len(lost))).indices.tolist():
            person, k = divmod(place, len(kinds))
            found.append(
                {
                    "row": int(self._seen["row"][person]),
                    "kind": kinds[k].name,
                    "value": self._seen["value"][person, k].item(),
                    "pck_random": pck[person, 0, k].item(),
                    "pck_agent": pck[person, 1, k].item(),
                }
            )
        return found
