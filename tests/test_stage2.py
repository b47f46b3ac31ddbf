"""Stage 2: the distributions collected for each person, and the agent pretrained on them."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.experiment import (
    POSE,
    assert_same_state,
    change_weights,
    differences,
    load_script,
    rate_of,
    refusal,
    run_here,
    unscored,
)
from support.stages import TRAIN, VALID, assert_user_error, run_stage
from support.stand_ins import Exact
from torch.testing import assert_close

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.heatmap import decode_heatmaps
from data.kinds import KINDS
from data.loading.loader import PatchLoader
from data.skeleton import MPII
from models.agent import ScaleRotationAgent
from models.losses import hardness_distribution
from utils.agents import AGENTS
from utils.agents.ceiling import ceiling
from utils.agents.collect import collect_pck
from utils.agents.pretraining import agent_loss, constant_loss
from utils.records.checkpoint import load_checkpoint
from utils.records.distributions import distribution_path, pck_path, read_pck
from utils.training import Learner

pytestmark = pytest.mark.slow

SCRIPTS = {kind: f"collect-{kind}-distri.py" for kind in KINDS}
PRETRAIN = "pretrain-s-r-agent.py"
AGENT = "lr-0.00025-0.pth.tar"


def people_of(run, split):
    return run.dataset.train if split == "train" else run.dataset.valid


def rows_of(experiment, split, kind):
    """A file's numbers, as numpy reads them."""
    return np.loadtxt(distribution_path(experiment.agent_folder, split, kind), dtype=np.float32)


def loaded_pose(run):
    network = run.pose_network()
    run.load_pose(network)
    return network.eval()


def copied_state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_files_of_a_finished_stage(experiment):
    folder = experiment.agent_folder
    for kind in KINDS:
        bins = len(KINDS[kind].means)
        assert rows_of(experiment, "train", kind).shape == (TRAIN, bins)
        assert rows_of(experiment, "val", kind).shape == (VALID, bins)
        with Image.open(folder / f"{kind}-distributions.png") as plot:
            plot.load()
            assert min(plot.size) > 300
            assert len(np.unique(np.asarray(plot.convert("L")))) > 10  # not blank
        assert "mean row" in experiment.printed[SCRIPTS[kind]]
    names = {file.name for file in folder.iterdir()}
    assert {AGENT, "lr-0.00025-1.pth.tar", "training-summary.txt", "opt.txt", "log.txt"} <= names
    assert not [name for name in names if name.endswith(".tmp")]


def collect_rows(run, network, split, kind):
    return hardness_distribution(collect_pck(run, network, people_of(run, split), KINDS[kind])[0])


def exact_rows(run, split, kind):
    """A split's rows by the collector's loop, with a network that rounds in no batch."""
    return collect_rows(run, Exact(loaded_pose(run)).eval(), split, kind)


