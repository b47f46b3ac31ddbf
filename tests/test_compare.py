"""Arms compared from the logs of their runs."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from support.stages import REPOSITORY

from utils.compare import final_table, markdown, paired_difference, read_arms, read_run
from utils.errors import UserError
from utils.metrics import TABLE_COLUMNS


def write_run(folder, seed, means, first=5, measure="PCKh@0.5"):
    """A run's log with these mean shares from epoch `first` on."""
    folder.mkdir(parents=True)
    events = [{"kind": "start", "epoch": first, "measure": measure, "options": {"seed": str(seed)}}]
    for epoch, mean in enumerate(means, first):
        events.append({"kind": "epoch", "epoch": epoch, "pck": dict.fromkeys(TABLE_COLUMNS, mean)})
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


@pytest.fixture
def arms(tmp_path):
    random = [write_run(tmp_path / f"r{seed}", seed, [0.1, last]) for seed, last in ((1, 0.40), (2, 0.50))]
    # Given in another order: runs are paired by their seeds.
    agent = [
        write_run(tmp_path / f"a{seed}", seed, [0.2, last, 0.9]) for seed, last in ((2, 0.53), (1, 0.41))
    ]
    return read_arms([("random", random), ("adversarial", agent)])


def test_only_epochs_of_all_runs_are_compared(arms):
    assert [arm.epochs for arm in arms] == [[5, 6], [5, 6]]
    assert arms[1].pck.shape == (2, 2, len(TABLE_COLUMNS))


def test_difference_over_pairs_of_the_same_seed(arms):
    mean, half, pairs = paired_difference(*arms)
    assert pairs == 2
    assert math.isclose(mean, (1 + 3) / 2)
    # Student's 97.5 % quantile with one degree of freedom, times the standard error of {1, 3}.
    assert math.isclose(half, 12.7062 * np.std([1, 3], ddof=1) / 2**0.5, rel_tol=1e-4)


def test_tables(arms):
    assert "47.00 ± 8.49" in final_table(arms)
    assert "| random | 2 | 45.00 ± 7.07 |" in markdown(arms)
    assert "adversarial - random: +2.00 ± 12.71 (95 % interval, 2 pairs by seed)" in markdown(arms)


def test_late_epochs_are_averaged_beside_the_last_one(arms):
    mean, _, pairs = paired_difference(*arms, last=2)
    assert pairs == 2 and math.isclose(mean, (10 + 10 + 1 + 3) / 4)
    assert "epoch 6: mean" in markdown(arms) and "mean of epochs 5 to 6: mean" in markdown(arms)
    assert "27.50 ± 3.54" in final_table(arms, last=2)


def test_a_resumed_epoch_counts_once(tmp_path):
    folder = write_run(tmp_path / "run", 0, [0.1, 0.2])
    again = write_run(tmp_path / "again", 0, [0.3, 0.4], first=6)
    log = folder / "log.jsonl"
    log.write_text(log.read_text() + (again / "log.jsonl").read_text())
    (arm,) = read_arms([("arm", [folder])])
    assert arm.epochs == [5, 6, 7]
    assert np.allclose(arm.pck[0, :, -1], [0.1, 0.3, 0.4])


def test_runs_that_cannot_be_compared(tmp_path):
    run = write_run(tmp_path / "run", 0, [0.1])
    other = write_run(tmp_path / "other", 0, [0.1], measure="PCK@0.2")
    late = write_run(tmp_path / "late", 0, [0.1], first=9)
    for folders, words in (([run, tmp_path], "log.jsonl"), ([run, other], "PCK@0.2"), ([run, late], "epoch")):
        with pytest.raises(UserError, match=words):
            read_arms([(folder.name, [folder]) for folder in folders])


@pytest.mark.slow
def test_command_writes_text_markdown_and_plot(tmp_path):
    run = write_run(tmp_path / "run", 0, [0.1, 0.2])
    command = [sys.executable, "-m", "utils.compare", "--arm", "random", str(run), "--arm", "agent", str(run)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "agent - random: +0.00 (one pair of runs, no interval)" in done.stdout
    assert (tmp_path / "out" / "compare.txt").read_text() in done.stdout
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "compare.md").exists()


def with_people(folder, valid, train="t"):
    """The run's log, saying whom it is of."""
    path = folder / "log.jsonl"
    start, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    events = [start | {"people": {"dataset": "demo", "train": train, "valid": valid}}, *rows]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_runs_on_other_people_are_not_compared(tmp_path, caplog):
    runs = [write_run(tmp_path / name, 1, [0.5]) for name in ("a", "b", "c")]
    with_people(runs[0], "v")
    with_people(runs[1], "v", train="other")
    read_arms([("x", runs[:1]), ("y", runs[1:])])  # the third does not say
    assert f"{runs[1]} was trained on other people than {runs[0]}" in caplog.text
    with_people(runs[2], "w")
    with pytest.raises(UserError, match="validated on other people"):
        read_arms([("x", runs[:1]), ("y", runs[1:])])


def test_a_later_start_that_trained_nothing_changes_nothing(tmp_path):
    folder = write_run(tmp_path / "a", 3, [0.2, 0.4])
    before = read_run(folder)
    with (folder / "log.jsonl").open("a") as file:
        options = {"seed": "9"}
        file.write(json.dumps({"kind": "start", "epoch": 5, "measure": "PCK@0.2", "options": options}) + "\n")
    assert read_run(folder) == before and before.seed == "3"
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "epoch", "epoch": 5, "pck": dict.fromkeys(TABLE_COLUMNS, 0.7)}) + "\n")
    after = read_run(folder)
    assert (after.seed, sorted(after.pck), after.pck[5][-1]) == ("9", [5], 0.7)
