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

    note: what it shows and which way is good. `{metric_name}` in title and note is replaced by that of the
    run, such as PCKh@0.5. baselines: what its lines of that kind are; follows the note where one is drawn.
    """

    name: str
    title: str
    note: str
    lines: tuple[Line, ...]
    percent: bool = False
    log: bool = False
    baselines: str = ""


OTHERS = [agent for agent in AGENTS.values() if agent.name != "agent"]
"""All agents but the scale-rotation agent, whose columns have names of their own."""
CHOICES = {choice: agent for agent in AGENTS.values() for choice in agent.choices}
"""Name of a choice -> its agent."""
LOSS_NOTE = (
    "Divergence of its prediction from the rewarded one; its targets move, so it need not fall. With "
    "--agent_rule reinforce only the gradient of the loss has a meaning."
)


def agent_panels(agent: AgentType) -> list[Panel]:
    """The panels of one of the `OTHERS`; their fields are the columns of `Record`."""
    name, title = agent.name, agent.title
    return [
        Panel(
            f"PCK by draws of the {title}",
            f"{{metric_name}} under draws of the {title}, %",
            "Mean over training people, pose network fixed; agent below uniform: its draws are harder.",
            (Line(f"{name}_pck_uniform", "uniform"), Line(f"{name}_pck_agent", "agent")),
            percent=True,
        ),
        Panel(
            f"gap of the {title}",
            f"{{metric_name}}: uniform minus {title}, points, with standard error",
            "{metric_name} under uniform draws minus {metric_name} under the agent's: above 0 the agent's "
            "draws are harder.",
            (
                Line(f"{name}_gap", "training (running)", running=True),
                Line(f"{name}_gap", "mean", error=f"{name}_gap_error"),
            ),
            percent=True,
        ),
        Panel(
            f"reward of the {title}",
            f"Draws of the {title}, %",
            "Rewarded: {metric_name} was lower than under the reference draw. Ties are penalized. At its "
            "limit, a target cannot grow.",
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
            LOSS_NOTE,
            (Line(f"{name}_loss", "training (running)", running=True), Line(f"{name}_loss", "training")),
        ),
    ]


PANELS = (
    Panel(
        "loss",
        "Loss",
        "Lower is better.",
        (
            Line("loss", "training (running)", running=True),
            Line("train_loss", "training"),
            Line("valid_loss", "validation"),
            Line("train_mean_row", "training, mean row", baseline=True),
            Line("valid_mean_row", "validation, mean row", baseline=True),
            Line("train_uniform", "training, uniform", baseline=True),
            Line("valid_uniform", "validation, uniform", baseline=True),
        ),
        baselines="Dashed: one prediction for everyone, the split's mean row or equal shares. Below the mean "
        "row, the agent knows the person.",
    ),
    Panel(
        "PCK",
        "{metric_name}, %",
        "Share of joints found; higher is better. Training crops are augmented, validation people are not.",
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
        "Of validation people, by object keypoint similarity; higher is better.",
        tuple(Line(column, name) for name, column in COLUMNS.items()),
        percent=True,
    ),
    Panel(
        "PCK by augmentation",
        "{metric_name} by augmentation, %",
        "Mean over training people, one kind of augmentation at a time; lower: these draws are harder.",
        (Line("pck_random", "random"), Line("pck_agent", "agent"), Line("pck_uniform", "uniform")),
        percent=True,
    ),
    Panel(
        "gap",
        "{metric_name}: random minus agent, points",
        "{metric_name} under random draws minus {metric_name} under the agent's: above 0 the agent finds "
        "harder crops.",
        (Line("pck_gap", "mean"), *(Line(f"{kind}_gap", kind) for kind in KINDS)),
        percent=True,
    ),
    Panel(
        "uniform gap",
        "{metric_name}: uniform minus agent, points, with standard error",
        "{metric_name} under uniform draws of the agent's bins minus {metric_name} under the agent's: above "
        "0 its choice of bins is harder than chance.",
        (
            Line("uniform_gap", "mean", error="uniform_gap_error"),
            *(Line(f"{kind}_uniform_gap", kind, error=f"{kind}_uniform_gap_error") for kind in KINDS),
        ),
        percent=True,
    ),
    Panel(
        "reward",
        "Rewarded draws, %",
        "Share of the agent's draws under which {metric_name} was lower than under a random draw; higher: it "
        "finds harder crops.",
        (Line("reward_share", "rewarded"),),
        percent=True,
    ),
    *(panel for agent in OTHERS for panel in agent_panels(agent)),
    Panel(
        "agent loss",
        "Loss of the agent",
        LOSS_NOTE,
        (Line("agent_loss", "training (running)", running=True), Line("agent_loss", "training")),
    ),
    Panel(
        "entropy",
        "Entropy of the agent's predictions, nats",
        "Mean over training people; low: it prefers few bins, highest: all bins are equally likely.",
        tuple(Line(f"{choice}_entropy", choice) for choice in CHOICES),
    ),
    *(
        Panel(
            f"{choice} hits",
            f"{'Hardest' if agent.collects else 'Largest'} {choice} bin found, % of people",
            "People for whom the agent's likeliest bin is the largest of their row; higher is better.",
            (
                Line(f"train_{choice}_hit", "training"),
                Line(f"valid_{choice}_hit", "validation"),
                Line(f"train_{choice}_mean_row_hit", "training, mean row", baseline=True),
                Line(f"valid_{choice}_mean_row_hit", "validation, mean row", baseline=True),
                Line(f"train_{choice}_constant_hit", "training, best bin", baseline=True),
                Line(f"valid_{choice}_constant_hit", "validation, best bin", baseline=True),
            ),
            percent=True,
            baselines="Dashed: one bin for everyone, the largest of the mean row or the best one. Above the "
            "best bin, the agent knows the person.",
        )
        for choice, agent in CHOICES.items()
    ),
    *(
        Panel(
            f"{choice} PCK",
            f"Expected {{metric_name}} by the agent's {choice} bins, %",
            "{metric_name} as collected, weighted by the agent's distributions; lower: it chooses what is "
            "hard. Own hardest bin: found by one half of the measurements, measured on the other.",
            (
                Line(f"train_{choice}_pck", "training"),
                Line(f"valid_{choice}_pck", "validation"),
                Line(f"valid_{choice}_pck_likeliest", "validation, its likeliest bin"),
                Line(f"valid_{choice}_pck_uniform", "validation, uniform", baseline=True),
                Line(f"valid_{choice}_pck_same_limited", "validation, best for everyone", baseline=True),
                Line(f"valid_{choice}_pck_same_bin", "validation, best bin", baseline=True),
                Line(f"valid_{choice}_pck_own_bin", "validation, own hardest bin", baseline=True),
            ),
            percent=True,
        )
        for choice, agent in CHOICES.items()
        if agent.collects
    ),
    Panel(
        "learning rates",
        "Learning rate",
        "At the start of each epoch.",
        (Line("lr", "of the network"), Line("agent_lr", "of the agent")),
        log=True,
    ),
)

DISTRIBUTIONS = {
    **{kind.name: kind.label for kind in KINDS.values()},
    **{
        choice: "cell (row, column)" if agent.masks else f"bin of {choice}"
        for choice, agent in CHOICES.items()
        if choice not in KINDS
    },
}
"""Choice of an agent -> label of its bins; its mean distribution is the column `<choice>_distribution`."""


def bin_names(name: str, bins: int) -> list[str]:
    """Names of the bins of a distribution: a kind's means, or numbers of cells (row, column) from 1."""
    if name in KINDS:
        return [f"{mean:g}" for mean in KINDS[name].means]
    if not CHOICES[name].masks:
        return [str(number + 1) for number in range(bins)]
    side = math.isqrt(bins)
    return [f"{cell // side + 1}, {cell % side + 1}" for cell in range(bins)]
