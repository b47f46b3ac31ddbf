"""The visdom windows of a run, from the events of its `log.jsonl` (see `utils.records.events`)."""

import html
import math
from itertools import cycle

from data.kinds import KINDS
from utils.display.panels import DISTRIBUTIONS, LIGHT, PALETTE, PANELS, Panel, bin_names
from utils.records.events import current_events

BIN_COLORS = ("#253494", "#2c7fb8", "#7fcdbb", "#636363", "#fdae61", "#e34a33", "#7a0177")
DASHES = ("solid", "dash", "dot")  # if there are more bins than colors
OPTIONS = "options"
SIZES = {"width": 480, "height": 360}  # px
FEW_EPOCHS = 10  # up to this epoch, every epoch has a tick


def draw_windows(events: list[dict]) -> dict[str, dict]:
    """Window name -> the message for visdom's server, without the environment.

    Windows and curves without points are omitted. The running means of a batch are plotted at
    epoch + batch / batches. Values that are not finite are gaps.
    """
    events = current_events(events)
    start = next((event for event in reversed(events) if event["kind"] == "start"), {})
    drawn = {OPTIONS: _options(start)} if start else {}
    for panel in PANELS:
        curves = _curves(panel, events)
        if curves:
            title = panel.title.format(metric_name=start.get("measure", "PCK"))
            drawn[panel.name] = _plot(title, "log" if panel.log else "linear", curves)
    for name, label in DISTRIBUTIONS.items():
        curves = _shares(name, events)
        if curves:
            title = f"Agent: mean distribution over {label}"
            drawn[f"{name} distribution"] = _plot(title, "linear", curves)
    return drawn


def _curves(panel: Panel, events: list[dict]) -> list[dict]:
    """The curves of a panel, one for each line that has points."""
    curves, colors = [], cycle(PALETTE)
    for line in panel.lines:
        chosen = [
            event
            for event in events
            if event["kind"] == ("batch" if line.running else "epoch") and line.field in event
        ]
        if chosen:
            x = [event["epoch"] + event.get("batch", 0) / event.get("batches", 1) for event in chosen]
            factor = 100 if panel.percent else 1
            y = [_number(event[line.field], factor) for event in chosen]
            color = LIGHT if line.running else next(colors)
            curve = _curve(line.label, x, y, color, "dash" if line.baseline else "solid")
            if line.error:
                errors = [_number(event.get(line.error), factor) for event in chosen]
                curve["error_y"] = {"type": "data", "array": errors, "visible": True}
            curves.append(curve | {"mode": "lines"} if line.running else curve)
    return curves


def _shares(name: str, events: list[dict]) -> list[dict]:
    """A curve for each bin of the mean distribution of that name; empty if it is not recorded."""
    field = f"{name}_distribution"
    chosen = [event for event in events if event["kind"] == "epoch" and field in event]
    x = [event["epoch"] for event in chosen]
    if not chosen:
        return []
    if name in KINDS:
        unit = KINDS[name].unit
        labels = [f"{mean:+g}{unit}" if mean else f"0{unit}" for mean in KINDS[name].means]
    else:
        labels = bin_names(name, len(chosen[-1][field]))
    colors = len(BIN_COLORS)
    return [
        _curve(
            label,
            x,
            [_number(event[field][k]) for event in chosen],
            BIN_COLORS[k % colors],
            DASHES[k // colors % len(DASHES)],
        )
        for k, label in enumerate(labels)
    ]


def _number(value: float | None, factor: float = 1) -> float | None:
    return factor * value if value is not None and math.isfinite(value) else None


def _curve(name: str, x: list[float], y: list[float | None], color: str, dash: str = "solid") -> dict:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": x,
        "y": y,
        "line": {"color": color, "dash": dash, "width": 1 if color == LIGHT else 2},
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
    """A table of the stage and its options. Their text comes from the user, so HTML in it is escaped."""
    shown = {"stage": start["stage"], "measure": start["measure"], **start["options"]}
    rows = "".join(
        f"<tr><td><b>{html.escape(name)}</b>&nbsp;</td><td>{html.escape(value)}</td></tr>"
        for name, value in shown.items()
    )
    return {
        "data": [{"type": "text", "content": f"<table>{rows}</table>"}],
        "opts": {"title": OPTIONS, **SIZES},
    }
