"""The curves of a run, once for all that draw them: which fields of its history stand together."""

from dataclasses import dataclass

from data.kinds import KINDS

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00")
LIGHT = "#9cc9e3"


@dataclass(frozen=True)
class Line:
    """A curve: a field of the history's rows, or of the running means of batches, and its label.

    baseline: what the others are to be compared with.
    """

    field: str
    label: str
    running: bool = False
    baseline: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over epochs. percent: of shares. log: on a logarithmic scale.

    `{metric_name}` in the title is the run's, such as PCKh@0.5.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    percent: bool = False
    log: bool = False


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
        "PCK by augmentation",
        "{metric_name} by augmentation, %",
        (Line("pck_random", "random"), Line("pck_agent", "agent")),
        percent=True,
    ),
    Panel(
        "gap",
        "{metric_name}: random minus agent, points",
        (Line("pck_gap", "mean"), *(Line(f"{kind}_gap", kind) for kind in KINDS)),
        percent=True,
    ),
    Panel("reward", "Rewarded draws, %", (Line("reward_share", "rewarded"),), percent=True),
    Panel(
        "agent loss",
        "Loss of the agent",
        (Line("agent_loss", "training (running)", running=True), Line("agent_loss", "training")),
    ),
    Panel(
        "entropy",
        "Entropy of the agent's answers, nats",
        tuple(Line(f"{kind}_entropy", kind) for kind in KINDS),
    ),
    Panel(
        "learning rates",
        "Learning rate",
        (Line("lr", "of the network"), Line("agent_lr", "of the agent")),
        log=True,
    ),
)
