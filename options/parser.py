"""The command lines of the five stages: their groups of flags, and checks of what was given."""

import argparse
import sys
from functools import partial
from pathlib import Path

from models import MASKED_CELLS, NETWORKS
from options import groups as flag_groups
from options.conditions import CONDITIONS, unmet
from options.resuming import resuming
from options.values import checkpoint_prefix
from utils.agents import AGENTS

RECIPE = (
    "seed",
    "bs",
    "precision",
    "sync_bn",
    "lr",
    "weight_decay",
    "optimizer",
    "lr_schedule",
    "lr_steps",
    "warmup",
    "schedule_start",
    "mirror",
    "agent_lr",
    "agent_rule",
    "agent_iters",
    *(agent.draws for agent in AGENTS.values()),
)
"""Flags that decide how a network is trained, apart from its data and size; recorded for each epoch."""


def recipe_flags(schedule: str) -> tuple[str, ...]:
    """`RECIPE`, and --nEpochs where the learning rate of a `--lr_schedule` depends on it."""
    return RECIPE if schedule == "step" else (*RECIPE, "nEpochs")


STAGE_3 = (
    "train_or_evaluate",
    "pose",
    "agents",
    "joint",
    "rate",
    "pose_training",
    "epochs",
    "ranks",
    "overwrite",
    "evaluation",
)
"""The groups of flags of joint training; `utils.show_agent` takes the same command line."""


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """A help formatter that shows the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line and exit code 2, and shows defaults in its help."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, formatter_class=_Defaults)

    def error(self, message: str) -> None:
        """Print one line, without the usage, and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


class StageParser(OneLineParser):
    """The command line of a stage: the flags that all stages share, and the groups that the stage names.

    groups: names of functions of `options.groups`. prog: as of `OneLineParser`.
    """

    def __init__(self, description: str, *groups: str, prog: str | None = None) -> None:
        super().__init__(description, prog)
        for group in ("place", "arithmetic", "data", "network", "display", *groups):
            getattr(flag_groups, group)(self)
        flags = {action.dest: action for action in self._actions}
        for name, conditions in CONDITIONS.items():
            words = [condition.words for condition in conditions if condition.flag in flags]
            if name in flags and words:
                flags[name].help += f"; only {' and '.join(words)}"

    def parse(self, arguments: list[str] | None = None) -> argparse.Namespace:
        """Parse and check the command line; an invalid option ends the process with exit code 2.

        Returns the value of each flag, and `defaults` (name -> default), `given` (names of the flags on the
        command line), `recipe` (the values of `recipe_flags`), `out_res` (side of the heatmaps, px), the
        folders of the experiment, of its agents and of its joint training, and `resuming` (flag, value -> the
        arguments that resume the run).
        """
        opt = self._parse(arguments)
        self._check_applies(opt)
        self._check_sizes(opt)
        opt.out_res = opt.in_res // NETWORKS[opt.network].heatmap_stride
        self._find_folders(opt)
        opt.resuming = partial(resuming, sys.argv[1:] if arguments is None else arguments, opt)
        return opt

    @property
    def defaults(self) -> dict[str, object]:
        """The default of each flag, by its name."""
        actions = (action for action in self._actions if action.default is not argparse.SUPPRESS)
        return {action.dest: action.default for action in actions}

    def flags(self, *titles: str) -> list[str]:
        """The names of the flags in the groups of these titles."""
        groups = (group for group in self._action_groups if group.title in titles)
        return [action.dest for group in groups for action in group._group_actions]

    def _parse(self, arguments: list[str] | None) -> argparse.Namespace:
        unset = object()
        opt = self.parse_args(arguments, argparse.Namespace(**dict.fromkeys(self.defaults, unset)))
        opt.given = frozenset(name for name in self.defaults if getattr(opt, name) is not unset)
        for name in self.defaults.keys() - opt.given:
            setattr(opt, name, self.defaults[name])
        opt.defaults = self.defaults
        flags = recipe_flags(getattr(opt, "lr_schedule", "step"))
        opt.recipe = {name: getattr(opt, name) for name in flags if name in opt}
        return opt

    def _check_applies(self, opt: argparse.Namespace) -> None:
        for name in CONDITIONS:
            if name in opt.given and (condition := unmet(name, opt)):
                self.error(f"--{name} applies only {condition.words}: remove it")

    def _check_sizes(self, opt: argparse.Namespace) -> None:
        stride = NETWORKS[opt.network].stride
        side = opt.in_res // stride
        if opt.in_res % stride:
            self.error(f"--in_res {opt.in_res}: expected a multiple of {stride}")
        # Pretraining has no --is_train: it always trains.
        if opt.bs == 1 and side == 1 and getattr(opt, "is_train", "nEpochs" in opt):
            self.error(f"--bs 1: expected 2 or more, which batch statistics at --in_res {opt.in_res} need")
        masking = [flag for agent in AGENTS.values() if agent.masks for flag in (agent.switch, agent.load)]
        for name in (*masking, "eval_occlusion"):
            if getattr(opt, name, None) and side**2 <= MASKED_CELLS:
                self.error(
                    f"--{name}: --in_res {opt.in_res} leaves only {side} x {side} cells to mask: "
                    f"expected --in_res {2 * stride} or more"
                )

    def _find_folders(self, opt: argparse.Namespace) -> None:
        """Set the folders of a run, and reduce paths of checkpoints to their prefixes."""
        name = Path(opt.exp_id)
        if not name.parts or name.anchor or ".." in name.parts:
            self.error(f"--exp_id {opt.exp_id}: expected the name of a folder inside {opt.exp_dir}")
        opt.exp_folder = opt.exp_dir / name
        self._find_checkpoint(opt, "load_prefix_pose", opt.exp_folder)
        pose = getattr(opt, "load_prefix_pose", None) or ""
        opt.agent_folders = {}
        for agent in AGENTS.values():
            if agent.folder in opt:
                folder = opt.exp_folder / f"{getattr(opt, agent.folder)}-{pose}"
                opt.agent_folders[agent.name] = folder
                self._find_checkpoint(opt, agent.load, folder)
        if "joint_dir" in opt:
            opt.joint_folder = opt.exp_folder / f"{opt.joint_dir}-{pose}"

    def _find_checkpoint(self, opt: argparse.Namespace, name: str, folder: Path) -> None:
        if getattr(opt, name, None) is not None:
            try:
                setattr(opt, name, checkpoint_prefix(getattr(opt, name), folder))
            except ValueError as error:
                self.error(f"--{name} {error}")
