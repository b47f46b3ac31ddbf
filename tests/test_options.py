"""Command lines of the five stages: what they mean, and one line for what they cannot."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from support.stages import REPOSITORY

from options.parser import StageParser
from utils.devices import Streams

PREFIX = ("--load_prefix_pose", "lr-0.00025-10.pth.tar")
STAGE1, STAGE3 = "stack-hg.py", "joint-train-pose-s-r-agent.py"
COLLECT = ("collect-scale-distri.py", "collect-rotation-distri.py")
PRETRAIN = "pretrain-s-r-agent.py"


class _Parsed(Exception):  # noqa: N818
    """Ends a stage once its options are known."""


@pytest.fixture
def parse(monkeypatch):
    """`parse(script, *flags)` -> the options that the stage would run with."""
    original = StageParser.parse

    def parse_and_stop(parser):
        raise _Parsed(original(parser))

    def run(script, *flags):
        monkeypatch.setattr(StageParser, "parse", parse_and_stop)
        monkeypatch.setattr("utils.process.run_stage", lambda stage: stage())
        monkeypatch.setattr("utils.signals.end_at_once", lambda: None)
        monkeypatch.setattr(sys, "argv", [script, *flags])
        with pytest.raises(_Parsed) as stopped:
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
        return stopped.value.args[0]

    return run


@pytest.fixture
def refusal(parse, capsys):
    """`refusal(*flags)` -> the one line with which stage 1 ends."""

    def run(*flags):
        with pytest.raises(SystemExit) as end:
            parse(STAGE1, *flags)
        assert end.value.code == 2
        out, line = capsys.readouterr()
        assert out == "" and line.startswith("stack-hg.py: error: ") and line.count("\n") == 1
        return line

    return run


def _assert_options(opt, **expected):
    assert {name: getattr(opt, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("script", "bs"), [(STAGE1, 24), (PRETRAIN, 24), (STAGE3, 24), *[(s, 10) for s in COLLECT]]
)
def test_published_command_lines(parse, script, bs):
    own = {
        STAGE1: ("--vis_env", "stack-2-hgs", "--is_train", "true"),
        PRETRAIN: PREFIX,
        STAGE3: (
            *PREFIX,
            *("--load_prefix_sr", "lr-0.00025-1.pth.tar"),
            *("--vis_env", "stack-2-hgs-joint", "--is_train", "true"),
        ),
    }
    opt = parse(script, "--gpu_id", "0", "--exp_id", "stack-2-hgs", *own.get(script, PREFIX), "--bs", str(bs))
    folder = Path("checkpoints/stack-2-hgs")
    _assert_options(opt, bs=bs, gpu_id=0, exp_folder=folder, data_dir=Path("dataset"), dataset="mpii")
    if script == STAGE3:
        assert opt.joint_folder == folder / "joint-lr-0.00025-10"
        _assert_options(opt, load_prefix_sr="lr-0.00025-1.pth.tar", agent_lr=5e-5, load_checkpoint=False)
    if script not in (STAGE1, STAGE3):
        assert opt.agent_folder == folder / "sr-dir-lr-0.00025-10"


def test_defaults(parse):
    opt = parse(STAGE1, "--exp_id", "a")
    _assert_options(opt, is_train=False, lr=2.5e-4, nEpochs=100, bs=24, nThreads=4, load_prefix_pose=None)
    _assert_options(opt, skip_missing=False, skip_bad=False, overwrite=False, eval_grid=False, limit=None)
    _assert_options(opt, num_stacks=2, num_modules=1, chan=256, in_res=256, out_res=64, precision="fp32")
    assert opt.network == "hourglass"
    _assert_options(opt, use_visdom=True, use_html=True, display_winsize=256, print_freq=10, display_freq=10)


@pytest.mark.parametrize(
    ("flag", "least"),
    [
        ("--bs", 1),
        ("--seed", 0),
        ("--nThreads", 0),
        ("--gpu_id", -1),
        ("--num_stacks", 1),
        ("--num_modules", 1),
        ("--chan", 2),
        ("--in_res", 64),
        ("--vis_port", 1),
        ("--display_winsize", 64),
        ("--keep", 1),
        ("--limit", 1),
    ],
)
def test_the_least_number_is_taken_and_nothing_below(parse, refusal, flag, least):
    name = flag.removeprefix("--")
    assert getattr(parse(STAGE1, "--exp_id", "a", flag, str(least)), name) == least
    line = refusal("--exp_id", "a", flag, str(least - 1))
    assert flag in line and (flag == "--in_res" or f"at least {least}" in line)
    assert ("multiple" in line) == (flag in ("--chan", "--in_res"))


def test_where_visdom_is(parse):
    _assert_options(parse(STAGE1, "--exp_id", "a"), vis_server="http://localhost", vis_port=8097)


@pytest.mark.parametrize(
    "flags", [("--center", "1", "2"), ("--scale", "1"), ("--image", "a.jpg", "--is_train", "true")]
)
def test_what_is_of_one_photograph_is_refused_elsewhere(refusal, flags):
    assert "--image" in refusal("--exp_id", "a", "--load_prefix_pose", "lr-1-0", *flags)


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "false", "FALSE", "0", "no"])
def test_booleans(parse, text):
    assert parse(STAGE1, "--exp_id", "a", "--is_train", text).is_train is (
        text.lower() in ("true", "1", "yes")
    )


@pytest.mark.parametrize(
    ("text", "place"), [("gpu", "gpu"), ("a/gpu", Path("a/gpu")), ("./gpu", Path("gpu"))]
)
def test_a_cache_is_a_folder_or_the_gpu(parse, text, place):
    assert parse(STAGE1, "--exp_id", "a", "--cache", text).cache == place
    assert parse(STAGE1, "--exp_id", "a").cache is None


def test_simple_baseline_needs_no_size(parse):
    opt = parse(STAGE1, "--exp_id", "a", "--network", "simple_baseline", "--chan", "256")  # its default
    _assert_options(opt, network="simple_baseline", in_res=256, out_res=64)


def test_a_folder_below_a_folder_is_an_experiment(parse):
    assert parse(STAGE1, "--exp_id", "a/b", "--exp_dir", "e").exp_folder == Path("e/a/b")


@pytest.mark.parametrize(
    "flags",
    [
        ("--is_train", "maybe"),
        ("--is_train",),
        ("--bs", "0"),
        ("--bs", "2.5"),
        ("--bs", "1", "--in_res", "64", "--is_train", "true"),
        ("--bs", "99999999999999999999"),
        ("--seed", str(2**63)),
        ("--seed", "-1"),
        ("--eval_grid", "true", "--is_train", "true"),
        ("--eval_occlusion", "true", "--is_train", "true"),
        ("--eval_occlusion", "true", "--in_res", "64"),
        ("--eval_occlusion", "true", "--network", "simple_baseline"),
        ("--in_res", "100"),
        ("--network", "resnet"),
        ("--num_stacks", "3", "--network", "simple_baseline"),
        ("--chan", "128", "--network", "simple_baseline"),
        ("--chan", "33"),
        ("--nThreads", "-1"),
        ("--lr", "0"),
        ("--lr", "nan"),
        ("--lr", "fast"),
        ("--dataset", "coco"),
        ("--wrong_flag", "1"),
        ("--nEpoch", "3"),
        ("--load_prefix", "lr-0.00025-10"),
        ("--cache", ""),
    ],
    ids=" ".join,
)
def test_a_wrong_flag_or_value_is_named(refusal, flags):
    assert flags[0] in refusal("--exp_id", "a", *flags)


def test_one_person_a_batch_where_no_statistics_are_learned(parse, capsys):
    one = ("--exp_id", "a", "--bs", "1", "--in_res", "64")
    for script, *flags in ((STAGE1,), (STAGE3, *PREFIX), *((script, *PREFIX) for script in COLLECT)):
        assert parse(script, *one, *flags).bs == 1
    for script, *flags in ((STAGE3, *PREFIX, "--is_train", "true"), (PRETRAIN, *PREFIX)):
        with pytest.raises(SystemExit):
            parse(script, *one, *flags)
        assert "--bs 1" in capsys.readouterr().err


def test_the_largest_seed_seeds(parse):
    opt = parse(STAGE1, "--exp_id", "a", "--seed", str(2**63 - 1))
    torch.manual_seed(opt.seed)  # as a run does, for initial weights
    assert Streams(opt.seed).order.initial_seed() != Streams(opt.seed - 1).order.initial_seed()


@pytest.mark.parametrize("exp_id", ["../x", "/abs", ".", "", "a/..", "a/../.."])
def test_an_experiment_stays_inside_its_folder(refusal, exp_id):
    line = refusal("--exp_id", exp_id)
    assert f"--exp_id {exp_id}:" in line and "checkpoints" in line


def test_an_experiment_needs_a_name(refusal):
    assert "--exp_id" in refusal("--is_train", "true")


@pytest.mark.parametrize("value", ["-0.1", "nan", "inf", "much"])
def test_a_weight_decay_below_0_or_none_is_named(parse, capsys, value):
    with pytest.raises(SystemExit) as end:
        parse(PRETRAIN, "--exp_id", "a", *PREFIX, f"--weight_decay={value}")
    assert end.value.code == 2 and "--weight_decay" in capsys.readouterr().err


def test_pretraining_is_the_papers_unless_asked(parse):
    _assert_options(parse(PRETRAIN, "--exp_id", "a", *PREFIX), mirror=False, weight_decay=0.0)
