"""A third agent: a file of its own and an entry in `AGENTS` are all that it takes."""

import json
import shutil

import pytest
from support.changed_program import copied_program, replace_once, run, run_stages
from support.experiment import assert_same_state, differences
from support.stages import QUIET, SMALL

from utils.records.checkpoint import load_checkpoint
from utils.records.epochs import epoch_files
from utils.records.events import read_events

pytestmark = pytest.mark.slow

LAST_ENTRY = """            evaluation="occlusion",
        ),
"""
ENTRY = """        AgentType(
            name="gain",
            title="gain agent",
            path="utils.agents.gain.Gain",
            folder="gain_dir",
            load="load_prefix_gain",
            draws="gain_draws",
            switch="gain",
            prefix="gain-",
            parameter="fc_gain.weight",
            choices=("gain",),
        ),
"""
FILE = '''"""The gain agent: for each person, a distribution over gains of all colors alike."""

from dataclasses import replace

import torch
from torch import Generator, nn

from data.augmentation import Augmentation
from data.people import fixed_rows
from models.agent import AgentBody
from utils.agents.base import Agent, Trial, exponential_noise, require_finite
from utils.agents.exhibit import Distribution, Exhibit, View
from utils.evaluation.evaluate import crop_pck

GAINS = torch.tensor([0.6, 0.8, 1.0, 1.2, 1.4])


class GainNetwork(AgentBody):
    def __init__(self, chan_in, chan_out):
        super().__init__(chan_in, chan_out)
        self.fc_gain = nn.Linear(chan_out, len(GAINS))

    def forward(self, features):
        return self.fc_gain(self.merge(features).mean(dim=(2, 3)))


class Gain(Agent):
    def network(self):
        channels = self.pose.feature_channels
        return GainNetwork(channels, min(channels))

    def targets(self, split, people):
        return {"gain": torch.full((len(people), len(GAINS)), 1 / len(GAINS), device=self.run.device)}

    def augment(self, people, random):
        logits = torch.zeros(len(people), len(GAINS))
        if self.draws != "uniform":
            logits = self.predict(self.run.augment(people, Augmentation.identity(len(people))))["gain"]
        return self.run.augment(people, brightened(random, draw(logits, people, self.streams.batches))), None

    def trial(self, people):
        _, generator, uniform_generator = self.streams
        identity = Augmentation.identity(len(people))
        logits = self.predict(self.run.augment(people, identity), trains=True)
        drawn = draw(logits["gain"], people, generator)
        uniform = draw(torch.zeros(len(people), len(GAINS)), people, uniform_generator)
        both = [brightened(identity, bins) for bins in (drawn, uniform)]
        pck = crop_pck(self.run, self.pose, people, Augmentation.cat([identity, *both]))
        return Trial(logits, {"gain": drawn}, GAINS[drawn][:, None], pck[:, None])

    def exhibits(self, row, hardest, targets=None):
        people, generator = self.run.dataset.valid, Generator().manual_seed(row["epoch"])
        rows = fixed_rows(people, self.run.skeleton)
        batch, identity = self.run.batch(people, rows, "identity"), Augmentation.identity(len(rows))
        shares = self.predict_eval(self.run.augment(batch, identity))["gain"].softmax(dim=1)
        drawn = draw(shares.log(), batch, generator)
        views = [View("as it is", identity), View("gain agent", brightened(identity, drawn))]
        labels = [f"{gain:g}" for gain in GAINS.tolist()]
        bars = [Distribution("gain, %", labels, shares, drawn)]
        shown = [Exhibit("Gains", "A note.", people, rows, "identity", views, distributions=bars)]
        if hardest:
            table, rows, remarks = self.hardest_people(hardest, "no gain")
            gains = torch.tensor([one["value"] for one in hardest])
            identity = Augmentation.identity(len(rows))
            views = [View("gain", replace(identity, color=identity.color * gains[:, None]))]
            shown.append(Exhibit("Hardest gains", "A note.", table, rows, "identity", views, remarks))
        return shown


def brightened(augmentation, bins):
    return replace(augmentation, color=GAINS[bins][:, None].expand(-1, 3))


def draw(logits, people, generator):
    shares = logits.detach().softmax(dim=1).cpu()
    require_finite(shares)
    return (shares / exponential_noise(people, len(GAINS), generator)).argmax(dim=1)
'''

