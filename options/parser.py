"""The flags of the five stages: help, types, choices and checks."""

import argparse
from pathlib import Path

from data import DATASETS
from models import MASKED_CELLS, NETWORKS
from options.conditions import CONDITIONS
from options.values import (
    boolean,
    cache_place,
    checkpoint_prefix,
    folder_name,
    gpu_number,
    learning_rate,
    weight_decay,
    whole_number,
)
from utils.agents import AGENTS, AgentType

RECIPE = (
    "seed",
    "bs",
    "precision",
    "sync_bn",
    "lr",
    "weight_decay",
    "mirror",
    "agent_lr",
    "agent_iters",
    *(agent.draws for agent in AGENTS.values()),
)
"""Flags that decide how a network is trained, apart from its data and size; recorded for each epoch."""

STAGE_3 = (
    "train_or_evaluate",
    "pose",
    "agents",
    "joint",
    "rate",
    "epochs",
    "ranks",
    "overwrite",
    "evaluation",
)
"""The groups of flags of joint training; `utils.show_agent` takes the same command line."""

PLACE, DISPLAY = "folders and devices", "display"
"""The titles of the groups whose flags do not change the results."""


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """A help formatter that shows the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line and exit code 2, and shows defaults in its help."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=_Defaults,
        )

    def error(self, message: str) -> None:
        """Print one line, without the usage, and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


