"""An experiment in one command: its steps, what it skips and resumes, and the table in the end."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.experiment import enlarge_heads, parsed, run_here
from support.stages import QUIET, REPOSITORY, SMALL, assert_user_error, demo_data, environment

from data.demo import ANNOTATIONS
from data.kinds import KINDS
from utils import experiment
from utils.compare import steps
from utils.compare.run_logs import read_run
from utils.records.checkpoint import load_checkpoint
from utils.records.distributions import distribution_path
from utils.system.errors import UserError
from utils.system.provenance import commit

BASE, AGENT = "lr-0.00025-0", "lr-0.001-0"
FLAGS = ("--base_epochs", 1, "--agent_epochs", 1, "--arm_epochs", 1, "--pretrain_lr", "0.001")
EVERY_STEP = [
    "stack-hg.py x",
    *(f"collect-{kind}-distri.py x" for kind in KINDS),
    "pretrain-s-r-agent.py x",
    "stack-hg.py x/random-1",
    "stack-hg.py x/random-1 grid",
    "joint-train-pose-s-r-agent.py x learned-1",
    f"stack-hg.py x/learned-1-{BASE} grid",
    "stack-hg.py x/random-2",
    "stack-hg.py x/random-2 grid",
    "joint-train-pose-s-r-agent.py x learned-2",
    f"stack-hg.py x/learned-2-{BASE} grid",
]
ARMS = EVERY_STEP.index("stack-hg.py x/random-1")  # the first step of an arm


def collections(folder):
    """The files of an agent's collected distributions, in the order in which they are written."""
    return [distribution_path(folder, split, kind) for kind in KINDS for split in ("train", "val")]


class Calls:
    """Experiments in the tests' own process; `words`: the command lines of the latest one's steps.

    fail: the number of the step that fails, with code 7, instead of being run.
    """

    def __init__(self, monkeypatch, root):
        self.monkeypatch, self.folder = monkeypatch, root / "checkpoints" / "x"
        self.data = demo_data(root / "data")
        enlarge_heads(self.data / "demo" / ANNOTATIONS)
        self.words, self.fail = [], None
        monkeypatch.setattr(steps, "run_process", self.run_process)

    def run_process(self, words):
        self.words.append(words)
        if len(self.words) == self.fail:
            return 7
        run_here(words[1], *words[2:])
        return 0

    def __call__(self, *flags, fail=None):
        self.words, self.fail = [], fail
        place = ("--exp_id", "x", "--exp_dir", self.folder.parent, "--data_dir", self.data)
        arms = ("--arms", "random", "learned", "--seeds", 1, 2)
        small = (*SMALL, "--num_stacks", 1)
        argv = ["experiment.py", *map(str, (*small, *QUIET, *place, *arms, *FLAGS, *flags))]
        self.monkeypatch.setattr(sys, "argv", argv)
        experiment.main()

    @property
    def ran(self):
        return [told(words) for words in self.words]


def told(words):
    """Script, experiment and what makes it different, of a command line."""
    given = dict(zip(words[2::2], words[3::2], strict=True))
    evaluated = [name for name in ("grid", "occlusion") if f"--eval_{name}" in given]
    assert ("--is_train" in given) == (words[1].startswith(("stack", "joint")) and not evaluated)
    rest = [given["--joint_dir"]] if "--joint_dir" in given else evaluated
    return " ".join([words[1], given["--exp_id"], *rest])


@pytest.fixture
def calls(monkeypatch, tmp_path):
    return Calls(monkeypatch, tmp_path)


