"""What a run remembers of its epochs: means, rows, events, and the optimiser's step."""

import json
import math

import pytest
import torch

from utils.display.events import EventLog, current_events, read_events
from utils.errors import UserError
from utils.history import History, best_epoch, format_value
from utils.means import Means
from utils.training import Learner


def test_means_count_people():
    means = Means("loss", "pck")
    assert all(math.isnan(value) for value in means.read().values())
    means.add(3, loss=torch.tensor(1.0, requires_grad=True), pck=0.5)
    means.add(1, loss=torch.tensor([3.0]).sum(), pck=0.1)
    assert means.read() == pytest.approx({"loss": 1.5, "pck": 0.4})


@pytest.mark.parametrize(
    ("values", "highest", "lowest"),
    [
        ([0.5], True, True),
        ([0.0], True, True),
        ([math.nan], False, False),
        ([0.5, 0.6], True, False),
        ([0.5, 0.4], False, True),
        ([0.5, 0.5], False, False),
        ([0.3, 0.7, 0.5], False, False),
        ([math.nan, 0.5], True, True),
        ([0.5, math.nan], False, False),
        ([0.5, math.nan, 0.6], True, False),
        ([None, 0.5], True, True),
        ([0.5, None], False, False),
    ],
)
def test_an_epoch_is_the_best_if_it_is_better_than_all_before(values, highest, lowest):
    """The pose network's by the highest PCK, an agent's by its lowest loss."""
    for name, best in (("valid_pck", highest), ("valid_loss", lowest)):
        history = History()
        for epoch, value in enumerate(values):
            history.append({"epoch": epoch} if value is None else {"epoch": epoch, name: value})
        assert history.improved() is best


def test_the_best_epoch_is_that_of_the_highest_pck_not_of_the_least_loss():
    assert best_epoch([]) is None and best_epoch([{"epoch": 0, "valid_pck": math.nan}]) is None
    rows = [{"epoch": 4 + k, "valid_pck": pck, "valid_loss": -pck} for k, pck in enumerate((0.1, 0.3, 0.3))]
    assert best_epoch([*rows, {"epoch": 9, "valid_loss": -1.0}]) == 5


def test_a_history_is_told_as_a_table():
    assert History().table() == ""
    rows = [{"epoch": 0, "loss": 0.123456789}, {"epoch": 10, "loss": 2.0, "shares": [0.25, 0.75]}]
    assert History(rows).table() == (
        "epoch      loss         shares\n    0  0.123457               \n   10         2  0.2500,0.7500\n"
    )
    assert [format_value(value) for value in (1e-7, "text", 12)] == ["1e-07", "text", "12"]


@pytest.mark.parametrize("stored", [None, {"epoch": [0]}, [1, 2], [{"epoch": 0}, 1]])
def test_histories_of_another_form_are_empty(stored):
    assert History.of_checkpoint({"train_history": stored}).rows == []
    assert History.of_checkpoint({}).rows == []


def test_a_history_does_not_share_its_rows():
    rows = [{"epoch": 0}]
    history = History.of_checkpoint({"train_history": rows})
    history.append({"epoch": 1})
    assert len(rows) == 1 and [row["epoch"] for row in history.rows] == [0, 1]


def test_events_are_written_at_once_and_whole(tmp_path):
    path = tmp_path / "log.jsonl"
    log = EventLog(path)
    log.add({"kind": "epoch", "loss": math.nan, "pck": {"Head": math.inf, "Hip": 0.5}, "shares": [1, 2]})
    (event,) = read_events(path)  # before the log is closed
    assert event == {"kind": "epoch", "loss": None, "pck": {"Head": None, "Hip": 0.5}, "shares": [1, 2]}
    with pytest.raises(ValueError, match="JSON"):
        log.add({"kind": "epoch", "shares": [math.nan]})
    log.close()
    assert log._file.closed
    EventLog(path).add({"kind": "end"})
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["epoch", "end"]


def test_what_is_no_event_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"kind": "start"}\n[1]\n{"epoch": 3}\n"kind"\n\n{"kind": "ba')
    log = EventLog(path)  # a run was killed in the midst of a line
    log.add({"kind": "end"})
    log.close()
    assert [event["kind"] for event in read_events(path)] == ["start", "end"]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        EventLog(tmp_path)


def event(kind, epoch=None, **fields):
    return {"kind": kind, **({} if epoch is None else {"epoch": epoch}), **fields}


def test_epochs_that_are_trained_anew_replace_the_earlier_ones():
    first = [event("start", 0), *(event(kind, epoch) for epoch in range(3) for kind in ("batch", "epoch"))]
    start, end = event("start", 1), event("end")
    assert current_events([*first, end, start, end]) == [*first, end, start, end]
    batch, epoch = event("batch", 1, again=True), event("epoch", 1, again=True)
    kept = [one for one in first if one["kind"] != "batch" or one["epoch"] < 1]
    assert current_events([*first, start, batch]) == [*kept, start, batch]
    kept = [one for one in first if one["kind"] == "start" or one["epoch"] < 1]
    assert current_events([*first, start, batch, epoch]) == [*kept, start, batch, epoch]
    last = event("epoch", 2, again=True)
    assert current_events([*first, start, epoch, last]) == [*kept, start, epoch, last]


@pytest.mark.parametrize("gradient", [1e-8, 1.0, -3.0])
def test_the_papers_optimiser_step_by_hand(gradient):
    """RMSprop, which divides by the root of the running mean square, begun at 0, and eps."""
    learner = Learner(torch.nn.Linear(1, 1, bias=False).double(), 1e-2)
    weight, square = learner.network.weight.item(), 0.0
    for _ in range(3):
        value = learner.step((learner.network.weight * gradient).sum())
        assert value == pytest.approx(weight * gradient)
        square = 0.99 * square + 0.01 * gradient**2
        weight -= 1e-2 * gradient / (square**0.5 + 1e-8)
        assert learner.network.weight.item() == pytest.approx(weight, rel=1e-9)
    assert learner.epoch == 0 and learner.history.rows == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(loss):
    learner = Learner(torch.nn.Linear(1, 1), 1e-2)
    before = learner.network.weight.item()
    with pytest.raises(UserError, match="smaller learning rate"):
        learner.step(learner.network.weight.sum() * loss)
    assert learner.network.weight.item() == before
    with pytest.raises(UserError, match="training stops"):
        learner.require_finite()
