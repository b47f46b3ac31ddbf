"""What the log says of an epoch, in lines that fit a terminal; `log.jsonl` has all of its numbers."""

import math
from collections.abc import Callable
from textwrap import fill

from data.kinds import KINDS
from utils.agents import AGENTS
from utils.evaluation.metrics import LINE


def epoch_text(row: dict, metric_name: str) -> str:
    """The epoch's row of the history, with shares in %: a line, and one for each agent in joint training."""
    expected = [
        _text(f"{kind} {{}}", row, f"valid_{kind}_pck", _percent)
        + _text(" (uniform {})", row, f"valid_{kind}_pck_uniform", _percent)
        for kind in KINDS
    ]
    hits = [_text(f"{kind} {{}}", row, f"valid_{kind}_hit", _percent) for kind in KINDS]
    parts = [
        _named("loss", _splits(row, "loss", "{:.4g}".format)),
        _text("mean row {}", row, "valid_mean_row", "{:.4g}".format),
        _named(metric_name, _splits(row, "pck", _percent)),
        _text("AP {}", row, "valid_ap", _percent),
        _named("hardest bin found:", hits),
        _named(f"expected {metric_name}:", expected),
        _text("{} images/s", row, "images_per_second", "{:.0f}".format),
        _text("waiting {}", row, "waiting_share", _percent),
        _text("{} GiB", row, "gpu_memory", "{:.1f}".format),
    ]
    lines = [f"epoch {row['epoch']}: " + _joined(parts)]
    for name, agent in AGENTS.items():
        # the columns of the scale-rotation agent have the names of earlier versions
        prefix, gap = ("", "uniform_gap") if agent.collects else (f"{name}_", f"{name}_gap")
        error = _text(" ± {}", row, f"{gap}_error", "{:.1f}".format, 100)
        parts = [
            _text(
                f"uniform minus agent {{}}{error} points of {metric_name}", row, gap, "{:+.1f}".format, 100
            ),
            _text("{} rewarded", row, f"{prefix}reward_share", _percent),
            _text("loss {}", row, f"{name}_loss", "{:.4g}".format),
        ]
        if any(parts):
            lines.append(f"  {agent.title}: {_joined(parts)}")
    return "\n".join(fill(line, LINE, subsequent_indent="    ") for line in lines)


def _joined(parts: list[str]) -> str:
    return "; ".join(filter(None, parts))


def _named(name: str, values: list[str]) -> str:
    """The values that are not empty, after their name; empty if there are none."""
    return f"{name} {', '.join(filter(None, values))}" if any(values) else ""


def _splits(row: dict, measure: str, form: Callable[[float], str]) -> list[str]:
    """A measure of the training people and of the validation people."""
    return [_text("{}", row, f"train_{measure}", form), _text("valid {}", row, f"valid_{measure}", form)]


def _text(text: str, row: dict, column: str, form: Callable[[float], str], factor: float = 1) -> str:
    """The text with the value of a column, times a factor; empty if the row lacks it or it is NaN."""
    value = factor * row.get(column, math.nan)
    return "" if math.isnan(value) else text.format(form(value))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
