"""The command line that resumes a run."""

from argparse import Namespace
from collections.abc import Sequence

from options.conditions import unmet


def resuming(arguments: Sequence[str], opt: Namespace, flag: str, value: str) -> list[str]:
    """The arguments of a run, changed so that they resume it.

    --overwrite is left out, and so are flags that do not apply to a resumed run, such as those of the weights
    that it started from. The last ones are --nEpochs and the flag that resumes.

    Args:
        arguments: of the run, without its script. opt: its options. flag, value: the flag that names what to
            resume from, without dashes, and its value.
    """
    last = {"nEpochs": str(opt.nEpochs), flag: value}
    resumed, removed = Namespace(**vars(opt) | {flag: value}), {"overwrite", *last}
    while idle := [name for name in opt.given - removed if unmet(name, resumed)]:
        removed.update(idle)
        for name in idle:  # others may depend on them
            setattr(resumed, name, opt.defaults[name])
    words, keep = [], True
    for word in arguments:
        if word.startswith("--"):
            keep = word.removeprefix("--").partition("=")[0] not in removed
        if keep:
            words.append(word)
    return words + [word for name, text in last.items() for word in (f"--{name}", text)]
