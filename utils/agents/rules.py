"""The rules by which agents learn from their draws: --agent_rule."""

from collections.abc import Callable

from torch import Tensor

from models.losses import Reward, policy_loss
from utils.agents.base import Trial
from utils.agents.pretraining import agent_loss


def published(trial: Trial, rewards: dict[str, Reward]) -> Tensor:
    """The divergence of the agent's distributions from the targets that its rewards make of them."""
    return agent_loss(trial.logits, {name: reward.target for name, reward in rewards.items()})


def reinforce(trial: Trial, rewards: dict[str, Reward]) -> Tensor:
    """REINFORCE for each choice; a draw's PCK is compared with the same person's under the reference's.

    That baseline does not depend on the agent's draw, so the gradient remains that of the expected PCK
    (Williams 1992), and a person who is hard in every crop is not taken for a hard draw: people differ more
    than bins do. The rewards have no part in this.
    """
    lost = trial.pck[0] - trial.pck[1]  # [K, N]
    choices = zip(trial.logits.items(), lost, strict=True)
    return sum(policy_loss(logits, trial.chosen[name], one) for (name, logits), one in choices)


RULES: dict[str, Callable[[Trial, dict[str, Reward]], Tensor]] = {
    "published": published,
    "reinforce": reinforce,
}
"""Name of the rule -> the loss of a trial and its rewards, a scalar with gradients for the agent."""
