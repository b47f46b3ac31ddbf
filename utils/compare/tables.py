"""The output of a comparison: a Markdown table, the mean by epoch, and a plot."""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from textwrap import fill

import numpy as np

from data.skeleton import MEAN
from utils.compare.arms import Arm, Comparison, pair_values, paired_difference
from utils.display.plots import plot_arms
from utils.display.sections import Section
from utils.display.stages import COMPARISON, INDEX, write_stage_page
from utils.evaluation.average_precision import COLUMNS
from utils.evaluation.grids import TABLES
from utils.system.files import write_file

log = logging.getLogger("compare")

UNKNOWN = "n/a"
TERMINAL = 110  # characters per line


def write_comparison(
    comparison: Comparison, out: Path, footer: Sequence[str] = (), experiment: Path | None = None
) -> None:
    """Log a comparison, and write it to `compare.txt`, `.md` and `.png` in a folder, created if necessary.

    footer: additional lines below the table. In the log, the table is split into parts that fit a terminal.
    experiment: the folder of an experiment whose pages are to have one of the comparison, `web/index.html`.

    Raises:
        OSError, UserError: the folder cannot be written to.
    """
    out.mkdir(parents=True, exist_ok=True)
    table, epochs = "\n".join([markdown(comparison), *footer]), epoch_table(comparison)
    log.info("%s", "\n".join([markdown(comparison, TERMINAL), *footer, "", epochs]))
    write_file(out / "compare.txt", f"{table}\n\n{epochs}\n")
    write_file(out / "compare.md", table + "\n")
    reference = comparison.reference
    plot_arms(
        out / "compare.png",
        comparison.metric_name,
        comparison.epochs,
        {arm.name: arm.pck[:, :, -1] for arm in comparison.arms},
        reference.name,
        {arm.name: pair_values(reference, arm, lambda one: one.pck[:, :, -1]) for arm in comparison.others},
        comparison.updates,
    )
    log.info("written: %s", out / "compare.txt, .md, .png")
    if experiment is not None:
        title = f"{COMPARISON} of {', '.join(arm.name for arm in comparison.arms)}: {experiment.name}"
        plot, rows = (out / "compare.png").read_bytes(), table_rows(comparison)
        first, mean = 2 + sum(name in COLUMNS for name in rows[0]), rows[0].index(MEAN)
        sections = [
            Section(
                "The last epoch",
                "Higher is better. Arms: ± standard deviation over runs. Differences: ± half the 95 % "
                "interval: a smaller difference may be chance.",
                table=[[*row[:first], *row[mean:], *row[first:mean]] for row in rows],  # joints are seen last
            ),
            Section(
                "By epoch", "Validation people, un-augmented. Above: arms; below: differences.", plot=plot
            ),
            Section("Notes", "", lines=[*notes(comparison), *footer]),
        ]
        write_stage_page(out / INDEX, experiment, title, sections)


def markdown(comparison: Comparison, width: int | None = None) -> str:
    """The comparison as a Markdown table: one row per arm, one per difference from the reference, then notes.

    The cells of an arm are means and standard deviations over its runs; those of a difference are means over
    pairs of runs with the same seed, and half the 95 % interval. All are in %.

    width: characters per line; if given, the columns are split into several tables, and the notes are
    wrapped.
    """
    rows = table_rows(comparison)
    columns = [[cell.ljust(max(map(len, column))) for cell in column] for column in zip(*rows, strict=True)]
    names, scores, tables = columns[:2], columns[2:], [columns[:2]]
    for column in scores:
        if width is not None and len(_line(*(one[0] for one in (*tables[-1], column)))) > width:
            tables.append(list(names))
        tables[-1].append(column)
    text = [fill(line, width) if width else line for line in notes(comparison)]
    return "\n\n".join([*map(_table, tables), "\n".join(text)])


def table_rows(comparison: Comparison) -> list[list[str]]:
    """The cells of the comparison's table, the header first."""
    reference = comparison.reference
    rows = [[f"{comparison.metric_name}, %", "runs", *comparison.columns]]
    for arm in comparison.arms:
        rows.append([arm.name, str(len(arm.seeds)), *(spread(column) for column in arm.scores.T)])
    for arm in comparison.others:
        difference = paired_difference(pair_values(reference, arm, lambda one: one.scores))
        cells = (interval(*both) for both in zip(difference.mean, difference.half, strict=True))
        pairs = f"{difference.pairs} pair" + "s" * (difference.pairs != 1)
        rows.append([f"{arm.name} - {reference.name}", pairs, *cells])
    return rows


