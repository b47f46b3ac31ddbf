"""Compare arms of an experiment, several seeds each: `python -m utils.compare --help`."""

if __name__ == "__main__":
    from utils.signals import end_at_once

    end_at_once()  # the imports below take seconds

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from options.parser import OneLineParser
from utils.display.events import EVENTS, current_events, read_events
from utils.display.plots import plot_arms
from utils.errors import UserError
from utils.files import write_file
from utils.metrics import TABLE_COLUMNS
from utils.process import Terminal, run_stage

log = logging.getLogger("compare")

CONFIDENCE = 0.95
LATE = 10  # epochs that are averaged beside the last one alone, which varies more


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone; pck: f64 [runs, epochs, columns of `TABLE_COLUMNS`], shares."""

    name: str
    seeds: list[str]
    epochs: list[int]
    pck: np.ndarray
    metric_name: str

    def scores(self, last: int) -> np.ndarray:
        """Shares [runs, columns], averaged over the last so many epochs."""
        return self.pck[:, -last:].mean(axis=1)

    def cells(self, last: int) -> list[str]:
        """Mean and standard deviation over runs of each column of `scores`, in %."""
        return [mean_and_spread(column) for column in self.scores(last).T]


def mean_and_spread(shares: np.ndarray) -> str:
    """Mean ± standard deviation of the runs' shares [runs] in %; a single run has no spread."""
    if len(shares) == 1:
        return f"{100 * shares[0]:.2f}"
    return f"{100 * shares.mean():.2f} ± {100 * shares.std(ddof=1):.2f}"


