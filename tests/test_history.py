"""What a run remembers of its epochs: means, rows, events, files; the optimiser's step, and resuming."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import torch

from data.people import People
from data.skeleton import MPII
from options.parser import RECIPE
from utils.agents import AGENTS
from utils.agents.joint import warn_of_default_rate
from utils.evaluation.meters import Meters
from utils.records.epochs import Retention, epoch_files, later_best, refuse_to_overwrite, save_epoch
from utils.records.events import EventLog, current_events, read_events
from utils.records.history import History, best_epoch, format_value
from utils.records.predictions import encode_predictions, refuse_other_people
from utils.system.errors import UserError
from utils.training import Learner, fresh_or_resumed, warn_of_other_people, warn_of_other_recipe


def test_means_count_people():
    means = Meters("loss", "pck")
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


def test_the_best_epoch_is_that_of_the_highest_average_precision_where_there_is_one():
    aps = (0.2, 0.4, math.nan)
    rows = [{"epoch": k, "valid_ap": ap, "valid_pck": 1 - ap} for k, ap in enumerate(aps)]
    assert best_epoch(rows) == 1
    assert (
        best_epoch([{"epoch": k, "valid_ap": 0.0, "valid_pck": pck} for k, pck in enumerate((0, 1, 1))]) == 1
    )


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
    pck = {"Head": math.inf, "Hip": 0.5}
    log.add({"kind": "epoch", "loss": math.nan, "pck": pck, "shares": [1, [2, math.nan]]})
    (event,) = read_events(path)  # before the log is closed
    assert event == {
        "kind": "epoch",
        "loss": None,
        "pck": {"Head": None, "Hip": 0.5},
        "shares": [1, [2, None]],
    }
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


# Files of epochs, and going on from them


def names(paths):
    return sorted(path.name for path in paths)


@pytest.fixture
def folder(tmp_path):
    """What two epochs of each network and an evaluation leave, and files that no run has written."""
    save_epoch(tmp_path, "lr-0.001-9", {}, True, {".mat": b"preds", ".json": b"[]"})
    save_epoch(tmp_path, "pose-lr-0.001-10", {}, True, {".mat": b"preds"})
    save_epoch(tmp_path, "agent-lr-0.001-3", {}, False)
    (tmp_path / "web").mkdir()
    for name in ("epoch-10", "evaluation-lr-0.001-9-first-2", "index", "evaluations", "notes"):
        (tmp_path / "web" / f"{name}.html").touch()
    for name in (
        "lr-0.001-9-grid.txt",
        "lr-0.001-9-preds-demo.mat",
        "lr-0.001-9-preds-boxes.json",
        "my-grid.search.txt",
        "opt.txt",
    ):
        (tmp_path / name).touch()
    return tmp_path


def test_files_of_epochs_are_told_by_their_names(folder):
    found = {file.path.name: (file.epoch, file.best, file.companion) for file in epoch_files(folder)}
    ends = (".pth.tar", "-preds.mat", "-preds.json", "-preds-demo.mat", "-preds-boxes.json", "-grid.txt")
    ninth = [f"lr-0.001-9{end}" for end in ends]
    tenth = ("pose-lr-0.001-10.pth.tar", "pose-lr-0.001-10-preds.mat", "epoch-10.html")
    assert found == {
        **dict.fromkeys((*ninth, "evaluation-lr-0.001-9-first-2.html"), (9, False, False)),
        **dict.fromkeys(tenth, (10, False, False)),
        "agent-lr-0.001-3.pth.tar": (3, False, True),
        "lr-0.001-9-model-best.pth.tar": (9, True, False),
        "lr-0.001-9-preds-best.mat": (9, True, False),
        "lr-0.001-9-preds-best.json": (9, True, False),
        "pose-lr-0.001-10-model-best.pth.tar": (10, True, False),
        "pose-lr-0.001-10-preds-best.mat": (10, True, False),
    }


def test_a_run_from_the_start_refuses_or_gives_up_earlier_results(folder, tmp_path):
    with pytest.raises(UserError, match=r"already has results.*--resume to resume"):
        refuse_to_overwrite(folder, False, "--resume")
    given_up = {path.relative_to(folder).as_posix() for path in refuse_to_overwrite(folder, True, "")}
    mine = {"my-grid.search.txt", "opt.txt", "web/notes.html"}
    assert given_up == {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} - mine
    assert refuse_to_overwrite(tmp_path / "none", False, "") == []


def test_best_files_of_later_epochs_are_named_once(folder, caplog):
    (folder / "agent-lr-0.001-40.pth.tar").touch()  # agents count epochs of their own
    assert later_best(folder, 11) == [] and not caplog.text
    tenth = ["pose-lr-0.001-10-model-best.pth.tar", "pose-lr-0.001-10-preds-best.mat"]
    assert names(later_best(folder, 10)) == tenth
    assert "pose-lr-0.001-10.pth.tar already exists" in caplog.text
    caplog.clear()
    ninth = [f"lr-0.001-9-{end}" for end in ("model-best.pth.tar", "preds-best.json", "preds-best.mat")]
    both = sorted([*tenth, *ninth])
    assert names(later_best(folder, 9)) == both
    assert "/lr-0.001-9.pth.tar already exists" in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize(
    ("keep", "left"),
    [(None, {1, 2, 4, 5}), (1, {2, 5}), (2, {2, 4, 5}), (4, {2, 4, 5}), (9, {1, 2, 4, 5})],
)
def test_the_newest_epochs_and_the_best_stay(tmp_path, keep, left):
    old = tmp_path / "old"
    old.touch()
    kept = Retention(keep, [old, tmp_path / "lr-1-1.pth.tar", tmp_path / "gone"])
    for epoch, best in enumerate((True, True, False, False, False), 1):
        kept.add(save_epoch(tmp_path, f"lr-1-{epoch}", {}, best), best)
        assert (tmp_path / f"lr-1-{epoch}.pth.tar").exists() and old.exists() == (epoch > 1)
        old.touch()  # from now on it is someone else's
        if epoch == 3:
            (tmp_path / "lr-1-3.pth.tar").unlink()  # as a user may
    assert {file.epoch for file in epoch_files(tmp_path)} == left


def a_run(folder, **options):
    """What resuming needs of a run."""
    defaults = {"seed": 4, "overwrite": False, "nEpochs": 9, "keep": None}
    people = {"dataset": "demo", "train": "t", "valid": "v"}
    opt = SimpleNamespace(**defaults | options)
    opt.recipe = {name: value for name, value in vars(opt).items() if name in RECIPE}
    opt.given = set(options)
    names = {"people": people, "folder": folder, "network_size": {"chan": 8}, "skeleton": MPII}
    return SimpleNamespace(opt=opt, trained_joints=np.ones(16, bool), **names)


def test_a_checkpoint_goes_on_where_it_was(tmp_path, caplog):
    caplog.set_level("INFO")
    learner, run = Learner(torch.nn.Linear(1, 1), 1e-2), a_run(tmp_path)
    learner.step(learner.network.weight.sum())
    assert all(parameter.grad is None for parameter in learner.network.parameters())  # none is held
    learner.epoch = 5
    learner.history.append({"epoch": 5})
    checkpoint = learner.checkpoint(run)
    again = Learner(torch.nn.Linear(1, 1), 1.0)
    fresh_or_resumed(run, again, checkpoint, tmp_path / "a", "")
    assert again.epoch == 6 and again.history.rows == [{"epoch": 5}] and not caplog.text
    assert again.optimizer.param_groups[0]["lr"] == 1e-2 and again.optimizer.state_dict()["state"]
    fresh_or_resumed(a_run(tmp_path, seed=5), again, checkpoint, tmp_path / "a", "")
    assert "resumes with --seed 5" in caplog.text


def test_what_cannot_go_on_says_so(tmp_path, caplog):
    learner = Learner(torch.nn.Linear(1, 1), 1e-2)
    learner.epoch = 8
    checkpoint = learner.checkpoint(a_run(tmp_path))
    with pytest.raises(UserError, match=r"--nEpochs 9 .* 9 epochs .* use --nEpochs 19 to train"):
        fresh_or_resumed(a_run(tmp_path), learner, checkpoint, tmp_path / "a", "")
    fresh_or_resumed(a_run(tmp_path, nEpochs=10), learner, checkpoint, tmp_path / "a", "")
    for damaged in (checkpoint | {"optimizer": {}}, {"epoch": 3}):
        with pytest.raises(UserError, match="can be evaluated, but not"):
            learner.restore(damaged, tmp_path / "a")
    assert not caplog.text
    warn_of_other_people(a_run(tmp_path), {}, tmp_path / "a")  # it does not say whose it is
    assert not caplog.text
    theirs = {"people": {"dataset": "mpii", "train": "t", "valid": "w"}}
    warn_of_other_people(a_run(tmp_path), theirs, tmp_path / "a")
    (line,) = caplog.messages
    assert "valid people are from mpii and have the fingerprint w, not v" in line


def test_joint_training_says_that_its_rate_is_the_default(tmp_path, caplog):
    stage_1 = Learner(torch.nn.Linear(1, 1), 1e-2).checkpoint(a_run(tmp_path, lr=0.001))
    run = a_run(tmp_path, lr=0.00025)
    warn_of_default_rate(run, stage_1)  # given
    run.opt.given = set()
    warn_of_default_rate(run, {})  # of an earlier version
    assert not caplog.text
    warn_of_default_rate(run, stage_1)
    (told,) = caplog.messages
    assert told == "the pose network trains on with --lr 0.00025, the default; stage 1 had --lr 0.001"


def test_resuming_with_other_flags_is_said_in_one_line(tmp_path, caplog):
    learner, flags = Learner(torch.nn.Linear(1, 1), 1e-2), {"agent_draws": "uniform", "bs": 6, "lr": 0.001}
    checkpoint = learner.checkpoint(a_run(tmp_path, **flags))
    assert checkpoint["recipe"] == flags | {"seed": 4}
    warn_of_other_recipe(a_run(tmp_path, **flags, keep=3), checkpoint, tmp_path / "a")
    warn_of_other_recipe(a_run(tmp_path), checkpoint, tmp_path / "a")  # a stage without these flags
    without = {name: value for name, value in checkpoint.items() if name != "recipe"}  # an earlier version's
    warn_of_other_recipe(a_run(tmp_path, **flags | {"bs": 7}), without, tmp_path / "a")
    assert not caplog.text
    other = a_run(tmp_path, **flags | {"agent_draws": "learned", "bs": 7})
    warn_of_other_recipe(other, checkpoint, tmp_path / "a")
    (line,) = caplog.messages
    theirs, ours = "--agent_draws uniform --bs 6", "--agent_draws learned --bs 7"
    assert line == f"{tmp_path / 'a'} was trained with {theirs}, this run resumes with {ours}"


@pytest.mark.parametrize(("theirs", "ours"), [("adam", "rmsprop"), ("adam", "adamw"), ("rmsprop", "adam")])
def test_the_state_of_another_optimizer_is_refused(tmp_path, theirs, ours):
    learners = {name: Learner(torch.nn.Linear(1, 1), 1e-2, optimizer=name) for name in (theirs, ours)}
    checkpoint = learners[theirs].checkpoint(a_run(tmp_path))
    if theirs == "rmsprop":
        del checkpoint["optimizer_name"]  # an earlier version's
    learners[theirs].restore(checkpoint, tmp_path / "a")
    found = f"a was trained with --optimizer {theirs}, this run has {ours}, .*: use --optimizer {theirs}"
    with pytest.raises(UserError, match=found):
        learners[ours].restore(checkpoint, tmp_path / "a")


def test_predictions_say_whose_they_are(tmp_path):
    names, ones = np.array(["a.jpg", "b.jpg"]), np.ones(2, np.float32)
    center, points = np.array([[1, 2], [3, 4]], np.float32), np.ones((2, 16, 2), np.float32)
    people = People(names, center, 3 * ones, points, ones, ones > 0)
    path, preds = tmp_path / "preds.mat", torch.rand(2, 16, 2)
    path.write_bytes(encode_predictions(preds, people))
    found = scipy.io.loadmat(path)
    assert np.array_equal(found["preds"], preds.double().numpy())
    assert [str(name.item()) for name in found["image"][:, 0]] == ["a.jpg", "b.jpg"]
    assert found["center"].tolist() == [[1, 2], [3, 4]] and found["scale"].tolist() == [[3], [3]]
    assert found["people"].item() == people.fingerprint
    refuse_other_people(path, people, False)
    refuse_other_people(tmp_path / "none.mat", people, False)
    refuse_other_people(path, people[:1], True)
    for others in (people[:1], people[np.array([1, 0])]):
        with pytest.raises(UserError, match=f"2 other people, this run has {len(others)}"):
            refuse_other_people(path, others, False)
    scipy.io.savemat(path, {"preds": np.zeros((2, 16, 2))})  # as the 2018 release wrote it
    refuse_other_people(path, people, False)
    with pytest.raises(UserError, match="other people"):
        refuse_other_people(path, people[:1], False)
    for content in (b"no MATLAB", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="--overwrite true replaces it"):
            refuse_other_people(path, people, False)


def test_a_prefix_that_files_of_an_epoch_cannot_have_is_refused():
    for agent in AGENTS.values():
        assert replace(agent, prefix="own-").prefix == "own-"
    for prefix in ("two-hands-", "hands2-", "hands"):
        with pytest.raises(ValueError, match=f"prefix '{prefix}': expected lower-case letters and a hyphen"):
            replace(AGENTS["agent"], prefix=prefix)
