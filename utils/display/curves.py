"""Curves of a history as SVG: each panel of which the history has a field, drawn with matplotlib."""

import io
import math
from itertools import cycle

from utils.display.panels import DISTRIBUTIONS, PALETTE, PANELS, Line, Panel, bin_names
from utils.display.sections import Curve
from utils.display.stages import joint_start

_TEXT = 8.5  # points
DISTRIBUTION = (
    "The agent's predictions, averaged over training people; bright: likely. Equal rows: no preference."
)
_MARKED = 40  # epochs; longer curves are drawn without markers


def draw_curves(rows: list[dict], metric_name: str) -> list[Curve]:
    """The curve of each panel for which the rows of a history have a number.

    metric_name: for titles and notes, such as PCKh@0.5.
    """
    drawn = [(panel, [line for line in panel.lines if _known(line, rows)]) for panel in PANELS]
    curves = [
        Curve(*(text.format(metric_name=metric_name) for text in (panel.title, _note(panel, lines))), svg)
        for panel, lines in drawn
        if lines
        for svg in [_lines(panel, lines, rows)]
    ]
    fields = {name for row in rows for name in row}
    return curves + [
        Curve(f"Mean distribution of {name}, %", DISTRIBUTION, _distribution(name, label, rows))
        for name, label in DISTRIBUTIONS.items()
        if f"{name}_distribution" in fields
    ]


def _note(panel: Panel, lines: list[Line]) -> str:
    """The note of a panel of which these lines are drawn."""
    return f"{panel.note} {panel.baselines}".strip() if any(line.baseline for line in lines) else panel.note


def _known(line: Line, rows: list[dict]) -> bool:
    """Whether a line has a point to draw; running means of batches are not drawn."""
    return not line.running and any(math.isfinite(row.get(line.field, math.nan)) for row in rows)


def _lines(panel: Panel, lines: list[Line], rows: list[dict]) -> bytes:
    figure, axes = _axes()
    epochs, factor = _epochs(rows), 100 if panel.percent else 1
    if not any(row.get(line.field) for line in lines for row in rows):
        axes.set_ylim(0, 1)  # all points are 0, round which an axis would have ticks of 1e-2
    marker = "o" if len(rows) <= _MARKED else None
    for line, color in zip(lines, cycle(PALETTE), strict=False):
        values = [factor * row.get(line.field, math.nan) for row in rows]
        axes.plot(
            epochs, values, "--" if line.baseline else "-", marker=marker, color=color, label=line.label
        )
        if line.error:
            errors = [factor * row.get(line.error, math.nan) for row in rows]
            low, high = zip(*((v - e, v + e) for v, e in zip(values, errors, strict=True)), strict=True)
            axes.fill_between(epochs, low, high, color=color, alpha=0.25, linewidth=0)
    _mark_joint_start(axes, lines, rows)
    if panel.log:
        axes.set_yscale("log")
        _plain_ticks(axes)
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.grid(color="#dddddd", linewidth=0.6)
    entries = len(lines)
    if entries > 1:
        figure.legend(loc="lower center", ncols=2, frameon=False, fontsize=_TEXT)
    lines_of_text = 1 + (-(-entries // 2) if entries > 1 else 0)
    return _svg(figure, 0.09 + 0.065 * lines_of_text)


def _plain_ticks(axes) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 of each decade, such as 0.0002."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # imported here: see `_axes`

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark_joint_start(axes, lines: list[Line], rows: list[dict]) -> None:
    """A vertical line between stage 1 and joint training, if both have points of these lines."""
    start = joint_start(rows)
    before = [row for row in rows if start is not None and row["epoch"] < start]
    if any(_known(line, before) for line in lines):
        axes.axvline(start - 0.5, color="#444444", linestyle="--", linewidth=1)
        axes.text(
            *(start - 0.5, 1.02, "joint training \u2192"),
            transform=axes.get_xaxis_transform(),
            fontsize=_TEXT,
            color="#444444",
            horizontalalignment="center",
        )


def _distribution(name: str, label: str, rows: list[dict]) -> bytes:
    """The mean distribution by epoch as a heatmap: a column per epoch, a row per bin."""
    figure, axes = _axes()
    field = f"{name}_distribution"
    known = [(epoch, row[field]) for epoch, row in zip(_epochs(rows), rows, strict=True) if field in row]
    bins = bin_names(name, len(known[0][1]))
    first, last = known[0][0], known[-1][0]
    shares = [[100 * share for share in shares] for _, shares in known]
    image = axes.imshow(
        list(zip(*shares, strict=True)),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(first - 0.5, last + 0.5, -0.5, len(bins) - 0.5),
        vmin=0,
    )
    axes.set_yticks(range(len(bins)), bins)
    axes.set_ylabel(label, fontsize=_TEXT)
    figure.colorbar(image).ax.tick_params(labelsize=_TEXT)
    return _svg(figure, 0.125)


def _epochs(rows: list[dict]) -> list[int]:
    return [row.get("epoch", number) for number, row in enumerate(rows)]


def _axes() -> tuple:
    # imported here: matplotlib takes most of a second to import
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.add_subplot()
    # few ticks: they take most of the time of drawing
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("epoch", fontsize=_TEXT)
    axes.tick_params(labelsize=_TEXT)
    return figure, axes


def _svg(figure, bottom: float) -> bytes:
    """The figure as an SVG file; bottom: share of its height below the axes."""
    # not by a layout engine, which is slow
    figure.subplots_adjust(left=0.125, right=0.97, bottom=bottom, top=0.93)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()