@pytest.mark.slow
def test_an_experiment_is_interrupted_goes_on_ends_and_is_extended(calls, caplog):
    caplog.set_level("INFO")
    with pytest.raises(SystemExit) as end:
        calls(fail=ARMS + 3)
    assert end.value.code == 7 and calls.ran == EVERY_STEP[: ARMS + 3]
    assert not (calls.folder / "comparison" / "compare.md").exists()

    calls()
    assert calls.ran == EVERY_STEP[ARMS + 2 :]
    table = (calls.folder / "comparison" / "compare.md").read_text()
    assert re.search(r"^\| learned - random \| 2 pairs( \| [+-]\d+\.\d\d ± \d+\.\d\d *){11} \|$", table, re.M)
    for part in (
        "All runs start from lr-0.00025-0.pth.tar (",
        "Data: demo, training people ",
        "Epoch 1, after 6 updates",
        "Epochs: 1 of the base, 1 of the agent's pretraining, 1 of each arm.",
        "--in_res 64",
        f"Made with commit {commit()}; Python 3.",
        " cores.",
    ):
        assert part in table, part
    seeds = {folder.name: read_run(folder).seed for folder in calls.folder.glob("*-[12]*") if folder.is_dir()}
    assert seeds == {"random-1": "1", "random-2": "2", f"learned-1-{BASE}": "1", f"learned-2-{BASE}": "2"}

    caplog.clear()
    calls()
    assert (
        calls.ran == []
        and f"{len(EVERY_STEP)} of {len(EVERY_STEP)}, finished: arm learned, seed 2: the evaluation"
        in caplog.text
    )
    assert (calls.folder / "comparison" / "compare.md").read_text() == table

    calls("--seeds", 1, "--arm_epochs", 2)
    assert calls.ran == EVERY_STEP[ARMS : ARMS + 4]
    assert {"--load_checkpoint", "--keep"} <= set(calls.words[2]) and "--load_prefix_sr" not in calls.words[2]
    assert "lr-0.00025-1" in calls.words[0] and BASE not in calls.words[0]
    for name in ("random-1/lr-0.00025-2.pth.tar", f"learned-1-{BASE}/pose-lr-0.00025-2.pth.tar"):
        history = load_checkpoint(calls.folder / name)["train_history"]
        assert [row["epoch"] for row in history] == [0, 1, 2]
    assert "| 1 pair" in (calls.folder / "comparison" / "compare.md").read_text()

    with pytest.raises(
        UserError, match="random-1 has 2 epochs of its arm already: use --arm_epochs 2 or more"
    ):
        calls()
    with pytest.raises(UserError, match="x has an experiment with --chan 16, this one has 32"):
        calls("--chan", 32)


@pytest.mark.slow
def test_an_experiment_with_the_occlusion_agent(calls):
    flags = ("--occlusion", "true", "--in_res", 128, "--arms", "random", "uniform", "learned", "--seeds", 1)
    flags += ("--agent_iters", 1, "--limit", 24)  # for learned draws alone; more people than there are
    calls(*flags)
    assert calls.ran == [
        "stack-hg.py x",
        "pretrain-s-r-agent.py x",
        "stack-hg.py x/random-1",
        "stack-hg.py x/random-1 occlusion",
        "joint-train-pose-s-r-agent.py x uniform-1",
        f"stack-hg.py x/uniform-1-{BASE} occlusion",
        "joint-train-pose-s-r-agent.py x learned-1",
        f"stack-hg.py x/learned-1-{BASE} occlusion",
    ]
    assert "--occlusion true" in " ".join(calls.words[1])
    assert "--occ_draws uniform" in " ".join(calls.words[4])
    for script in (0, 2, 4):
        assert "--occlusion" not in calls.words[script]
    table = (calls.folder / "comparison" / "compare.md").read_text()
    assert re.search(r"^\| learned - random +\| 1 pair .* \+?-?\d+\.\d\d ± n/a +\|$", table, re.M)
    assert "| Masked mean " in table and "Options: --dataset demo" in table and "--occlusion true" in table
    calls(*flags)
    assert calls.ran == []
    with pytest.raises(UserError, match="has an experiment with --occlusion True, this one has False"):
        calls(*flags, "--occlusion", "false")


