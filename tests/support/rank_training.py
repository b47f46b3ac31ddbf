"""An epoch of stage 1 and one of each agent, without batch statistics: ranks learn as one process does.

torchrun ... rank_training.py DATA RESULT
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from data.augmentation import MARGINS
from data.datasets import load_dataset
from data.loading.loader import PatchLoader
from support.experiment import load_script
from support.stand_ins import Blind, Filter, Heart, Silent, Stubborn, agent_with, generator_states, plain_run
from utils.records.history import History
from utils.schedule import Schedule
from utils.system import ranks
from utils.training import Learner

RES = 128  # 2 x 2 cells


class Watching(Filter):
    """A pose network for agents' loops: its features are the picture, and masks hide parts of its answers.

    In float64: with parts of a batch, float32 would round otherwise, and a peak might be elsewhere.
    """

    features = Blind.features

    def __init__(self):
        super().__init__()
        self.double()

    def forward(self, image, mask=None):
        outputs = [heatmaps.float() for heatmaps in super().forward(image.double())]
        if mask is not None:
            outputs = [heatmaps * F.interpolate(mask, size=heatmaps.shape[-2:]) for heatmaps in outputs]
        return outputs


def train(data: Path) -> dict:
    """Weights and rows of both, and where the generators have arrived."""
    dataset = load_dataset("demo", data, None, None, False, False)
    run = plain_run(seed=1, in_res=RES)
    rank, world = ranks.rank(), ranks.world()

    def loader(order):
        people = dataset.train
        return PatchLoader(
            people, dataset.root, RES, MARGINS["drawn"], 6, 0, run.device, order, None, rank, world
        )

    stage_1, joint = load_script("stack-hg.py"), load_script("joint-train-pose-s-r-agent.py")
    pose = Learner(Watching(), 1e-3)
    pose.schedule = Schedule(1e-3, "onecycle", epochs=1, warmup=0.5)
    row = stage_1.train_epoch(run, pose, loader(run.streams["order"]), Silent())
    heart = Heart(run.cells)
    with torch.no_grad():  # where cells are alike, gradients are rounding, which RMSprop would enlarge
        heart.weight += torch.tensor([[0.3, -0.2], [0.1, 0.5]])
    made = {"pose": pose.network.state_dict(), "row": row}
    for name, network in (("agent", Stubborn()), ("occlusion", heart)):
        agent = agent_with(network, name, run, pose.network, 1e-2)
        record = joint.train_agent(run, pose, agent, loader(agent.streams.training), Silent())
        made[name], made[f"{name}_row"] = network.state_dict(), record.row(History())
        made[f"{name}_hardest"] = [one["pck_reference"] - one["pck_agent"] for one in record.hardest()]
    return made | {"streams": generator_states(run.streams)}


if __name__ == "__main__":
    ranks.init(torch.device("cpu"))
    made = train(Path(sys.argv[1]))
    states = ranks.gathered({name: made[name] for name in ("pose", "agent", "occlusion")})
    for state in states:  # all ranks hold the same networks
        torch.testing.assert_close(state, states[0], atol=0, rtol=0)
    if ranks.rank() == 0:
        torch.save(made, sys.argv[2])
    ranks.shutdown()
