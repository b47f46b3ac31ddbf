"""When a flag applies: one that would do nothing in a run is refused, and the help says when it applies."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from models import NETWORKS


@dataclass(frozen=True)
class Condition:
    """A condition of a flag.

    flag: another one, without which a script does not have the condition. words: they follow "applies only".
    holds: whether it is met, by all options of the run.
    """

    flag: str
    words: str
    holds: Callable[[Namespace], bool]


def _named(opt: Namespace, prefix: str) -> bool:
    return getattr(opt, prefix, None) is not None


def _takes_part(opt: Namespace, prefix: str) -> bool:
    """Whether an agent takes part; which of them an epoch that is resumed has, only its checkpoint says."""
    return opt.load_checkpoint or _named(opt, prefix)


def _learning(opt: Namespace) -> bool:
    agents = {"load_prefix_sr": opt.agent_draws, "load_prefix_occ": opt.occ_draws}
    return any(draws == "learned" and _takes_part(opt, prefix) for prefix, draws in agents.items())


_TRAINING = Condition("is_train", "with --is_train true", lambda opt: opt.is_train)
_EVALUATION = Condition("is_train", "without --is_train true", lambda opt: not opt.is_train)
_PHOTOGRAPH = Condition("image", "with --image", lambda opt: opt.image is not None)
_DATA_SET = Condition("image", "without --image", lambda opt: opt.image is None)
_SCALE_ROTATION = Condition("occlusion", "without --occlusion true", lambda opt: not opt.occlusion)
_OCCLUSION = Condition("occlusion", "with --occlusion true", lambda opt: opt.occlusion)
_MASKABLE = Condition(
    "network",
    f"with --network {'|'.join(name for name, network in NETWORKS.items() if network.maskable)}",
    lambda opt: NETWORKS[opt.network].maskable,
)
_START = Condition("load_checkpoint", "without --load_checkpoint true", lambda opt: not opt.load_checkpoint)
_JOINT_FOLDER = Condition(
    "is_train",
    "with --is_train true or --load_checkpoint true",
    lambda opt: opt.is_train or opt.load_checkpoint,
)
_FROM_SR = Condition("agent_draws", "with --load_prefix_sr", lambda opt: _named(opt, "load_prefix_sr"))
_FROM_OCC = Condition("occ_draws", "with --load_prefix_occ", lambda opt: _named(opt, "load_prefix_occ"))
_SR_AGENT = Condition(
    "load_prefix_sr", "with a scale-rotation agent", lambda opt: _takes_part(opt, "load_prefix_sr")
)
_OCC_AGENT = Condition(
    "load_prefix_occ", "with an occlusion agent", lambda opt: _takes_part(opt, "load_prefix_occ")
)
_LEARNED = Condition("load_prefix_sr", "with learned draws of an agent", _learning)
_TORCHRUN = Condition("sync_bn", "under torchrun", lambda opt: "TORCHELASTIC_RUN_ID" in os.environ)


def _sizes() -> dict[str, tuple[Condition, ...]]:
    """Sizes of networks, each of which only some have."""
    conditions = {}
    for size in dict.fromkeys(size for network in NETWORKS.values() for size in network.sizes):
        having = [name for name, network in NETWORKS.items() if size in network.sizes]
        words = f"with --network {'|'.join(having)}"
        conditions[size] = (
            Condition("network", words, lambda opt, size=size: size in NETWORKS[opt.network].sizes),
        )
    return conditions


CONDITIONS: dict[str, tuple[Condition, ...]] = {
    **_sizes(),
    "lr": (_TRAINING,),
    "nEpochs": (_TRAINING,),
    "keep": (_TRAINING,),
    "sync_bn": (_TRAINING, _TORCHRUN),
    "eval_grid": (_EVALUATION, _DATA_SET),
    "eval_occlusion": (_EVALUATION, _DATA_SET, _MASKABLE),
    "image": (_EVALUATION,),
    "center": (_PHOTOGRAPH,),
    "scale": (_PHOTOGRAPH,),
    "overwrite": (_DATA_SET,),
    "occlusion": (_MASKABLE,),
    "sr_dir": (_SCALE_ROTATION, _FROM_SR),
    "occ_dir": (_OCCLUSION, _FROM_OCC),
    "load_prefix_sr": (_SCALE_ROTATION, _TRAINING, _START),
    "load_prefix_occ": (_OCCLUSION, _TRAINING, _START, _MASKABLE),
    "joint_dir": (_JOINT_FOLDER,),
    "agent_lr": (_TRAINING,),
    "agent_draws": (_TRAINING, _SR_AGENT),
    "occ_draws": (_TRAINING, _OCC_AGENT),
    "agent_iters": (_TRAINING, _LEARNED),
}
"""All must be met. Flags that every script takes are in none: a user shares them among command lines."""
