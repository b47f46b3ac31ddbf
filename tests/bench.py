"""Where the time goes: medians and ratios, all of one run. `make bench`, or with flags of the stages:

python tests/bench.py --dataset lsp --data_dir dataset --in_res 128 --chan 64 --batches 16 32

Everything is compared with its floor in the same process: the networks' passes that the method itself needs,
on tensors that are ready. On a GPU stages and floors are measured twice, as they are and with --compile true.
Networks have initial weights; timings do not depend on them.
"""

import gc
import importlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.visdom_server import VisdomProcess

from data.augmentation import MARGINS, Augmentation
from data.crops import Sample
from data.kinds import KINDS
from data.loading.loader import PatchLoader
from data.loading.patches import Patches
from models.losses import pose_loss
from options.parser import StageParser
from options.values import whole_number
from utils.agents import AGENTS
from utils.agents.base import Agent
from utils.agents.collect import collect_pck
from utils.agents.pretraining import agent_loss
from utils.display.gallery import pose_gallery
from utils.display.report import Report
from utils.display.stages import STAGE_1
from utils.evaluation.evaluate import evaluate
from utils.records.epochs import Retention
from utils.run import Run
from utils.training import Learner

REPEATS = 3

stack_hg = importlib.import_module("stack-hg")
pretrain = importlib.import_module("pretrain-s-r-agent")
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
    parser = StageParser(__doc__, "rate", "epochs", "joint", "agent_recipe", "ranks")
    batches = "sizes of the batch; default: --bs alone"
    parser.add_argument("--batches", type=whole_number(2), nargs="+", help=batches)
    parser.set_defaults(exp_id="bench", load_prefix_pose=None)
    with tempfile.TemporaryDirectory() as folder:
        opt = parser.parse(["--exp_id", "bench", "--exp_dir", folder, *sys.argv[1:]])
        if opt.compile:
            parser.error("--compile: on a GPU both ways are measured in any case")
        sizes = opt.batches or [opt.bs]
        opt.limit, opt.bs = opt.limit or 6 * max(sizes), sizes[0]
        run = Run(opt, opt.exp_folder)
        where = f"{run.device}, {torch.get_num_threads()} threads, {opt.precision}, {opt.in_res} px"
        say(f"{where}, {len(run.dataset.train)} people, medians of {REPEATS}")
        measure_data(run)
        measure_displays(run, Learner(run.pose_network(), opt.lr))
        lines = [line for bs in sizes for line in measure_stages(run, bs)]
        say("\nimages per second of each stage; floor: of its networks' passes alone")
        for line in sorted(lines):
            say(f"  {line}")


def measure_data(run: Run) -> None:
    """Print what a person costs before the network sees it."""
    people = run.dataset.train
    patches = Patches(people, run.dataset.root, run.opt.in_res, MARGINS["random"])
    rows = list(range(min(run.opt.bs, len(people))))
    batch = patches[rows].to(run.device)
    random = Augmentation.random(len(rows), run.streams["random"])
    for name, work in (
        (f"load a patch of {batch.patch.shape[-1]} px, one process", lambda: patches[rows]),
        ("augment a person", lambda: run.augment(batch, random)),
    ):
        say(f"{name:<45}{1000 * median_seconds(work, run.device) / len(rows):>9.2f} ms")


def measure_stages(run: Run, bs: int) -> list[str]:
    """A line for each stage with batches of `bs`: its images per second and its floor's."""
    lines, run.opt.bs = [], bs
    for way in ("eager", "compiled") if run.device.type == "cuda" else ("eager",):
        began, run.compiled = time.perf_counter(), way == "compiled"
        try:
            for stage, (speed, floor) in Work(run).measure().items():
                numbers = f"{speed:>8.1f}, floor {floor:>8.1f}, ratio {speed / floor:.2f}"
                lines.append(f"{stage:<22} batch {bs:>3}, {way:<8} {numbers}")
            said = f"measured in {time.perf_counter() - began:.0f} s"
        except torch.OutOfMemoryError as error:
            said = str(error).splitlines()[0]
        say(f"batch {bs}, {way}: {said}")
        torch.compiler.reset()
        gc.collect()  # networks refer to their compiled passes, and these to them
        torch.cuda.empty_cache()
    run.compiled = False
    return lines


def uniform_rows(people: int, device: torch.device) -> dict[str, Tensor]:
    """Uniform distributions [people, bins] by kind."""
    return {
        kind.name: torch.full((people, len(kind.means)), 1 / len(kind.means), device=device)
        for kind in KINDS.values()
    }


class Unread:
    """A report that asks for nothing, so that no step waits for the GPU."""

    def batch(self, *_: object) -> None:
        pass


