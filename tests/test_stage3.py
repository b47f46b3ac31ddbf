"""Stage 3: the pose network and the agent trained in turn, resumed, stopped, and evaluated."""

import math
import re
import subprocess
import time

import pytest
import scipy.io
import torch
from PIL import Image
from support.experiment import (
    POSE,
    assert_same_state,
    change_weights,
    differences,
    rate_of,
    refusal,
    run_here,
    unscored,
    with_epoch,
)
from support.stages import TRAIN, VALID, assert_user_error, command, environment, run_printed, run_stage

from data.augmentation import Augmentation
from data.crops import augment
from data.heatmap import predict_points
from data.kinds import KINDS
from data.skeleton import MPII
from utils.agents.base import Record
from utils.compare.run_logs import read_run
from utils.evaluation.metrics import pck_counts
from utils.records.checkpoint import load_checkpoint, newest_checkpoint
from utils.records.epochs import save_epoch
from utils.records.history import History
from utils.run import Run

pytestmark = pytest.mark.slow

JOINT = "joint-train-pose-s-r-agent.py"
AGENT = "lr-0.00025-1.pth.tar"
TRAINING = ("--load_prefix_sr", AGENT, "--is_train", "true")


@pytest.fixture(scope="module")
def joint(experiment, tmp_path_factory):
    """Stage 3 for two epochs, 1 and 2 of the pose network, without a break."""
    trained = experiment.copy(tmp_path_factory.mktemp("joint") / "checkpoints")
    run_here(JOINT, *trained.flags, *TRAINING, "--nEpochs", 3)
    return trained


def preds_of(path):
    return torch.from_numpy(scipy.io.loadmat(path)["preds"])


def test_files_of_two_epochs(experiment, joint):
    folder = joint.joint_folder
    names = {path.name for path in folder.iterdir()}
    for epoch in (1, 2):
        pose = f"pose-lr-0.00025-{epoch}"
        agent = f"agent-lr-0.00005-{epoch + 1}.pth.tar"  # the pretrained one had finished epoch 1
        assert {f"{pose}.pth.tar", f"{pose}-preds.mat", agent} <= names
        assert preds_of(folder / f"{pose}-preds.mat").shape == (VALID, 16, 2)
        assert load_checkpoint(folder / f"{pose}.pth.tar")["agent"] + ".pth.tar" == agent
    history = load_checkpoint(folder / "pose-lr-0.00025-2.pth.tar")["train_history"]
    scores = [row["valid_pck"] for row in history]
    for epoch in (1, 2):
        for best in ("model-best.pth.tar", "preds-best.mat"):
            improved = scores[epoch] > max(scores[:epoch])
            assert (f"pose-lr-0.00025-{epoch}-{best}" in names) == improved
    assert not [name for name in names if name.endswith(".tmp")]
    for network, file in (("pose", experiment.folder / f"{POSE}.pth.tar"), ("agent", None)):
        file = file or experiment.agent_folder / AGENT
        now = max(folder.glob(f"{network}-lr-*-[23].pth.tar"))
        learned = differences(load_checkpoint(now)["state_dict"], load_checkpoint(file)["state_dict"])
        assert len(learned) > 50


