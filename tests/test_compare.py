"""Arms compared from what their runs have left: logs and grids."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.stages import REPOSITORY, assert_user_error

from data.skeleton import MEAN, MPII
from utils.compare import __main__ as compare
from utils.compare.arms import pair_values, paired_difference, read_arms
from utils.compare.run_logs import read_run
from utils.compare.tables import epoch_table, markdown, notes, write_comparison
from utils.records.checkpoint import checkpoint_identity
from utils.system.errors import UserError

COLUMNS = [*MPII.columns, MEAN]
BASE = {"checkpoint": "lr-0.00025-4.pth.tar", "sha256": "1234"}


def start(seed, epoch, measure="PCKh@0.5", options=None, **more):
    options = {"seed": str(seed)} | (options or {})
    return {"kind": "start", "epoch": epoch, "measure": measure, "options": options} | more


def write_run(folder, seed, means, first=5, measure="PCKh@0.5", updates=None, columns=COLUMNS, **more):
    """A run's log with these mean shares from epoch `first` on, and `updates` an epoch; `more` of its start.

    A log that is there already goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = [start(seed, first, measure, **more)]
    for epoch, mean in enumerate(means, first):
        event = {"kind": "epoch", "epoch": epoch, "pck": dict.fromkeys(columns, mean)}
        events.append(event | ({"updates": updates * (epoch + 1)} if updates else {}))
    with (folder / "log.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    return folder


def write_checkpoint(path, seconds=0.0):
    """A checkpoint of one weight, whose epoch took so many seconds."""
    state, history = {"weight": torch.ones(1)}, [{"epoch": 4, "train_seconds": seconds}]
    torch.save({"state_dict": state, "train_history": history, "epoch": 4}, path)
    return path


def write_event(folder, **event):
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def write_grid(folder, epoch, value, of=""):
    """What an evaluation has left: a grid of `value`, but 0.9 in the middle and 0.1 at the corners."""
    grid = torch.full((7, 7), value)
    grid[3, 3] = 0.9
    grid[::6, ::6] = 0.1
    write_event(folder, kind="grid", epoch=epoch, of=of, shares=grid.tolist())


def write_cells(folder, epoch, first, plain, of=""):
    """What an evaluation has left: 2 x 2 cells, 0.5 but for the `first` one."""
    write_event(folder, kind="occlusion", epoch=epoch, of=of, shares=[[first, 0.5], [0.5, 0.5]], plain=plain)


def cells(comparison, row):
    """The cells of a row of the table, by column."""
    head, _, *rows = [
        line.strip("| ").split("|") for line in markdown(comparison).split("\n\n")[0].splitlines()
    ]
    (found,) = [cells for cells in rows if cells[0].strip() == row]
    return {name.strip(): cell.strip() for name, cell in zip(head, found, strict=True)}


@pytest.fixture
def folders(tmp_path):
    random = [write_run(tmp_path / f"r{seed}", seed, [0.1, last]) for seed, last in ((1, 0.40), (2, 0.50))]
    # Given in another order: runs are paired by their seeds.
    agent = [write_run(tmp_path / f"a{seed}", seed, [0.2, last]) for seed, last in ((2, 0.53), (1, 0.41))]
    return [("random", random), ("agent", agent)]


def test_difference_over_pairs_of_the_same_seed(folders):
    both = read_arms(folders).arms
    difference = paired_difference(pair_values(*both, lambda arm: arm.scores))
    assert difference.pairs == 2 and difference.mean.shape == (len(COLUMNS) + 1,)
    assert np.allclose(difference.mean, [*[0.02] * 8, (0.1 + 0.1 + 0.01 + 0.03) / 4])
    # Student's 97.5 % quantile with one degree of freedom, times the standard error of {0.01, 0.03}.
    assert math.isclose(difference.half[0], 12.7062 * 0.01, rel_tol=1e-4)


def test_interval_of_three_pairs_by_hand():
    difference = paired_difference(np.array([[0.01, 0.0], [0.02, math.nan], [0.06, 0.0]]))
    assert math.isclose(difference.mean[0], 0.03)
    # variance (0.02^2 + 0.01^2 + 0.03^2) / 2 = 7e-4; the quantile with two degrees of freedom is 4.30265
    assert math.isclose(difference.half[0], 4.30265 * math.sqrt(7e-4 / 3), rel_tol=1e-5)
    assert np.isnan([difference.mean[1], difference.half[1]]).all()


def test_table(folders):
    comparison = read_arms(folders)
    assert cells(comparison, "random")["Mean"] == "45.00 ± 7.07"
    assert cells(comparison, "random")["Mean, epochs 5 to 6"] == "27.50 ± 3.54"
    difference = cells(comparison, "agent - random")
    assert (difference["runs"], difference["Knee"]) == ("2 pairs", "+2.00 ± 12.71")
    assert len({len(line) for line in markdown(comparison).split("\n\n")[0].splitlines()}) == 1
    assert "10.00 ± 0.00        20.00 ± 0.00" in epoch_table(comparison)


def test_the_table_in_a_terminal(folders):
    """In parts that fit, with every cell of the full one."""
    comparison = read_arms(folders)
    full = markdown(comparison).split("\n\n")
    *parts, notes = markdown(comparison, 110).split("\n\n")
    assert max(map(len, full[0].splitlines())) > 110 >= max(map(len, "\n".join([*parts, notes]).splitlines()))
    rows = [[line.strip("| ").split(" | ") for line in part.splitlines()] for part in parts]
    joined = [sum((cells[2:] for cells in row[1:]), row[0]) for row in zip(*rows, strict=True)]
    assert [" | ".join(row).split() for row in joined] == [
        line.strip("| ").split() for line in full[0].splitlines()
    ]
    assert notes.split() == full[1].split()


def test_any_arm_is_the_reference(folders, tmp_path):
    third = [write_run(tmp_path / "u1", 1, [0.2, 0.45]), write_run(tmp_path / "u2", 2, [0.2, 0.47])]
    comparison = read_arms([*folders, ("uniform", third)], reference="agent")
    assert cells(comparison, "random - agent")["Mean"] == "-2.00 ± 12.71"
    assert cells(comparison, "uniform - agent")["Mean"].startswith("-1.00 ± ")
    with pytest.raises(UserError, match="--reference nobody: expected one of the arms, random, agent"):
        read_arms(folders, reference="nobody")


def test_arms_that_are_equal_to_the_bit_are_said_to_be(folders, tmp_path, figures):
    """In the text, with their seeds; in the plot both lines can be seen."""
    assert "Warning" not in markdown(read_arms(folders))
    again = [write_run(tmp_path / "p1", 1, [0.2, 0.41]), write_run(tmp_path / "p2", 2, [0.2, 0.5300001])]
    (line,) = [line for line in notes(read_arms([*folders, ("p", again)])) if line.startswith("Warning")]
    assert line.startswith("Warning: agent and p are equal to the bit in every epoch (seed 1): ")
    again[1] = write_run(tmp_path / "p3", 2, [0.2, 0.53])
    comparison = read_arms([*folders, ("p", again)])
    assert "(seed 2, 1)" in markdown(comparison)
    write_comparison(comparison, tmp_path / "out")
    (figure,) = figures
    for axes, styles in zip(figure.axes, (["-", "-", "--"], ["-", "--", "-"]), strict=True):
        assert [line.get_linestyle() for line in axes.lines] == styles  # the last one below is zero's
    for run, grid in zip((*folders[1][1], *again), (0.3, 0.3, 0.3, 0.4), strict=True):
        write_grid(run, 6, grid)
    for run in folders[0][1]:
        write_grid(run, 6, 0.3)
    assert "to the bit" not in markdown(read_arms([*folders, ("p", again[1:])]))


def test_a_page_shows_the_means_before_the_joints(folders, tmp_path):
    comparison = read_arms(folders)
    write_comparison(comparison, tmp_path / "comparison", experiment=tmp_path)
    page = (tmp_path / "comparison/web/index.html").read_text(encoding="utf-8")
    header = re.findall(r"<th[^>]*>([^<]*)", page)
    assert header[header.index("runs") + 1] == "Mean"
    assert {"Mean", *comparison.columns} <= set(header)


def test_one_pair_has_no_interval_and_seeds_that_lack_a_twin_are_named(folders, tmp_path):
    folders[1][1][:1] = [write_run(tmp_path / "a3", 3, [0.3, 0.9])]
    text = markdown(read_arms(folders))
    assert cells(read_arms(folders), "agent - random")["Mean"] == "+1.00 ± n/a"
    assert "| 1 pair " in text
    assert "agent - random does not include seed 3: random has no such run." in text
    assert "agent - random does not include seed 2: agent has no such run." in text
    folders[1][1].pop()
    comparison = read_arms(folders)
    assert (cells(comparison, "agent - random")["runs"], cells(comparison, "agent - random")["Mean"]) == (
        "0 pairs",
        "n/a",
    )


def test_a_column_without_joints_has_no_number(folders):
    path = folders[0][1][0] / "log.jsonl"
    path.write_text(path.read_text().replace('"Head": 0.4', '"Head": null'))
    comparison = read_arms(folders)
    assert cells(comparison, "random")["Head"] == cells(comparison, "agent - random")["Head"] == "n/a"
    assert cells(comparison, "agent - random")["Knee"] == "+2.00 ± 12.71"


def test_average_precision_is_compared_where_runs_have_it(tmp_path):
    arms = {"a": 0.5, "b": 0.75}
    for name, ap in arms.items():
        write_run(tmp_path / name, 1, [])
        precision = {"valid_ap": ap, "valid_ap50": 0.9, "valid_ap75": None, "valid_ar": 0.6}
        write_event(tmp_path / name, kind="epoch", epoch=5, pck={"Nose": 0.8, MEAN: 0.7}, **precision)
    comparison = read_arms([(name, [tmp_path / name]) for name in arms])
    assert comparison.columns == ["AP", "AP50", "AP75", "AR", "Nose", MEAN]
    shown = [cells(comparison, "b")[column] for column in comparison.columns]
    assert shown == ["75.00", "90.00", "n/a", "60.00", "80.00", "70.00"]
    assert cells(comparison, "b - a")["AP"] == "+25.00 ± n/a"
    write_comparison(comparison, tmp_path / "comparison", experiment=tmp_path)
    page = (tmp_path / "comparison/web/index.html").read_text(encoding="utf-8")
    header = re.findall(r"<th>([^<]*)", page)
    assert header[header.index("runs") + 1 :] == ["AP", "AP50", "AP75", "AR", MEAN, "Nose"]


def test_grids_of_the_last_epoch(folders, caplog):
    for (_, runs), values in zip(folders, ((0.3, 0.4), (0.6, 0.5)), strict=True):
        for run, value in zip(runs, values, strict=True):
            write_grid(run, 6, value)
            write_grid(run, 5, 0.0)
    comparison = read_arms(folders)
    mean = (44 * 0.3 + 0.9 + 4 * 0.1) / 49, (44 * 0.4 + 0.9 + 4 * 0.1) / 49
    assert cells(comparison, "random")["Grid mean"].startswith(f"{50 * sum(mean):.2f} ± ")
    # 0.5 - 0.3 and 0.6 - 0.4, each on 44 of 49 places
    assert cells(comparison, "agent - random")["Grid mean"].startswith(f"+{20 * 44 / 49:.2f} ± 0.0")
    assert cells(comparison, "agent")["Grid middle"] == "90.00 ± 0.00"
    assert cells(comparison, "agent - random")["Grid corners"] == "+0.00 ± 0.00"
    write_run(folders[1][1][0], 2, [0.53], first=6)  # trained again: the grid was of other weights
    assert "Grid mean" not in read_arms(folders).columns
    assert (
        f"--eval_grid true at epoch 6 are not compared: {folders[1][1][0]} has no such table" in caplog.text
    )


def test_the_latest_grid_counts_and_a_place_without_people_is_none(folders):
    for _, runs in folders:
        for run in runs:
            write_grid(run, 6, 0.2)
            write_grid(run, 6, 0.4)
    assert cells(read_arms(folders), "random")["Grid mean"].startswith(f"{100 * (44 * 0.4 + 1.3) / 49:.2f} ")
    write_event(folders[0][1][0], kind="grid", epoch=6, of="", shares=[[None] * 7] * 7)
    assert cells(read_arms(folders), "random")["Grid mean"] == "n/a"


def test_grids_of_earlier_versions_are_asked_for_again(folders, caplog):
    run = folders[0][1][0]
    (run / "pose-lr-0.00025-6-grid-first-9.txt").touch()
    read_arms(folders)
    assert f"{run} has no such table in its log.jsonl: evaluate it again" in caplog.text


def test_masked_cells_of_the_last_epoch(folders, caplog):
    for (_, runs), values in zip(folders, ((0.3, 0.1), (0.2, 0.2)), strict=True):
        for run, value in zip(runs, values, strict=True):
            write_cells(run, 6, value, plain=0.6 + value)
            write_grid(run, 6, 0.5)
    comparison = read_arms(folders)
    assert cells(comparison, "random")["Masked mean"].startswith("42.50 ± ")  # (0.45 + 0.4) / 2
    assert cells(comparison, "agent")["Worst cell"] == "20.00 ± 0.00"
    # pairs by seed: 0.2 - 0.3 and 0.2 - 0.1
    assert cells(comparison, "agent - random")["Not masked"].startswith("+0.00 ± 127.")
    assert cells(comparison, "agent")["Grid middle"] == "90.00 ± 0.00"
    text = markdown(comparison)
    assert "\nGrid: 7 x 7 scales" in text and "\nOcclusion: a single cell of the crop masked" in text
    log = folders[0][1][1] / "log.jsonl"
    log.write_text(
        log.read_text().replace('"occlusion", "epoch": 6, "of": ""', '"occlusion", "epoch": 6, "of": "lsp"')
    )
    assert "Masked mean" not in read_arms(folders).columns
    assert (
        "--eval_occlusion true at epoch 6 are not compared: the runs were evaluated on different"
        in caplog.text
    )


def test_grids_of_the_same_people(folders):
    for _, runs in folders:
        for run in runs:
            write_grid(run, 6, 0.5, "first-250")
    write_grid(folders[0][1][0], 6, 0.1)
    text = markdown(read_arms(folders))
    assert "Grid (first-250): " in text
    assert cells(read_arms(folders), "random")["Grid middle"] == "90.00 ± 0.00"


def test_a_resumed_epoch_counts_once(tmp_path):
    folder = write_run(tmp_path / "run", 0, [0.1, 0.2])
    write_run(folder, 0, [0.3, 0.4], first=6)
    comparison = read_arms([("arm", [folder])])
    assert comparison.epochs == [5, 6, 7]
    assert np.allclose(comparison.arms[0].pck[0, :, -1], [0.1, 0.3, 0.4])


def test_runs_that_cannot_be_compared(tmp_path):
    run = write_run(tmp_path / "run", 0, [0.1])
    other = write_run(tmp_path / "other", 0, [0.1], measure="PCK@0.2")
    late = write_run(tmp_path / "late", 0, [0.1], first=9)
    for folders, words in (([run, tmp_path], "log.jsonl"), ([run, other], "PCK@0.2"), ([run, late], "epoch")):
        with pytest.raises(UserError, match=words):
            read_arms([(folder.name, [folder]) for folder in folders])
    with pytest.raises(UserError, match="arm x has a seed twice: 0, 0"):
        read_arms([("x", [run, write_run(tmp_path / "again", 0, [0.1])])])
    with pytest.raises(UserError, match="found a name twice in x, x"):
        read_arms([("x", [run]), ("x", [run])])


def test_a_run_that_goes_further_is_compared_as_far_as_both_go(folders):
    longer = folders[1][1][0]
    write_run(longer, 2, [0.9], first=7)
    with pytest.raises(UserError, match=f"6, {longer} with epoch 7: use --to_epoch 6 to compare"):
        read_arms(folders)
    assert read_arms(folders, to_epoch=6).epochs == [5, 6]
    assert read_arms(folders, from_epoch=6, to_epoch=6).columns == COLUMNS
    with pytest.raises(UserError, match="no epoch from 0 to 4 that all runs have"):
        read_arms(folders, to_epoch=4)


def test_runs_of_as_many_epochs_but_other_updates_are_not_compared(tmp_path):
    runs = [write_run(tmp_path / name, 1, [0.5, 0.6], updates=many) for name, many in (("a", 10), ("b", 20))]
    with pytest.raises(UserError, match="b has made 120 updates by epoch 5, "):
        read_arms([("x", runs[:1]), ("y", runs[1:])])
    assert read_arms([("x", runs[:1])]).updates == 70


def test_an_arm_whose_epochs_were_trained_in_two_ways_is_refused(tmp_path):
    uniform, learned = (
        {"options": {"agent_draws": draws, "lr": "0.001"}} for draws in ("uniform", "learned")
    )
    mixed = write_run(tmp_path / "mixed", 1, [0.5, 0.6], **uniform)
    read_arms([("x", [mixed])])
    write_run(mixed, 1, [], first=7, **learned)  # stopped before its first epoch
    read_arms([("x", [mixed])])
    write_run(mixed, 1, [0.7], first=7, **learned)
    found = "--agent_draws uniform in epoch 6, learned in epoch 7"
    with pytest.raises(
        UserError, match=f"{mixed} was trained with {found}: expected one value; use --to_epoch 6"
    ):
        read_arms([("x", [mixed])])
    assert read_arms([("x", [mixed])], to_epoch=6).epochs == [5, 6]
    write_run(mixed, 1, [0.7], first=6)  # by a version that lacked the flag: unknown
    read_arms([("x", [mixed])])
    write_run(mixed, 2, [0.7], first=7)
    with pytest.raises(UserError, match="--seed 1 in epoch 6, 2 in epoch 7"):
        read_arms([("x", [mixed])])
    runs = [write_run(tmp_path / str(seed), seed, [0.5], **one) for seed, one in ((3, uniform), (4, learned))]
    with pytest.raises(
        UserError, match=f"arm x: {runs[0]} was trained with --agent_draws uniform, {runs[1]}"
    ):
        read_arms([("x", runs)])
    read_arms([("x", runs[:1]), ("y", runs[1:])])


def test_the_epochs_of_an_arm_share_the_end_of_their_learning_rate(tmp_path):
    for schedule in ("step", "cosine"):
        options = [{"options": {"lr_schedule": schedule, "nEpochs": str(end)}} for end in (7, 8)]
        run = write_run(tmp_path / schedule, 1, [0.5, 0.6], **options[0])
        write_run(run, 1, [0.7], first=7, **options[1])
    read_arms([("x", [tmp_path / "step"])])
    with pytest.raises(UserError, match="--nEpochs 7 in epoch 6, 8 in epoch 7"):
        read_arms([("x", [tmp_path / "cosine"])])


def test_runs_on_other_people_are_not_compared(tmp_path):
    def people(train, valid):
        return {"people": {"dataset": "demo", "train": train, "valid": valid}}

    runs = [
        write_run(tmp_path / "a", 1, [0.5], **people("t", "v")),
        write_run(tmp_path / "b", 1, [0.5], **people("t", "w")),
        write_run(tmp_path / "c", 1, [0.5], **people("u", "v")),
        write_run(tmp_path / "d", 1, [0.5]),  # does not say
    ]
    for run, what in ((runs[1], "validated"), (runs[2], "trained")):
        with pytest.raises(UserError, match=f"{run} was {what} on other people than {runs[0]}"):
            read_arms([("x", runs[:1]), ("y", [run])])
    read_arms([("x", runs[:1]), ("y", runs[3:])])


def test_runs_must_go_on_from_one_checkpoint(tmp_path, caplog):
    base = write_checkpoint(tmp_path / "lr-0.00025-4.pth.tar")
    pose, other = checkpoint_identity(base), BASE
    random, agent, stranger = (
        write_run(tmp_path / name, 1, [0.5], pose=origin)
        for name, origin in (("random", pose), ("agent", pose), ("stranger", other))
    )
    old = write_run(tmp_path / "old", 1, [0.5])
    comparison = read_arms([("random", [random]), ("agent", [agent])])
    assert f"All runs start from lr-0.00025-4.pth.tar ({pose['weights']})." in markdown(comparison)
    refused = f"{stranger} started from lr-0.00025-4.pth.tar \\(1234\\), {random} from .*{pose['sha256']}"
    with pytest.raises(UserError, match=refused):
        read_arms([("random", [random]), ("stranger", [stranger])])
    with pytest.raises(UserError, match=f"{stranger} started from .*: expected --from_checkpoint {base}"):
        read_arms([("stranger", [stranger])], from_checkpoint=base)
    with pytest.raises(UserError, match=f"{old} does not record its initial checkpoint"):
        read_arms([("random", [random]), ("old", [old])], from_checkpoint=base)
    with pytest.raises(UserError, match="nothing cannot be read"):
        read_arms([("random", [random])], from_checkpoint=tmp_path / "nothing")
    assert not caplog.text
    read_arms([("random", [random]), ("old", [old])])
    assert f"1 of 2 runs, such as {old}, do not record their initial checkpoint" in caplog.text
    read_arms([("random", [random]), ("agent", [agent])], from_checkpoint=base)


def test_a_base_that_was_trained_again_to_the_same_weights_is_one_base(tmp_path):
    base = write_checkpoint(tmp_path / "lr-0.00025-4.pth.tar", seconds=1)
    first = checkpoint_identity(base)
    again = checkpoint_identity(write_checkpoint(base, seconds=2))
    assert first["sha256"] != again["sha256"]
    runs = [write_run(tmp_path / str(seed), seed, [0.5], pose=one) for seed, one in ((1, first), (2, again))]
    arms = [("x", runs[:1]), ("y", runs[1:])]
    assert read_arms(arms, from_checkpoint=base).origin == read_arms(arms).origin
    earlier = {
        name: value for name, value in again.items() if name != "weights"
    }  # as versions before wrote it
    arms += [("z", [write_run(tmp_path / "3", 3, [0.5], pose=earlier)])]
    assert read_arms(arms[1:], from_checkpoint=base).origin == f"{base.name} ({again['sha256']})"
    with pytest.raises(UserError, match=f"{tmp_path / '2'} started from .*{again['sha256']}"):
        read_arms(arms)


def test_where_a_run_comes_from(tmp_path):
    """The checkpoints of a run's starts, as far as its epochs are still those of these starts."""
    own, foreign = ({"checkpoint": f"{name}.pth.tar", "sha256": name} for name in ("own", "foreign"))
    folder = tmp_path / "run"
    write_run(folder, 0, [0.1, 0.2], first=5, pose=BASE)
    assert read_run(folder).origins == [BASE]
    write_run(folder, 0, [], first=7, pose=own)  # stopped before its first epoch
    assert read_run(folder).origins == [BASE]
    write_run(folder, 0, [0.3], first=7, pose=own)
    assert read_run(folder).origins == [BASE, own]
    write_run(folder, 0, [0.3], first=20, pose=foreign)  # the epochs up to there are not of this log
    assert read_run(folder).origins == [foreign]
    write_run(folder, 0, [0.1], first=0, pose=None)  # with --overwrite true
    assert [origin["checkpoint"] for origin in read_run(folder).origins] == ["initial weights"]
    assert read_arms([("x", [folder])]).origin == "initial weights"
    write_run(folder, 0, [0.1], first=1)  # by an earlier version
    assert read_run(folder).origins == []


def test_a_later_start_that_trained_nothing_changes_nothing(tmp_path):
    folder = write_run(tmp_path / "a", 3, [0.2, 0.4])
    before = read_run(folder)
    write_run(folder, 9, [], first=5, measure="PCK@0.2")
    assert read_run(folder) == before and before.seed == "3"
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "epoch", "epoch": 5, "pck": dict.fromkeys(COLUMNS, 0.7)}) + "\n")
    after = read_run(folder)
    assert (after.seed, sorted(after.pck), after.pck[5][-1]) == ("9", [5], 0.7)


