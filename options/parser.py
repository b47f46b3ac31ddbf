"""Every flag of the five stages, once: its help, type, choices and checks."""

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
"""Flags that decide how a network is trained, beside its people and its size; kept with each epoch."""

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
"""The groups of joint training, whose command line `utils.show_agent` takes, too."""

PLACE, DISPLAY = "folders and devices", "display"
"""The titles of groups of flags that change no result."""


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults in the help, of flags that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """A command line whose mistakes end in one line and exit code 2, and whose help shows defaults."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=_Defaults,
        )

    def error(self, message: str) -> None:
        """One line instead of the usage."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


class StageParser(OneLineParser):
    """The command line of a stage: the flags all stages share, and groups that a stage asks for by name.

    A group is the name of one of the methods below, without its underscore.
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
        """The options; a wrong one ends the process with code 2.

        Beside the flags there are `defaults` (name -> default), `given` (names of the flags on the command
        line), `recipe` (the values of `RECIPE`), `out_res`, and the folders of the experiment, of its agents
        and of its joint training.
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
            if name not in opt.given or getattr(opt, name) is False:  # a switch that is off does what it says
                continue
            for condition in conditions:
                if condition.flag in opt and not condition.holds(opt):
                    self.error(f"--{name} applies only {condition.words}: leave it out")

    def _check_sizes(self, opt: argparse.Namespace) -> None:
        stride = NETWORKS[opt.network].stride
        side = opt.in_res // stride
        if opt.in_res % stride:
            self.error(f"--in_res {opt.in_res}: expected a multiple of {stride}")
        if opt.bs == 1 and side == 1 and getattr(opt, "is_train", "nEpochs" in opt):  # pretraining has none
            self.error(f"--bs 1: at --in_res {opt.in_res} batch statistics need at least 2 people")
        masking = [flag for agent in AGENTS.values() if agent.masks for flag in (agent.switch, agent.load)]
        for name in (*masking, "eval_occlusion"):
            if getattr(opt, name, None) and side**2 <= MASKED_CELLS:
                self.error(
                    f"--{name}: at --in_res {opt.in_res} there are {side} x {side} cells to mask: "
                    f"expected --in_res {2 * stride} or more"
                )

    def _find_folders(self, opt: argparse.Namespace) -> None:
        """Where a run's files are; checkpoints are named by their bare prefixes from here on."""
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
            "decode each person once: DIR keeps the patches for later epochs, stages and runs; "
            "gpu in the device's memory, for later epochs"
        )
        add("--cache", type=cache_place, metavar="DIR|gpu", help=cache)
        add(
            "--gpu_id",
            type=gpu_number,
            default=0,
            help="number of the CUDA GPU; -1, or no CUDA: the CPU",
        )
        add(
            "--nThreads",
            type=whole_number(0),
            default=4,
            help="processes that load photographs, at most one per CPU; 0: the main one loads",
        )

    def _arithmetic(self) -> None:
        add = self.add_argument_group("random draws and arithmetic").add_argument
        add("--seed", type=whole_number(0), default=0, help="seed of initial weights and random draws")
        add(
            "--precision",
            choices=("fp32", "tf32", "bf16"),
            default="fp32",
            help="arithmetic of the networks; weights, losses and metrics are always fp32",
        )
        compiled = "compile the networks on a GPU; takes minutes at the start"
        add("--compile", type=boolean, default=False, help=compiled)

    def _data(self) -> None:
        add = self.add_argument_group("data").add_argument
        add(
            "--dataset",
            choices=DATASETS,
            default="mpii",
            help="demo is drawn by the program and needs no download",
        )
        add("--annotations", type=Path, help="annotation file, instead of the one found by its name")
        add("--limit", type=whole_number(1), help="use only the first LIMIT people of each split")
        missing = "leave out people whose photograph is missing or incomplete (empty, cut off)"
        add("--skip_missing", type=boolean, default=False, help=missing)
        add("--skip_bad", type=boolean, default=False, help="leave out people with bad annotations")
        add("--bs", type=whole_number(1), default=24, help="batch size")

    def _network(self) -> None:
        add = self.add_argument_group("pose network (the defaults are the paper's)").add_argument
        add(
            "--network",
            choices=NETWORKS,
            default="hourglass",
            help="stacked hourglasses, or SimpleBaseline (a ResNet-50)",
        )
        add("--num_stacks", type=whole_number(1), default=2, help="number of stacked hourglasses")
        add(
            "--num_modules",
            type=whole_number(1),
            default=1,
            help="residual blocks at each position of an hourglass",
        )
        add("--chan", type=whole_number(2, multiple_of=2), default=256, help="channels of an hourglass")
        in_res = "side of the crops in px, a multiple of 64; heatmaps are a quarter of it"
        add("--in_res", type=whole_number(1), default=256, help=in_res)

    def _display(self) -> None:
        add = self.add_argument_group(DISPLAY).add_argument
        add("--print_freq", type=whole_number(1), default=10, help="batches between lines of the log file")
        add("--use_visdom", type=boolean, default=True, help="draw curves in a visdom server")
        add("--vis_env", help="visdom environment; default: the experiment's id")
        add("--vis_server", default="http://localhost", help="visdom server")
        add("--vis_port", type=whole_number(1), default=8097, help="port of the visdom server")
        add("--use_html", type=boolean, default=True, help="write HTML pages of results")
        add("--display_winsize", type=whole_number(64), default=256, help="side of pictures on the pages, px")
        add("--display_freq", type=whole_number(1), default=10, help="batches between points of the curves")

    def _pose(self) -> None:
        add = self.add_argument_group("stage 1's result").add_argument
        add("--load_prefix_pose", required=True, help="the pose network, such as lr-0.00025-10.pth.tar")

    def _collecting(self) -> None:
        for agent in AGENTS.values():
            if agent.collects:
                self._agent_folder(agent)

    def _agents(self) -> None:
        for agent in AGENTS.values():
            add = self._agent_folder(agent).add_argument
            start = (
                f"the {agent.title} to start from, such as lr-0.00025-1.pth.tar; joint training takes best,"
            )
            add(f"--{agent.load}", help=f"{start} too, that of least validation loss")

    def _agent_folder(self, agent: AgentType) -> argparse._ArgumentGroup:
        group = self.add_argument_group(f"the {agent.title}")
        start = "start of its folder's name; the pose network's prefix follows"
        default = agent.folder.replace("_", "-")
        group.add_argument(f"--{agent.folder}", type=folder_name, default=default, help=start)
        return group

    def _pretraining(self) -> None:
        add = self.add_argument_group("which agent").add_argument
        for agent in AGENTS.values():
            if agent.switch is not None:
                add(f"--{agent.switch}", type=boolean, default=False, help=f"train the {agent.title}")

    def _overwrite(self) -> None:
        add = self.add_argument_group("earlier results").add_argument
        add("--overwrite", type=boolean, default=False, help="replace what an earlier run has written")

    def _epochs(self) -> None:
        add = self.add_argument_group("epochs").add_argument
        add("--nEpochs", type=whole_number(1), default=100, help="epochs in all, the resumed ones included")
        keep = "keep the files of only the newest KEEP epochs of this run, and of the best; default: of all"
        add("--keep", type=whole_number(1), help=keep)

    def _ranks(self) -> None:
        add = self.add_argument_group("several GPUs, with torchrun").add_argument
        sync_bn = "batch statistics of all GPUs' people together; default: of each GPU's own"
        add("--sync_bn", type=boolean, default=False, help=sync_bn)

    def _rate(self) -> None:
        add = self.add_argument_group("learning rate").add_argument
        add(
            "--lr",
            type=learning_rate,
            default=2.5e-4,
            help="learning rate of the network that this stage trains",
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
        grid = "also PCK under each of the 7 x 7 means of scale and rotation bins"
        add("--eval_grid", type=boolean, default=False, help=grid)
        cells = "also PCK with each single cell of the network's smallest map masked"
        add("--eval_occlusion", type=boolean, default=False, help=cells)

    def _image(self) -> None:
        add = self.add_argument_group("one photograph").add_argument
        add("--image", type=Path, help="a photograph to predict the pose in, with --load_prefix_pose")
        add(
            "--center",
            type=float,
            nargs=2,
            metavar=("X", "Y"),
            help="px of the photograph: the middle of the person's square; default: of the whole photograph",
        )
        add(
            "--scale",
            type=learning_rate,
            help="side of that square / 200 px; default: the whole photograph's",
        )

    def _joint(self) -> None:
        add = self.add_argument_group("joint training").add_argument
        add(
            "--joint_dir",
            type=folder_name,
            default="joint",
            help="start of its folder's name; the pose network's prefix follows",
        )
        add(
            "--load_checkpoint",
            type=boolean,
            default=False,
            help="resume joint training from its newest epoch, or evaluate that epoch",
        )
        draws = (
            "by the agent as it trains, by the agent as pretraining left it, or all choices with equal "
            "probability; comparing them shows what is due to the agent's choice and what to its range"
        )
        for agent in AGENTS.values():
            how = f"how the {agent.title}'s batches are drawn: {draws}"
            choices = ("learned", "pretrained", "uniform")
            add(f"--{agent.draws}", choices=choices, default="learned", help=how)
        self._agent_training()

    def _agent_training(self) -> None:
        add = self.add_argument_group("the agents' part of joint training").add_argument
        add("--agent_lr", type=learning_rate, default=5e-5, help="learning rate of the agents")
        add(
            "--agent_iters",
            type=whole_number(1),
            help="batches on which each agent trains in an epoch; default: all",
        )

    def _agent_recipe(self) -> None:
        add = self.add_argument_group("the agent's training (the defaults are the paper's)").add_argument
        mirror = "mirror half of the crops, and what the agent learns to predict of them"
        add("--mirror", type=boolean, default=False, help=mirror)
        decay = "what the optimiser adds to the gradient: this times the weights"
        add("--weight_decay", type=weight_decay, default=0.0, help=decay)
