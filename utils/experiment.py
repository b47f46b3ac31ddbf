"""An experiment that measures the effect of an agent: `make experiment` and `python -m utils.experiment`.

Stage 1 trains a base; stage 2 collects distributions and pretrains an agent. Then every arm is trained from
the base, once per seed, and evaluated with --eval_grid, and the arms are compared. The occlusion agent needs
no collection, and its arms are evaluated with --eval_occlusion. Finished steps are skipped and an interrupted
one is resumed, so the same command continues a stopped experiment.

All arms and seeds share the base and the pretrained agent: seeds differ in the order of people and in random
numbers from there on, and the spread over seeds covers only these.
"""

import argparse
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

from data.kinds import KINDS
from options.groups import DISPLAY, PLACE
from options.parser import RECIPE, StageParser
from options.values import learning_rate, whole_number
from utils.agents import chosen_agent
from utils.compare.arms import read_arms
from utils.compare.experiment_record import ExperimentRecord
from utils.compare.run_logs import read_tables
from utils.compare.steps import run_step
from utils.compare.tables import write_comparison
from utils.records.checkpoint import SUFFIX, saved_epochs
from utils.records.distributions import distribution_path, read_checked
from utils.records.epochs import checkpoint_name, learning_rate_text
from utils.system.errors import UserError
from utils.system.files import link_file, locked
from utils.system.process import program, run_stage
from utils.system.provenance import made_with

log = logging.getLogger("experiment")

ARMS = ("random", "uniform", "pretrained", "learned")
REINFORCE = "reinforce"  # learned, too, but by this --agent_rule
ARM_FLAGS = "arms: later calls may add some"
RESTART = ("--overwrite", "true")  # a run killed while saving its first epoch has left some of its files
TRAIN = ("--is_train", "true", "--keep", 1)


def parse() -> argparse.Namespace:
    """Parse the options: flags that the stages share, and those of the experiment.

    `settings` has the options that no later call may change, name -> text: all but the groups named here.
    """
    groups = ("start", "rate", "pose_recipe", "agent_training", "pretraining", "repeats")
    parser = StageParser(__doc__.partition("\n")[0], *groups, prog=program())
    add = parser.add_argument_group(ARM_FLAGS).add_argument
    arms = (
        "arms, the reference first: random augmentation, or the agent's sampling in stage 3 (--agent_draws); "
        "reinforce: learned, by the other --agent_rule"
    )
    add("--arms", nargs="+", choices=(*ARMS, REINFORCE), default=list(ARMS), help=arms)
    seeds = "seeds of the arms; --seed is that of the base and of the agent's pretraining, shared by all arms"
    add("--seeds", nargs="+", type=whole_number(0), default=[1, 2, 3], help=seeds)
    add("--arm_epochs", type=whole_number(1), default=60, help="epochs of each arm after the base's")
    add = parser.add_argument_group("what all arms share").add_argument
    add("--base_epochs", type=whole_number(1), default=15, help="epochs of stage 1 before the arms start")
    add("--agent_epochs", type=whole_number(1), default=3, help="epochs of the agent's pretraining")
    pretrain_lr = "learning rate of the agent's pretraining; --lr is the pose network's"
    add("--pretrain_lr", type=learning_rate, default=2.5e-4, help=pretrain_lr)
    opt, free = parser.parse(), parser.flags(PLACE, DISPLAY, ARM_FLAGS)
    if (opt.warmup or 0) >= min(opt.base_epochs, opt.arm_epochs):
        parser.error(f"--warmup {opt.warmup:g}: expected fewer epochs than --base_epochs and --arm_epochs")
    opt.settings = {name: str(getattr(opt, name)) for name in opt.defaults if name not in free}
    if opt.lr_schedule != "step":  # it ends with the arms
        opt.settings["arm_epochs"] = str(opt.arm_epochs)
    return opt


def main() -> None:
    opt = parse()
    experiment = Experiment(opt)
    with locked(experiment.out):
        experiment.record.refuse_other_settings(experiment.shared_stages())
        for number, (title, command) in enumerate(experiment.steps(), 1):
            heading = f"{number} of {experiment.number_of_steps}"
            if command is None:
                log.info("=== %s, finished: %s", heading, title)
            else:
                experiment.record.add_made_with(made_with(opt.gpu_id))
                run_step(f"{heading}: {title}", command)
        experiment.compare()


