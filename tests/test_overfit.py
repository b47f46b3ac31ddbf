"""The whole of stage 1's arithmetic at once: a small network learns sixteen photographs by heart."""

import pytest
import torch

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.datasets import load_dataset
from data.heatmap import predict_points
from data.loading.patches import Patches
from models.hourglass import StackedHourglass
from models.losses import pose_loss
from utils.evaluation.metrics import pck_table
from utils.training import Learner

STEPS, LR = 260, 4e-3


@pytest.mark.slow
def test_sixteen_photographs_can_be_overfitted(real_data):
    torch.manual_seed(0)
    dataset = load_dataset("lsp", real_data, limit=16)
    people = Patches(dataset.train, dataset.root, 128, MARGINS["identity"])[list(range(16))]
    sample = augment(people, Augmentation.identity(16), in_res=128, out_res=32)
    image = sample.image.contiguous(memory_format=torch.channels_last)
    learner = Learner(StackedHourglass(chan=32).to(memory_format=torch.channels_last), lr=LR)
    for step in range(STEPS):
        learner.set_lr(LR * 0.5 ** (5 * step // STEPS))
        learner.step(pose_loss(learner.network(image), sample.heatmap))
    with torch.no_grad():
        heatmaps = learner.network(image)[-1]
    pred = predict_points(heatmaps, sample.center, sample.scale, sample.rotation)
    table = pck_table(pred, sample.points, sample.normalizer, dataset.metric, dataset.threshold)
    assert table.mean > 0.95, str(table)
