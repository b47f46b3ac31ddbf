"""The occlusion agent through the stages: evaluation under masks, pretraining, joint training."""

import pytest
import torch
from PIL import Image
from support.experiment import POSE, Experiment, enlarge_heads, run_here
from support.stages import VALID, demo_data

from data.augmentation import Augmentation
from data.demo import ANNOTATIONS
from utils.epochs import epoch_files
from utils.metrics import SCORED_JOINTS, pck_counts

pytestmark = pytest.mark.slow

STAGE_1 = "stack-hg.py"
GRID = ("--in_res", 128, "--num_stacks", 1)  # 2 x 2 cells


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    """Stage 1 for an epoch; not to be changed."""
    root = tmp_path_factory.mktemp("occlusion")
    made = Experiment(demo_data(root / "data"), root / "checkpoints", {})
    enlarge_heads(made.data / "demo" / ANNOTATIONS)
    run_here(STAGE_1, *made.place, *GRID, "--is_train", "true", "--nEpochs", 1)
    return made


def test_evaluation_with_each_cell_masked(stage_1, tmp_path):
    made = stage_1.copy(tmp_path / "checkpoints")
    printed = run_here(STAGE_1, *made.flags, *GRID, "--eval_occlusion", "true", "--use_html", "true")
    text = (made.folder / f"{POSE}-occlusion.txt").read_text()
    assert text in printed
    assert "2 x 2" in text.splitlines()[0]
    table = torch.tensor([[float(number) for number in line.split()] for line in text.splitlines()[1:3]])
    run = made.run(*GRID)
    network = run.pose_network()
    run.load_pose(network)
    network.eval()
    (people,) = run.loader(run.dataset.valid, "identity")
    sample = run.augment(people, Augmentation.identity(VALID))
    masks = {(y, x): torch.ones(VALID, 1, 2, 2) for y in range(2) for x in range(2)}
    for (y, x), mask in masks.items():
        mask[:, :, y, x] = 0
    found = {}
    for cell, mask in {**masks, None: torch.ones(VALID, 1, 2, 2)}.items():
        with torch.no_grad():
            pred = sample.predict(network(sample.image, mask)[-1])
        correct, annotated = pck_counts(pred, sample.points, sample.normalizer, run.dataset.threshold)
        found[cell] = 100 * (correct[SCORED_JOINTS].sum() / annotated[SCORED_JOINTS].sum()).item()
    assert {cell: table[cell].item() for cell in masks} == pytest.approx(
        {cell: found[cell] for cell in masks}, abs=0.01
    )
    assert len(set(found.values())) > 2  # masks matter, each in its way
    assert text.splitlines()[3].endswith(f"without a mask {found[None]:.2f}")
    with Image.open(made.folder / f"{POSE}-occlusion.png") as plot:
        plot.load()
        assert min(plot.size) > 300
    page = (made.folder / "web" / f"evaluation-{POSE}.html").read_text()
    assert "With one cell masked" in page and f"{table[0, 0]:.1f}" in page
    written = {file.path.name for file in epoch_files(made.folder)}
    assert {f"{POSE}-occlusion.txt", f"{POSE}-occlusion.png"} <= written  # a later run may replace them
