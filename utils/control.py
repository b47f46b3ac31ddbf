"""The positive control: all stages in a world in which the hardest bins of each person are known.

`python -m utils.control` runs the stages on the data set and the network named control, prints each command
line, and writes `control.txt`: how much of the answer the agents have found, by epoch, for validation people,
whom they have not learned from, and for their mirror images. Joint training is by each --agent_rule, from the
pretrained agent and from an untrained one; that of the occlusion agent, whose pretraining cannot know the
answer, from the latter.
"""

import argparse
import logging
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from data.augmentation import Augmentation
from data.kinds import KINDS
from models import MASKED_CELLS
from models.known_answer import KnownAnswer
from models.masks import cell_mask
from options.parser import STAGE_3, OneLineParser, StageParser
from options.values import learning_rate, whole_number
from utils.agents import AGENTS
from utils.agents.base import Agent
from utils.agents.ceiling import ceiling_lines, limited_shares
from utils.agents.rules import RULES
from utils.compare.steps import run_step
from utils.records.checkpoint import load_checkpoint, load_weights, saved_epochs
from utils.run import Run
from utils.system.files import write_file
from utils.system.process import program, run_stage

log = logging.getLogger("control")

BASE = "lr-0.00025-0"
UNTRAINED, UNTRAINED_NAME = "--lr 1e-12 --nEpochs 1", "lr-0.000000000001-0"  # weights remain the initial ones
LEGEND = """\
In %, for validation people. Expected PCK, known from the rule, under uniform draws, under those of the best
agent with the limit of 2 / bins for a bin, and at each person's hardest bin. A bin is hard below the middle
of the person's lowest and highest PCK. found: people whose most probable bin is hard; mass: probability of
hard bins; regret: PCK under the agent's draws minus that of the best agent."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(__doc__.partition("\n")[0], program())
    add = parser.add_argument
    add("--exp_dir", type=Path, default=Path("checkpoints"), help="folder of all experiments")
    add("--data_dir", type=Path, default=Path("dataset"), help="folder of the data sets")
    add("--pretrain_epochs", type=whole_number(1), default=6, help="epochs of the agent's pretraining")
    add("--joint_epochs", type=whole_number(1), default=20, help="epochs of each joint training")
    add("--agent_lr", type=learning_rate, default=5e-5, help="learning rate of the agents in joint training")
    add("--limit", type=whole_number(1), default=1200, help="number of people of each split")
    return parser.parse_args(arguments)


def main() -> None:
    opt = parse()
    for heading, command in steps(opt):
        run_step(heading, command)
    lines = [LEGEND]
    for title, name, folder, prefix in results(opt):
        flags = f"{stage_flags(opt, name)} --load_prefix_pose {BASE}"
        lines += ["", f"{title}:", *table(name, shlex.split(flags), folder, prefix)]
    log.info("\n%s", "\n".join(lines))
    write_file(opt.exp_dir / "control" / "control.txt", "\n".join(lines) + "\n")
    log.info("\nwritten: %s", opt.exp_dir / "control" / "control.txt")


def stage_flags(opt: argparse.Namespace, name: str) -> str:
    """Flags of all stages, in an experiment for each agent."""
    res = 128 if AGENTS[name].masks else 64  # a neck of 2 x 2 cells
    data, experiments = (shlex.quote(str(path)) for path in (opt.data_dir, opt.exp_dir))
    return (
        f"--dataset control --network control --in_res {res} --chan 32 --exp_id control/{name} "
        f"--limit {opt.limit} --data_dir {data} --exp_dir {experiments} "
        "--use_visdom false --use_html false"
    )


def steps(opt: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The heading and the command line of each stage."""
    new = "--overwrite true"
    for name, which in AGENTS.items():
        flags = stage_flags(opt, name)
        yield f"{name}: stage 1", f"python stack-hg.py {flags} --is_train true --nEpochs 1 {new}"
        flags += f" --load_prefix_pose {BASE}"
        switch = f" --{which.switch} true" if which.switch else ""
        pretrain = f"python pretrain-s-r-agent.py {flags}{switch}"
        joint = (
            f"python joint-train-pose-s-r-agent.py {flags} --is_train true {new} "
            f"--nEpochs {1 + opt.joint_epochs} --agent_lr {opt.agent_lr}"
        )
        for kind in KINDS if which.collects else ():
            twice = f"python collect-{kind}-distri.py {flags} --repeats 2 {new}"
            yield f"{name}: how hard is each {kind}?", twice
        yield f"{name}: initial weights", f"{pretrain} {UNTRAINED} {new}"
        starts = {"untrained": UNTRAINED_NAME}
        if which.collects:
            resumed = f"--{which.load} {UNTRAINED_NAME} --nEpochs {1 + opt.pretrain_epochs}"
            yield f"{name}: pretraining", f"{pretrain} {resumed}"
            starts["pretrained"] = f"lr-0.00025-{opt.pretrain_epochs}"
        for start, rule in product(starts, RULES):
            flags = f"--joint_dir {start}-{rule} --agent_rule {rule} --{which.load} {starts[start]}"
            yield f"{name}: stage 3, {start}, {rule}", f"{joint} {flags}"


