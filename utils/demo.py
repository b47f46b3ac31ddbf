"""The demo: all stages and the control arm on the demo set, in five minutes on two CPU cores.

`make demo` runs it. Each step is a command line like the README's, printed before it runs.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.compare.run_logs import read_run
from utils.compare.steps import run_step
from utils.system.process import run_stage

log = logging.getLogger("demo")

FLAGS = "--dataset demo --in_res 128 --chan 32 --bs 16 --use_visdom false"
FIRST, BEGIN, END = "lr-0.002-13", "lr-0.0005-18", 21  # both arms start from BEGIN and end after END epochs
POSE = f"--load_prefix_pose {BEGIN}"
TRAIN = "--is_train true --lr 0.0005"
STAGE1, CONTROL, COMPARISON = (
    Path("checkpoints") / name for name in ("demo", "demo-random", "demo-comparison")
)
JOINT = STAGE1 / f"joint-{BEGIN}"


@dataclass(frozen=True)
class Step:
    """A step of a demo: title, approximate duration in s, and command line."""

    title: str
    seconds: int
    command: str


STEPS = (
    Step(
        "stage 1: the pose network learns, with random augmentation",
        115,
        f"python stack-hg.py {FLAGS} --exp_id demo --is_train true --lr 0.002 --nEpochs 14 --overwrite true",
    ),
    Step(
        "stage 1, resumed with a smaller learning rate",
        45,
        f"python stack-hg.py {FLAGS} --exp_id demo --load_prefix_pose {FIRST} {TRAIN} --nEpochs 19",
    ),
    Step(
        "stage 2: how hard is each scale for each person?",
        20,
        f"python collect-scale-distri.py {FLAGS} --exp_id demo {POSE} --overwrite true",
    ),
    Step(
        "stage 2: how hard is each rotation?",
        20,
        f"python collect-rotation-distri.py {FLAGS} --exp_id demo {POSE} --overwrite true",
    ),
    Step(
        "stage 2: the agent learns to predict both",
        18,
        f"python pretrain-s-r-agent.py {FLAGS} --exp_id demo {POSE} --lr 0.001 --nEpochs 4 --overwrite true",
    ),
    Step(
        "stage 3: the pose network and the agent train against each other",
        40,
        f"python joint-train-pose-s-r-agent.py {FLAGS} --exp_id demo {POSE} --load_prefix_sr lr-0.001-3 "
        f"{TRAIN} --nEpochs {END} --overwrite true",
    ),
    Step("what the agent draws", 8, f"python -m utils.show_agent {FLAGS} --exp_id demo {POSE}"),
    Step(
        "the control arm starts from the same checkpoint as stage 3",
        0,
        f"cp {STAGE1}/{BEGIN}.pth.tar {CONTROL}",
    ),
    Step(
        "the control arm: the same number of epochs, with random augmentation",
        20,
        f"python stack-hg.py {FLAGS} --exp_id demo-random {POSE} {TRAIN} --nEpochs {END}",
    ),
    Step(
        "both arms, side by side",
        4,
        f"python -m utils.compare --arm random {CONTROL} --arm adversarial {JOINT} "
        f"--from_epoch {BEGIN.rpartition('-')[2]} --out {COMPARISON}",
    ),
)


def main() -> None:
    CONTROL.mkdir(parents=True, exist_ok=True)
    elapsed = run_steps(STEPS)
    log.info("\n%s", summary(elapsed))


def run_steps(steps: Sequence[Step]) -> float:
    """Run all steps in order and return the elapsed time, s. If one fails, this process exits."""
    began = time.monotonic()
    for done, step in enumerate(steps):
        left = time_left(steps, done, time.monotonic() - began)
        run_step(f"{done + 1} of {len(steps)}, {left} left: {step.title}", step.command)
    return time.monotonic() - began


def time_left(steps: Sequence[Step], done: int, elapsed: float) -> str:
    """The estimated remaining time, as text; the first `done` steps have taken `elapsed` s."""
    before, after = (sum(step.seconds for step in part) for part in (steps[:done], steps[done:]))
    seconds = after * (elapsed / before if done else 1)
    return f"about {seconds / 60:.0f} min" if seconds > 90 else f"about {10 * max(1, round(seconds / 10))} s"


def summary(elapsed: float) -> str:
    """The results of the demo, as text of ten lines; elapsed: its duration, s.

    Raises:
        UserError: a training run has no log.
    """
    stage1, random, adversarial = map(read_run, (STAGE1, CONTROL, JOINT))
    first, last = (100 * stage1.pck[epoch][-1] for epoch in (min(stage1.pck), max(stage1.pck)))
    random, adversarial = (100 * arm.pck[END - 1][-1] for arm in (random, adversarial))
    minutes, seconds = divmod(round(elapsed), 60)
    return "\n".join(
        [
            f"The demo took {minutes} min {seconds} s.",
            f"Stage 1, validation people: {stage1.metric_name} {last:.1f} %; after one epoch {first:.1f} %.",
            "Stage 3, the agent's draws for validation people:",
            *(JOINT / "agent.txt").read_text(encoding="utf-8").splitlines(),
            f"After epoch {END - 1}: {random:.1f} % with random, {adversarial:.1f} % with adversarial "
            "augmentation. This is one seed on drawn figures: it says nothing about photographs of people.",
            "Open:",
            *map(str, (STAGE1 / "web/index.html", JOINT / "web/index.html", JOINT / "agent.jpg")),
        ]
    )


if __name__ == "__main__":
    run_stage(main)