def command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "utils.compare", *map(str, flags)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_command_writes_text_markdown_and_plot(tmp_path):
    runs = [write_run(tmp_path / name, 0, [0.1, 0.2], pose=BASE) for name in ("a", "b")]
    arms = ("--arm", "random", runs[0], "--arm", "agent", runs[1], "--out", tmp_path / "out")
    done = command(*arms)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "compare.txt").read_text()
    assert text.startswith((tmp_path / "out" / "compare.md").read_text().strip())
    assert text.rpartition("\n\n")[2] in done.stdout
    assert "+0.00 ± n/a" in done.stdout
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    other = write_checkpoint(tmp_path / "other.pth.tar")
    assert_user_error(command(*arms, "--from_checkpoint", other), runs[0], "1234")
    assert_user_error(command(*arms, "--from_checkpoint", runs[0] / "log.jsonl"), "log.jsonl")


def test_without_an_arm_there_is_nothing_to_compare(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        compare.main()
    assert end.value.code == 2 and "--arm" in capsys.readouterr().err.splitlines()[-1]


def test_the_table_says_whose_its_numbers_are(tmp_path):
    people = {"dataset": "demo", "train": "0123", "valid": "4567"}
    run = write_run(tmp_path / "a", 1, [0.5], people=people)
    assert "demo, training people 0123, validation people 4567" in markdown(read_arms([("x", [run])]))


def test_columns_are_those_of_the_runs_skeleton(tmp_path):
    columns = ["Nose", "Paw", "Mean"]
    dogs = [write_run(tmp_path / name, 1, [0.5], columns=columns) for name in "ab"]
    assert read_arms([(folder.name, [folder]) for folder in dogs]).columns == columns
    other = write_run(tmp_path / "c", 1, [0.5])
    with pytest.raises(UserError, match=r"c has other joints than .*a: Head, .*, not Nose, Paw, Mean"):
        read_arms([("a", dogs[:1]), ("c", [other])])


def test_the_foot_lists_the_options_in_which_arms_differ(tmp_path):
    """Not the seed, and of a flag that only some arms have, whether these differ."""
    common = {"network": "hourglass", "chan": "64", "bs": "8", "nEpochs": "9", "exp_id": "x"}
    options = {
        "random": {"lr": "0.001"},
        "learned": {"lr": "0.001", "agent_draws": "learned", "agent_lr": "0.1"},
        "fast": {"lr": "0.005", "agent_draws": "learned", "agent_lr": "0.1", "exp_id": "y", "nEpochs": "8"},
    }
    runs = [
        (arm, [write_run(tmp_path / arm, seed, [0.5, 0.6], options=common | own)])
        for seed, (arm, own) in enumerate(options.items())
    ]
    assert read_arms(runs[:2]).options == {}
    assert read_arms(runs).options == {"lr": {"random": "0.001", "learned": "0.001", "fast": "0.005"}}
    line = "\nArms differ in --lr: 0.001 (random), 0.001 (learned), 0.005 (fast).\n"
    assert line in markdown(read_arms(runs))
    curve = {"lr_schedule": "cosine"}  # ends with --nEpochs
    runs = [
        (arm, [write_run(tmp_path / f"{arm} 2", 0, [0.5], options=common | own | curve)])
        for arm, own in options.items()
    ]
    assert list(read_arms(runs).options) == ["lr", "nEpochs"]


def test_a_log_that_does_not_say_its_rule_is_of_the_published_one(tmp_path):
    """As those of earlier versions; stage 1 has none."""
    options = {
        "random": {},
        "old": {"agent_lr": "0.1"},
        "new": {"agent_lr": "0.1", "agent_rule": "published"},
        "reinforce": {"agent_lr": "0.1", "agent_rule": "reinforce"},
    }
    runs = [(arm, [write_run(tmp_path / arm, 1, [0.5], options=own)]) for arm, own in options.items()]
    assert read_arms(runs[:3]).options == {}
    rules = {"old": "published", "new": "published", "reinforce": "reinforce"}
    assert read_arms(runs).options == {"agent_rule": rules}