def results(opt: argparse.Namespace) -> Iterator[tuple[str, str, Path, str]]:
    """The trainings of agents: title, the agent's name, folder, and first part of checkpoints' names."""
    for name, which in AGENTS.items():
        folder = opt.exp_dir / "control" / name
        if which.collects:
            yield f"{which.title}, pretraining", name, folder / f"{which.default_folder}-{BASE}", ""
        for start, rule in product(("untrained", "pretrained") if which.collects else ("untrained",), RULES):
            title = f"{which.title}, joint training, {start}, {rule}"
            yield title, name, folder / f"{start}-{rule}-{BASE}", which.prefix


def table(name: str, flags: list[str], folder: Path, prefix: str) -> list[str]:
    """The results of a training of an agent: what can be reached, and its `scores` by epoch; on the CPU.

    name: of the agent. flags: of its stages. folder, prefix: where its checkpoints are.
    """
    opt = StageParser("", *STAGE_3).parse([*flags, "--gpu_id", "-1"])
    run = Run(opt, folder)
    network = run.pose_network()
    run.load_pose(network)
    agent, lines = AGENTS[name].build(run, network.eval(), opt.agent_lr), []
    for kind, pck in agent.collected_pck("val", run.dataset.valid).items():
        lines += [f"  {kind} as collected: {line}" for line in ceiling_lines(pck, run.dataset.metric_name)]
    for mirrored in (False, True):
        known, masks = expected_pck(agent, mirrored), agent.type.masks
        for choice, pck in known.items():
            uniform = torch.full_like(pck, 1 / pck.shape[1])
            reached = [expected(shares, pck, masks).mean() for shares in (uniform, limited_shares(pck))]
            words = "uniform {:.1f}, best {:.1f}, hardest bin {:.1f}".format(
                *(100 * one for one in (*reached, pck.amin(dim=1).mean()))
            )
            lines.append(f"  {choice}{', mirrored' if mirrored else ''}: {words}")
        lines.append(
            "  epoch" + "".join(f"{choice + ' found':>18}{'mass':>8}{'regret':>8}" for choice in known)
        )
        for path, epoch in sorted(saved_epochs(folder, prefix).items(), key=lambda one: one[1]):
            load_weights(agent.learner.network, load_checkpoint(path), path, run.network_size, run.skeleton)
            shares, line = predicted(agent, mirrored), f"  {epoch:>5}"
            for choice, pck in known.items():
                line += "{:>18.1f}{:>8.1f}{:>8.1f}".format(*(100 * scores(shares[choice], pck, masks)))
            lines.append(line)
    return lines


@torch.no_grad()
def expected_pck(agent: Agent, mirrored: bool) -> dict[str, Tensor]:
    """Expected PCK f32 [N, bins] of validation people, or of their mirror images, by choice of the agent.

    The pose network is a `KnownAnswer`. For masks it is that with each single cell masked.
    """
    run, network, found = agent.run, agent.pose, []
    assert isinstance(network, KnownAnswer)
    for people in run.loader(run.dataset.valid, agent.margin):
        pck = {}
        if agent.type.masks:
            image = run.augment(people, as_they_are(len(people), mirrored)).image
            cells = torch.arange(run.cells**2)[:, None, None].expand(-1, len(people), 1)
            lost = [network.lost(image, cell_mask(cell, run.cells)) for cell in cells]
            pck[agent.type.name] = 1 - torch.stack(lost, dim=1)
        else:
            for kind in KINDS:
                bins = Augmentation.bins(kind, len(people))
                bins.flip[:] = mirrored
                pck[kind] = 1 - network.lost(run.augment(people, bins).image).view(-1, len(people)).T
        found.append(pck)
    return {choice: torch.cat([one[choice] for one in found]) for choice in found[0]}


def predicted(agent: Agent, mirrored: bool) -> dict[str, Tensor]:
    """The agent's distributions f32 [N, bins] for validation people, or for their mirror images."""
    run, found = agent.run, []
    for people in run.loader(run.dataset.valid, "identity"):
        logits = agent.predict_eval(run.augment(people, as_they_are(len(people), mirrored)))
        found.append({choice: one.softmax(dim=1) for choice, one in logits.items()})
    return {choice: torch.cat([one[choice] for one in found]) for choice in found[0]}


def as_they_are(n: int, mirrored: bool) -> Augmentation:
    """n people, or their mirror images."""
    augmentation = Augmentation.identity(n)
    augmentation.flip[:] = mirrored
    return augmentation


def scores(shares: Tensor, pck: Tensor, masks: bool) -> Tensor:
    """Found, mass and regret, see `LEGEND`, of distributions and expected PCK [N, bins]: f32 [3]."""
    hard = pck < (pck.amin(dim=1, keepdim=True) + pck.amax(dim=1, keepdim=True)) / 2
    found = hard.gather(1, shares.argmax(dim=1, keepdim=True)).float().mean()
    regret = expected(shares, pck, masks) - expected(limited_shares(pck), pck, masks)
    return torch.stack((found, (shares * hard).sum(dim=1).mean(), regret.mean()))


def expected(shares: Tensor, pck: Tensor, masks: bool) -> Tensor:
    """Expected PCK [N] under draws from shares [N, bins]; of two different cells the harder one decides."""
    if not masks:
        return (shares * pck).sum(dim=1)
    assert MASKED_CELLS == 2
    second = shares[:, None] * (1 - torch.eye(shares.shape[1]))  # [N, first, second]
    second = second / second.sum(dim=2, keepdim=True).clamp(min=1e-9)
    return (shares[:, :, None] * second * torch.minimum(pck[:, :, None], pck[:, None])).sum(dim=(1, 2))


if __name__ == "__main__":
    run_stage(main)