def main() -> None:
    parser = OneLineParser(
        "Tables and a plot of validation PCK by arm, from the log.jsonl of each run. "
        "Runs of the same seed are a pair.",
        prog="python -m utils.compare",
    )
    parser.add_argument(
        "--arm",
        action="append",
        nargs="+",
        required=True,
        metavar=("NAME", "FOLDER"),
        help="an arm's name and the folders of its runs; once for each arm",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for compare.txt, .md and .png")
    parser.add_argument("--from_epoch", type=int, default=0, help="leave earlier epochs out")
    opt = parser.parse_args()
    logging.basicConfig(level=logging.INFO, handlers=[Terminal()], format="%(message)s")
    arms = read_arms(
        [(name, [Path(folder) for folder in folders]) for name, *folders in opt.arm], opt.from_epoch
    )
    try:
        opt.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {opt.out} cannot be made: {error.strerror}") from error
    parts = [part for last in periods(arms) for part in (final_table(arms, last), differences(arms, last))]
    text = "\n\n".join([*parts, epoch_table(arms)])
    log.info("%s", text)
    write_file(opt.out / "compare.txt", text + "\n")
    write_file(opt.out / "compare.md", markdown(arms))
    plot_arms(
        opt.out / "compare.png",
        {arm.name: (arm.epochs, arm.pck[:, :, -1]) for arm in arms},
        arms[0].metric_name,
    )
    log.info("written: %s", opt.out / "compare.txt, .md, .png")


@dataclass(frozen=True)
class RunLog:
    """What a run's event log says; people: as there, or nothing. pck: of each epoch, by column."""

    metric_name: str
    seed: str
    people: dict[str, str]
    pck: dict[int, list[float]]


def read_arms(named: Sequence[tuple[str, list[Path]]], from_epoch: int = 0) -> list[Arm]:
    """Arms with the epochs that all of their runs have.

    Raises:
        UserError: a folder has no log, the runs share no epoch, or differ in metric or validation people.
    """
    runs = {folder: read_run(folder) for _, folders in named for folder in folders}
    if any(not folders for _, folders in named):
        raise UserError("--arm: expected a name and at least one folder")
    names = {run.metric_name for run in runs.values()}
    if len(names) > 1:
        raise UserError(f"the runs have different metrics: {', '.join(sorted(names))}")
    check_people(runs)
    common = set.intersection(*(set(run.pck) for run in runs.values()))
    epochs = sorted(epoch for epoch in common if epoch >= from_epoch)
    if not epochs:
        raise UserError(f"no epoch from {from_epoch} on is in all of the runs")
    return [
        Arm(
            name,
            [runs[folder].seed for folder in folders],
            epochs,
            np.array([[runs[folder].pck[epoch] for epoch in epochs] for folder in folders]),
            names.copy().pop(),
        )
        for name, folders in named
    ]


def check_people(runs: dict[Path, RunLog]) -> None:
    """Runs are compared on the same validation people; other training people are worth a warning.

    Raises:
        UserError: two runs were validated on different people.
    """
    known = {folder: run.people for folder, run in runs.items() if run.people}
    for folder, people in known.items():
        first, reference = next(iter(known.items()))
        if people["valid"] != reference["valid"]:
            raise UserError(f"{folder} was validated on other people than {first}: they cannot be compared")
        if people["train"] != reference["train"]:
            log.warning("%s was trained on other people than %s", folder, first)


def read_run(folder: Path) -> RunLog:
    """The log of a run; an epoch that was trained again counts once.

    Raises:
        UserError: the folder has no log of a training of the pose network.
    """
    path = folder / EVENTS
    try:
        events = current_events(read_events(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: expected the folder of a training run") from error
    start, last, pck = {}, {}, {}
    for event in events:
        if event["kind"] == "start":
            start = event
        elif event["kind"] == "epoch" and "pck" in event:
            last = start  # of the run that trained it: a later start may have trained nothing
            shares = [event["pck"][column] for column in TABLE_COLUMNS]
            pck[event["epoch"]] = [math.nan if share is None else share for share in shares]
    if not pck:
        raise UserError(f"{path} has no epoch of a pose network")
    return RunLog(last["measure"], last["options"]["seed"], last.get("people", {}), pck)


def periods(arms: list[Arm]) -> list[int]:
    """Numbers of last epochs to compare: the last one, and the mean of up to `LATE`."""
    return sorted({1, min(LATE, len(arms[0].epochs))})


def heading(arms: list[Arm], last: int) -> str:
    """What a table shows."""
    epochs = arms[0].epochs[-last:]
    when = f"epoch {epochs[0]}" if last == 1 else f"mean of epochs {epochs[0]} to {epochs[-1]}"
    return f"{arms[0].metric_name} in %, {when}: mean ± standard deviation over runs"


def paired_difference(first: Arm, second: Arm, last: int = 1) -> tuple[float, float, int]:
    """Second minus first over the last epochs, in %: mean over pairs of runs, half its 95 % interval, pairs.

    Runs of the same seed are a pair. The interval is Student's; NaN with fewer than two pairs.

    Raises:
        UserError: an arm has a seed twice.
    """
    for arm in (first, second):
        if len(set(arm.seeds)) < len(arm.seeds):
            raise UserError(f"arm {arm.name} has a seed twice: {', '.join(arm.seeds)}")
    common = [seed for seed in first.seeds if seed in second.seeds]
    if not common:
        return math.nan, math.nan, 0
    means = [arm.scores(last)[[arm.seeds.index(seed) for seed in common], -1] for arm in (first, second)]
    difference, pairs = 100 * (means[1] - means[0]), len(common)
    half = math.nan
    if pairs > 1:
        error = difference.std(ddof=1) / math.sqrt(pairs)
        half = stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1) * error
    return difference.mean(), half, pairs


def final_table(arms: list[Arm], last: int = 1) -> str:
    """The per-joint table over the last common epochs, with the spread over seeds."""
    width = max(len(arm.name) for arm in arms) + 2
    head = " " * width + "".join(f"{column:>15}" for column in TABLE_COLUMNS)
    rows = [f"{arm.name:<{width}}" + "".join(f"{cell:>15}" for cell in arm.cells(last)) for arm in arms]
    return "\n".join([heading(arms, last), head, *rows])


def differences(arms: list[Arm], last: int = 1) -> str:
    """A line for each arm after the first: its mean column against the first arm's."""
    lines = []
    for arm in arms[1:]:
        mean, half, pairs = paired_difference(arms[0], arm, last)
        if not pairs:
            lines.append(f"{arm.name} - {arms[0].name}: no seed in common, so no pair of runs")
            continue
        interval = "one pair of runs, no interval" if pairs == 1 else f"95 % interval, {pairs} pairs by seed"
        value = f"{mean:+.2f}" if pairs == 1 else f"{mean:+.2f} ± {half:.2f}"
        lines.append(f"{arm.name} - {arms[0].name}: {value} ({interval})")
    return "\n".join(lines)


def epoch_table(arms: list[Arm]) -> str:
    """Mean PCK by epoch, with the spread over seeds."""
    lines = ["epoch" + "".join(f"{arm.name:>20}" for arm in arms)]
    for k, epoch in enumerate(arms[0].epochs):
        cells = (mean_and_spread(arm.pck[:, k, -1]) for arm in arms)
        lines.append(f"{epoch:>5}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def markdown(arms: list[Arm]) -> str:
    """The final tables and the differences for a README."""
    lines = []
    for last in periods(arms):
        lines += [
            f"{heading(arms, last)}:",
            "",
            "| arm | runs | " + " | ".join(TABLE_COLUMNS) + " |",
            "|---|---|" + "---|" * len(TABLE_COLUMNS),
            *(f"| {arm.name} | {len(arm.seeds)} | " + " | ".join(arm.cells(last)) + " |" for arm in arms),
            "",
            *(line + "  " for line in differences(arms, last).splitlines()),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(main)
