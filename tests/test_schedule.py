"""The pose network's learning rate over time, its optimizers, and that resuming keeps both exactly."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from support.experiment import POSE, assert_same_state, rate_of, refusal, run_here
from support.stages import TRAIN

from utils.records.checkpoint import load_checkpoint
from utils.schedule import Schedule, pose_schedule
from utils.system.errors import UserError
from utils.training import Learner

STAGE_1, JOINT = "stack-hg.py", "joint-train-pose-s-r-agent.py"
BATCHES = TRAIN // 4  # of an epoch
RECIPES = {
    "steps": "--lr_steps 1:0.5 2:0.1",
    "onecycle": "--lr_schedule onecycle --optimizer adam",
    "cosine": "--lr_schedule cosine --warmup 0.5 --optimizer adamw --weight_decay 0.01",
}


def options(**flags):
    defaults = {"lr_schedule": "step", "lr_steps": "100:0.2 140:0.5", "warmup": None, "schedule_start": None}
    return SimpleNamespace(**defaults | {"lr": 1.0, "nEpochs": 10} | flags)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1), (77, 1), (99, 1), (100, 0.2), (139, 0.2), (140, 0.1), (500, 0.1)]
)
def test_the_papers_learning_rates(epoch, factor):
    schedule = pose_schedule(options(lr=2.5e-4, nEpochs=200), 0, 0)
    for batch in (0, 9):
        assert schedule.rate(epoch, batch, 10) == pytest.approx(2.5e-4 * factor)


def test_a_rate_that_never_drops_is_said_to_be_one(caplog):
    pose_schedule(options(nEpochs=101), 0, 0)
    assert not caplog.text
    pose_schedule(options(lr=2.5e-4, nEpochs=100), 0, 0)
    (line,) = caplog.messages
    assert line.startswith("the learning rate stays at 0.00025: --nEpochs 100 ends before the first of")
    assert line.endswith(": use a larger --nEpochs or earlier --lr_steps")


@pytest.mark.parametrize(
    ("epoch", "batch", "rate"),
    [
        (5, 0, 0.04),  # 1 / 25
        (6, 2, 0.52),  # half of the rise of three epochs
        (8, 0, 1.0),
        (10, 1, 1 - (1 - 4e-6) * (1 - 0.5**0.5) / 2),  # a quarter of the fall: after 2.25 epochs of 9
        (12, 2, (1 + 4e-6) / 2),
        (16, 3, pytest.approx(0.0019 + 4e-6, abs=1e-4)),  # the last update: (1 - cos(35 / 36 pi)) / 2
    ],
)
def test_onecycle_by_hand(epoch, batch, rate):
    """Of the twelve epochs 5 to 16, of four batches each, three warm up."""
    schedule = pose_schedule(options(lr_schedule="onecycle", nEpochs=17, warmup=3.0), 5, 5)
    assert schedule.rate(epoch, batch, 4) == pytest.approx(rate)


def test_onecycle_is_pytorchs():
    """But for one update: PyTorch's last one has the lowest rate, and its highest comes one earlier."""
    updates, parameter = 2000, torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=updates)
    ours = pose_schedule(options(lr_schedule="onecycle"), 0, 0)
    for update in range(updates):
        assert ours.rate(*divmod(update, 200), 200) == pytest.approx(theirs.get_last_lr()[0], abs=3e-3)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("warmup", "epoch", "batch", "rate"),
    [
        *((None, epoch, batch, rate) for epoch, batch, rate in ((0, 0, 1), (5, 0, 0.5), (7, 1, 0.1464466))),
        *((2.5, epoch, batch, rate) for epoch, batch, rate in ((0, 0, 0.04), (1, 0, 0.424), (2, 1, 1))),
        (2.5, 6, 0, 0.5522642),  # 3.5 of the fall's 7.5 epochs: (1 + cos 84°) / 2
    ],
)
def test_cosine_by_hand(warmup, epoch, batch, rate):
    """Ten epochs of two batches."""
    schedule = pose_schedule(options(lr_schedule="cosine", warmup=warmup), 0, 0)
    assert schedule.rate(epoch, batch, 2) == pytest.approx(rate)


def test_a_curve_starts_where_it_is_told():
    """By default with the stage: resuming changes nothing."""
    flags = {"lr_schedule": "onecycle", "nEpochs": 20}
    assert pose_schedule(options(**flags), 7, 0) == Schedule(1.0, "onecycle", start=0, epochs=20, warmup=6.0)
    joint = pose_schedule(options(**flags), 12, 10)
    assert joint == Schedule(1.0, "onecycle", start=10, epochs=10, warmup=3.0)
    assert pose_schedule(options(**flags, schedule_start=10), 12, 0) == joint


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"warmup": 10.0}, "--warmup 10: the schedule has 10 epochs, 0 to 9: expected fewer"),
        ({"warmup": 5.5, "schedule_start": 5}, "--warmup 5.5: the schedule has 5 epochs, 5 to 9: "),
        ({"schedule_start": 6}, "--schedule_start 6: this run starts with epoch 5: use that or less"),
    ],
)
def test_a_curve_without_room_is_refused(flags, message):
    with pytest.raises(UserError, match=message):
        pose_schedule(options(lr_schedule="cosine", **flags), 5, 0)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adams_step_by_hand(name):
    """Weight decay joins the gradient of Adam, and shrinks the weight itself with AdamW."""
    rate, decay, gradient = 1e-2, 0.1, 3.0
    learner = Learner(torch.nn.Linear(1, 1, bias=False).double(), rate, False, decay, name)
    weight = learner.network.weight.item()
    learner.step((learner.network.weight * gradient).sum())
    if name == "adamw":
        weight *= 1 - rate * decay
    else:
        gradient += decay * weight
    expected = weight - rate * gradient / (abs(gradient) + 1e-8)  # both means are of one gradient
    assert learner.network.weight.item() == pytest.approx(expected, rel=1e-12)
    assert learner.updates == 1