def _table(columns: list[list[str]]) -> str:
    header, *rows = zip(*columns, strict=True)
    rule = ("-" * len(cell) for cell in header)
    return "\n".join(_line(*row) for row in (header, rule, *rows))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def notes(comparison: Comparison) -> list[str]:
    """Notes on the table, one sentence per line."""
    after = "" if comparison.updates is None else f", after {comparison.updates:,} updates,"
    lines = [f"Epoch {comparison.epochs[-1]}{after} where no other is named."]
    if comparison.origin is not None:
        lines.append(f"All runs start from {comparison.origin}.")
    if comparison.people:
        people = "{dataset}, training people {train}, validation people {valid}".format(**comparison.people)
        lines.append(f"Data: {people} (fingerprints).")
    for flag, values in comparison.options.items():
        which = ", ".join(f"{value} ({arm})" for arm, value in values.items())
        lines.append(f"Arms differ in --{flag}: {which}.")
    lines.append("Arms: mean ± standard deviation over runs.")
    if comparison.others:
        lines.append(
            "Differences: mean over pairs of runs with the same seed ± half the 95 % interval (Student's t); "
            f"{UNKNOWN}: fewer than two pairs."
        )
    lines += [line for arm in comparison.others for line in unpaired(comparison.reference, arm)]
    lines += [line for pair in combinations(comparison.arms, 2) for line in equal_runs(*pair)]
    for name, people in comparison.table_people.items():
        whose = f" ({people})" if people else ""
        lines.append(f"{name.capitalize()}{whose}: {TABLES[name].note}")
    return lines


def unpaired(reference: Arm, arm: Arm) -> list[str]:
    """A note for each of two arms that has seeds which the other arm lacks."""
    lines = []
    for one, other in ((arm, reference), (reference, arm)):
        seeds = [seed for seed in one.seeds if seed not in other.seeds]
        if seeds:
            which = f"{arm.name} - {reference.name} does not include seed {', '.join(seeds)}"
            lines.append(f"{which}: {other.name} has no such run.")
    return lines


def equal_runs(arm: Arm, other: Arm) -> list[str]:
    """A warning if runs of two arms with the same seed are equal to the bit in every number."""
    seeds = [seed for seed in arm.seeds if seed in other.seeds]
    differences = np.concatenate(
        [
            pair_values(arm, other, lambda one: one.pck.reshape(len(one.seeds), -1)),
            pair_values(arm, other, lambda one: one.tables),
        ],
        axis=1,
    )
    equal = [seed for seed, row in zip(seeds, differences, strict=True) if not np.nan_to_num(row).any()]
    if not equal:
        return []
    which = f"{arm.name} and {other.name} are equal to the bit in every epoch (seed {', '.join(equal)})"
    return [
        f"Warning: {which}: either the same samples were drawn, or the networks find no joints. Train for "
        "more epochs, or the agent with a larger --agent_lr."
    ]


def epoch_table(comparison: Comparison) -> str:
    """Mean PCK and standard deviation over runs, by epoch and arm, as text."""
    lines = ["epoch" + "".join(f"{arm.name:>20}" for arm in comparison.arms)]
    for k, epoch in enumerate(comparison.epochs):
        cells = (spread(arm.pck[:, k, -1]) for arm in comparison.arms)
        lines.append(f"{epoch:>5}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def spread(shares: np.ndarray) -> str:
    """Mean ± standard deviation of shares [runs], as text in %; for a single run without the deviation."""
    if np.isnan(shares).any():
        return UNKNOWN
    if len(shares) == 1:
        return f"{100 * shares[0]:.2f}"
    return f"{100 * shares.mean():.2f} ± {100 * shares.std(ddof=1):.2f}"


def interval(mean: float, half: float) -> str:
    """A difference ± half its interval, from shares, as text in %."""
    if np.isnan(mean):
        return UNKNOWN
    return f"{100 * mean:+.2f} ± " + (UNKNOWN if np.isnan(half) else f"{100 * half:.2f}")
