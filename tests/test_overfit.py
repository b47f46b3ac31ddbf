"""The whole of stage 1's arithmetic at once: a small network learns four photographs by heart."""

import pytest
import torch

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.datasets import load_dataset
from data.demo import write_demo
from data.loading.patches import Patches
from models.hourglass import StackedHourglass
from models.losses import pose_loss
from utils.evaluation.metrics import pck_table
from utils.training import Learner

PEOPLE, RES, STEPS, LR = 4, 64, 80, 4e-3


@pytest.mark.slow
def test_photographs_can_be_overfitted(tmp_path):
    """The best heatmaps for everyone find a quarter of the joints."""
    write_demo(tmp_path / "demo", PEOPLE, 1)
    dataset = load_dataset("demo", tmp_path, None, None, False, False)
    people = Patches(dataset.train, dataset.root, RES, MARGINS["identity"])[list(range(PEOPLE))]
    sample = augment(people, Augmentation.identity(PEOPLE), RES, RES // 4)
    torch.manual_seed(0)
    learner = Learner(StackedHourglass(num_stacks=1, chan=32), LR)
    for step in range(STEPS):
        learner.set_lr(LR * 0.5 ** (3 * step // STEPS))
        loss = pose_loss(learner.network(sample.image), sample.heatmap)
        learner.step(loss)
    with torch.no_grad():
        heatmaps = learner.network(sample.image)[-1]

    def pck(heatmaps):
        pred = sample.predict(heatmaps)
        return pck_table(pred, sample.points, sample.normalizer, dataset.metric, dataset.threshold).mean

    mean = sample.heatmap.mean(dim=0, keepdim=True).expand_as(sample.heatmap)
    assert loss < 0.5 * pose_loss([mean], sample.heatmap)
    assert pck(heatmaps) > 0.7 > 0.4 > pck(mean)
