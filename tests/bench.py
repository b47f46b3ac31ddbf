"""Where the time goes: medians and ratios, all of one run. `make bench`, or with flags of the stages:

python tests/bench.py --dataset lsp --data_dir dataset --bs 16 --in_res 128 --chan 64

Everything is compared with its floor in the same process: the networks' passes that the method itself needs,
on tensors that are ready. Networks have initial weights; timings do not depend on them.
"""

import importlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from support.visdom_server import VisdomProcess
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.stand_ins import Silent

from data.augment import augment
from data.augmentation import MARGINS, Augmentation
from data.kinds import KINDS
from data.loader import PatchLoader
from data.patches import Patches
from models.losses import pose_loss
from options.parser import StageParser
from utils.agents import agent_logits, agent_loss, build_agent
from utils.collect import collect_rows
from utils.display.gallery import pose_gallery
from utils.display.report import Report
from utils.evaluation import evaluate
from utils.runs import Run
from utils.training import Learner

REPEATS = 3
PEOPLE = 160

stack_hg = importlib.import_module("stack-hg")
joint = importlib.import_module("joint-train-pose-s-r-agent")


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median over repeats, after one run that is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    groups = ("rate", "epochs", "joint")
    parser = StageParser(__doc__, *groups)
    parser.set_defaults(exp_id="bench", load_prefix_pose=None, limit=PEOPLE)
    with tempfile.TemporaryDirectory() as folder:
        opt = parser.parse(["--exp_id", "bench", "--exp_dir", folder, *sys.argv[1:]])
        measure(Run(opt, opt.exp_folder))


