"""The panels of curves, for pages and for visdom alike: which fields of the history share a plot."""

import math
from dataclasses import dataclass

from data.kinds import KINDS
from utils.agents import AGENTS, AgentType
from utils.evaluation.average_precision import COLUMNS

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00")
LIGHT = "#9cc9e3"


@dataclass(frozen=True)
class Line:
    """A curve: a field of the history's rows, or of the running means of batches, and its label.

    running: whether it is a running mean of batches. baseline: whether it is a reference for the other lines.
    error: the field of its standard error; empty: none.
    """

    field: str
    label: str
    running: bool = False
    baseline: bool = False
    error: str = ""


@dataclass(frozen=True)
class Panel:
    """A plot of lines over epochs. percent: the values are shares, shown in %. log: logarithmic scale.

    `{metric_name}` in the title is replaced by that of the run, such as PCKh@0.5.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    percent: bool = False
    log: bool = False


SINGLE = [agent for agent in AGENTS.values() if not agent.collects]
"""The agents with a single choice, which has the agent's name."""


def agent_panels(agent: AgentType) -> list[Panel]:
    """The panels of an agent with a single choice; their fields are the columns of `Record`."""
    name, title = agent.name, agent.title
    return [
        Panel(
            f"PCK by draws of the {title}",
            f"{{metric_name}} under draws of the {title}, %",
            (Line(f"{name}_pck_uniform", "uniform"), Line(f"{name}_pck_agent", "agent")),
            percent=True,
        ),
        Panel(
            f"gap of the {title}",
            f"{{metric_name}}: uniform minus {title}, points, with standard error",
            (
                Line(f"{name}_gap", "training (running)", running=True),
                Line(f"{name}_gap", "mean", error=f"{name}_gap_error"),
            ),
            percent=True,
        ),
        Panel(
            f"reward of the {title}",
            f"Draws of the {title}, %",
            (
                Line(f"{name}_reward_share", "rewarded"),
                Line(f"{name}_tie_share", "ties"),
                Line(f"{name}_limit_share", "targets at their limit"),
            ),
            percent=True,
        ),
        Panel(
            f"loss of the {title}",
            f"Loss of the {title}",
            (Line(f"{name}_loss", "training (running)", running=True), Line(f"{name}_loss", "training")),
        ),
    ]


PANELS = (
    Panel(
        "loss",
        "Loss",
        (
            Line("loss", "training (running)", running=True),
            Line("train_loss", "training"),
            Line("valid_loss", "validation"),
            Line("train_mean_row", "training, mean row", baseline=True),
            Line("valid_mean_row", "validation, mean row", baseline=True),
            Line("train_uniform", "training, uniform", baseline=True),
            Line("valid_uniform", "validation, uniform", baseline=True),
        ),
    ),
    Panel(
        "PCK",
        "{metric_name}, %",
        (
            Line("train_pck", "training crops"),
            Line("valid_pck", "validation"),
            Line("valid_auc", "validation, AUC"),
        ),
        percent=True,
    ),
    Panel(
        "AP",
        "Average precision (OKS), %",
        tuple(Line(column, name) for name, column in COLUMNS.items()),
        percent=True,
    ),
    Panel(
        "PCK by augmentation",
        "{metric_name} by augmentation, %",
        (Line("pck_random", "random"), Line("pck_agent", "agent"), Line("pck_uniform", "uniform")),
        percent=True,
    ),
    Panel(
        "gap",
        "{metric_name}: random minus agent, points",
        (Line("pck_gap", "mean"), *(Line(f"{kind}_gap", kind) for kind in KINDS)),
        percent=True,
    ),
    Panel(
        "uniform gap",
        "{metric_name}: uniform minus agent, points, with standard error",
        (
            Line("uniform_gap", "mean", error="uniform_gap_error"),
            *(Line(f"{kind}_uniform_gap", kind, error=f"{kind}_uniform_gap_error") for kind in KINDS),
        ),
        percent=True,
    ),
    Panel("reward", "Rewarded draws, %", (Line("reward_share", "rewarded"),), percent=True),
    *(panel for agent in SINGLE for panel in agent_panels(agent)),
    Panel(
        "agent loss",
        "Loss of the agent",
        (Line("agent_loss", "training (running)", running=True), Line("agent_loss", "training")),
    ),
    Panel(
        "entropy",
        "Entropy of the agent's answers, nats",
        tuple(Line(f"{kind}_entropy", kind) for kind in (*KINDS, *(agent.name for agent in SINGLE))),
    ),
    *(
        Panel(
            f"{kind} hits",
            f"Hardest {kind} bin found, % of people",
            (
                Line(f"train_{kind}_hit", "training"),
                Line(f"valid_{kind}_hit", "validation"),
                Line(f"train_{kind}_mean_row_hit", "training, mean row", baseline=True),
                Line(f"valid_{kind}_mean_row_hit", "validation, mean row", baseline=True),
                Line(f"train_{kind}_constant_hit", "training, best bin", baseline=True),
                Line(f"valid_{kind}_constant_hit", "validation, best bin", baseline=True),
            ),
            percent=True,
        )
        for kind in KINDS
    ),
    Panel(
        "learning rates",
        "Learning rate",
        (Line("lr", "of the network"), Line("agent_lr", "of the agent")),
        log=True,
    ),
)

DISTRIBUTIONS = {
    **{kind.name: kind.label for kind in KINDS.values()},
    **{agent.name: "cell (row, column)" if agent.masks else f"bin of the {agent.title}" for agent in SINGLE},
}
"""Choice of an agent -> label of its bins; its mean distribution is the column `<choice>_distribution`."""


def bin_names(name: str, bins: int) -> list[str]:
    """Names of the bins of a distribution: a kind's means, or numbers of cells (row, column) from 1."""
    if name in KINDS:
        return [f"{mean:g}" for mean in KINDS[name].means]
    if not AGENTS[name].masks:
        return [str(number + 1) for number in range(bins)]
    side = math.isqrt(bins)
    return [f"{cell // side + 1}, {cell % side + 1}" for cell in range(bins)]
