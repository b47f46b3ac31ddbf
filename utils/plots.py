"""Plots as PNG files, drawn without a screen."""

import io
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from utils.files import write_file


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_file(path, buffer.getvalue())


def plot_distributions(path: Path, rows: dict[str, Tensor], bins: tuple[float, ...], label: str) -> None:
    """Mean and spread of distributions.

    Args:
        path: the PNG file. rows: [N, K] of each split. bins: the K bins' means. label: of their axis.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    width = (bins[1] - bins[0]) * 0.8 / len(rows)
    for k, (split, values) in enumerate(rows.items()):
        x = [mean + (k - (len(rows) - 1) / 2) * width for mean in bins]
        mean, spread = values.mean(dim=0), values.std(dim=0, correction=0)
        axes.bar(x, mean, width, label=f"{split}, {len(values)} people")
        axes.errorbar(x, mean, spread, fmt="none", ecolor="0.3", capsize=3)
    axes.axhline(1 / len(bins), color="0.5", linestyle="--", linewidth=1, label="uniform")
    axes.set(xlabel=label, ylabel="share of lost PCK", xticks=bins, ylim=(0, None))
    axes.set_title("Mean over people; whiskers: one standard deviation", fontsize="medium")
    axes.legend()
    save_figure(figure, path)
