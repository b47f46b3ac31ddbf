"""The agents of the pose network, one file each; `AGENTS` has every one by its name.

This module imports no torch: the command line is read first, and needs no more than this.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.agents.base import Agent


@dataclass(frozen=True)
class AgentType:
    """What is known of an agent before it is built.

    name            in checkpoints, and of its columns in a history
    title           in messages
    path            module and name of its class, an `Agent`
    folder          the flag of the start of its folder's name
    load            the flag of the checkpoint to start from
    draws           the flag of how joint training draws for it
    switch          the flag of pretraining that chooses it; None: it is chosen unless another is
    prefix          of its files in joint training
    parameter       of its network alone, by which a file shows whose it is
    collects        whether it is pretrained on collected distributions
    masks           whether it chooses cells of the crop to mask, which takes a network with masks
    evaluation      `--eval_<evaluation>` shows its effect
    """

    name: str
    title: str
    path: str
    folder: str
    load: str
    draws: str
    switch: str | None
    prefix: str
    parameter: str
    collects: bool = False
    masks: bool = False
    evaluation: str = "grid"

    def build(self, *arguments: object) -> Agent:
        """The agent in a run, with initial weights; arguments: see `Agent`."""
        return resolve_name(self.path)(self, *arguments)

    @property
    def default_folder(self) -> str:
        """The start of its folder's name, unless its flag gives another."""
        return self.folder.replace("_", "-")


AGENTS: dict[str, AgentType] = {
    agent.name: agent
    for agent in (
        AgentType(
            name="agent",
            title="scale-rotation agent",
            path="utils.agents.scale_rotation.ScaleRotation",
            folder="sr_dir",
            load="load_prefix_sr",
            draws="agent_draws",
            switch=None,
            prefix="agent-",
            parameter="fc_scale.weight",
            collects=True,
        ),
        AgentType(
            name="occlusion",
            title="occlusion agent",
            path="utils.agents.occlusion.Occlusion",
            folder="occ_dir",
            load="load_prefix_occ",
            draws="occ_draws",
            switch="occlusion",
            prefix="occ-",
            parameter="out_conv.weight",
            masks=True,
            evaluation="occlusion",
        ),
    )
}
"""Every agent by its name, in the order of their turns in joint training."""


def chosen_agent(opt: Namespace) -> AgentType:
    """The agent that a command line chooses by its switch."""
    agents = sorted(AGENTS.values(), key=lambda agent: agent.switch is None)  # the one without comes last
    return next(agent for agent in agents if agent.switch is None or getattr(opt, agent.switch))
