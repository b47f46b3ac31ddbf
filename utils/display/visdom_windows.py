"""The windows of a run in visdom, made of the events of its `log.jsonl` (see `utils.display.events`)."""

import html
import math
from dataclasses import dataclass

from data.kinds import KINDS, Kind
from utils.display.events import current_events

BLUE, RED, GREEN, ORANGE, LIGHT = "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#7fb8dc"
BIN_COLORS = ("#253494", "#2c7fb8", "#7fcdbb", "#636363", "#fdae61", "#e34a33", "#7a0177")
OPTIONS = "options"
SIZES = {"width": 480, "height": 360}  # px
FEW_EPOCHS = 10  # up to here, every epoch has a tick


@dataclass(frozen=True)
class Trace:
    """A curve: a field of all events of a kind ("epoch" or "batch"), or an item of a field that is a list."""

    legend: str
    field: str
    color: str
    kind: str = "epoch"
    index: int | None = None
    dash: str = "solid"


@dataclass(frozen=True)
class Window:
    """Curves over the epochs. `{measure}` in the title is the run's, such as PCKh@0.5."""

    name: str
    title: str
    traces: tuple[Trace, ...]
    scale: str = "linear"


def _distribution(kind: Kind) -> Window:
    traces = (
        Trace(
            f"{mean:+g}{kind.unit}" if mean else f"0{kind.unit}",
            f"{kind.name}_distribution",
            BIN_COLORS[index],
            index=index,
        )
        for index, mean in enumerate(kind.means)
    )
    return Window(f"{kind.name} distribution", f"agent: mean distribution over {kind.label}", tuple(traces))


WINDOWS = (
    Window(
        "pose loss",
        "pose loss",
        (
            Trace("train (running)", "loss", LIGHT, "batch"),
            Trace("train", "train_loss", BLUE),
            Trace("valid", "valid_loss", RED),
        ),
    ),
    Window("PCK", "{measure}", (Trace("train", "train_pck", BLUE), Trace("valid", "valid_pck", RED))),
    Window(
        "learning rates",
        "learning rates",
        (Trace("pose", "lr", BLUE), Trace("agent", "agent_lr", ORANGE, dash="dash")),
        scale="log",
    ),
    Window(
        "agent loss",
        "agent loss",
        (
            Trace("train (running)", "agent_loss", LIGHT, "batch"),
            Trace("train", "agent_loss", BLUE),
        ),
    ),
    Window(
        "reward",
        "agent: reward share and {measure} gap",
        (Trace("reward share", "reward_share", GREEN), Trace("gap", "pck_gap", ORANGE)),
    ),
    *(_distribution(kind) for kind in KINDS.values()),
)
PRETRAINING_WINDOWS = (
    Window(
        "agent loss",
        "agent loss",
        (
            Trace("train (running)", "agent_loss", LIGHT, "batch"),
            Trace("train", "train_loss", BLUE),
            Trace("valid", "valid_loss", RED),
            Trace("mean row", "valid_mean_row", GREEN, dash="dash"),
            Trace("uniform", "valid_uniform", ORANGE, dash="dot"),
        ),
    ),
    Window("learning rates", "learning rates", (Trace("agent", "lr", ORANGE),), scale="log"),
)
"""Whose `loss` is the agent's; the others show whatever of their fields a stage has."""


def draw_windows(events: list[dict]) -> dict[str, dict]:
    """Each window's name, and what visdom's server wants to know of it, less the environment.

    Windows and curves without a point are left out. Running means of a batch stand within their epoch,
    at epoch + batch / batches. What is no finite number is a gap.
    """
    events = current_events(events)
    start = next((event for event in reversed(events) if event["kind"] == "start"), {})
    drawn = {OPTIONS: _options(start)} if start else {}
    pretraining = start.get("stage") == "pretrain-s-r-agent"
    for window in PRETRAINING_WINDOWS if pretraining else WINDOWS:
        curves = [curve for trace in window.traces if (curve := _curve(trace, events))["x"]]
        if curves:
            title = window.title.format(measure=start.get("measure", "PCK"))
            drawn[window.name] = _plot(title, window.scale, curves)
    return drawn


def _curve(trace: Trace, events: list[dict]) -> dict:
    x, y = [], []
    for event in events:
        if event["kind"] == trace.kind and trace.field in event:
            value = event[trace.field] if trace.index is None else event[trace.field][trace.index]
            x.append(event["epoch"] + (event["batch"] / event["batches"] if trace.kind == "batch" else 0))
            y.append(value if value is not None and math.isfinite(value) else None)
    return {
        "type": "scatter",
        "mode": "lines" if trace.kind == "batch" else "lines+markers",
        "name": trace.legend,
        "x": x,
        "y": y,
        "line": {"color": trace.color, "dash": trace.dash, "width": 1 if trace.kind == "batch" else 2},
        "marker": {"size": 5},
    }


def _plot(title: str, scale: str, curves: list[dict]) -> dict:
    xaxis = {"title": {"text": "epoch"}}
    if max(curve["x"][-1] for curve in curves) <= FEW_EPOCHS:
        xaxis["dtick"] = 1
    layout = {
        "title": {"text": title, "font": {"size": 15}, "y": 0.88, "yanchor": "top"},  # below plotly's buttons
        "showlegend": True,
        "margin": {"l": 60, "r": 10, "t": 70, "b": 60},
        "xaxis": xaxis,
        "yaxis": {"type": scale, "exponentformat": "power"},
    }
    return {"data": curves, "layout": layout, "opts": {"title": title, **SIZES}}


def _options(start: dict) -> dict:
    """A table of the stage and its options; their text is the user's and may hold HTML."""
    shown = {"stage": start["stage"], "measure": start["measure"], **start["options"]}
    rows = "".join(
        f"<tr><td><b>{html.escape(name)}</b>&nbsp;</td><td>{html.escape(value)}</td></tr>"
        for name, value in shown.items()
    )
    return {
        "data": [{"type": "text", "content": f"<table>{rows}</table>"}],
        "opts": {"title": OPTIONS, **SIZES},
    }