def test_interrupted_stages_are_resumed(calls, monkeypatch):
    """As they would have left their folders in the middle."""
    monkeypatch.setattr(steps, "run_process", lambda words: calls.words.append(words) or 7)
    folder = calls.folder
    agent, random = folder / "sr-dir-lr-0.001-2", folder / "random-1"
    flags = ("--lr", "0.001", "--agent_lr", "0.1", "--base_epochs", 3, "--agent_epochs", 3, "--arm_epochs", 9)
    flags += ("--repeats", 2)

    def command(arm="random"):
        with pytest.raises(SystemExit):
            calls(*flags, "--arms", arm)
        return " ".join(calls.words[-1])

    def leave(*paths):
        for path in paths:
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text("")

    assert "--load_prefix_pose" not in command() and "--nEpochs 3" in command()
    leave(folder / "lr-0.001-0-model-best.pth.tar")  # killed amid saving the first epoch
    assert command().endswith("--overwrite true")
    leave(
        folder / "lr-0.001-0.pth.tar", folder / "lr-0.001-1.pth.tar", folder / "lr-0.001-0-model-best.pth.tar"
    )
    assert command().endswith("--load_prefix_pose lr-0.001-1")
    first, *others = collections(agent)
    leave(folder / "lr-0.001-2.pth.tar", first)
    assert "collect-scale-distri.py" in command() and command().endswith("--repeats 2")
    leave(*others)
    assert "pretrain-s-r-agent.py" in command() and command().endswith("--nEpochs 3 --overwrite true")
    leave(agent / "lr-0.001-1.pth.tar")
    assert command().endswith("--lr 0.001 --nEpochs 3 --load_prefix_sr lr-0.001-1")
    leave(agent / "lr-0.001-2.pth.tar")
    assert command().endswith("--seed 1 --nEpochs 12 --load_prefix_pose lr-0.001-2")
    assert (random / "lr-0.001-2.pth.tar").exists()
    leave(random / "lr-0.001-10.pth.tar", random / "lr-0.001-9.pth.tar")
    assert command().endswith("--load_prefix_pose lr-0.001-10")
    uniform = command("uniform")
    assert "--exp_id x " in uniform and " --joint_dir uniform-1 --agent_draws uniform " in uniform
    assert uniform.endswith("--agent_lr 0.1 --load_prefix_sr lr-0.001-2 --overwrite true")
    leave(folder / "uniform-1-lr-0.001-2" / "pose-lr-0.001-7.pth.tar")
    assert command("uniform").endswith("--load_checkpoint true")
    leave(folder / "uniform-1-lr-0.001-2" / "pose-lr-0.001-11.pth.tar")
    evaluation = command("uniform")
    assert "--exp_id x/uniform-1-lr-0.001-2 " in evaluation
    assert evaluation.endswith("--load_prefix_pose pose-lr-0.001-11 --eval_grid true")


def test_a_mistaken_call_can_be_corrected(calls, monkeypatch):
    """Until an epoch of the base is saved."""
    monkeypatch.setattr(steps, "run_process", lambda words: 2)
    for size in (64, 128, 192):
        with pytest.raises(SystemExit):
            calls("--in_res", size)
    (calls.folder / f"{BASE}.pth.tar").write_text("")
    with pytest.raises(UserError, match="with --in_res 192, this one has 64"):
        calls("--in_res", 64)
    with pytest.raises(SystemExit):  # what changes no number may change
        calls("--in_res", 192, "--cache", calls.folder / "cache", "--nThreads", 1, "--seeds", 5)
    calls.folder.joinpath("experiment.json").unlink()
    with pytest.raises(UserError, match="has results of no experiment"):
        calls("--in_res", 192)
    for damaged in ("{", "[]", "null", '{"settings": null}', '{"settings": {}}', '{"made_with": []}'):
        calls.folder.joinpath("experiment.json").write_text(damaged)
        with pytest.raises(UserError, match="cannot be read: use another --exp_id"):
            calls("--in_res", 192)


@pytest.mark.slow
def test_an_experiment_goes_on_from_a_base_and_an_agent_that_were_made_by_hand(calls):
    """If their logs say the same options; nothing of them is made again."""
    place = ("--exp_id", "x", "--exp_dir", calls.folder.parent, "--data_dir", calls.data)
    pose, log = ("--load_prefix_pose", BASE), calls.folder / "log.jsonl"
    place += ("--num_stacks", 1)
    run_here("stack-hg.py", *place, "--is_train", "true", "--nEpochs", 2)
    for kind in KINDS:
        run_here(f"collect-{kind}-distri.py", *place, *pose)
    run_here("pretrain-s-r-agent.py", *place, *pose, "--nEpochs", 1, "--lr", "0.001")
    agent_log = calls.folder / f"sr-dir-{BASE}" / "log.jsonl"
    for flags, message in (
        (("--bs", 5), f"{calls.folder} was trained with --bs 4 in epoch 0, this experiment needs 5"),
        (("--pretrain_lr", "0.01"), f"{agent_log.parent} was trained with --lr 0.001 in epoch 0, "),
        (("--seed", 3), "--seed 0 in epoch 0, this experiment needs 3"),
    ):
        with pytest.raises(UserError, match=message):
            calls(*flags)
    told = agent_log.read_text()
    agent_log.write_text(told.replace('"mirror": "False"', '"mirror": "True"'))
    with pytest.raises(UserError, match="--mirror True in epoch 0, this experiment needs False"):
        calls()
    agent_log.write_text(told)
    with pytest.raises(SystemExit):
        calls("--use_visdom", "true", fail=1)
    assert calls.ran == EVERY_STEP[ARMS : ARMS + 1]
    calls.folder.joinpath("experiment.json").unlink()
    log.unlink()
    with pytest.raises(
        UserError, match=r"has results of no experiment, and its log\.jsonl does not record how"
    ):
        calls()


