"""The agents of the pose network, one file each; `AGENTS` has every one by its name.

This module imports no torch: the command line is read first, and needs no more than this.
"""

from __future__ import annotations

import re
from argparse import Namespace
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from data.kinds import KINDS

if TYPE_CHECKING:
    from utils.agents.base import Agent


@dataclass(frozen=True)
class AgentType:
    """The description of an agent, known before it is built.

    name            its name in checkpoints and in columns of a history
    title           its name in messages and help
    path            module and name of its class, a subclass of `Agent`
    folder          flag: first part of the name of its folder
    load            flag: checkpoint to start from
    draws           flag: how joint training draws for it
    switch          flag: selects it for pretraining; None: it is selected unless another one is
    prefix          first part of the names of its files in joint training: lower-case letters and a hyphen
    parameter       a parameter that only its network has, to recognize its checkpoints
    choices         names of its choices, in columns of a history; a single one has the agent's name
    collects        whether it is pretrained on collected distributions
    masks           whether it masks cells of the crop, which needs a network that is `maskable`
    evaluation      `--eval_<evaluation>` measures its effect
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
    choices: tuple[str, ...]
    collects: bool = False
    masks: bool = False
    evaluation: str = "grid"

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z]+-", self.prefix):  # as `utils.records.epochs` expects
            raise ValueError(f"prefix {self.prefix!r}: expected lower-case letters and a hyphen")

    def build(self, *arguments: object) -> Agent:
        """Build the agent with initial weights; arguments: those of `Agent` after the first."""
        return resolve_name(self.path)(self, *arguments)

    @property
    def default_folder(self) -> str:
        """The default of the flag `folder`."""
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
            choices=tuple(KINDS),
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
            choices=("occlusion",),
            masks=True,
            evaluation="occlusion",
        ),
    )
}
"""Every agent by its name, in the order of their turns in joint training."""


def chosen_agent(opt: Namespace) -> AgentType:
    """The agent that the switches of a command line select."""
    agents = sorted(AGENTS.values(), key=lambda agent: agent.switch is None)  # the one without a switch last
    return next(agent for agent in agents if agent.switch is None or getattr(opt, agent.switch))
