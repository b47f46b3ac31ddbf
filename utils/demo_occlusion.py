"""The demo of the occlusion agent on the demo set, in three minutes on two CPU cores.

`make demo-occlusion` runs it. Crops of 128 px have 2 x 2 cells; at 256 px they are 4 x 4.
"""

import logging
from pathlib import Path

from utils.compare.run_logs import read_run
from utils.demo import FLAGS, Step, run_steps
from utils.system.process import run_stage

log = logging.getLogger("demo")

EXP_ID = "demo-occlusion"
BEGIN, END = "lr-0.002-9", 12  # both arms start from BEGIN and end after END epochs
LAST = f"pose-lr-0.0005-{END - 1}"
BASE = Path("checkpoints") / EXP_ID
ARMS = {"learned": BASE / f"joint-{BEGIN}", "uniform": BASE / f"uniform-{BEGIN}"}
COMMON = f"{FLAGS} --exp_id {EXP_ID}"
JOINT = (
    f"python joint-train-pose-s-r-agent.py {COMMON} --load_prefix_pose {BEGIN} --load_prefix_occ lr-0.001-3 "
    f"--is_train true --lr 0.0005 --nEpochs {END} --overwrite true"
)
MASKED = "--eval_occlusion true --use_html true"

STEPS = (
    Step(
        "stage 1: the pose network learns, with random augmentation",
        85,
        f"python stack-hg.py {COMMON} --is_train true --lr 0.002 --nEpochs 10 --overwrite true",
    ),
    Step(
        "stage 2: the occlusion agent learns which cells of the crop contain joints",
        16,
        f"python pretrain-s-r-agent.py {COMMON} --load_prefix_pose {BEGIN} --occlusion true --lr 0.001 "
        "--nEpochs 4 --overwrite true",
    ),
    Step("stage 3: the pose network trains under masks that the agent learns to draw", 32, JOINT),
    Step(
        "the control arm: the same training, with masks drawn uniformly",
        22,
        f"{JOINT} --joint_dir uniform --occ_draws uniform",
    ),
    Step(
        "stage 1's network with each cell masked",
        8,
        f"python stack-hg.py {COMMON} --load_prefix_pose {BEGIN} {MASKED}",
    ),
    *(
        Step(
            f"the network trained with {arm} masks, with each cell masked",
            8,
            f"python stack-hg.py {FLAGS} --exp_id {EXP_ID}/{folder.name} --load_prefix_pose {LAST} {MASKED}",
        )
        for arm, folder in ARMS.items()
    ),
)


def main() -> None:
    elapsed = run_steps(STEPS)
    log.info("\n%s", summary(elapsed))


def summary(elapsed: float) -> str:
    """The results of the demo, as text of ten lines; elapsed: its duration, s.

    Raises:
        UserError: a training run has no log.
    """
    minutes, seconds = divmod(round(elapsed), 60)
    base = read_run(BASE)
    networks = {f"stage 1's network, epoch {max(base.pck)}": BASE / BEGIN}
    networks |= {f"{arm} masks, epoch {END - 1}": folder / LAST for arm, folder in ARMS.items()}
    return "\n".join(
        [
            f"The demo took {minutes} min {seconds} s.",
            f"Validation people, {base.metric_name} in %, with one cell masked:",
            *(f"{name}: {_means(stem)}" for name, stem in networks.items()),
            "This is one seed on drawn figures: it says nothing about photographs of people.",
            "Open:",
            *(str(folder / "web/index.html") for folder in ARMS.values()),
        ]
    )


def _means(stem: Path) -> str:
    """The last line of an evaluation's table, which has the means."""
    return stem.with_name(f"{stem.name}-occlusion.txt").read_text(encoding="utf-8").splitlines()[-1]


if __name__ == "__main__":
    run_stage(main)
