"""When each flag applies: a flag without effect in a run is refused, and the help states the condition."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from models import NETWORKS
from utils.agents import AGENTS


@dataclass(frozen=True)
class Condition:
    """A condition that a flag needs in order to have an effect.

    flag: the flag that the condition reads; scripts without that flag skip the condition.
    words: the condition in words, to follow "applies only". holds: whether the options of a run meet it.
    """

    flag: str
    words: str
    holds: Callable[[Namespace], bool]


def _named(opt: Namespace, prefix: str) -> bool:
    return getattr(opt, prefix, None) is not None


def _takes_part(opt: Namespace, prefix: str) -> bool:
    """Whether an agent may take part. In a resumed run only the checkpoint knows, so the answer is yes."""
    return opt.load_checkpoint or _named(opt, prefix)


def _learning(opt: Namespace) -> bool:
    return any(
        getattr(opt, agent.draws) == "learned" and _takes_part(opt, agent.load) for agent in AGENTS.values()
    )


_TRAINING = Condition("is_train", "with --is_train true", lambda opt: opt.is_train)
_EVALUATION = Condition("is_train", "without --is_train true", lambda opt: not opt.is_train)
_PHOTOGRAPH = Condition("image", "with --image", lambda opt: opt.image is not None)
_DATA_SET = Condition("image", "without --image", lambda opt: opt.image is None)
_COCO = Condition("dataset", "with --dataset coco", lambda opt: opt.dataset == "coco")
_ANNOTATED_BOXES = Condition("boxes", "without --boxes", lambda opt: opt.boxes is None)
_MASKABLE = Condition(
    "network",
    f"with --network {'|'.join(name for name, network in NETWORKS.items() if network.maskable)}",
    lambda opt: NETWORKS[opt.network].maskable,
)
_SCRATCH = Condition(
    "load_prefix_pose", "without --load_prefix_pose", lambda opt: opt.load_prefix_pose is None
)
_NOT_DOWNLOADED = Condition("pretrained", "without --pretrained true", lambda opt: not opt.pretrained)
_START = Condition("load_checkpoint", "without --load_checkpoint true", lambda opt: not opt.load_checkpoint)
_JOINT_FOLDER = Condition(
    "is_train",
    "with --is_train true or --load_checkpoint true",
    lambda opt: opt.is_train or opt.load_checkpoint,
)
_STEPS = Condition("lr_schedule", "with --lr_schedule step", lambda opt: opt.lr_schedule == "step")
_CURVE = Condition("lr_schedule", "with --lr_schedule onecycle|cosine", lambda opt: opt.lr_schedule != "step")
_LEARNED = Condition("load_checkpoint", "with learned draws of an agent", _learning)
_TORCHRUN = Condition("sync_bn", "under torchrun", lambda opt: "TORCHELASTIC_RUN_ID" in os.environ)


def _of_networks() -> dict[str, tuple[Condition, ...]]:
    """Conditions of the networks' flags: most apply to some networks only."""
    flags = {name: (*network.sizes, *network.weights) for name, network in NETWORKS.items()}
    conditions = {}
    for flag in dict.fromkeys(flag for theirs in flags.values() for flag in theirs):
        having = [name for name, theirs in flags.items() if flag in theirs]
        words = f"with --network {'|'.join(having)}"
        holds = Condition("network", words, lambda opt, having=having: opt.network in having)
        conditions[flag] = (holds,) if len(having) < len(NETWORKS) else ()
    for flag in dict.fromkeys(flag for network in NETWORKS.values() for flag in network.weights):
        conditions[flag] += (_TRAINING, _SCRATCH)
    conditions["backbone_weights"] += (_NOT_DOWNLOADED,)
    return conditions


def _without(switches: list[str]) -> tuple[Condition, ...]:
    """Pretraining is of one agent: none of these switches, if there are any, is true."""
    if not switches:
        return ()
    words = f"without {' or '.join(f'--{switch} true' for switch in switches)}"
    return (Condition(switches[0], words, lambda opt: not any(getattr(opt, one) for one in switches)),)


def _of_agents() -> dict[str, tuple[Condition, ...]]:
    """Conditions of the agents' flags: each applies where its agent is trained or takes part."""
    conditions = {}
    switches = [agent.switch for agent in AGENTS.values() if agent.switch is not None]
    for agent in AGENTS.values():
        load, switch = agent.load, agent.switch
        named = Condition(agent.draws, f"with --{load}", lambda opt, load=load: _named(opt, load))
        article = "an" if agent.title[0] in "aeiou" else "a"
        takes_part = Condition(
            load, f"with {article} {agent.title}", lambda opt, load=load: _takes_part(opt, load)
        )
        maskable = (_MASKABLE,) if agent.masks else ()
        if switch is None:
            chosen = _without(switches)
        else:
            chosen = (Condition(switch, f"with --{switch} true", attrgetter(switch)),)
            conditions[switch] = (*_without([one for one in switches if one != switch]), *maskable)
        conditions[agent.folder] = (*chosen, named)
        conditions[load] = (*chosen, _TRAINING, _START, *maskable)
        conditions[agent.draws] = (_TRAINING, takes_part)
    nothing = [agent.switch for agent in AGENTS.values() if agent.switch and not agent.collects]
    return conditions | {"repeats": _without(nothing)}


CONDITIONS: dict[str, tuple[Condition, ...]] = {
    **_of_networks(),
    **_of_agents(),
    "annotations_valid": (_COCO,),
    "images": (_COCO,),
    "mirror_pairs": (_COCO,),
    **dict.fromkeys(("lr", "weight_decay", "optimizer", "lr_schedule"), (_TRAINING,)),
    "lr_steps": (_TRAINING, _STEPS),
    "warmup": (_TRAINING, _CURVE),
    "schedule_start": (_TRAINING, _CURVE),
    "nEpochs": (_TRAINING,),
    "keep": (_TRAINING,),
    "sync_bn": (_TRAINING, _TORCHRUN),
    "eval_grid": (_EVALUATION, _DATA_SET, _ANNOTATED_BOXES),
    "eval_occlusion": (_EVALUATION, _DATA_SET, _ANNOTATED_BOXES, _MASKABLE),
    "boxes": (_EVALUATION, _DATA_SET, _COCO),
    "image": (_EVALUATION,),
    "center": (_PHOTOGRAPH,),
    "scale": (_PHOTOGRAPH,),
    "overwrite": (_DATA_SET,),
    "joint_dir": (_JOINT_FOLDER,),
    "agent_lr": (_TRAINING,),
    "agent_rule": (_TRAINING, _LEARNED),
    "agent_iters": (_TRAINING, _LEARNED),
}
"""Flag -> its conditions, all of which must hold. Flags that every script takes have none, so that the same
flags can be used in all command lines."""


def unmet(name: str, opt: Namespace) -> Condition | None:
    """The first condition of a flag that the options do not meet, or None; false is harmless."""
    if getattr(opt, name) is False:
        return None
    for condition in CONDITIONS.get(name, ()):
        if condition.flag in opt and not condition.holds(opt):
            return condition
    return None