class StageParser(OneLineParser):
    """The command line of a stage: the flags that all stages share, and the groups that the stage names.

    groups: names of the methods below that add flags, without their underscore.
    """

    def __init__(self, description: str, *groups: str) -> None:
        super().__init__(description)
        self._place()
        self._arithmetic()
        self._data()
        self._network()
        self._display()
        for group in groups:
            getattr(self, f"_{group}")()
        flags = {action.dest: action for action in self._actions}
        for name, conditions in CONDITIONS.items():
            words = [condition.words for condition in conditions if condition.flag in flags]
            if name in flags and words:
                flags[name].help += f"; only {' and '.join(words)}"

    def parse(self, arguments: list[str] | None = None) -> argparse.Namespace:
        """Parse and check the command line; an invalid option ends the process with exit code 2.

        Returns the value of each flag, and `defaults` (name -> default), `given` (names of the flags on the
        command line), `recipe` (the values of `RECIPE`), `out_res` (side of the heatmaps, px), and the
        folders of the experiment, of its agents and of its joint training.
        """
        opt = self._parse(arguments)
        self._check_applies(opt)
        self._check_sizes(opt)
        opt.out_res = opt.in_res // NETWORKS[opt.network].heatmap_stride
        self._find_folders(opt)
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
        opt.recipe = {name: getattr(opt, name) for name in RECIPE if name in opt}
        return opt

    def _check_applies(self, opt: argparse.Namespace) -> None:
        for name, conditions in CONDITIONS.items():
            if name not in opt.given or getattr(opt, name) is False:  # false is harmless
                continue
            for condition in conditions:
                if condition.flag in opt and not condition.holds(opt):
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

    def _place(self) -> None:
        add = self.add_argument_group(PLACE).add_argument
        add("--exp_id", required=True, help="name of the experiment and of its folder")
        add("--exp_dir", type=Path, default=Path("checkpoints"), help="folder of all experiments")
        add("--data_dir", type=Path, default=Path("dataset"), help="folder of the data sets")
        cache = (
            "decode each person only once and keep the image patches: in the folder DIR, for later epochs, "
            "stages and runs, or in the memory of the device (gpu), for later epochs of this run"
        )
        add("--cache", type=cache_place, metavar="DIR|gpu", help=cache)
        add(
            "--gpu_id",
            type=gpu_number,
            default=0,
            help="index of the CUDA GPU; -1: use the CPU, as a machine without CUDA does",
        )
        add(
            "--nThreads",
            type=whole_number(0),
            default=4,
            help="number of loader processes, at most one per CPU; 0: load in the main process",
        )

    def _arithmetic(self) -> None:
        add = self.add_argument_group("random numbers and arithmetic").add_argument
        add("--seed", type=whole_number(0), default=0, help="seed of initial weights and random numbers")
        add(
            "--precision",
            choices=("fp32", "tf32", "bf16"),
            default="fp32",
            help="precision of the networks' arithmetic; weights, losses and metrics are always fp32",
        )
        compiled = "compile the networks on a GPU; adds minutes to the start"
        add("--compile", type=boolean, default=False, help=compiled)

    def _data(self) -> None:
        add = self.add_argument_group("data").add_argument
        add(
            "--dataset",
            choices=DATASETS,
            default="mpii",
            help="data set; demo is generated on first use, without a download",
        )
        annotations = "annotation file; default: the usual file of the data set in --data_dir"
        add("--annotations", type=Path, help=annotations)
        add("--limit", type=whole_number(1), help="use only the first LIMIT people of each split")
        missing = "skip people whose photograph is missing or incomplete (empty, truncated)"
        add("--skip_missing", type=boolean, default=False, help=missing)
        add("--skip_bad", type=boolean, default=False, help="skip people with invalid annotations")
        add("--bs", type=whole_number(1), default=24, help="batch size")

    def _network(self) -> None:
        add = self.add_argument_group("pose network (the defaults are the paper's)").add_argument
        add(
            "--network",
            choices=NETWORKS,
            default="hourglass",
            help="architecture: stacked hourglasses, or SimpleBaseline (a ResNet-50)",
        )
        add("--num_stacks", type=whole_number(1), default=2, help="number of stacked hourglasses")
        add(
            "--num_modules",
            type=whole_number(1),
            default=1,
            help="number of residual blocks at each position of an hourglass",
        )
        channels = "number of channels of an hourglass"
        add("--chan", type=whole_number(2, multiple_of=2), default=256, help=channels)
        in_res = "side of the input crops in px, a multiple of 64; that of the heatmaps is a quarter"
        add("--in_res", type=whole_number(1), default=256, help=in_res)

    def _display(self) -> None:
        add = self.add_argument_group(DISPLAY).add_argument
        add("--print_freq", type=whole_number(1), default=10, help="write a line to the log every N batches")
        add("--use_visdom", type=boolean, default=True, help="plot curves on a visdom server")
        add("--vis_env", help="visdom environment; default: --exp_id")
        add("--vis_server", default="http://localhost", help="URL of the visdom server")
        add("--vis_port", type=whole_number(1), default=8097, help="port of the visdom server")
        add("--use_html", type=boolean, default=True, help="write HTML pages of results")
        add(
            "--display_winsize",
            type=whole_number(64),
            default=256,
            help="side of images on the pages, px",
        )
        add(
            "--display_freq",
            type=whole_number(1),
            default=10,
            help="plot a point every N batches",
        )

    def _pose(self) -> None:
        add = self.add_argument_group("stage 1's result").add_argument
        pose = "checkpoint of the pose network, such as lr-0.00025-10.pth.tar"
        add("--load_prefix_pose", required=True, help=pose)

    def _collecting(self) -> None:
        for agent in AGENTS.values():
            if agent.collects:
                self._agent_folder(agent)

    def _agents(self) -> None:
        for agent in AGENTS.values():
            add = self._agent_folder(agent).add_argument
            start = (
                f"checkpoint of the {agent.title} to start from, such as lr-0.00025-1.pth.tar; joint "
                "training also accepts best, the checkpoint with the lowest validation loss"
            )
            add(f"--{agent.load}", help=start)

    def _agent_folder(self, agent: AgentType) -> argparse._ArgumentGroup:
        group = self.add_argument_group(f"the {agent.title}")
        start = "name of its folder, to which the prefix of the pose network's checkpoint is appended"
        flag, default = f"--{agent.folder}", agent.default_folder
        group.add_argument(flag, type=folder_name, default=default, help=start)
        return group

    def _pretraining(self) -> None:
        add = self.add_argument_group("which agent").add_argument
        for agent in AGENTS.values():
            if agent.switch is not None:
                add(f"--{agent.switch}", type=boolean, default=False, help=f"train the {agent.title}")

    def _overwrite(self) -> None:
        add = self.add_argument_group("earlier results").add_argument
        add("--overwrite", type=boolean, default=False, help="replace the files of an earlier run")

    def _epochs(self) -> None:
        add = self.add_argument_group("epochs").add_argument
        epochs = "total number of epochs, including those in the checkpoint"
        add("--nEpochs", type=whole_number(1), default=100, help=epochs)
        keep = "keep only the files of this run's best epoch and newest KEEP epochs; default: keep all"
        add("--keep", type=whole_number(1), help=keep)

    def _ranks(self) -> None:
        add = self.add_argument_group("several GPUs, with torchrun").add_argument
        sync_bn = "compute batch statistics over the batches of all GPUs, not over each GPU's own batch"
        add("--sync_bn", type=boolean, default=False, help=sync_bn)

    def _rate(self) -> None:
        add = self.add_argument_group("learning rate").add_argument
        add(
            "--lr",
            type=learning_rate,
            default=2.5e-4,
            help="learning rate of the network trained in this stage",
        )

    def _train_or_evaluate(self) -> None:
        add = self.add_argument_group("train or evaluate").add_argument
        what = "true: train; false: evaluate the loaded checkpoint and write its predictions"
        add("--is_train", type=boolean, default=False, help=what)

    def _resume_pose(self) -> None:
        add = self.add_argument_group("checkpoint").add_argument
        add(
            "--load_prefix_pose",
            help="checkpoint to resume from or to evaluate, such as lr-0.00025-10.pth.tar",
        )

    def _evaluation(self) -> None:
        add = self.add_argument_group("evaluation").add_argument
        grid = "also compute PCK at each of the 7 x 7 combinations of the scale and rotation bins' means"
        add("--eval_grid", type=boolean, default=False, help=grid)
        cells = "also compute PCK with each cell of the network's smallest feature map masked in turn"
        add("--eval_occlusion", type=boolean, default=False, help=cells)

    def _image(self) -> None:
        add = self.add_argument_group("one photograph").add_argument
        add("--image", type=Path, help="predict the pose in this photograph; needs --load_prefix_pose")
        add(
            "--center",
            type=float,
            nargs=2,
            metavar=("X", "Y"),
            help="center of the square around the person, in px; default: the center of the photograph",
        )
        add(
            "--scale",
            type=learning_rate,
            help="side of that square, divided by 200 px; default: a square that holds the whole photograph",
        )

    def _joint(self) -> None:
        add = self.add_argument_group("joint training").add_argument
        add(
            "--joint_dir",
            type=folder_name,
            default="joint",
            help="name of its folder, to which the prefix of the pose network's checkpoint is appended",
        )
        add(
            "--load_checkpoint",
            type=boolean,
            default=False,
            help="load the newest epoch of joint training, to resume from it or to evaluate it",
        )
        draws = (
            "learned: by the agent, which keeps training; pretrained: by the agent as pretraining left it; "
            "uniform: with equal probabilities. Comparing them separates the effect of the agent's choice "
            "from that of its range"
        )
        for agent in AGENTS.values():
            how = f"how the {agent.title}'s batches are sampled. {draws}"
            choices = ("learned", "pretrained", "uniform")
            add(f"--{agent.draws}", choices=choices, default="learned", help=how)
        self._agent_training()

    def _agent_training(self) -> None:
        add = self.add_argument_group("training of the agents").add_argument
        add("--agent_lr", type=learning_rate, default=5e-5, help="learning rate of the agents")
        add(
            "--agent_iters",
            type=whole_number(1),
            help="number of batches per epoch on which each agent trains; default: all",
        )

    def _agent_recipe(self) -> None:
        add = self.add_argument_group("the agent's training (the defaults are the paper's)").add_argument
        mirror = "mirror half of the crops, and the agent's targets with them"
        add("--mirror", type=boolean, default=False, help=mirror)
        decay = "weight decay (L2 penalty) of the optimizer"
        add("--weight_decay", type=weight_decay, default=0.0, help=decay)