def measure(run: Run) -> None:
    """Print the table."""
    opt, people = run.opt, run.dataset.train
    count = len(people)

    def per_person(name: str, work: Callable[[], object], units: int = count) -> float:
        seconds = median_seconds(work, run.device)
        say(f"{name:<66}{1000 * seconds / units:>9.2f} ms   {units / seconds:>8.1f} / s")
        return seconds

    where = f"{run.device}, {torch.get_num_threads()} threads, {opt.precision}"
    say(f"{where}, {count} people, medians of {REPEATS}")
    patches = Patches(people, run.dataset.root, opt.in_res, MARGINS["random"])
    rows = list(range(min(opt.bs, count)))
    per_person(f"load a patch of {patches.res} px, one process", lambda: patches[rows], len(rows))
    batch = patches[rows].to(run.device)
    random = Augmentation.random(len(rows), run.generator)
    per_person("augment a person", lambda: augment(batch, random, opt.in_res, opt.out_res), len(rows))

    pose = Learner(run.pose_network(), opt.lr)
    agent = Learner(build_agent(run, pose.network), opt.agent_lr)
    crops = augment(batch, random, opt.in_res, opt.out_res)
    rounds = -(-count // opt.bs)
    floor = Floor(run, pose, agent, crops.image, crops.heatmap, rounds)

    say("\ncollecting: people a second")
    ready = per_person("  forward of 7 ready crops a person", floor.collect, rounds * len(rows))
    pose.network.eval()
    took = per_person(
        "  collecting as stage 2 does", lambda: collect_rows(run, pose.network, people, KINDS["scale"])
    )
    say(f"  ratio to the floor: {ready / (rounds * len(rows)) / (took / count):.2f}")

    say("\nan epoch of training, without validation")
    loader = run.loader(people, "random", run.generator)
    plain = per_person("  stage 1", lambda: stack_hg.train_epoch(run, pose, loader, Silent()))
    plain_floor = per_person(
        "  its forward and backward passes, ready tensors", floor.plain, rounds * len(rows)
    )
    loader = run.loader(people, "drawn", run.generator)
    pose_part = per_person(
        "  stage 3, pose network", lambda: joint.train_pose(run, pose, {"agent": agent}, loader, Silent())
    )
    agent_part = per_person(
        "  stage 3, agent", lambda: joint.train_agent(run, pose, agent, loader, Silent(), run.generator)
    )
    joint_floor = per_person("  their passes, ready tensors", floor.joint, rounds * len(rows))
    ready = rounds * len(rows)
    joint_part = (pose_part + agent_part) / count
    say(f"  stage 1, floor / time: {plain_floor / ready / (plain / count):.2f}")
    say(f"  stage 3, floor / time: {joint_floor / ready / joint_part:.2f}")
    say(f"  stage 3 / stage 1: {joint_part / (plain / count):.2f}")
    measure_displays(run, pose)


def measure_displays(run: Run, pose: Learner) -> None:
    """An epoch of stage 1 and its validation, with a visdom server and pages against neither."""
    logging.getLogger().setLevel(logging.WARNING)  # of the run: its epochs would stand between the lines
    say("\nan epoch of stage 1 with its validation and report")
    loaders = (
        run.loader(run.dataset.train, "random", run.generator),
        run.loader(run.dataset.valid, "identity"),
    )
    seconds = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder, VisdomProcess(Path(folder)) as server:
        run.opt.vis_port = server.port
        whole_epoch(run, pose, *loaders, displays=True)
        for displays in (False, True) * REPEATS:
            began = time.perf_counter()
            whole_epoch(run, pose, *loaders, displays=displays)
            seconds[displays].append(time.perf_counter() - began)
    without, with_them = (statistics.median(seconds[displays]) for displays in (False, True))
    say(
        f"  {without:.2f} s without displays, {with_them:.2f} s with visdom and pages: "
        f"{100 * (with_them / without - 1):+.1f} %"
    )


def whole_epoch(
    run: Run, pose: Learner, train_loader: PatchLoader, valid_loader: PatchLoader, displays: bool
) -> None:
    """What stage 1 does in an epoch, but for its checkpoint."""
    run.opt.use_html = run.opt.use_visdom = displays
    with Report(run, "bench", pose) as report:
        trained = stack_hg.train_epoch(run, pose, train_loader, report)
        valid = evaluate(run, pose.network, valid_loader)
        pose.history.append({"epoch": pose.epoch, **trained, **valid.row()})
        report.epoch(valid)
        report.show(partial(pose_gallery, run, pose.network, valid), valid)
    pose.epoch += 1


class Floor:
    """The passes of each stage on one ready batch, repeated as often as an epoch has batches."""

    def __init__(
        self, run: Run, pose: Learner, agent: Learner, image: Tensor, heatmap: Tensor, rounds: int
    ) -> None:
        self.run, self.pose, self.agent, self.rounds = run, pose, agent, rounds
        self.image = image.contiguous(memory_format=torch.channels_last)
        self.heatmap = heatmap
        self.uniform = {
            kind.name: torch.full((len(image), len(kind.means)), 1 / len(kind.means), device=run.device)
            for kind in KINDS.values()
        }

    def _forward(self, times: int) -> None:
        self.pose.network.eval()
        with torch.no_grad():
            self.run.forward(self.pose.network, self.image.repeat(times, 1, 1, 1))

    def _train_pose(self) -> None:
        self.pose.network.train()
        self.pose.step(pose_loss(self.run.forward(self.pose.network, self.image), self.heatmap))

    def _logits(self) -> dict[str, Tensor]:
        return agent_logits(self.run, self.pose.network, self.agent.network, self.image)

    def collect(self) -> None:
        """Stage 2: seven crops of each person, forward."""
        for _ in range(self.rounds):
            self._forward(len(KINDS["scale"].means))

    def plain(self) -> None:
        """Stage 1: forward and backward."""
        for _ in range(self.rounds):
            self._train_pose()

    def joint(self) -> None:
        """Stage 3: the agent looks at every other batch; then it trains, on four crops of each person."""
        for k in range(self.rounds):
            self.agent.network.eval()
            if k % 2:
                with torch.no_grad():
                    self._logits()
            self._train_pose()
        for _ in range(self.rounds):
            self.agent.network.train()
            logits = self._logits()
            self._forward(2 * len(KINDS))
            self.agent.step(agent_loss(logits, self.uniform))


def say(line: str) -> None:
    """A line of the table."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