def test_only_the_base_from_its_start_asks_for_a_backbones_weights(monkeypatch, tmp_path):
    argv = [
        "experiment.py",
        "--exp_dir",
        tmp_path,
        "--exp_id",
        "x",
        "--network",
        "simple_baseline",
        "--chan",
        64,
    ]
    argv += ["--backbone", "resnet18", "--backbone_weights", tmp_path / "resnet18.pth"]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    made, given = experiment.Experiment(experiment.parse()), f"--backbone_weights {tmp_path / 'resnet18.pth'}"
    assert given in made.base_step() and "--backbone resnet18 --chan 64" in made.pretraining_step()
    made.folder.mkdir()
    (made.folder / "lr-0.00025-3.pth.tar").touch()
    resumed = made.base_step()
    assert "--load_prefix_pose lr-0.00025-3" in resumed
    others = (made.collection_step("scale"), made.pretraining_step(), made.joint_step("learned", 1))
    assert not any(given in step for step in (resumed, *others))


def test_collections_by_hand_count_if_they_are_of_as_many_measurements(monkeypatch, tmp_path):
    flags = ("--exp_id", "x", "--exp_dir", str(tmp_path), "--seed", "5", "--repeats", "2")
    monkeypatch.setattr(sys, "argv", ["experiment.py", *flags])
    made = experiment.Experiment(experiment.parse())
    assert made.collection_step("scale").endswith("--seed 5 --repeats 2")  # draws are of both
    made.agent_folder.mkdir(parents=True)
    for path in collections(made.agent_folder):
        kind = "scale" if "scale" in path.name else "rotation"
        path.write_text(f'# {{"kind": "{kind}", "repeats": 2}}\n')
    assert made.collection_step("scale") is None
    path.write_text('# {"kind": "rotation"}\n')  # of one measurement
    with pytest.raises(UserError, match="was collected for --repeats 1, this run has 2: collect-rotation-"):
        made.collection_step("rotation")