def hardness_by_hand(run, network, people, kind):
    """One crop at a time: a person under a bin, joint by joint."""
    rows = []
    loader = PatchLoader(people, run.dataset.root, run.opt.in_res, MARGINS[kind], 1, 0, run.device)
    for person in loader:
        lost = []
        for mean in KINDS[kind].means:
            alone = {KINDS[kind].field: torch.tensor([mean])}
            sample = augment(
                person, replace(Augmentation.identity(1), **alone), run.opt.in_res, run.opt.out_res
            )
            with torch.no_grad():
                heatmaps = network(sample.image)[-1].float()
            pred = sample.predict(heatmaps)[0]
            cells = decode_heatmaps(sample.heatmap)[0]
            correct = []
            for joint in MPII.scored:
                x, y = person.points[0, joint].tolist()
                if (x or y) and min(cells[joint].tolist()) > 1:
                    error = math.dist((x, y), pred[joint].tolist()) / person.normalizer.item()
                    correct.append(error <= run.dataset.threshold)
            lost.append(1 - (sum(correct) / len(correct) if correct else 0))
        rows.append([share / sum(lost) if sum(lost) else 1 / len(lost) for share in lost])
    return torch.tensor(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_a_plain_loop(experiment, kind):
    run = experiment.run()
    network = loaded_pose(run)
    for split in ("train", "val"):
        rows = collect_rows(run, network, split, kind)
        np.testing.assert_allclose(rows_of(experiment, split, kind), rows, atol=1e-6)
        by_hand = hardness_by_hand(run, Exact(loaded_pose(run)).eval(), people_of(run, split), kind)
        assert by_hand.std(dim=1).max() > 0.005  # something is harder than something else
        np.testing.assert_allclose(exact_rows(run, split, kind), by_hand, atol=1e-5)


@pytest.mark.parametrize("flags", [("--bs", 11), ("--bs", 5, "--nThreads", 2)])
def test_rows_do_not_depend_on_batches_and_workers(experiment, flags):
    rows = exact_rows(experiment.run(*flags), "train", "scale")
    np.testing.assert_allclose(exact_rows(experiment.run(), "train", "scale"), rows, atol=1e-6)


def test_bins_measured_twice_are_reported_and_stand_beside_the_agent(changeable):
    """With draws that do not depend on batches; people who cannot be scored have lost nothing."""
    flags = (*changeable.flags, "--overwrite", "true", "--use_html", "true")
    printed = run_here(SCRIPTS["scale"], *flags, "--repeats", 2)
    assert printed.count("each bin measured 2 times; repeatability") == 2
    assert "What an agent can reach" in (changeable.agent_folder / "web/collection-scale.html").read_text()
    run = changeable.run("--bs", 5, "--nThreads", 0)
    path = pck_path(changeable.agent_folder, "val", "scale")
    pck = read_pck(path, run.distribution_source("val", "scale", people_of(run, "val")))
    again = collect_pck(run, loaded_pose(run), people_of(run, "val"), KINDS["scale"], 2)
    assert_close(again, pck, atol=0.04, rtol=0)
    assert not torch.equal(pck[0], pck[1])
    rows = hardness_distribution(pck.mean(dim=0))
    np.testing.assert_allclose(rows_of(changeable, "val", "scale"), rows, atol=1e-5)
    recorded = json.loads(path.read_text().partition("\n")[0].removeprefix("#"))["ceiling"]
    assert recorded == pytest.approx(ceiling(pck), abs=1e-5)

    printed = run_here(SCRIPTS["scale"], *changeable.flags, "--repeats", 2)  # kept
    assert printed.count("each bin measured 2 times; repeatability") == 2
    message = refusal(SCRIPTS["scale"], *changeable.flags)
    assert "was collected for --repeats 2, this run has 1" in message
    aside = path.rename(path.with_suffix(".aside"))
    message = refusal(SCRIPTS["scale"], *changeable.flags, "--repeats", 2)
    assert f"{path} does not exist, but its rows do: --overwrite true collects both again" in message
    aside.rename(path)
    printed = run_here(PRETRAIN, *flags, "--nEpochs", 1)
    (row,) = load_checkpoint(changeable.agent_folder / AGENT)["train_history"]
    assert row["valid_scale_pck_uniform"] == pytest.approx(pck.mean().item(), abs=1e-5)
    assert row["valid_scale_repeatability"] == pytest.approx(ceiling(pck)["repeatability"], abs=1e-4)
    for split in ("train", "valid"):
        assert 0 < row[f"{split}_scale_pck"] < 1 and f"{split}_rotation_pck" not in row
    assert re.search(r"expected PCKh@0.5: scale \d+\.\d % \(uniform \d", " ".join(printed.split()))
    page = (changeable.agent_folder / "web/index.html").read_text()
    assert "Expected PCKh@0.5 by the agent" in page
    run_here(SCRIPTS["scale"], *flags)
    assert not path.exists()


@pytest.fixture
def with_unscored(changeable, tmp_path):
    """The experiment anew, collected of people of whom training 2 and 7 and validation 1 have no PCK."""
    annotations = unscored(changeable.data, tmp_path / "people.json", 2, 7, TRAIN + 1)
    shutil.rmtree(changeable.agent_folder)
    flags = (*changeable.flags, "--annotations", annotations)
    printed = {kind: run_here(script, *flags) for kind, script in SCRIPTS.items()}
    return changeable, flags, printed["scale"]


def test_people_without_pck_teach_the_agent_nothing(experiment, with_unscored):
    made, flags, printed = with_unscored
    assert printed.count(f"2 of {TRAIN} training people have no reference length") == 1
    assert printed.count(f"1 of {VALID} validation people have no reference length") == 1
    assert f"train: {TRAIN - 2} people" in printed
    without = {"train": [2, 7], "val": [1]}
    run, everyone = made.run("--annotations", flags[-1]), experiment.run()
    for kind in KINDS:
        for split, rows in without.items():
            expected = exact_rows(everyone, split, kind)
            expected[rows] = 1 / expected.shape[1]
            np.testing.assert_allclose(exact_rows(run, split, kind), expected, atol=1e-6)
            written = collect_rows(run, loaded_pose(run), split, kind)
            np.testing.assert_allclose(rows_of(made, split, kind), written, atol=1e-6)

    run_here(PRETRAIN, *flags, "--nEpochs", 1)
    trained = load_checkpoint(made.agent_folder / AGENT)
    (row,) = trained["train_history"]
    uniform = {"train": 0.0, "valid": 0.0}
    for kind in KINDS:
        for split, name in (("train", "train"), ("val", "valid")):
            scored = np.delete(rows_of(made, split, kind).astype(float), without[split], axis=0)
            bins = scored.shape[1]
            uniform[name] += sum(share * math.log(bins * share) for share in scored.flat if share) / len(
                scored
            )
            path = distribution_path(made.agent_folder, split, kind)
            lines = path.read_text().splitlines(keepends=True)
            for person in without[split]:
                lines[1 + person] = "1" + (bins - 1) * " 0" + "\n"  # nobody must read it
            path.write_text("".join(lines))
    for name, loss in uniform.items():
        assert row[f"{name}_uniform"] == pytest.approx(loss, rel=1e-3)
    run_here(PRETRAIN, *flags, "--nEpochs", 1, "--overwrite", "true")
    again = load_checkpoint(made.agent_folder / AGENT)
    assert differences(trained["state_dict"], again["state_dict"]) == []
    for name in ("train_loss", "valid_loss", "train_mean_row", "valid_mean_row", "valid_uniform"):
        assert row[name] == again["train_history"][0][name]


@pytest.mark.parametrize("split", ["training", "validation"])
@pytest.mark.parametrize("script", [SCRIPTS["scale"], PRETRAIN])
def test_a_split_of_which_nobody_has_pck_is_one_line(changeable, tmp_path, script, split):
    rows = range(TRAIN) if split == "training" else range(TRAIN, TRAIN + VALID)
    annotations = unscored(changeable.data, tmp_path / "people.json", *rows)
    flags = (*changeable.flags, "--annotations", annotations, "--overwrite", "true")
    assert f"none of {len(rows)} {split} people can be scored" in refusal(script, *flags)


def test_file_that_is_there_is_kept(changeable):
    train, valid = (distribution_path(changeable.agent_folder, split, "scale") for split in ("train", "val"))
    collected = train.read_bytes()
    lines = train.read_text().splitlines(keepends=True)
    lines[1] = "1 0 0 0 0 0 0\n"
    train.write_text("".join(lines))
    recollected = valid.read_bytes()
    valid.unlink()
    printed = run_here(SCRIPTS["scale"], *changeable.flags)
    assert f"{train} already exists and matches this run: kept" in printed
    assert f"{valid} already exists" not in printed
    assert train.read_text() == "".join(lines)
    assert valid.read_bytes() == recollected

    printed = run_here(SCRIPTS["scale"], *changeable.flags, "--overwrite", "true")
    assert "kept" not in printed
    assert train.read_bytes() == collected


def test_rows_that_teach_nothing_are_a_warning(changeable):
    warning = "nearly all people have a uniform row (100.0 % for scale): "
    for split in ("train", "val"):
        path = distribution_path(changeable.agent_folder, split, "scale")
        source, *rows = path.read_text().splitlines()
        path.write_text("\n".join([source, *len(rows) * [" ".join(7 * ["0.142857"])], ""]))
    assert run_here(SCRIPTS["scale"], *changeable.flags).count(warning) == 1
    assert run_here(PRETRAIN, *changeable.flags, "--nEpochs", 1, "--overwrite", "true").count(warning) == 1
    assert "uniform row (" not in changeable.printed[PRETRAIN] + changeable.printed[SCRIPTS["scale"]]


def test_file_of_another_checkpoint_is_refused(changeable):
    change_weights(changeable.folder / f"{POSE}.pth.tar")
    path = distribution_path(changeable.agent_folder, "train", "rotation")
    before = path.read_bytes()
    assert_user_error(run_stage(SCRIPTS["rotation"], *changeable.flags, check=False), path, "weights")
    assert path.read_bytes() == before
    assert "weights" in refusal(PRETRAIN, *changeable.flags, "--overwrite", "true")


@pytest.mark.parametrize("training", [True, False])
def test_pose_network_is_untouched_by_the_agents_step(experiment, training):
    run = experiment.run()
    network = loaded_pose(run)
    agent = AGENTS["agent"].build(run, network, 1e-2)
    learner = agent.learner
    (people,) = run.loader(run.dataset.valid, "identity")
    sample = run.augment(people, Augmentation.identity(4))
    learner.network.eval()
    expected = agent.predict(sample)
    network.train(training)
    before = copied_state(network)
    logits = agent.predict(sample)
    assert_close(logits, expected, atol=0, rtol=0)  # it looks in eval mode
    agent_before = copied_state(learner.network.train())
    targets = {name: torch.eye(len(kind.means))[:4] for name, kind in KINDS.items()}
    learner.step(agent_loss(agent.predict(sample, trains=True), targets))
    assert_close(copied_state(network), before, atol=0, rtol=0)
    assert network.training == training
    assert all(module.training == training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    changed = copied_state(learner.network)
    assert any(not torch.equal(changed[name], value) for name, value in agent_before.items())


def test_agents_epochs_leave_the_pose_network_alone(experiment):
    run, script = experiment.run("--bs", 5), load_script(PRETRAIN)
    run.opt.mirror = False
    network = loaded_pose(run)
    before = copied_state(network)
    agent = AGENTS["agent"].build(run, network, 1e-3)
    rows = agent.targets("train", run.dataset.train)
    loader = run.loader(run.dataset.train, "identity", run.streams["order"])

    class Quiet:
        def batch(self, bar, epoch, batch, read):
            assert math.isfinite(read()["loss"])

    losses = [script.train_epoch(run, agent, loader, rows, {}, Quiet()) for _ in range(2)]
    assert_close(copied_state(network), before, atol=0, rtol=0)
    assert losses[0] != losses[1]
    assert not network.training


def test_resumed_run_equals_the_uninterrupted_one(experiment, changeable):
    folder = changeable.agent_folder
    for path in folder.glob("lr-0.00025-1*"):
        path.unlink()
    run_here(PRETRAIN, *changeable.flags, "--nEpochs", 2, "--load_prefix_sr", AGENT)
    name = "lr-0.00025-1.pth.tar"
    assert_same_state(folder / name, experiment.agent_folder / name)
    assert len(load_checkpoint(folder / name)["train_history"]) == 2


def test_mirroring_and_weight_decay_resume_exactly(changeable):
    """What an epoch mirrors is drawn from the seed and the epoch; the rate of decay is that of the flag."""
    folder, flags = changeable.agent_folder, (*changeable.flags, "--mirror", "true", "--weight_decay", 0.01)
    name = "lr-0.00025-1.pth.tar"
    run_here(PRETRAIN, *flags, "--nEpochs", 2, "--overwrite", "true")
    whole = folder.parent / "whole.pth.tar"
    (folder / name).rename(whole)
    run_here(PRETRAIN, *flags, "--nEpochs", 2, "--load_prefix_sr", AGENT)
    assert_same_state(folder / name, whole)
    run_here(PRETRAIN, *changeable.flags, "--nEpochs", 2, "--load_prefix_sr", AGENT)
    plain = load_checkpoint(folder / name)
    assert plain["optimizer"]["param_groups"][0]["weight_decay"] == 0
    assert differences(plain["state_dict"], load_checkpoint(whole)["state_dict"])


def test_resumed_run_has_the_rate_that_it_asks_for(changeable):
    run_here(PRETRAIN, *changeable.flags, "--nEpochs", 2, "--load_prefix_sr", AGENT, "--lr", "0.001")
    assert rate_of(changeable.agent_folder / AGENT) == pytest.approx(2.5e-4)
    assert rate_of(changeable.agent_folder / "lr-0.001-1.pth.tar") == pytest.approx(1e-3)


def test_yardsticks_by_hand(experiment):
    path = experiment.agent_folder / "training-summary.txt"
    names, *values = (line.split() for line in path.read_text().splitlines())
    table = [dict(zip(names, map(float, row), strict=True)) for row in values]
    assert [row["epoch"] for row in table] == [0, 1]
    for split, name in (("train", "train"), ("val", "valid")):
        mean_row = uniform = 0.0
        for kind in KINDS:
            rows = rows_of(experiment, split, kind).astype(float)
            mean = rows.mean(axis=0)
            uneven = rows[np.ptp(rows, axis=1) > 1e-5]
            hardest = uneven == uneven.max(axis=1, keepdims=True)
            hit = (hardest[:, mean.argmax()] / hardest.sum(axis=1)).mean()
            for row in table:
                assert row[f"{name}_{kind}_mean_row_hit"] == pytest.approx(hit, abs=1e-5)
                assert hit - 1e-5 <= row[f"{name}_{kind}_constant_hit"] <= 1
                assert 0 <= row[f"{name}_{kind}_hit"] <= 1
            for row in rows:
                for share, constant in zip(row, mean, strict=True):
                    if share > 0:
                        mean_row += share * math.log(share / constant) / len(rows)
                        uniform += share * math.log(7 * share) / len(rows)
        assert 0 < mean_row < uniform
        for row in table:
            assert row[f"{name}_mean_row"] == pytest.approx(mean_row, rel=1e-3, abs=1e-5)
            assert row[f"{name}_uniform"] == pytest.approx(uniform, rel=1e-3, abs=1e-5)
    assert all(math.isfinite(row[name]) for row in table for name in ("train_loss", "valid_loss"))


def test_agent_can_beat_the_mean_row():
    """What each person needs is in its features; the mean row, the best constant, cannot know it."""
    draws = torch.Generator().manual_seed(0)
    features = [torch.rand(16, 16, 16 >> level, 16 >> level, generator=draws) for level in range(5)]
    rows = {kind: (3 * torch.randn(16, 7, generator=draws)).softmax(dim=1) for kind in ("scale", "rotation")}
    mean_row = {kind: row.mean(dim=0) for kind, row in rows.items()}
    torch.manual_seed(0)
    agent = Learner(ScaleRotationAgent(16, 16), 1e-3)
    losses = [agent.step(agent_loss(agent.network(features), rows)) for _ in range(60)]
    assert losses[0] > 0.8 * constant_loss(rows, mean_row)
    assert losses[-1] < 0.75 * constant_loss(rows, mean_row)


def test_missing_flag_and_missing_checkpoint(experiment):
    done = run_stage(PRETRAIN, *experiment.place, check=False)
    assert_user_error(done, "--load_prefix_pose")
    message = refusal(PRETRAIN, *experiment.flags, "--load_prefix_sr", "lr-0.00025-7")
    assert "--load_prefix_sr" in message
    assert "lr-0.00025-1.pth.tar" in message  # what there is


@pytest.mark.parametrize("kind", KINDS)
def test_missing_distributions_name_their_script(changeable, kind):
    path = distribution_path(changeable.agent_folder, "val", kind)
    path.unlink()
    message = refusal(PRETRAIN, *changeable.flags, "--overwrite", "true")
    assert str(path) in message
    assert SCRIPTS[kind] in message


def test_refused_overwriting_keeps_the_earlier_agents(changeable):
    path = distribution_path(changeable.agent_folder, "val", "scale")
    path.unlink()
    refusal(PRETRAIN, *changeable.flags, "--overwrite", "true")
    assert (changeable.agent_folder / AGENT).exists()


def test_damaged_distributions_stop_the_agent(changeable):
    path = distribution_path(changeable.agent_folder, "train", "scale")
    path.write_bytes(path.read_bytes()[:-3])
    assert f"{path} is truncated" in refusal(PRETRAIN, *changeable.flags, "--overwrite", "true")


def test_earlier_agents_are_not_replaced_unasked(changeable):
    path = changeable.agent_folder / AGENT
    before = path.read_bytes()
    assert "--overwrite true" in refusal(PRETRAIN, *changeable.flags, "--nEpochs", 1)
    assert path.read_bytes() == before
    run_here(PRETRAIN, *changeable.flags, "--nEpochs", 1, "--overwrite", "true", "--seed", 5)
    assert load_checkpoint(path)["seed"] == 5


def test_agent_of_another_size_is_refused(changeable):
    path = changeable.agent_folder / AGENT
    checkpoint = load_checkpoint(path)
    checkpoint["state_dict"] = ScaleRotationAgent(8, 8).state_dict()
    checkpoint["network"] = checkpoint["network"] | {"chan": 8}
    torch.save(checkpoint, path)
    message = refusal(PRETRAIN, *changeable.flags, "--load_prefix_sr", AGENT)
    assert "--chan 8" in message
    del checkpoint["network"]  # as in files of the release
    torch.save(checkpoint, path)
    assert "belongs to another network" in refusal(PRETRAIN, *changeable.flags, "--load_prefix_sr", AGENT)


def test_a_pose_network_that_was_trained_again_to_the_same_weights_is_the_same(changeable):
    path, agent = changeable.folder / f"{POSE}.pth.tar", changeable.agent_folder / AGENT
    checkpoint, earlier = load_checkpoint(path), load_checkpoint(agent)
    del earlier["pose"]["weights"]  # as earlier versions recorded it
    torch.save(earlier, agent)
    run_here(PRETRAIN, *changeable.flags, "--load_prefix_sr", AGENT, "--nEpochs", 2)
    checkpoint["train_history"][0]["train_seconds"] += 1
    torch.save(checkpoint, path)
    run_here(PRETRAIN, *changeable.flags, "--load_prefix_sr", "lr-0.00025-1", "--nEpochs", 3)
    assert earlier["pose"]["sha256"] in refusal(PRETRAIN, *changeable.flags, "--load_prefix_sr", AGENT)


def test_agent_of_another_pose_network_is_refused(changeable):
    other = changeable.folder / "lr-0.00025-9.pth.tar"
    shutil.copy(changeable.folder / f"{POSE}.pth.tar", other)
    change_weights(other)
    shutil.copytree(changeable.agent_folder, changeable.folder / "sr-dir-lr-0.00025-9")
    flags = (*changeable.flags, "--load_prefix_pose", other.name)
    message = refusal(PRETRAIN, *flags, "--load_prefix_sr", AGENT)
    assert f"{POSE}.pth.tar" in message
    assert other.name in message