class Work:
    """What each stage does in an epoch, without validation; and its floor."""

    def __init__(self, run: Run) -> None:
        opt, people = run.opt, run.dataset.train
        self.run, self.people = run, people
        self.pose = Learner(run.pose_network(), opt.lr)
        self.agent = AGENTS["agent"].build(run, self.pose.network, opt.agent_lr)
        self.rows = uniform_rows(len(people), run.device)
        self.loaders = {
            name: run.loader(people, name, run.streams["order"]) for name in ("random", "identity", "drawn")
        }

    def measure(self) -> dict[str, tuple[float, float]]:
        """By stage: people a second of its work, and of its floor."""
        batch = next(iter(self.loaders["random"]))
        crops = self.run.augment(batch, Augmentation.random(len(batch), self.run.streams["random"]))
        count, rounds = len(self.people), -(-len(self.people) // self.run.opt.bs)
        floor = Floor(self.run, self.pose, self.agent, crops, rounds)
        parts = {
            "stage 1, training": (self.stage_1, floor.plain),
            "stage 2, collecting": (self.collecting, floor.collect),
            "stage 2, pretraining": (self.pretraining, floor.pretrain),
            "stage 3, training": (self.stage_3, floor.joint),
        }
        return {
            stage: (
                count / median_seconds(work, self.run.device),
                rounds * len(batch) / median_seconds(passes, self.run.device),
            )
            for stage, (work, passes) in parts.items()
        }

    def stage_1(self) -> None:
        stack_hg.train_epoch(self.run, self.pose, self.loaders["random"], Unread())

    def collecting(self) -> None:
        self.pose.network.eval()
        collect_pck(self.run, self.pose.network, self.people, KINDS["scale"])

    def pretraining(self) -> None:
        pretrain.train_epoch(self.run, self.agent, self.loaders["identity"], self.rows, {}, Unread())

    def stage_3(self) -> None:
        loader = self.loaders["drawn"]
        joint.train_pose(self.run, self.pose, [self.agent], loader, Unread())
        joint.train_agent(self.run, self.pose, self.agent, loader, Unread())


def measure_displays(run: Run, pose: Learner) -> None:
    """An epoch of stage 1 and its validation, with a visdom server and pages against neither."""
    logging.getLogger().setLevel(logging.WARNING)  # of the run: its epochs would stand between the lines
    loaders = (
        run.loader(run.dataset.train, "random", run.streams["order"]),
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
        f"an epoch of stage 1 with its validation: {without:.2f} s, with visdom and pages {with_them:.2f} s: "
        f"{100 * (with_them / without - 1):+.1f} %"
    )


def whole_epoch(
    run: Run, pose: Learner, train_loader: PatchLoader, valid_loader: PatchLoader, displays: bool
) -> None:
    """What stage 1 does in an epoch, but for its checkpoint."""
    run.opt.use_html = run.opt.use_visdom = displays
    with Report(run, STAGE_1, pose, Retention(None)) as report:
        trained = stack_hg.train_epoch(run, pose, train_loader, report)
        valid = evaluate(run, pose.network, valid_loader)
        row = {"epoch": pose.epoch, **trained, **valid.row()}
        report.end_epoch(row, lambda _: [], partial(pose_gallery, run, pose.network, valid), valid)


class Floor:
    """The passes of each stage on one ready batch, repeated as often as an epoch has batches."""

    def __init__(self, run: Run, pose: Learner, agent: Agent, crops: Sample, rounds: int) -> None:
        self.run, self.pose, self.agent, self.rounds = run, pose, agent, rounds
        image = crops.image.contiguous(memory_format=torch.channels_last)
        self.crops = replace(crops, image=image)
        self.uniform = uniform_rows(len(image), run.device)

    def _forward(self, times: int) -> None:
        self.pose.network.eval()
        with torch.no_grad():
            self.run.forward(self.pose.network, self.crops.image.repeat(times, 1, 1, 1))

    def _train_pose(self) -> None:
        self.pose.network.train()
        self.pose.step(pose_loss(self.run.forward(self.pose.network, self.crops.image), self.crops.heatmap))

    def _train_agent(self, logits: dict[str, Tensor]) -> None:
        self.agent.learner.step(agent_loss(logits, self.uniform))

    def collect(self) -> None:
        """Stage 2: seven crops of each person, forward."""
        for _ in range(self.rounds):
            self._forward(len(KINDS["scale"].means))

    def pretrain(self) -> None:
        """Stage 2: the half pass, and the agent forward and backward."""
        self.agent.learner.network.train()
        for _ in range(self.rounds):
            self._train_agent(self.agent.predict(self.crops, trains=True))

    def plain(self) -> None:
        """Stage 1: forward and backward."""
        for _ in range(self.rounds):
            self._train_pose()

    def joint(self) -> None:
        """Stage 3: the agent looks at every other batch; then it trains, on six crops of each person."""
        self.agent.learner.network.eval()
        for k in range(self.rounds):
            if k % 2:
                self.agent.predict(self.crops)
            self._train_pose()
        self.agent.learner.network.train()
        for _ in range(self.rounds):
            logits = self.agent.predict(self.crops, trains=True)
            for draws in (2, 1):  # random and the agent's; uniform, apart
                self._forward(draws * len(KINDS))
            self._train_agent(logits)


def say(line: str) -> None:
    """A line of the table."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
