"""Command lines of the five stages: what they mean, and one line for what they cannot."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.experiment import parsed
from support.stages import REPOSITORY

from utils.agents import AGENTS
from utils.system.devices import Streams

PREFIX = ("--load_prefix_pose", "lr-0.00025-10.pth.tar")
STAGE1, STAGE3 = "stack-hg.py", "joint-train-pose-s-r-agent.py"
COLLECT = ("collect-scale-distri.py", "collect-rotation-distri.py")
PRETRAIN = "pretrain-s-r-agent.py"


@pytest.fixture
def refusal(capsys):
    """`refusal(*flags)` -> the one line with which stage 1 ends."""

    def run(*flags):
        with pytest.raises(SystemExit) as end:
            parsed(STAGE1, *flags)
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
def test_published_command_lines(script, bs):
    own = {
        STAGE1: ("--vis_env", "stack-2-hgs", "--is_train", "true"),
        PRETRAIN: PREFIX,
        STAGE3: (
            *PREFIX,
            *("--load_prefix_sr", "lr-0.00025-1.pth.tar"),
            *("--vis_env", "stack-2-hgs-joint", "--is_train", "true"),
        ),
    }
    flags = ("--gpu_id", "0", "--exp_id", "stack-2-hgs", *own.get(script, PREFIX), "--bs", str(bs))
    opt = parsed(script, *flags)
    folder = Path("checkpoints/stack-2-hgs")
    _assert_options(opt, bs=bs, gpu_id=0, exp_folder=folder, data_dir=Path("dataset"), dataset="mpii")
    if script == STAGE3:
        assert opt.joint_folder == folder / "joint-lr-0.00025-10"
        _assert_options(opt, load_prefix_sr="lr-0.00025-1", agent_lr=5e-5, load_checkpoint=False)
    if script not in (STAGE1, STAGE3):
        assert opt.agent_folders["agent"] == folder / "sr-dir-lr-0.00025-10"


def test_defaults():
    opt = parsed(STAGE1, "--exp_id", "a")
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
def test_the_least_number_is_taken_and_nothing_below(refusal, flag, least):
    name = flag.removeprefix("--")
    train = ("--exp_id", "a", "--is_train", "true")
    assert getattr(parsed(STAGE1, *train, flag, str(least)), name) == least
    line = refusal(*train, flag, str(least - 1))
    assert flag in line and (flag == "--in_res" or f"at least {least}" in line)
    assert ("multiple" in line) == (flag in ("--chan", "--in_res"))


def test_where_visdom_is():
    _assert_options(parsed(STAGE1, "--exp_id", "a"), vis_server="http://localhost", vis_port=8097)


@pytest.mark.parametrize(
    "flags", [("--center", "1", "2"), ("--scale", "1"), ("--image", "a.jpg", "--is_train", "true")]
)
def test_what_is_of_one_photograph_is_refused_elsewhere(refusal, flags):
    assert "--image" in refusal("--exp_id", "a", "--load_prefix_pose", "lr-1-0", *flags)


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "false", "FALSE", "0", "no"])
def test_booleans(text):
    assert parsed(STAGE1, "--exp_id", "a", "--is_train", text).is_train is (
        text.lower() in ("true", "1", "yes")
    )


@pytest.mark.parametrize(
    ("text", "place"), [("gpu", "gpu"), ("a/gpu", Path("a/gpu")), ("./gpu", Path("gpu"))]
)
def test_a_cache_is_a_folder_or_the_gpu(text, place):
    assert parsed(STAGE1, "--exp_id", "a", "--cache", text).cache == place
    assert parsed(STAGE1, "--exp_id", "a").cache is None


@pytest.mark.parametrize("network", ["simple_baseline", "feature_pyramid"])
def test_a_network_on_a_backbone_needs_no_size(network):
    opt = parsed(STAGE1, "--exp_id", "a", "--network", network)
    _assert_options(opt, network=network, backbone="resnet50", chan=256, in_res=256, out_res=64)


def test_a_folder_below_a_folder_is_an_experiment():
    assert parsed(STAGE1, "--exp_id", "a/b", "--exp_dir", "e").exp_folder == Path("e/a/b")


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
        ("--backbone", "resnet18"),
        ("--pretrained", "true", "--is_train", "true"),
        (
            "--pretrained",
            "true",
            "--backbone_weights",
            "a.pth",
            "--network",
            "simple_baseline",
            "--is_train",
            "true",
        ),
        ("--chan", "33"),
        ("--nThreads", "-1"),
        ("--lr", "0"),
        ("--lr", "nan"),
        ("--lr", "fast"),
        ("--dataset", "posetrack"),
        ("--annotations_valid", "a.json"),
        ("--images", "a"),
        ("--mirror_pairs", "l:r"),
        ("--mirror_pairs", "left", "--dataset", "coco"),
        ("--mirror_pairs", "l:l", "--dataset", "coco"),
        ("--wrong_flag", "1"),
        ("--nEpoch", "3"),
        ("--load_prefix", "lr-0.00025-10"),
        ("--cache", ""),
    ],
    ids=" ".join,
)
def test_a_wrong_flag_or_value_is_named(refusal, flags):
    assert flags[0] in refusal("--exp_id", "a", *flags)


def test_one_person_a_batch_where_no_statistics_are_learned(capsys):
    one = ("--exp_id", "a", "--bs", "1", "--in_res", "64")
    for script, *flags in ((STAGE1,), (STAGE3, *PREFIX), *((script, *PREFIX) for script in COLLECT)):
        assert parsed(script, *one, *flags).bs == 1
    for script, *flags in ((STAGE3, *PREFIX, "--is_train", "true"), (PRETRAIN, *PREFIX)):
        with pytest.raises(SystemExit):
            parsed(script, *one, *flags)
        assert "--bs 1" in capsys.readouterr().err


def test_the_largest_seed_seeds():
    opt = parsed(STAGE1, "--exp_id", "a", "--seed", str(2**63 - 1))
    torch.manual_seed(opt.seed)  # as a run does, for initial weights
    assert Streams(opt.seed)["order"].initial_seed() != Streams(opt.seed - 1)["order"].initial_seed()


@pytest.mark.parametrize("exp_id", ["../x", "/abs", ".", "", "a/..", "a/../.."])
def test_an_experiment_stays_inside_its_folder(refusal, exp_id):
    line = refusal("--exp_id", exp_id)
    assert f"--exp_id {exp_id}:" in line and "checkpoints" in line


def test_an_experiment_needs_a_name(refusal):
    assert "--exp_id" in refusal("--is_train", "true")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *((step, f"{step!r}: expected EPOCH:FACTOR") for step in ("10", "a:1", "10:0", "", "1.5:1", "1:nan")),
        ("20:0.5 10:0.5", "'10:0.5': expected an epoch after 20"),
        ("20:0.5 20:0.1", "'20:0.1': expected an epoch after 20"),
    ],
)
def test_wrong_steps_of_the_learning_rate_are_named(refusal, given, message):
    assert message in refusal("--exp_id", "a", *TRAIN, "--lr_steps", *given.split(" "))


def test_steps_of_the_learning_rate_are_one_text():
    """So that logs and records show them as they are typed, and a command line may hold them as one word."""
    for words in (("5:1", "09:0.50"), ("5:1 9:5e-1",)):
        assert parsed(STAGE1, "--exp_id", "a", *TRAIN, "--lr_steps", *words).lr_steps == "5:1.0 9:0.5"


def test_the_end_is_part_of_a_recipe_whose_rate_depends_on_it():
    for flags, part in (((), False), (("--lr_schedule", "cosine"), True)):
        assert ("nEpochs" in parsed(STAGE1, "--exp_id", "a", *TRAIN, *flags).recipe) == part


@pytest.mark.parametrize("value", ["-0.1", "nan", "inf", "much"])
def test_a_weight_decay_below_0_or_none_is_named(capsys, value):
    with pytest.raises(SystemExit) as end:
        parsed(PRETRAIN, "--exp_id", "a", *PREFIX, f"--weight_decay={value}")
    assert end.value.code == 2 and "--weight_decay" in capsys.readouterr().err


def test_pretraining_is_the_papers_unless_asked():
    _assert_options(parsed(PRETRAIN, "--exp_id", "a", *PREFIX), mirror=False, weight_decay=0.0)


TRAIN = ("--is_train", "true")
SR, OCC = ("--load_prefix_sr", "lr-0.001-1"), ("--load_prefix_occ", "lr-0.001-1")
BASELINE = ("--network", "simple_baseline")
START = ("--pretrained true", "--backbone_weights a.pth")
RESUMED = (*PREFIX, *TRAIN, "--load_checkpoint", "true")


@pytest.mark.parametrize(
    ("script", "flags", "idle"),
    [
        *((STAGE1, PREFIX, flag) for flag in ("--lr 1", "--nEpochs 3", "--keep 1", "--sync_bn true")),
        (STAGE1, (*PREFIX, *TRAIN), "--sync_bn true"),  # without torchrun
        *(
            (STAGE1, PREFIX, flag)
            for flag in ("--optimizer adam", "--lr_schedule cosine", "--weight_decay 1")
        ),
        *((STAGE1, (*PREFIX, *TRAIN), flag) for flag in ("--warmup 3", "--schedule_start 2")),
        (STAGE1, (*PREFIX, *TRAIN, "--lr_schedule", "onecycle"), "--lr_steps 5:0.1"),
        *((STAGE1, (*PREFIX, *TRAIN), flag) for flag in ("--eval_grid true", "--image a.jpg")),
        *((STAGE1, PREFIX, flag) for flag in ("--center 1 2", "--scale 1")),
        *(
            (STAGE1, (*PREFIX, "--image", "a.jpg"), flag)
            for flag in ("--eval_grid true", "--eval_occlusion true", "--keep 1", "--overwrite true")
        ),
        (STAGE1, (*PREFIX, *BASELINE), "--num_stacks 2"),  # though it is the default
        *((STAGE1, (*PREFIX, *BASELINE), flag) for flag in START),  # a checkpoint has all weights
        *((STAGE1, (*PREFIX, *TRAIN, *BASELINE), flag) for flag in START),
        (PRETRAIN, PREFIX, " ".join(OCC)),
        (PRETRAIN, PREFIX, "--occ_dir a"),
        *((PRETRAIN, (*PREFIX, "--occlusion", "true"), flag) for flag in (" ".join(SR), "--sr_dir a")),
        *(
            (STAGE3, PREFIX, flag)
            for flag in (" ".join(SR), "--agent_lr 1", "--agent_draws uniform", "--joint_dir a")
        ),
        *((STAGE3, (*PREFIX, *TRAIN, *SR), flag) for flag in ("--occ_draws learned", "--occ_dir a")),
        *((STAGE3, (*PREFIX, *TRAIN, *OCC), flag) for flag in ("--agent_draws learned", "--sr_dir a")),
        *(
            (STAGE3, (*PREFIX, *TRAIN, *SR, "--agent_draws", draws), idle)
            for draws in ("uniform", "pretrained")
            for idle in ("--agent_iters 3", "--agent_rule reinforce")
        ),
        *((STAGE3, RESUMED, flag) for flag in (" ".join(SR), " ".join(OCC))),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(capsys, script, flags, idle):
    parsed(script, "--exp_id", "a", *flags)
    with pytest.raises(SystemExit) as end:
        parsed(script, "--exp_id", "a", *flags, *idle.split())
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1
    assert line.startswith(f"{script}: error: {idle.split()[0]} applies only ")


def test_flags_apply_where_they_do_something(monkeypatch):
    both = ("--agent_draws", "uniform", "--occ_draws", "learned", "--agent_iters", "3")
    _assert_options(parsed(STAGE3, "--exp_id", "a", *PREFIX, *TRAIN, *SR, *OCC, *both), agent_iters=3)
    _assert_options(parsed(STAGE3, "--exp_id", "a", *RESUMED, *both), agent_iters=3)
    parsed(STAGE3, "--exp_id", "a", *PREFIX, "--joint_dir", "b", "--load_checkpoint", "true")
    parsed(STAGE1, "--exp_id", "a", *TRAIN, "--eval_grid", "false", "--sync_bn", "false")  # as they say
    curve = ("--lr_schedule", "cosine", "--warmup", "0.5", "--schedule_start", "2")
    _assert_options(parsed(STAGE3, "--exp_id", "a", *RESUMED, *curve), warmup=0.5, schedule_start=2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert parsed(STAGE1, "--exp_id", "a", *TRAIN, "--sync_bn", "true").sync_bn


def test_the_help_says_when_a_flag_applies(capsys):
    with pytest.raises(SystemExit):
        parsed(STAGE1, "--help")
    told = " ".join(capsys.readouterr().out.split())
    assert "default: keep all; only with --is_train true" in told
    assert "only with --network hourglass" in told and "torchrun" in told
    with pytest.raises(SystemExit):
        parsed(PRETRAIN, "--help")
    assert "--is_train" not in capsys.readouterr().out  # which pretraining has not


@pytest.mark.parametrize("suffix", ["", ".pth.tar"])
@pytest.mark.parametrize("way", ["{name}", "./{name}", "{folder}/{name}", "{here}/{folder}/{name}"])
def test_every_way_to_name_a_checkpoint_means_the_same(monkeypatch, tmp_path, way, suffix):
    monkeypatch.chdir(tmp_path)
    agents = {name: f"checkpoints/a/{agent.default_folder}-lr-0.001-1" for name, agent in AGENTS.items()}
    folders = {"load_prefix_pose": "checkpoints/a", **{AGENTS[name].load: agents[name] for name in AGENTS}}
    flags = []
    for name, folder in folders.items():
        flags += [f"--{name}", way.format(name="lr-0.001-1", folder=folder, here=tmp_path) + suffix]
    opt = parsed(STAGE3, "--exp_id", "a", *TRAIN, *flags)
    _assert_options(opt, **dict.fromkeys(folders, "lr-0.001-1"))
    assert opt.agent_folders == {name: Path(folder) for name, folder in agents.items()}
    assert opt.joint_folder == Path("checkpoints/a/joint-lr-0.001-1")


def test_a_checkpoint_of_another_experiment_is_said_to_be_one(refusal):
    for path in (
        "checkpoints/b/lr-1-0.pth.tar",
        "/elsewhere/lr-1-0",
        "checkpoints/a/joint-lr-1-0/pose-lr-1-1",
    ):
        line = refusal("--exp_id", "a", "--load_prefix_pose", path)
        assert f"--load_prefix_pose {path} is in {Path(path).parent}: " in line
        assert "expected a checkpoint in checkpoints/a" in line


def test_an_experiments_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a").symlink_to(tmp_path / "disk")
    place = ("--exp_dir", str(tmp_path / "checkpoints"), "--exp_id", "a")
    opt = parsed(STAGE1, *place, "--load_prefix_pose", str(tmp_path / "disk" / "lr-1-0.pth.tar"))
    _assert_options(opt, exp_folder=tmp_path / "checkpoints" / "a", load_prefix_pose="lr-1-0")


def test_several_gpus_are_torchruns(refusal):
    line = refusal("--exp_id", "a", "--gpu_id", "0,3")
    assert "CUDA_VISIBLE_DEVICES=0,3 torchrun --nproc_per_node 2" in line


@pytest.mark.parametrize("script", [STAGE1, *COLLECT, PRETRAIN, STAGE3])
def test_the_command_line_comes_before_torch(script):
    """Help and mistakes do not wait for imports that take seconds."""
    mistakes = [[], ["--exp_id", "a", *PREFIX, "--chan", "3"]]
    mistakes += {STAGE1: [["--exp_id", "a"]], STAGE3: [["--exp_id", "a", *PREFIX, *TRAIN]]}.get(script, [])
    lines = ["import runpy, sys"]
    for flags, code in ((["--help"], 0), *((flags, 2) for flags in mistakes)):
        lines += [
            f"sys.argv = {[script, *flags]}",
            f"try: runpy.run_path({str(REPOSITORY / script)!r}, run_name='__main__')",
            f"except SystemExit as end: assert end.code == {code}",
            "assert not {'torch', 'numpy'} & sys.modules.keys()",
        ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(mistakes) and all(line.startswith(f"{script}: error: ") for line in said)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "fast"])
def test_a_rate_with_which_nothing_can_learn_is_refused(refusal, value):
    assert "expected a number above 0" in refusal("--exp_id", "a", *TRAIN, f"--lr={value}")


@pytest.mark.parametrize("script", [STAGE1, *COLLECT, PRETRAIN, STAGE3])
def test_switches_are_off_unless_asked_for(script):
    opt = parsed(script, "--exp_id", "a", *PREFIX)
    assert {name for name, value in vars(opt).items() if value is True} == {"use_visdom", "use_html"}


@pytest.mark.parametrize(
    ("script", "arguments", "flag", "value", "resumed"),
    [
        (STAGE1, "--is_train true --lr 0.1", "load_prefix_pose", "lr-0.1-3", "--is_train true --lr 0.1"),
        (
            STAGE1,  # what holds for a start from scratch is left out, however it is written
            "--overwrite true --network simple_baseline --pretrained=true --nEpochs 9 --is_train true",
            *("load_prefix_pose", "lr-0.00025-3", "--network simple_baseline --is_train true"),
        ),
        (
            STAGE1,
            "--lr_steps 5:0.1 7:0.1 --load_prefix_pose lr-1-4 --is_train true --gpu_id -1",
            *("load_prefix_pose", "lr-1-6", "--lr_steps 5:0.1 7:0.1 --is_train true --gpu_id -1"),
        ),
        (
            PRETRAIN,
            "--load_prefix_pose lr-1-4 --mirror true --overwrite true",
            *("load_prefix_sr", "lr-0.00025-1", "--load_prefix_pose lr-1-4 --mirror true"),
        ),
        (
            STAGE3,  # the folder of an agent that is not named does not apply either
            "--load_prefix_pose lr-1-4 --sr_dir a --load_prefix_sr b-1 --agent_draws uniform --is_train true",
            *("load_checkpoint", "true", "--load_prefix_pose lr-1-4 --agent_draws uniform --is_train true"),
        ),
    ],
)
def test_the_arguments_that_resume_a_run(script, arguments, flag, value, resumed):
    opt = parsed(script, "--exp_id", "a", *arguments.split())
    words = opt.resuming(flag, value)
    assert " ".join(words) == f"--exp_id a {resumed} --nEpochs {opt.nEpochs} --{flag} {value}"
    again = parsed(script, *words)
    left_out = {"overwrite", "pretrained", "load_prefix_sr", "sr_dir", flag}
    for name in opt.defaults.keys() - left_out:
        assert getattr(again, name) == getattr(opt, name)