def test_the_log_says_where_it_began(experiment, joint):
    run = read_run(joint.joint_folder)
    assert run.origins == [experiment.run().pose_identity]
    assert run.updates == {epoch: TRAIN // 4 * (epoch + 1) for epoch in (1, 2)}  # stage 1's are counted, too


def test_summary_tells_what_the_agent_did(joint):
    path = joint.joint_folder / "pose-training-summary.txt"
    names, *lines = path.read_text().splitlines()
    row = dict(zip(names.split(), lines[-1].split(), strict=True))
    assert len(lines) == 3  # stage 1's epoch and both joint ones
    numbers = {name: float(value) for name, value in row.items() if "," not in value}
    assert numbers["epoch"] == 2
    assert numbers["agent_epoch"] == 3
    assert (numbers["lr"], numbers["agent_lr"]) == (0.00025, 0.00005)
    assert 0 <= numbers["pck_agent"] <= 1
    assert numbers["pck_gap"] == pytest.approx(numbers["pck_random"] - numbers["pck_agent"], abs=1e-5)
    gaps = (numbers["scale_gap"] + numbers["rotation_gap"]) / 2
    assert numbers["pck_gap"] == pytest.approx(gaps, abs=1e-5)
    assert 0 <= numbers["reward_share"] <= 1
    for start in ("", *(f"{kind}_" for kind in KINDS)):
        assert abs(numbers[f"{start}uniform_gap"]) < 1 and 0 <= numbers[f"{start}uniform_gap_error"] < 0.5
    assert numbers["uniform_gap"] == pytest.approx(numbers["pck_uniform"] - numbers["pck_agent"], abs=1e-5)
    assert 0 < numbers["train_pck_random"] < 1
    assert 0 < numbers["train_pck_agent"] < 1
    for kind, described in KINDS.items():
        shares = [float(share) for share in row[f"{kind}_distribution"].split(",")]
        assert len(shares) == len(described.means)
        assert sum(shares) == pytest.approx(1, abs=1e-3)
        assert 0 < numbers[f"{kind}_entropy"] <= math.log(len(shares)) + 1e-6
        assert 0 < numbers[f"{kind}_change"] < 1  # from the epoch before


def test_stopped_run_goes_on_exactly(joint, changeable):
    """SIGTERM in the middle; then the next process ends where the uninterrupted one did, bit for bit."""
    folder = changeable.joint_folder
    first = folder / "pose-lr-0.00025-1.pth.tar"
    training = command(JOINT, *changeable.flags, *TRAINING, "--nEpochs", 100000)
    pipe = subprocess.PIPE
    process = subprocess.Popen(training, env=environment(), stdout=pipe, stderr=pipe, text=True)
    try:
        until = time.monotonic() + 120
        while not first.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
        process.terminate()
        stderr = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 128 + 15, stderr
    assert re.fullmatch(r"[^\n]*stopped by SIGTERM[^\n]*\nto resume: [^\n]*\n", stderr)
    assert not list(folder.glob(".*"))
    newest = load_checkpoint(newest_checkpoint(folder, "pose-", ""))
    load_checkpoint(folder / f"{newest['agent']}.pth.tar")

    for path in folder.glob("*-lr-*"):  # it may have finished more epochs than the first
        if path.name not in (first.name, "agent-lr-0.00005-2.pth.tar"):
            path.unlink()
    run_printed(stderr, 3)
    for name in ("pose-lr-0.00025-2.pth.tar", "agent-lr-0.00005-3.pth.tar"):
        assert_same_state(folder / name, joint.joint_folder / name)
    name = "pose-lr-0.00025-2-preds.mat"
    assert torch.equal(preds_of(folder / name), preds_of(joint.joint_folder / name))


def test_each_network_has_its_own_rate(experiment, joint, tmp_path):
    """The pose network's by its schedule; the agent's is not the one that it was pretrained with."""
    folder = joint.joint_folder
    assert rate_of(experiment.agent_folder / AGENT) == pytest.approx(2.5e-4)
    for epoch in (1, 2):
        assert rate_of(folder / f"pose-lr-0.00025-{epoch}.pth.tar") == pytest.approx(2.5e-4)
        assert rate_of(folder / f"agent-lr-0.00005-{epoch + 1}.pth.tar") == pytest.approx(5e-5)
    late = joint.copy(tmp_path / "checkpoints")
    with_epoch(late.joint_folder / "pose-lr-0.00025-2.pth.tar", 139)
    flags = ("--load_checkpoint", "true", "--is_train", "true", "--nEpochs", 141, "--agent_lr", "0.001")
    run_here(JOINT, *late.flags, *flags)
    assert rate_of(late.joint_folder / "pose-lr-0.00025-140.pth.tar") == pytest.approx(2.5e-5)
    assert rate_of(late.joint_folder / "agent-lr-0.001-4.pth.tar") == pytest.approx(1e-3)


def test_evaluation_of_stage_1_with_the_grid(joint):
    """Without --is_train: stage 1's network, as its own training scored it."""
    path = joint.folder / f"{POSE}-preds.mat"
    expected = preds_of(path)
    path.unlink()
    run_here(JOINT, *joint.flags, "--eval_grid", "true")
    torch.testing.assert_close(preds_of(path), expected, atol=1e-3, rtol=0)

    text = (joint.folder / f"{POSE}-grid.txt").read_text().splitlines()
    assert [float(number) for number in text[1].split()] == list(KINDS["rotation"].means)
    table = torch.tensor([[float(number) for number in line.split()] for line in text[2:9]])
    assert table.shape == (7, 8)
    assert table[:, 0].tolist() == pytest.approx(KINDS["scale"].means)
    assert float(text[9].split()[-1]) == pytest.approx(table[:, 1:].mean().item(), abs=0.02)
    run = joint.run()
    network = run.pose_network()
    run.load_pose(network)
    network.eval()
    (people,) = run.loader(run.dataset.valid, "drawn")
    for i, j in ((0, 6), (6, 0), (3, 3), (0, 2)):
        fixed = Augmentation.fixed(VALID, KINDS["scale"].means[i], KINDS["rotation"].means[j])
        sample = augment(people, fixed, 64, 16)
        with torch.no_grad():
            heatmaps = network(sample.image)[-1]
        pred = predict_points(heatmaps, sample.center, sample.scale, sample.rotation)
        correct, annotated = pck_counts(pred, sample.points, sample.normalizer, run.dataset.threshold)
        share = correct[[*MPII.scored]].sum() / annotated[[*MPII.scored]].sum()
        assert table[i, j + 1] == pytest.approx(100 * share.item(), abs=0.01)
    with Image.open(joint.folder / f"{POSE}-grid.png") as plot:
        plot.load()
        assert min(plot.size) > 300


def test_evaluation_of_the_newest_joint_epoch(joint):
    path = joint.joint_folder / "pose-lr-0.00025-2-preds.mat"
    expected = preds_of(path)
    path.unlink()
    run_here(JOINT, *joint.flags, "--load_checkpoint", "true")
    torch.testing.assert_close(preds_of(path), expected, atol=1e-3, rtol=0)


def test_best_takes_the_agent_of_least_validation_loss(changeable):
    """Not the newest; epochs are compared as numbers, and best files of other networks do not count."""
    folder = changeable.agent_folder
    for path in folder.glob("*-model-best*"):
        path.unlink()
    message = refusal(JOINT, *changeable.flags, "--load_prefix_sr", "best", "--is_train", "true")
    assert "--load_prefix_sr best" in message and str(folder) in message
    losses = {9: 0.3, 10: 0.2, 11: 0.4}
    rows = []
    for epoch, loss in losses.items():
        checkpoint = load_checkpoint(folder / AGENT)
        rows.append({"epoch": epoch, "valid_loss": loss})
        checkpoint |= {"epoch": epoch, "train_history": list(rows)}
        save_epoch(folder, f"lr-0.00025-{epoch}", checkpoint, History(rows).improved())
    (folder / "agent-lr-0.00025-12-model-best.pth.tar").write_bytes(b"of another folder")
    best = ("--load_prefix_sr", "best", "--is_train", "true", "--nEpochs", 2, "--agent_iters", 1)
    printed = run_here(JOINT, *changeable.flags, *best)
    assert "--load_prefix_sr best: epoch 10" in printed
    assert f"agent: {folder / 'lr-0.00025-10-model-best.pth.tar'}" in printed
    assert (changeable.joint_folder / "agent-lr-0.00005-11.pth.tar").exists()


def test_agent_iters_limits_the_agents_batches(experiment, changeable):
    def steps(path):
        state = load_checkpoint(path)["optimizer"]["state"]
        return {int(parameter["step"]) for parameter in state.values()}

    (before,) = steps(experiment.agent_folder / AGENT)
    run_here(JOINT, *changeable.flags, *TRAINING, "--nEpochs", 2, "--agent_iters", 1)
    assert steps(changeable.joint_folder / "agent-lr-0.00005-2.pth.tar") == {before + 1}
    (pose_before,) = steps(experiment.folder / f"{POSE}.pth.tar")
    assert steps(changeable.joint_folder / "pose-lr-0.00025-1.pth.tar") == {pose_before + 3}


def test_a_single_batch_for_two_turns_is_a_warning(changeable):
    printed = run_here(JOINT, *changeable.flags, *TRAINING, "--nEpochs", 3, "--bs", 12)
    turns = "2 turns (random augmentation, the scale-rotation agent)"
    assert printed.count(f"an epoch has 1 batch for {turns}: not every epoch trains") == 1


def test_people_without_pck_teach_the_pose_network_alone(changeable, tmp_path, monkeypatch):
    annotations = unscored(changeable.data, tmp_path / "people.json", 2, 7)
    pose_saw, agent_saw = [], []

    def recorded_augment(run, people, augmentation):
        pose_saw.extend(people.index[augmentation.color.std() > 0].view(-1).tolist())
        return augment(people, augmentation, run.opt.in_res, run.opt.out_res)

    def recorded_add(record, people, *what):
        agent_saw.extend(people.index.tolist())
        add(record, people, *what)

    add = Record.add
    monkeypatch.setattr(Record, "add", recorded_add)
    monkeypatch.setattr(Run, "augment", recorded_augment)
    flags = (*changeable.flags, "--annotations", annotations, "--use_html", "true")
    run_here(JOINT, *flags, *TRAINING, "--nEpochs", 2)
    assert sorted(pose_saw) == [*range(TRAIN)]
    assert sorted(agent_saw) == sorted({*range(TRAIN)} - {2, 7})


def test_nobody_to_reward_the_agent_for_is_one_line(changeable, tmp_path):
    annotations = unscored(changeable.data, tmp_path / "people.json", *range(TRAIN))
    message = refusal(JOINT, *changeable.flags, "--annotations", annotations, *TRAINING, "--nEpochs", 2)
    assert f"none of {TRAIN} training people can be scored" in message
    assert not list(changeable.joint_folder.glob("*.pth.tar"))


def test_joint_run_is_not_replaced_unasked(joint):
    path = joint.joint_folder / "pose-lr-0.00025-1.pth.tar"
    before = path.read_bytes()
    message = refusal(JOINT, *joint.flags, *TRAINING, "--nEpochs", 2)
    assert "--load_checkpoint true" in message
    assert path.read_bytes() == before


def test_refused_overwriting_keeps_the_earlier_run(joint, tmp_path):
    earlier = joint.copy(tmp_path / "checkpoints")
    typo = ("--load_prefix_sr", "lr-0.00025-7", "--is_train", "true", "--overwrite", "true")
    refusal(JOINT, *earlier.flags, *typo)
    assert (earlier.joint_folder / "pose-lr-0.00025-2.pth.tar").exists()


def test_control_arm_draws_anew_with_another_seed(experiment, tmp_path):
    """Random augmentation alone, from the same start as stage 3; the same seed goes on exactly."""

    def train_on(name, seed, *ends):
        arm = experiment.copy(tmp_path / name)
        for epoch, end in enumerate(ends):
            start = f"lr-0.00025-{ends[epoch - 1] - 1 if epoch else 0}"
            flags = (*arm.place, "--load_prefix_pose", start, "--seed", seed, "--nEpochs", end)
            run_here("stack-hg.py", *flags, "--is_train", "true")
        return arm.folder

    same, other = train_on("same", 0, 3), train_on("other", 1, 3)
    first, second = "lr-0.00025-1.pth.tar", "lr-0.00025-2.pth.tar"
    assert load_checkpoint(same / first)["seed"] == 0
    weights = [load_checkpoint(folder / first)["state_dict"] for folder in (same, other)]
    assert differences(*weights)
    assert_same_state(train_on("other in parts", 1, 2, 3) / second, other / second)
    from_scratch = experiment.copy(tmp_path / "from scratch")
    flags = (*from_scratch.place, "--nEpochs", 2, "--is_train", "true", "--overwrite", "true")
    run_here("stack-hg.py", *flags)
    assert_same_state(same / first, from_scratch.folder / first)


def test_missing_prefixes_are_one_line(changeable):
    place = changeable.place
    done = run_stage(JOINT, *place, *TRAINING, check=False)
    assert_user_error(done, "--load_prefix_pose")
    assert (
        "no agent: expected a pretrained one, such as lr-0.00025-1.pth.tar, with --load_prefix_sr"
        in refusal(JOINT, *changeable.flags, "--is_train", "true")
    )
    absent = refusal(JOINT, *place, "--load_prefix_pose", "lr-0.00025-7", *TRAINING)
    assert f"{POSE}.pth.tar" in absent  # what there is
    absent = refusal(JOINT, *changeable.flags, "--load_prefix_sr", "lr-0.00025-7", "--is_train", "true")
    assert AGENT in absent


@pytest.mark.parametrize("is_train", ["true", "false"])
def test_nothing_to_resume_is_an_error(changeable, is_train):
    flags = ("--load_checkpoint", "true", "--is_train", is_train)
    assert str(changeable.joint_folder) in refusal(JOINT, *changeable.flags, *flags)
    assert not changeable.joint_folder.exists()


def test_agent_of_another_pose_network_is_refused(changeable):
    change_weights(changeable.folder / f"{POSE}.pth.tar")
    message = refusal(JOINT, *changeable.flags, *TRAINING, "--nEpochs", 2)
    assert AGENT in message
    assert "pretrain an agent" in message


def test_joint_checkpoint_without_its_agent_is_an_error(joint, tmp_path):
    torn = joint.copy(tmp_path / "checkpoints")
    (torn.joint_folder / "agent-lr-0.00005-3.pth.tar").unlink()
    flags = (*torn.flags, "--load_checkpoint", "true", "--is_train", "true", "--nEpochs", 4)
    assert "agent-lr-0.00005-3.pth.tar" in refusal(JOINT, *flags)


def prefer_large_bins(path):
    """Change an agent's checkpoint: what it draws is then surely not what is drawn uniformly."""
    checkpoint = load_checkpoint(path)
    for kind in KINDS:
        checkpoint["state_dict"][f"fc_{kind}.bias"] = torch.arange(7.0)
    torch.save(checkpoint, path)


def seen_by(experiment, folder, arm, monkeypatch):
    """The rows and augmentations that the pose network trains on in three epochs, update by update."""
    made, seen = experiment.copy(folder), []
    prefer_large_bins(made.agent_folder / AGENT)
    plain = Run.augment

    def recorded(run, people, augmentation):
        if augmentation.color.std() > 0 and len(augmentation) == len(people):
            seen.append((people.index.tolist(), augmentation))
        return plain(run, people, augmentation)

    flags = ("--is_train", "true", "--nEpochs", 4, "--use_html", "true")
    with monkeypatch.context() as patched:
        patched.setattr(Run, "augment", recorded)
        if arm == "random":
            run_here("stack-hg.py", *made.flags, *flags)
        else:
            run_here(JOINT, *made.flags, *TRAINING, *flags, "--agent_draws", arm)
    return seen, made


def test_arms_differ_in_nothing_but_what_the_agents_batches_are_drawn_from(experiment, tmp_path, monkeypatch):
    """With the base's own seed, and three batches an epoch: same people, order and draws."""
    arms = ("random", "uniform", "pretrained", "learned")
    seen, made = {}, {}
    for arm in arms:
        seen[arm], made[arm] = seen_by(experiment, tmp_path / arm, arm, monkeypatch)
    agents = (0, 2, 4, 6, 8)  # the base has made three updates
    for updates in zip(*seen.values(), strict=True):
        assert all(rows == updates[0][0] for rows, _ in updates)
    for arm in arms[1:]:
        assert len(seen[arm]) == 9
        for update, ((_, plain), (_, one)) in enumerate(zip(seen["random"], seen[arm], strict=True)):
            assert torch.equal(one.flip, plain.flip) and torch.equal(one.color, plain.color)
            for field in ("log2_scale", "rotation"):
                assert torch.equal(getattr(one, field), getattr(plain, field)) == (update not in agents)
    orders = [[row for rows, _ in seen["random"][start : start + 3] for row in rows] for start in (0, 3, 6)]
    assert len({*map(tuple, orders)}) == 3 and all(sorted(order) == [*range(TRAIN)] for order in orders)
    uniform, pretrained, learned = ([seen[arm][k][1].rotation for k in agents] for arm in arms[1:])
    assert not torch.equal(torch.cat(uniform), torch.cat(pretrained))
    assert all(map(torch.equal, pretrained[:2], learned[:2]))  # until it has learned something
    for arm in arms[1:]:
        start = load_checkpoint(made[arm].agent_folder / AGENT)["state_dict"]
        state = load_checkpoint(made[arm].joint_folder / "agent-lr-0.00005-4.pth.tar")["state_dict"]
        assert bool(differences(state, start)) == (arm == "learned")


def test_an_arm_that_is_resumed_ends_where_it_would_have_ended(experiment, tmp_path):
    whole, parts = (experiment.copy(tmp_path / name) for name in ("whole", "parts"))
    uniform = (*TRAINING, "--agent_draws", "uniform")
    run_here(JOINT, *whole.flags, *uniform, "--nEpochs", 3)
    run_here(JOINT, *parts.flags, *uniform, "--nEpochs", 2)
    go_on = ("--load_checkpoint", "true", "--is_train", "true", "--agent_draws", "uniform", "--nEpochs", 3)
    run_here(JOINT, *parts.flags, *go_on)
    for name in ("pose-lr-0.00025-2.pth.tar", "agent-lr-0.00005-3.pth.tar"):
        left, right = (load_checkpoint(made.joint_folder / name) for made in (whole, parts))
        assert differences(left["state_dict"], right["state_dict"]) == []


def test_reinforce_resumes_exactly_and_another_rule_is_noticed(experiment, tmp_path):
    whole, parts = (experiment.copy(tmp_path / name) for name in ("whole", "parts"))
    train = ("--is_train", "true", "--agent_rule", "reinforce")
    run_here(JOINT, *whole.flags, *TRAINING, *train, "--nEpochs", 3)
    run_here(JOINT, *parts.flags, *TRAINING, *train, "--nEpochs", 2)
    printed = run_here(JOINT, *parts.flags, "--load_checkpoint", "true", *train, "--nEpochs", 3)
    assert "was trained with" not in printed
    last = ("pose-lr-0.00025-2.pth.tar", "agent-lr-0.00005-3.pth.tar")
    for name in last:
        assert_same_state(whole.joint_folder / name, parts.joint_folder / name)
    learned = load_checkpoint(whole.joint_folder / last[1])
    assert learned["recipe"]["agent_rule"] == "reinforce"
    before = load_checkpoint(experiment.agent_folder / AGENT)["state_dict"]
    assert len(differences(learned["state_dict"], before)) > 50
    resume = ("--load_checkpoint", "true", "--is_train", "true", "--nEpochs", 4)
    printed = run_here(JOINT, *parts.flags, *resume)
    assert "was trained with --agent_rule reinforce, this run resumes with --agent_rule published" in printed


def test_flags_of_an_agent_that_the_resumed_epoch_lacks_are_refused(joint, tmp_path):
    resume = (*joint.copy(tmp_path / "checkpoints").flags, "--load_checkpoint", "true", "--is_train", "true")
    message = refusal(JOINT, *resume, "--nEpochs", 4, "--occ_draws", "learned")
    assert message.startswith("--occ_draws: ") and "pose-lr-0.00025-2.pth.tar has no agent" in message
    message = refusal(JOINT, *resume, "--nEpochs", 4, "--agent_draws", "uniform", "--agent_iters", 1)
    assert message.startswith("--agent_iters: ")