class Experiment:
    """The steps of an experiment, and their state in its folder.

    folder: the folder of the base, with the folders of the agent, of the arms and of the comparison (`out`)
    inside. last: the last epoch of arms. pose_recipe: the flags with which the pose network is trained, in
    the base and in the arms. record: see `ExperimentRecord`.
    """

    def __init__(self, opt: argparse.Namespace) -> None:
        self.opt, self.folder = opt, opt.exp_folder
        self.base = checkpoint_name(opt.lr, opt.base_epochs - 1)
        self.agent = chosen_agent(opt)
        self.collected = tuple(KINDS) if self.agent.collects else ()
        self.pretrained = checkpoint_name(opt.pretrain_lr, opt.agent_epochs - 1)
        self.last = opt.base_epochs + opt.arm_epochs - 1
        self.arms, self.seeds = dict.fromkeys(opt.arms), dict.fromkeys(opt.seeds)
        self.agent_folder = self.folder / f"{self.agent.default_folder}-{self.base}"
        self.out = self.folder / "comparison"
        self.record = ExperimentRecord(self.folder, opt.settings, opt.defaults)
        everywhere, pose = StageParser("").defaults, StageParser("", "rate", "pose_recipe").defaults
        self.pose_recipe = [name for name in pose if name not in everywhere]
        self.number_of_steps = 2 + len(self.collected) + 2 * len(self.arms) * len(self.seeds)

    def shared_stages(self) -> dict[Path, tuple[int, dict[str, str]]]:
        """For the base and the agent: folder -> (number of epochs, options that they are trained with)."""
        # Of these an experiment gives the stages only what is in `settings`.
        fixed = StageParser("", "rate", "pose_training", "agent_recipe", "ranks").defaults
        settings = {name: str(fixed[name]) for name in RECIPE if name in fixed} | self.opt.settings
        end = {"nEpochs": str(self.opt.base_epochs)} if self.opt.lr_schedule != "step" else {}
        agent = {"lr": settings["pretrain_lr"], "weight_decay": str(fixed["weight_decay"])}
        return {
            self.folder: (self.opt.base_epochs, settings | end),
            self.agent_folder: (self.opt.agent_epochs, settings | agent),
        }

    def steps(self) -> Iterator[tuple[str, str | None]]:
        """The title and command line of each step, None for a finished one, from the files present by then.

        Raises:
            UserError: an arm has more epochs than it should, or collections are of other --repeats.
        """
        yield "stage 1: the base", self.base_step()
        for kind in self.collected:
            yield f"stage 2: how hard is each {kind}?", self.collection_step(kind)
        yield f"stage 2: the {self.agent.title} is pretrained", self.pretraining_step()
        for seed in self.seeds:
            for arm in self.arms:
                step = self.random_step if arm == "random" else self.joint_step
                yield f"arm {arm}, seed {seed}", step(arm, seed)
                yield f"arm {arm}, seed {seed}: the evaluation", self.evaluation_step(arm, seed)

    def base_step(self) -> str | None:
        if (self.folder / f"{self.base}{SUFFIX}").exists():
            return None
        start = resume_or_restart("--load_prefix_pose", self.folder)
        if start == RESTART:  # a checkpoint has all weights
            start += tuple(self.changed("pretrained", "backbone_weights"))
        flags = (*self.changed("seed", *self.pose_recipe), *TRAIN, "--nEpochs", self.opt.base_epochs, *start)
        return self.stage("stack-hg.py", self.opt.exp_id, *flags)

    def collection_step(self, kind: str) -> str | None:
        """Raises a `UserError` if the files that are there are of other --repeats."""
        paths = [distribution_path(self.agent_folder, split, kind) for split in ("train", "val")]
        if all(path.exists() for path in paths):
            for path in paths:  # users may have collected by themselves
                read_checked(path, {"kind": kind, "repeats": self.opt.repeats})
            return None
        flags = ("--load_prefix_pose", self.base, *self.changed("seed", "repeats"))
        return self.stage(f"collect-{kind}-distri.py", self.opt.exp_id, *flags)

    def pretraining_step(self) -> str | None:
        if (self.agent_folder / f"{self.pretrained}{SUFFIX}").exists():
            return None
        switch = (f"--{self.agent.switch}", "true") if self.agent.switch else ()
        flags = (
            *("--load_prefix_pose", self.base, *switch),
            *("--lr", learning_rate_text(self.opt.pretrain_lr), "--nEpochs", self.opt.agent_epochs),
            *resume_or_restart(f"--{self.agent.load}", self.agent_folder),
        )
        return self.stage("pretrain-s-r-agent.py", self.opt.exp_id, *self.changed("seed"), *flags)

    def random_step(self, arm: str, seed: int) -> str | None:
        """Resume stage 1 in the folder of the arm, which gets a link to the base first."""
        folder = self.arm_folder(arm, seed)
        if self.finished(folder):
            return None
        if not saved_epochs(folder):
            folder.mkdir(parents=True, exist_ok=True)
            link_file(folder / f"{self.base}{SUFFIX}", self.folder / f"{self.base}{SUFFIX}")
        start = () if self.opt.lr_schedule == "step" else ("--schedule_start", self.opt.base_epochs)
        flags = (*self.arm_flags(seed), *start, *resume_or_restart("--load_prefix_pose", folder))
        return self.stage("stack-hg.py", f"{self.opt.exp_id}/{folder.name}", *flags)

    def joint_step(self, arm: str, seed: int) -> str | None:
        folder = self.arm_folder(arm, seed)
        if self.finished(folder, "pose-"):
            return None
        start = (f"--{self.agent.load}", self.pretrained, *RESTART)
        if saved_epochs(folder, "pose-"):
            start = ("--load_checkpoint", "true")
        learns = arm in ("learned", REINFORCE)
        flags = (
            *("--load_prefix_pose", self.base, "--joint_dir", f"{arm}-{seed}"),
            *(f"--{self.agent.draws}", "learned" if learns else arm),
            *(("--agent_rule", arm) if arm == REINFORCE else ()),
            *self.arm_flags(seed),
            *self.changed("agent_lr", *(["agent_iters"] if learns else [])),
            *start,
        )
        return self.stage("joint-train-pose-s-r-agent.py", self.opt.exp_id, *flags)

    def evaluation_step(self, arm: str, seed: int) -> str | None:
        folder, evaluation = self.arm_folder(arm, seed), self.agent.evaluation
        checkpoint = ("" if arm == "random" else "pose-") + checkpoint_name(self.opt.lr, self.last)
        limited = f"first-{self.opt.limit}"  # if --limit leaves out people
        if {(evaluation, ""), (evaluation, limited)} & read_tables(folder, self.last).keys():
            return None
        flags = ("--load_prefix_pose", checkpoint, f"--eval_{evaluation}", "true")
        return self.stage("stack-hg.py", f"{self.opt.exp_id}/{folder.name}", *flags)

    def compare(self) -> None:
        """Compare all arms, and log and write the table, with the provenance of the results below it."""
        named = [(arm, [self.arm_folder(arm, seed) for seed in self.seeds]) for arm in self.arms]
        base = self.folder / f"{self.base}{SUFFIX}"
        experiment = self.folder if self.opt.use_html else None
        write_comparison(read_arms(named, from_checkpoint=base), self.out, self.footer(), experiment)

    def footer(self) -> list[str]:
        """Lines below the table: epochs, options that differ from their defaults, commits and machines."""
        opt = self.opt
        changed = shlex.join(self.changed(*(name for name in opt.settings if not name.endswith("_epochs"))))
        return [
            f"Epochs: {opt.base_epochs} of the base, {opt.agent_epochs} of the agent's pretraining, "
            f"{opt.arm_epochs} of each arm. Options: {changed or 'the defaults'}.",
            *(f"Made with {made}." for made in self.record.made_with),
        ]

    def arm_folder(self, arm: str, seed: int) -> Path:
        return self.folder / (f"random-{seed}" if arm == "random" else f"{arm}-{seed}-{self.base}")

    def arm_flags(self, seed: int) -> tuple:
        """The training flags that all arms of a seed have in common."""
        return (*self.changed(*self.pose_recipe), *TRAIN, "--seed", seed, "--nEpochs", self.last + 1)

    def finished(self, folder: Path, prefix: str = "") -> bool:
        """Whether a run of an arm has saved its last epoch.

        Raises:
            UserError: it has saved a later one.
        """
        newest = max(saved_epochs(folder, prefix).values(), default=-1)
        if newest > self.last:
            epochs = newest + 1 - self.opt.base_epochs
            raise UserError(
                f"{folder} has {epochs} epochs of its arm already: use --arm_epochs {epochs} or more"
            )
        return newest == self.last

    def stage(self, script: str, exp_id: str, *flags: object) -> str:
        """The command line of a stage, with the options that all stages share."""
        individual = ("exp_id", "seed")  # which the steps set
        shared = self.changed(*(name for name in StageParser("").defaults if name not in individual))
        return shlex.join(["python", script, "--exp_id", exp_id, *shared, *map(str, flags)])

    def changed(self, *names: str) -> list[str]:
        """Flags and values of those of these options that differ from their defaults."""
        flags = []
        for name in names:
            value = getattr(self.opt, name, None)
            if value != self.opt.defaults[name]:
                values = value if isinstance(value, list) else [value]
                flags += [f"--{name}", *(str(v).lower() if isinstance(v, bool) else str(v) for v in values)]
        return flags


def resume_or_restart(flag: str, folder: Path) -> tuple[str, ...]:
    """The flags that resume a run from the newest epoch in its folder, or start it if there is none."""
    epochs = saved_epochs(folder)
    return (flag, max(epochs, key=epochs.get).name.removesuffix(SUFFIX)) if epochs else RESTART


if __name__ == "__main__":
    run_stage(main)
