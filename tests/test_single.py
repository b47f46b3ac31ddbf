"""`stack-hg.py --image`: one photograph, from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.stages import REPOSITORY
from support.stand_ins import Exact

from data.demo import write_demo
from data.skeleton import MPII
from models.hourglass import StackedHourglass
from options.parser import StageParser
from utils.display.photograph import open_photograph, person_square, predict_pose, report_photograph
from utils.evaluation.evaluate import evaluate
from utils.run import Run
from utils.system.errors import UserError

PREFIX = "lr-0.00025-0"
SIZES = ["--num_stacks", "1", "--chan", "8", "--in_res", "64", "--gpu_id", "-1"]


class OneSpot(torch.nn.Module):
    """Answers with a spot a joint where the picture is brightest."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        bright = torch.nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), 4)
        return [bright.expand(-1, 16, -1, -1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment `one` with an untrained checkpoint, and photographs beside it."""
    folder = tmp_path_factory.mktemp("single")
    (folder / "one").mkdir()
    torch.manual_seed(0)
    network = StackedHourglass(num_stacks=1, num_modules=1, chan=8)
    torch.save({"state_dict": network.state_dict(), "epoch": 0}, folder / "one" / f"{PREFIX}.pth.tar")
    picture = np.zeros((90, 120, 3), dtype=np.uint8)
    picture[40:50, 80:90] = 255
    Image.fromarray(picture).save(folder / "spot.png")
    return folder


def options(folder: Path, *flags: object) -> list[str]:
    place = ["--exp_id", "one", "--exp_dir", str(folder), "--load_prefix_pose", PREFIX]
    return [*SIZES, *place, *map(str, flags)]


def stack_hg(folder: Path, *flags: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "stack-hg.py"), *options(folder, *flags)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def run_of(folder: Path, *flags: object) -> Run:
    opt = StageParser("", "train_or_evaluate", "resume_pose", "image").parse(options(folder, *flags))
    return Run(opt, opt.exp_folder)


@pytest.mark.slow
def test_the_command_writes_picture_and_joints_without_a_data_set(folder):
    done = stack_hg(folder, "--image", folder / "spot.png", "--data_dir", folder / "nowhere")
    assert done.returncode == 0, done.stderr
    assert str(folder / "one" / "spot-pose.jpg") in done.stdout
    result = json.loads((folder / "one" / "spot-pose.json").read_text())
    assert result["size"] == [120, 90] and result["center"] == [60, 45] and result["scale"] == 0.6
    assert tuple(result["joints"]) == MPII.joints
    assert all(set(joint) == {"x", "y", "confidence"} for joint in result["joints"].values())
    with Image.open(folder / "one" / "spot-pose.jpg") as drawn:
        assert drawn.size == (120, 90) and drawn.format == "JPEG"


@pytest.mark.parametrize("square", [(), ("--center", 70, 45, "--scale", 0.5)])
def test_joints_are_where_the_network_sees_them(folder, square):
    run = run_of(folder, "--image", folder / "spot.png", *square)
    report_photograph(run, OneSpot())
    joints = json.loads((run.folder / "spot-pose.json").read_text())["joints"]
    for joint in joints.values():
        assert abs(joint["x"] - 85) <= 5 and abs(joint["y"] - 45) <= 5
        assert joint["confidence"] > 0.4


def test_a_joint_that_is_nowhere_has_no_place(folder):
    Image.new("L", (50, 20)).save(folder / "black.png")
    run = run_of(folder, "--image", folder / "black.png")
    report_photograph(run, OneSpot())
    joints = json.loads((run.folder / "black-pose.json").read_text())["joints"]
    assert list(joints.values()) == [{"x": None, "y": None, "confidence": 0.0}] * 16


def test_photographs_are_turned_as_their_camera_noted(folder):
    with Image.open(folder / "spot.png") as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    turned.save(folder / "turned.jpg", exif=exif, quality=95)
    photo = open_photograph(folder / "turned.jpg")
    assert photo.size == (120, 90)
    run = run_of(folder, "--image", folder / "turned.jpg")
    joints, _ = predict_pose(run, OneSpot(), folder / "turned.jpg", *person_square(photo.size, None, None))
    assert (joints - torch.tensor([85.0, 45.0])).abs().max() <= 5


def test_the_network_is_asked_in_eval_mode_without_gradients(folder):
    Image.new("RGB", (50, 40)).save(folder / "modes.png")
    network, modes = OneSpot().train(), []
    network.register_forward_pre_hook(lambda *_: modes.append((network.training, torch.is_grad_enabled())))
    predict_pose(
        run_of(folder, "--image", folder / "modes.png"),
        network,
        folder / "modes.png",
        *person_square((50, 40), None, None),
    )
    assert modes == [(False, False)] * 2


@pytest.mark.parametrize("center", [(0.0, 0.0), (50.0, 40.0)])
def test_a_center_on_the_border_is_in_the_photograph(center):
    square, scale = person_square((50, 40), [*center], 1 / 200)
    assert (tuple(square), scale) == (center, 1 / 200)
    for beyond in ((center[0] - 51, center[1]), (center[0], center[1] + 41)):
        with pytest.raises(UserError, match="expected a point in the photograph"):
            person_square((50, 40), [*beyond], 1 / 200)


def test_photographs_of_16_bits_are_not_white(folder):
    ramp = np.arange(256, dtype=np.uint16)[None] * np.uint16(257)
    Image.fromarray(ramp).save(folder / "deep.png")
    photo = np.asarray(open_photograph(folder / "deep.png"))
    assert np.array_equal(photo, np.repeat(np.arange(256)[None, :, None], 3, axis=2))


@pytest.mark.parametrize("batch", [2, 5])
def test_a_data_sets_photograph_has_the_joints_of_its_validation(folder, batch):
    data = folder / f"data-{batch}"
    write_demo(data / "demo", 4, 12)
    evaluation = run_of(folder, "--dataset", "demo", "--data_dir", data, "--bs", batch, "--nThreads", 0)
    network = evaluation.pose_network()
    evaluation.load_pose(network)
    network = Exact(network)  # in batches of another size float32 would round otherwise
    people = evaluation.dataset.valid
    preds = evaluate(evaluation, network, evaluation.loader(people, "identity")).preds
    assert len({tuple(joints.flatten().tolist()) for joints in preds}) == len(people) == 12
    for name, center, scale, expected in zip(people.image, people.center, people.scale, preds, strict=True):
        asked = ("--image", data / name, "--center", *center.tolist(), "--scale", float(scale))
        run = run_of(folder, *asked)
        size = open_photograph(run.opt.image).size
        square = person_square(size, run.opt.center, run.opt.scale)
        assert torch.equal(predict_pose(run, network, run.opt.image, *square)[0], expected)


def test_photographs_of_one_stem_do_not_overwrite_each_other(folder):
    (folder / "a").mkdir()
    first, others = folder / "two.png", [folder / "two.jpg", folder / "a" / "two.png"]
    for path in (first, *others):
        Image.new("RGB", (50, 40), (90, 90, 90)).save(path)
    run = run_of(folder, "--image", first)
    report_photograph(run, OneSpot())
    report_photograph(run, OneSpot())  # the same one may be looked at again
    written = run.folder / "two-pose.json", run.folder / "two-pose.jpg"
    before = [path.read_bytes() for path in written]
    for other in others:
        with pytest.raises(UserError) as error:
            report_photograph(run_of(folder, "--image", other), OneSpot())
        assert str(first) in str(error.value) and str(other) in str(error.value)
        assert "\n" not in str(error.value)
    assert [path.read_bytes() for path in written] == before


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"image": 3}', "{}"])
def test_a_file_that_is_not_of_this_program_is_not_overwritten(folder, content):
    Image.new("RGB", (50, 40)).save(folder / "mine.png")
    run = run_of(folder, "--image", folder / "mine.png")
    (run.folder / "mine-pose.json").write_text(content)
    with pytest.raises(UserError, match=r"mine-pose\.json"):
        report_photograph(run, OneSpot())
    assert (run.folder / "mine-pose.json").read_text() == content


def test_bad_photographs(folder):
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "spot.png").read_bytes()[:-60])
    for name in ("absent.jpg", "text.jpg", "cut.png", "."):
        with pytest.raises(UserError, match="--image") as error:
            open_photograph(folder / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("center", "scale", "flag"),
    [
        ([10.0, 10.0], None, "--center"),
        (None, 1.0, "--center"),
        ([121.0, 10.0], 1.0, "--center"),
        ([10.0, -1.0], 1.0, "--center"),
        ([float("nan"), 10.0], 1.0, "--center"),
        ([10.0, 10.0], 1e-6, "--scale"),
        ([10.0, 10.0], 0.0049, "--scale"),
        ([10.0, 10.0], 60.1, "--scale"),
        ([10.0, 10.0], 1e9, "--scale"),
    ],
)
def test_bad_squares(center, scale, flag):
    with pytest.raises(UserError, match=flag) as error:
        person_square((120, 90), center, scale)
    assert "\n" not in str(error.value)


def test_extreme_squares_that_are_allowed(folder):
    path = folder / "spot.png"
    run = run_of(folder, "--image", path)
    for scale in (0.005, 60.0):
        center, scale = person_square((120, 90), [120.0, 90.0], scale)
        assert predict_pose(run, OneSpot(), path, center, scale)[0].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--image", "absent.jpg"),
        ("--image", "spot.png", "--center", 500, 10, "--scale", 1),
        ("--image", "spot.png", "--scale", 0),
        ("--image", "spot.png", "--is_train", "true"),
        ("--center", 1, 2, "--scale", 1),
    ],
)
def test_bad_input_is_one_line_and_code_2(folder, flags):
    done = stack_hg(folder, *flags)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "error:" in done.stderr