def rates(path):
    return [row["lr"] for row in load_checkpoint(path)["train_history"]]


def based_on(experiment, recipe):
    """Makes an experiment's base that of a recipe: its optimizer has not made a step yet."""
    path = experiment.folder / f"{POSE}.pth.tar"
    name = recipe[recipe.index("--optimizer") + 1] if "--optimizer" in recipe else "rmsprop"
    checkpoint = load_checkpoint(path)
    (group,) = checkpoint["optimizer"]["param_groups"]
    network = torch.nn.ParameterList(torch.nn.Parameter(torch.zeros(1)) for _ in group["params"])
    state = Learner(network, 1e-3, optimizer=name).optimizer.state_dict()
    torch.save(checkpoint | {"optimizer": state, "optimizer_name": name}, path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_stage_1_resumes_a_recipe_exactly(experiment, tmp_path, recipe):
    place = ("--data_dir", experiment.data, "--exp_dir", tmp_path)
    train = ("--is_train", "true", "--nEpochs", 3, "--lr", "0.001", *recipe.split())
    run_here(STAGE_1, *place, "--exp_id", "whole", *train)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    resumed.mkdir()
    shutil.copy(whole / "lr-0.001-0.pth.tar", resumed)
    printed = run_here(STAGE_1, *place, "--exp_id", "resumed", *train, "--load_prefix_pose", "lr-0.001-0")
    assert "was trained with" not in printed
    last = "lr-0.001-2.pth.tar"
    assert_same_state(whole / last, resumed / last)
    schedule = {
        "steps": Schedule(1e-3, steps=((1, 0.5), (2, 0.1))),
        "onecycle": Schedule(1e-3, "onecycle", epochs=3, warmup=0.9),
        "cosine": Schedule(1e-3, "cosine", epochs=3, warmup=0.5),
    }[next(name for name in RECIPES if RECIPES[name] == recipe)]
    assert rates(whole / last) == [schedule.rate(epoch, 0, BATCHES) for epoch in range(3)]
    assert rate_of(whole / last) == schedule.rate(2, BATCHES - 1, BATCHES)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_joint_training_resumes_a_recipe_exactly(changeable, tmp_path, recipe):
    """A curve is that of its own epochs, and stage 1 can be given the same for an arm beside it."""
    based_on(changeable, recipe.split())
    train = ("--is_train", "true", "--nEpochs", 3, *recipe.split())
    agent = ("--load_prefix_sr", "lr-0.00025-1", "--agent_iters", 1)
    run_here(JOINT, *changeable.flags, *agent, *train)
    other = changeable.copy(tmp_path / "resumed")
    for path in other.joint_folder.glob("*-lr-*-[23]*"):
        if path.name.startswith("pose-lr-0.00025-2") or path.name.startswith("agent-lr-0.00005-3"):
            path.unlink()
    run_here(JOINT, *other.flags, "--load_checkpoint", "true", "--agent_iters", 1, *train)
    last = "pose-lr-0.00025-2.pth.tar"
    for name in (last, "agent-lr-0.00005-3.pth.tar"):
        assert_same_state(changeable.joint_folder / name, other.joint_folder / name)
    assert rate_of(changeable.joint_folder / "agent-lr-0.00005-3.pth.tar") == pytest.approx(5e-5)
    start = () if recipe == RECIPES["steps"] else ("--schedule_start", 1)
    run_here(STAGE_1, *changeable.flags, *train, *start)
    assert rates(changeable.folder / "lr-0.00025-2.pth.tar") == rates(changeable.joint_folder / last)
    if start:
        assert rates(changeable.joint_folder / last)[1] < 2.5e-5  # it begins with its warm-up


@pytest.mark.slow
def test_resuming_with_another_recipe(changeable):
    """Another optimizer is refused; another end of the curve is said, since it changes the rates."""
    flags = (*changeable.flags, "--is_train", "true")
    message = refusal(STAGE_1, *flags, "--nEpochs", 2, "--optimizer", "adam")
    assert "was trained with --optimizer rmsprop, this run has adam" in message
    assert not (changeable.folder / "lr-0.00025-1.pth.tar").exists()
    curve = ("--lr_schedule", "cosine")
    run_here(STAGE_1, *flags, *curve, "--nEpochs", 2)
    again = (*changeable.place, "--is_train", "true", *curve, "--load_prefix_pose", "lr-0.00025-1")
    printed = run_here(STAGE_1, *again, "--nEpochs", 3)
    assert "was trained with --nEpochs 2, this run resumes with --nEpochs 3" in printed
