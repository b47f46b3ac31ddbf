"""The flags of the five stages, in groups: help, types and choices.

Each function adds a group of flags to a command line; `StageParser` names groups by these functions.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

from data import DATASETS
from models import NETWORKS
from options.values import (
    LrSteps,
    boolean,
    cache_place,
    folder_name,
    gpu_number,
    learning_rate,
    name_pair,
    non_negative,
    whole_number,
)
from utils.agents import AGENTS, AgentType

PLACE, DISPLAY = "folders and devices", "display"
"""The titles of the groups whose flags do not change the results."""


def place(parser: ArgumentParser) -> None:
    """Folders, devices and loader processes."""
    add = parser.add_argument_group(PLACE).add_argument
    add("--exp_id", required=True, help="name of the experiment and of its folder")
    add("--exp_dir", type=Path, default=Path("checkpoints"), help="folder of all experiments")
    add("--data_dir", type=Path, default=Path("dataset"), help="folder of the data sets")
    cache = (
        "decode each person only once and keep the image patches: in the folder DIR, for later epochs, "
        "stages and runs, or in the memory of the device (gpu), for later epochs of this run"
    )
    add("--cache", type=cache_place, metavar="DIR|gpu", help=cache)
    gpu = "index of the CUDA GPU; -1: use the CPU, as a machine without CUDA does"
    add("--gpu_id", type=gpu_number, default=0, help=gpu)
    threads = "number of loader processes, at most one per CPU; 0: load in the main process"
    add("--nThreads", type=whole_number(0), default=4, help=threads)


def arithmetic(parser: ArgumentParser) -> None:
    """Seed, precision and compilation."""
    add = parser.add_argument_group("random numbers and arithmetic").add_argument
    add("--seed", type=whole_number(0), default=0, help="seed of initial weights and random numbers")
    precision = "precision of the networks' arithmetic; weights, losses and metrics are always fp32"
    add("--precision", choices=("fp32", "tf32", "bf16"), default="fp32", help=precision)
    compiled = "compile the networks on a GPU; adds minutes to the start"
    add("--compile", type=boolean, default=False, help=compiled)


def data(parser: ArgumentParser) -> None:
    """The data set, its annotations and the batch size."""
    add = parser.add_argument_group("data").add_argument
    dataset = "data set; demo and control are generated on first use, without a download"
    add("--dataset", choices=DATASETS, default="mpii", help=dataset)
    annotations = "annotation file; default: the usual file of the data set in --data_dir"
    add("--annotations", type=Path, help=f"{annotations}; of coco that of the training split")
    valid = "annotation file of the validation split"
    add("--annotations_valid", type=Path, metavar="FILE", help=valid)
    images = (
        "folder of the photographs, or those of the training and of the validation split; default: "
        "coco/train2017 and coco/val2017 in --data_dir"
    )
    add("--images", type=Path, nargs="+", metavar="DIR", help=images)
    pairs = (
        "left-right pairs of joints by name, which change places in a mirror, such as left_knee:right_knee; "
        "default: those whose names differ in the side only"
    )
    add("--mirror_pairs", type=name_pair, nargs="+", metavar="LEFT:RIGHT", help=pairs)
    add("--limit", type=whole_number(1), help="use only the first LIMIT people of each split")
    missing = "skip people whose photograph is missing or incomplete (empty, truncated)"
    add("--skip_missing", type=boolean, default=False, help=missing)
    bad = "skip people with invalid annotations, or whose annotations do not fit their photograph"
    add("--skip_bad", type=boolean, default=False, help=bad)
    add("--bs", type=whole_number(1), default=24, help="batch size")


def network(parser: ArgumentParser) -> None:
    """Architecture and size of the pose network."""
    add = parser.add_argument_group("pose network (the defaults are the paper's)").add_argument
    add(
        "--network",
        choices=NETWORKS,
        default="hourglass",
        help="architecture: stacked hourglasses; a backbone with three deconvolutions (simple_baseline) or "
        "lateral connections (feature_pyramid); control: fails by a known rule on data set control, to check "
        "the agents",
    )
    backbone = "backbone: a model of timm with stages of 1/4 to 1/32, such as resnet18, tf_efficientnet_lite0"
    add("--backbone", default="resnet50", help=backbone)
    add("--num_stacks", type=whole_number(1), default=2, help="number of stacked hourglasses")
    add(
        "--num_modules",
        type=whole_number(1),
        default=1,
        help="number of residual blocks at each position of an hourglass",
    )
    channels = "number of channels of an hourglass, of what stands on a backbone, or of control"
    add("--chan", type=whole_number(2, multiple_of=2), default=256, help=channels)
    in_res = "side of the input crops in px, a multiple of 64; that of the heatmaps is a quarter"
    add("--in_res", type=whole_number(1), default=256, help=in_res)


def start(parser: ArgumentParser) -> None:
    """The initial weights of the backbone."""
    title = "weights that the backbone starts from, instead of random ones"
    add = parser.add_argument_group(title).add_argument
    add("--pretrained", type=boolean, default=False, help="timm's, from ImageNet; it downloads them")
    weights = "those of this .safetensors, .pth or .pt file, with timm's names or torchvision's of a ResNet"
    add("--backbone_weights", type=Path, metavar="FILE", help=weights)


def display(parser: ArgumentParser) -> None:
    """Log, visdom and HTML pages."""
    add = parser.add_argument_group(DISPLAY).add_argument
    add("--print_freq", type=whole_number(1), default=10, help="write a line to the log every N batches")
    add("--use_visdom", type=boolean, default=True, help="plot curves on a visdom server")
    add("--vis_env", help="visdom environment; default: --exp_id")
    add("--vis_server", default="http://localhost", help="URL of the visdom server")
    add("--vis_port", type=whole_number(1), default=8097, help="port of the visdom server")
    add("--use_html", type=boolean, default=True, help="write HTML pages of results")
    add("--display_winsize", type=whole_number(64), default=256, help="side of images on the pages, px")
    add("--display_freq", type=whole_number(1), default=10, help="plot a point every N batches")


def pose(parser: ArgumentParser) -> None:
    """The checkpoint of stage 1, which later stages need."""
    add = parser.add_argument_group("stage 1's result").add_argument
    pose = "checkpoint of the pose network, such as lr-0.00025-10.pth.tar"
    add("--load_prefix_pose", required=True, help=pose)


def collecting(parser: ArgumentParser) -> None:
    """Folders of the agents that are pretrained on collected distributions; repeated measurements."""
    for agent in AGENTS.values():
        if agent.collects:
            _agent_folder(parser, agent)
    repeats(parser)


def repeats(parser: ArgumentParser) -> None:
    """How often collecting measures each bin."""
    add = parser.add_argument_group("collecting").add_argument
    times = (
        "measure each bin this often, at values drawn inside it, not once at its mean; rows are of the mean "
        "PCK, and the log says how much of it is repeatable"
    )
    add("--repeats", type=whole_number(1), default=1, help=times)


def agents(parser: ArgumentParser) -> None:
    """Folder and checkpoint of each agent."""
    for agent in AGENTS.values():
        add = _agent_folder(parser, agent)
        start = (
            f"checkpoint of the {agent.title} to start from, such as lr-0.00025-1.pth.tar; joint "
            "training also accepts best, the checkpoint with the lowest validation loss"
        )
        add(f"--{agent.load}", help=start)


def _agent_folder(parser: ArgumentParser, agent: AgentType) -> Callable:
    """Add the flag of an agent's folder to a new group; returns the group's `add_argument`."""
    add = parser.add_argument_group(f"the {agent.title}").add_argument
    start = "name of its folder, to which the prefix of the pose network's checkpoint is appended"
    add(f"--{agent.folder}", type=folder_name, default=agent.default_folder, help=start)
    return add


def pretraining(parser: ArgumentParser) -> None:
    """Switches that select the agent to pretrain."""
    add = parser.add_argument_group("which agent").add_argument
    for agent in AGENTS.values():
        if agent.switch is not None:
            add(f"--{agent.switch}", type=boolean, default=False, help=f"train the {agent.title}")


def overwrite(parser: ArgumentParser) -> None:
    """Whether to replace results of an earlier run."""
    add = parser.add_argument_group("earlier results").add_argument
    add("--overwrite", type=boolean, default=False, help="replace the files of an earlier run")


def epochs(parser: ArgumentParser) -> None:
    """The number of epochs, and of those to keep."""
    add = parser.add_argument_group("epochs").add_argument
    epochs = "total number of epochs, including those in the checkpoint"
    add("--nEpochs", type=whole_number(1), default=100, help=epochs)
    keep = "keep only the files of this run's best epoch and newest KEEP epochs; default: keep all"
    add("--keep", type=whole_number(1), help=keep)


def ranks(parser: ArgumentParser) -> None:
    """Training on several GPUs."""
    add = parser.add_argument_group("several GPUs, with torchrun").add_argument
    sync_bn = "compute batch statistics over the batches of all GPUs, not over each GPU's own batch"
    add("--sync_bn", type=boolean, default=False, help=sync_bn)


def rate(parser: ArgumentParser) -> None:
    """The learning rate and the weight decay."""
    add = parser.add_argument_group("optimizer").add_argument
    add(
        "--lr",
        type=learning_rate,
        default=2.5e-4,
        help="learning rate of the network trained in this stage",
    )
    decay = "weight decay (L2 penalty) of the network trained in this stage"
    add("--weight_decay", type=non_negative, default=0.0, help=decay)


def pose_recipe(parser: ArgumentParser) -> None:
    """How the pose network is trained, in the base and the arms of an experiment alike."""
    title = "training of the pose network (the defaults are the paper's)"
    add = parser.add_argument_group(title).add_argument
    optimizer = "optimizer; adamw decouples --weight_decay from the gradient"
    add("--optimizer", choices=("rmsprop", "adam", "adamw"), default="rmsprop", help=optimizer)
    schedule = (
        "learning rate over time. step: --lr, multiplied by a factor from each epoch of --lr_steps on; "
        "onecycle: rises from --lr / 25 to --lr, then falls to --lr / 250000, along half cosines; cosine: "
        "falls from --lr to 0 along half a cosine, after a linear --warmup. The last two end with --nEpochs"
    )
    add("--lr_schedule", choices=("step", "onecycle", "cosine"), default="step", help=schedule)
    steps = "the learning rate is multiplied by FACTOR from EPOCH (from 0) on"
    default = "100:0.2 140:0.5"
    add("--lr_steps", nargs="+", action=LrSteps, metavar="EPOCH:FACTOR", default=default, help=steps)
    warmup = (
        "number of epochs, also fractions, in which the learning rate rises to --lr; default: 30 %% of the "
        "schedule with onecycle, 0 with cosine"
    )
    add("--warmup", type=non_negative, help=warmup)


def pose_training(parser: ArgumentParser) -> None:
    """How the pose network is trained, in stages 1 and 3."""
    pose_recipe(parser)
    add = parser.add_argument_group("continuing with a new schedule").add_argument
    start = "first epoch of the schedule; default: 0, in joint training the first after stage 1's checkpoint"
    add("--schedule_start", type=whole_number(0), help=start)


def train_or_evaluate(parser: ArgumentParser) -> None:
    """Whether to train or to evaluate."""
    add = parser.add_argument_group("train or evaluate").add_argument
    what = "true: train; false: evaluate the loaded checkpoint and write its predictions"
    add("--is_train", type=boolean, default=False, help=what)


def resume_pose(parser: ArgumentParser) -> None:
    """The checkpoint of the pose network to resume from or to evaluate."""
    add = parser.add_argument_group("checkpoint").add_argument
    add("--load_prefix_pose", help="checkpoint to resume from or to evaluate, such as lr-0.00025-10.pth.tar")


def evaluation(parser: ArgumentParser) -> None:
    """Additional tables of an evaluation."""
    add = parser.add_argument_group("evaluation").add_argument
    grid = "also compute PCK at each of the 7 x 7 combinations of the scale and rotation bins' means"
    add("--eval_grid", type=boolean, default=False, help=grid)
    cells = "also compute PCK with each cell of the network's smallest feature map masked in turn"
    add("--eval_occlusion", type=boolean, default=False, help=cells)
    boxes = "evaluate on a detector's boxes, a JSON file in COCO's results format, not on the annotated ones"
    add("--boxes", type=Path, help=boxes)


def image(parser: ArgumentParser) -> None:
    """The photograph to predict, and the square around the person."""
    add = parser.add_argument_group("one photograph").add_argument
    add("--image", type=Path, help="predict the pose in this photograph; needs --load_prefix_pose")
    center = "center of the square around the person, in px; default: the center of the photograph"
    add("--center", type=float, nargs=2, metavar=("X", "Y"), help=center)
    scale = "side of that square, divided by 200 px; default: a square that holds the whole photograph"
    add("--scale", type=learning_rate, help=scale)


def joint(parser: ArgumentParser) -> None:
    """Joint training: folder, resuming, draws of the agents, and their training."""
    add = parser.add_argument_group("joint training").add_argument
    folder = "name of its folder, to which the prefix of the pose network's checkpoint is appended"
    add("--joint_dir", type=folder_name, default="joint", help=folder)
    newest = "load the newest epoch of joint training, to resume from it or to evaluate it"
    add("--load_checkpoint", type=boolean, default=False, help=newest)
    draws = (
        "learned: by the agent, which keeps training; pretrained: by the agent as pretraining left it; "
        "uniform: with equal probabilities. Comparing them separates the effect of the agent's choice "
        "from that of its range"
    )
    for agent in AGENTS.values():
        how = f"how the {agent.title}'s batches are sampled. {draws}"
        choices = ("learned", "pretrained", "uniform")
        add(f"--{agent.draws}", choices=choices, default="learned", help=how)
    rule = (
        "how agents learn. published: draws that are harder than the reference's are rewarded, others "
        "penalized, by fixed shares; reinforce: by the policy gradient of PCK, with the reference's as its "
        "baseline"
    )
    add("--agent_rule", choices=("published", "reinforce"), default="published", help=rule)
    agent_training(parser)


def agent_training(parser: ArgumentParser) -> None:
    """The agents' training in stage 3."""
    add = parser.add_argument_group("training of the agents").add_argument
    add("--agent_lr", type=learning_rate, default=5e-5, help="learning rate of the agents")
    iters = "number of batches per epoch on which each agent trains; default: all"
    add("--agent_iters", type=whole_number(1), help=iters)


def agent_recipe(parser: ArgumentParser) -> None:
    """How an agent is pretrained."""
    add = parser.add_argument_group("the agent's training (the defaults are the paper's)").add_argument
    mirror = "mirror half of the crops, and the agent's targets with them"
    add("--mirror", type=boolean, default=False, help=mirror)