PRETRAIN, JOINT = "pretrain-s-r-agent.py", "joint-train-pose-s-r-agent.py"
SR, GAIN = ("--load_prefix_sr", "lr-0.00025-1"), ("--load_prefix_gain", "best")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The program with a third agent."""
    root = copied_program(tmp_path_factory.mktemp("tree"))
    replace_once(root / "utils/agents/__init__.py", LAST_ENTRY, LAST_ENTRY + ENTRY)
    (root / "utils/agents/gain.py").write_text(FILE)
    return root


@pytest.fixture(scope="module")
def trained(tree, experiment, tmp_path_factory):
    """The gain agent's pretraining, and two epochs of joint training with it and the scale-rotation agent."""
    made = experiment.copy(tmp_path_factory.mktemp("gain") / "checkpoints")
    joint = ("--is_train", "true", *SR, *GAIN, "--nEpochs", 3, "--bs", 3, "--use_html", "true")
    pretrain = (PRETRAIN, "--gain", "true", "--nEpochs", 2, "--use_html", "true")
    run_stages(tree, made, pretrain, (JOINT, *joint))
    return made


def test_it_is_pretrained_in_its_own_folder(trained):
    folder = trained.folder / f"gain-dir-{trained.agent_folder.name.removeprefix('sr-dir-')}"
    checkpoint = load_checkpoint(folder / "lr-0.00025-1.pth.tar")
    assert checkpoint["state_dict"]["fc_gain.weight"].shape[0] == 5
    first, second = checkpoint["train_history"]
    assert second["train_loss"] != pytest.approx(first["train_loss"], rel=1e-4)  # its weights have moved
    assert second["valid_mean_row"] == pytest.approx(0, abs=1e-6)
    assert "Gains" in (folder / "web" / "epoch-1.html").read_text()


def test_it_takes_its_turns_beside_another_agent(trained):
    folder = trained.joint_folder
    pose = load_checkpoint(folder / "pose-lr-0.00025-2.pth.tar")
    assert [pose[name] for name in ("agent", "gain")] == ["agent-lr-0.00005-3", pose["gain"]]
    assert (folder / f"{pose['gain']}.pth.tar").exists() and pose["gain"].startswith("gain-lr-0.00005-")
    companion = {file.path.name.partition("-")[0] for file in epoch_files(folder) if file.companion}
    assert companion == {"agent", "gain"}
    row = pose["train_history"][-1]
    columns = ("pck_uniform", "pck_agent", "gap", "gap_error", "reward_share", "tie_share", "limit_share")
    assert {f"gain_{name}" for name in (*columns, "loss", "entropy", "epoch", "change")} <= row.keys()
    assert {"train_pck_random", "train_pck_agent", "train_pck_gain", "pck_gap"} <= row.keys()
    assert row["gain_gap"] == pytest.approx(row["gain_pck_uniform"] - row["gain_pck_agent"])
    assert len(row["gain_distribution"]) == 5
    assert pose["recipe"]["gain_draws"] == "learned"
    start = read_events(folder / "log.jsonl")[0]
    assert start["options"]["load_prefix_gain"] == "best"


def test_pages_and_windows_show_it(tree, trained):
    folder = trained.joint_folder / "web"
    page, index = (folder / name for name in ("epoch-2.html", "index.html"))
    page = page.read_text()
    assert "Gains" in page and "Hardest gains" in page and "The agent against random" in page
    for title in ("uniform minus gain agent", "Loss of the gain agent", "Mean distribution of gain"):
        assert title in index.read_text(), title
    code = (
        "import json, sys; from pathlib import Path; from utils.records.events import read_events; "
        "from utils.display.visdom_windows import draw_windows; "
        "print(json.dumps([*draw_windows(read_events(Path(sys.argv[1])))]))"
    )
    windows = json.loads(run(tree, "-c", code, str(trained.joint_folder / "log.jsonl")).stdout)
    assert {"gap of the gain agent", "loss of the gain agent", "gain distribution"} <= {*windows}


