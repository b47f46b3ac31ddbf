"""Curves of a history as SVG: each panel of which the history has a field, drawn with matplotlib."""

import io
import math

from utils.display.panels import DISTRIBUTIONS, PALETTE, PANELS, Panel, bin_names

_TEXT = 8.5  # points
_MARKED = 40  # epochs; longer curves are drawn without markers


def draw_curves(rows: list[dict], metric_name: str) -> list[tuple[str, bytes]]:
    """(title, SVG file) of each panel of which the rows of a history have a field.

    metric_name: for titles, such as PCKh@0.5.
    """
    fields = {name for row in rows for name in row}
    curves = [
        (panel.title.format(metric_name=metric_name), _lines(panel, rows))
        for panel in PANELS
        if any(line.field in fields for line in panel.lines if not line.running)
    ]
    return curves + [
        (f"Mean distribution of {name}, %", _distribution(name, label, rows))
        for name, label in DISTRIBUTIONS.items()
        if f"{name}_distribution" in fields
    ]


def _lines(panel: Panel, rows: list[dict]) -> bytes:
    figure, axes = _axes()
    epochs, factor = _epochs(rows), 100 if panel.percent else 1
    marker = "o" if len(rows) <= _MARKED else None
    colors = iter(PALETTE)
    for line in panel.lines:
        if not line.running and any(line.field in row for row in rows):
            values = [factor * row.get(line.field, math.nan) for row in rows]
            style = "--" if line.baseline else "-"
            color = next(colors)
            axes.plot(epochs, values, style, marker=marker, color=color, label=line.label)
            if line.error:
                errors = [factor * row.get(line.error, math.nan) for row in rows]
                low, high = zip(*((v - e, v + e) for v, e in zip(values, errors, strict=True)), strict=True)
                axes.fill_between(epochs, low, high, color=color, alpha=0.25, linewidth=0)
    if panel.log:
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.grid(color="#dddddd", linewidth=0.6)
    entries = len(axes.lines)
    if entries > 1:
        figure.legend(loc="lower center", ncols=2, frameon=False, fontsize=_TEXT)
    lines_of_text = 1 + (-(-entries // 2) if entries > 1 else 0)
    return _svg(figure, 0.09 + 0.065 * lines_of_text)


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