def test_what_changes_numbers_may_not_change_and_a_new_flag_is_such(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiment.py", "--exp_id", "x"])
    opt = experiment.parse()
    free = {"exp_id", "exp_dir", "data_dir", "cache", "gpu_id", "nThreads", "arms", "seeds", "arm_epochs"}
    free |= {"print_freq", "display_freq", "display_winsize", "use_html", "use_visdom", "vis_env"}
    assert opt.defaults.keys() - opt.settings.keys() == free | {"vis_server", "vis_port"}


@pytest.mark.slow
def test_a_stage_that_fails_ends_the_experiment_with_its_line_and_code(tmp_path):
    place = ("--exp_id", "x", "--exp_dir", tmp_path, "--data_dir", tmp_path / "nowhere", "--dataset", "lsp")
    done = subprocess.run(
        [sys.executable, "-m", "utils.experiment", *map(str, (*place, "--gpu_id", -1, *QUIET))],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert_user_error(done, "stack-hg.py: error: ", tmp_path / "nowhere")
    assert "=== 1 of 28: stage 1: the base\n$ python stack-hg.py --exp_id x --exp_dir " in done.stdout


@pytest.mark.slow
def test_a_signal_lets_the_step_end_itself(tmp_path):
    """As a stage does: it removes its lock."""
    step = tmp_path / "step.py"
    step.write_text(
        "import pathlib, signal, sys, time\n"
        "here = pathlib.Path(sys.argv[0]).parent\n"
        "def end(*_):\n"
        "    (here / 'ended').touch()\n"
        "    sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "(here / 'began').touch()\n"
        "time.sleep(60)\n"
    )

    def arrived(*_):
        if (tmp_path / "began").exists():
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    before = signal.signal(signal.SIGALRM, arrived)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            steps.run_process([sys.executable, str(step)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "ended").exists()
    assert steps.run_process([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9


def test_steps_get_the_options_as_they_were_given(calls, monkeypatch):
    """Paths keep their capitals, and only an agent that learns has batches to learn from."""
    monkeypatch.setattr(steps, "run_process", lambda words: calls.words.append(words) or 7)
    agent = calls.folder / f"sr-dir-{BASE}"
    agent.mkdir(parents=True)

    def command(arm):
        with pytest.raises(SystemExit):
            calls("--annotations", "/Data/MPII.json", "--agent_iters", 3, "--arms", arm)
        return " ".join(calls.words[-1])

    base = command("learned")
    assert "--annotations /Data/MPII.json" in base and "--use_html false" in base
    for path in (calls.folder / BASE, agent / AGENT):
        path.with_name(f"{path.name}.pth.tar").touch()
    for path in collections(agent):
        path.touch()
    for arm, draws in {"pretrained": "pretrained", "learned": "learned", "reinforce": "learned"}.items():
        assert f"--joint_dir {arm}-1 --agent_draws {draws} " in command(arm)
        assert ("--agent_iters 3" in command(arm)) == (draws == "learned")
        assert ("--agent_rule reinforce" in command(arm)) == (arm == "reinforce")


def test_base_and_arms_are_trained_with_the_recipe(calls, monkeypatch):
    """A curve is the base's, then each arm's: of as many epochs for stage 1 as for joint training."""
    monkeypatch.setattr(steps, "run_process", lambda words: calls.words.append(words) or 7)
    recipe = ("--optimizer", "adam", "--weight_decay", "0.1", "--lr_schedule", "onecycle", "--warmup", "0.5")

    def command(*flags):
        with pytest.raises(SystemExit):
            calls(*recipe, *flags)
        return " ".join(calls.words[-1])

    given = "--weight_decay 0.1 --optimizer adam --lr_schedule onecycle --warmup 0.5"
    assert given in command() and "--schedule_start" not in command()
    (calls.folder / f"{BASE}.pth.tar").touch()
    agent = calls.folder / f"sr-dir-{BASE}"
    agent.mkdir()
    for path in collections(agent):
        path.touch()
    assert "pretrain-s-r-agent.py" in command() and "--weight_decay" not in command()
    (agent / f"{AGENT}.pth.tar").touch()
    assert given in command() and "--schedule_start 1 --load_prefix_pose" in command()
    assert given in command("--arms", "learned") and "--schedule_start" not in command("--arms", "learned")
    with pytest.raises(UserError, match="with --arm_epochs 1, this one has 2"):  # another curve
        calls(*recipe, "--arm_epochs", 2)


def test_a_warm_up_longer_than_an_arm_is_refused_at_once(calls, capsys):
    with pytest.raises(SystemExit):
        calls("--lr_schedule", "cosine", "--base_epochs", 3, "--arm_epochs", 2, "--warmup", 2)
    assert "--warmup 2: expected fewer epochs than --base_epochs" in capsys.readouterr().err


def test_steps_of_the_rate_reach_the_stages_as_one_word(calls, monkeypatch):
    monkeypatch.setattr(steps, "run_process", lambda words: calls.words.append(words) or 7)
    with pytest.raises(SystemExit):
        calls("--lr_steps", "3:0.5", "9:0.1")
    (words,) = calls.words
    assert words[words.index("--lr_steps") + 1] == "3:0.5 9:0.1"


def test_steps_are_counted(calls, monkeypatch):
    monkeypatch.setattr(experiment.Experiment, "compare", lambda _: None)
    for flags in (("--seeds", 1, 2, 3), ("--occlusion", "true", "--in_res", 128)):
        titles = []
        monkeypatch.setattr(experiment, "run_step", lambda title, _, titles=titles: titles.append(title))
        calls(*flags, "--arms", "uniform", "learned")
        numbers = [title.partition(":")[0] for title in titles]
        assert numbers == [f"{number} of {len(titles)}" for number in range(1, len(titles) + 1)]


def test_flags_with_several_values_reach_the_stages(monkeypatch):
    own = ("--annotations", "a.json", "--annotations_valid", "b.json", "--images", "my photos", "others")
    flags = ("--dataset", "coco", *own, "--mirror_pairs", "left ear:right ear", "l:r")
    monkeypatch.setattr(sys, "argv", ["experiment.py", "--exp_id", "x", *flags])
    command = experiment.Experiment(experiment.parse()).stage("stack-hg.py", "x")
    opt = parsed("stack-hg.py", *shlex.split(command)[2:])
    assert (opt.dataset, opt.annotations, opt.annotations_valid) == ("coco", Path("a.json"), Path("b.json"))
    assert opt.images == [Path("my photos"), Path("others")]
    assert opt.mirror_pairs == ["left ear:right ear", "l:r"]