def test_joint_training_with_it_resumes_exactly(tree, trained, tmp_path):
    made = trained.copy(tmp_path / "checkpoints")
    folder = made.joint_folder
    pose = "pose-lr-0.00025-2.pth.tar"
    names = (pose, *(load_checkpoint(folder / pose)[name] + ".pth.tar" for name in ("agent", "gain")))
    for name in names:
        (folder / name).unlink()
    resumed = ("--is_train", "true", "--load_checkpoint", "true", "--nEpochs", 3, "--bs", 3)
    run_stages(tree, made, (JOINT, *resumed))
    for name in names:
        assert_same_state(folder / name, trained.joint_folder / name)


def test_its_draws_may_be_uniform_and_leave_it_alone(tree, trained, tmp_path):
    made = trained.copy(tmp_path / "checkpoints")
    flags = ("--is_train", "true", *GAIN, "--gain_draws", "uniform", "--joint_dir", "alone", "--nEpochs", 2)
    run_stages(tree, made, (JOINT, *flags))
    (alone,) = made.folder.glob("alone-*")
    (agent,) = alone.glob("gain-*.pth.tar")
    start = max(made.folder.glob("gain-dir-*/*-model-best.pth.tar"))
    before, after = (load_checkpoint(path)["state_dict"] for path in (start, agent))
    assert not differences(before, after)
    row = load_checkpoint(alone / "pose-lr-0.00025-1.pth.tar")["train_history"][-1]
    assert "train_pck_gain" in row and "gain_gap" not in row


def test_its_flags_are_in_the_help_and_apply_where_it_is_chosen(tree, trained):
    for script in (PRETRAIN, JOINT):
        told = " ".join(run(tree, script, "--help").stdout.split())
        assert "the gain agent:" in told and "--gain_dir" in told and "--load_prefix_gain" in told
        assert ("--gain_draws" in told) == (script == JOINT)
    flags = [*map(str, (*SMALL, *QUIET, *trained.flags))]
    for idle, words in (
        (["--load_prefix_gain", "best"], "with --gain true"),
        (["--gain", "true", "--load_prefix_sr", "lr-1-0"], "without --occlusion true or --gain true"),
        (["--gain", "true", "--occlusion", "true"], "--occlusion applies only without --gain true"),
    ):
        done = run(tree, PRETRAIN, *flags, *idle)
        assert done.returncode == 2 and words in done.stderr, done.stdout[-500:] + done.stderr


def test_an_experiment_takes_it(tree, tmp_path):
    code = (
        "from utils import experiment; made = experiment.Experiment(experiment.parse()); "
        "print(made.base_step(), made.pretraining_step(), made.joint_step('uniform', 1), sep='\\n')"
    )
    flags = ("--exp_id", "x", "--exp_dir", str(tmp_path), "--gain", "true", "--seeds", "1")
    base, pretraining, joint = run(tree, "-c", code, *flags).stdout.splitlines()
    assert "--gain" not in base and "pretrain-s-r-agent.py" in pretraining and "--gain true" in pretraining
    assert "--gain_draws uniform" in joint and "--load_prefix_gain lr-0.00025-2" in joint


def test_an_agent_of_another_kind_is_named(tree, trained, tmp_path):
    made = trained.copy(tmp_path / "checkpoints")
    (gain,) = made.folder.glob("gain-dir-*")
    shutil.copy(gain / "lr-0.00025-1.pth.tar", made.agent_folder / "lr-0.5-0.pth.tar")
    flags = [*map(str, (*SMALL, *QUIET, *made.flags, "--is_train", "true", "--load_prefix_sr", "lr-0.5-0"))]
    done = run(tree, JOINT, *flags)
    assert done.returncode == 2 and "is a checkpoint of the gain agent: expected one of the" in done.stderr
