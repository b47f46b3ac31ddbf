"""Plots as PNG files."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from data.kinds import KINDS, Kind
from utils.system.files import write_file


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_file(path, buffer.getvalue())


def plot_distributions(path: Path, rows: dict[str, Tensor], kind: Kind) -> None:
    """Plot mean and standard deviation of the distributions over the bins of a kind.

    Args:
        path: the PNG file. rows: split -> distributions [N, bins].
    """
    bins = kind.means
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    width = (bins[1] - bins[0]) * 0.8 / len(rows)
    for k, (split, values) in enumerate(rows.items()):
        x = [mean + (k - (len(rows) - 1) / 2) * width for mean in bins]
        mean, spread = values.mean(dim=0), values.std(dim=0, correction=0)
        axes.bar(x, mean, width, label=f"{split}, {len(values)} people")
        axes.errorbar(x, mean, spread, fmt="none", ecolor="0.3", capsize=3)
    axes.axhline(1 / len(bins), color="0.5", linestyle="--", linewidth=1, label="uniform")
    axes.set(xlabel=kind.label, ylabel="share of lost PCK", xticks=bins, ylim=(0, None))
    title = "Mean over people (higher: harder); whiskers: one standard deviation"
    axes.set_title(title, fontsize="medium")
    figure.legend(loc="outside lower center", ncols=3)  # inside it would hide bars
    save_figure(figure, path)


def plot_grid(path: Path, grid: Tensor, metric_name: str) -> None:
    """Plot PCK [7, 7] by scale (rows) and rotation (columns) as a heatmap with numbers."""
    figure, axes = _numbers(grid, origin="lower")
    for kind, axis in ((KINDS["rotation"], axes.xaxis), (KINDS["scale"], axes.yaxis)):
        axis.set_ticks(range(len(grid)), [f"{mean:g}" for mean in kind.means])
        axis.set_label_text(kind.label)
    axes.set_title(f"{metric_name}, %")
    save_figure(figure, path)


def plot_cells(path: Path, grid: Tensor, title: str) -> None:
    """Plot PCK [side, side] with each single cell of the crop masked, as a heatmap with numbers."""
    figure, axes = _numbers(grid, origin="upper")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize="medium")
    save_figure(figure, path)


def _numbers(grid: Tensor, origin: str) -> tuple[Figure, Axes]:
    """A heatmap of shares with numbers in per cent; origin: where the first row is, "upper" or "lower"."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(100 * grid, cmap="viridis", vmin=0, vmax=100, origin=origin)
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            color = "white" if value < 0.6 else "black"
            axes.text(j, i, f"{100 * value:.1f}", ha="center", va="center", color=color, fontsize="small")
    figure.colorbar(image, label="%")
    return figure, axes


def plot_arms(
    path: Path,
    metric_name: str,
    epochs: list[int],
    arms: dict[str, np.ndarray],
    reference: str,
    differences: dict[str, np.ndarray],
    updates: int | None,
) -> None:
    """Plot PCK by epoch of each arm and, below, the differences from the reference.

    Lines are means over runs, bands reach from the lowest to the highest run. A line that would hide another
    one is broken.

    arms: name -> shares [runs, epochs]. reference: name of an arm. differences: name of each other arm ->
    shares [pairs of runs, epochs]. updates: optimizer steps at the last epoch; None: unknown.
    """
    paired = {name: shares for name, shares in differences.items() if len(shares)}
    figure = Figure(figsize=(7, 7.5 if paired else 4.5), layout="constrained")
    panels = figure.subplots(2 if paired else 1, sharex=True, squeeze=False)[:, 0]
    for axes, curves, unit in zip(panels, (arms, paired), ("run", "pair"), strict=False):
        for k, name in enumerate(arms):
            if name in curves:
                shares = 100 * curves[name]
                label = f"{name}, {len(shares)} {unit}{'s' * (len(shares) > 1)}"
                axes.fill_between(
                    epochs, shares.min(axis=0), shares.max(axis=0), color=f"C{k}", alpha=0.2, lw=0
                )
                mean = shares.mean(axis=0)
                hidden = sum(np.allclose(mean, line.get_ydata()) for line in axes.lines)
                style = ("-", "--", ":", "-.")[hidden % 4]
                axes.plot(epochs, mean, f"C{k}o{style}", linewidth=2, markersize=4, label=label)
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_ylabel(f"validation {metric_name}, %")
    panels[0].set_title("Line: mean over runs; band: lowest to highest run", fontsize="medium")
    for axes in panels[1:]:
        axes.axhline(0, color="0.3", linewidth=1)
        axes.set_ylabel(f"minus {reference}, runs with the same seed")
    panels[-1].set_xlabel("epoch" if updates is None else f"epoch; the last ends after {updates:,} updates")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)
