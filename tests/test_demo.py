"""The demo: its data set, whose figures have a left and a right, and the steps that it runs."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.stages import REPOSITORY, environment
from test_compare import write_run

from data import demo
from data.demo import figures
from utils import demo as runner
from utils import demo_occlusion
from utils.compare import steps

RIGHT_BONES = [(2, 1), (1, 0), (12, 11), (11, 10)]
LEFT_BONES = [(3, 4), (4, 5), (13, 14), (14, 15)]


def _rows(folder):
    return json.loads((folder / demo.ANNOTATIONS).read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "a" / "set"
    demo.write_demo(folder, train=10, valid=4)
    return folder


def test_rows_describe_their_photographs(written):
    rows = _rows(written)
    assert [row["isValidation"] for row in rows] == [False] * 10 + [True] * 4
    assert len(list((written / "images").iterdir())) == len({row["img_paths"] for row in rows}) == 14
    for row in rows:
        with Image.open(written / "images" / row["img_paths"]) as photo:
            assert (photo.format, photo.mode) == ("JPEG", "RGB")
            assert photo.size == (row["img_width"], row["img_height"])
        assert row["dataset"] == "MPII" and row["normalizer"] > 0
        joints = np.array(row["joint_self"])
        assert joints.shape == (16, 3)
        assert (joints > 0).all() and (joints[:, :2] < np.array(photo.size) - 1).all()


def test_the_readers_square_is_centred_on_the_person_and_fits_roughly(written):
    fits = []
    for row in _rows(written):
        joints = np.array(row["joint_self"])[:, :2]
        low, high = joints.min(axis=0), joints.max(axis=0)
        centre = np.add(row["objpos"], [0, 15 * row["scale_provided"]])
        assert centre == pytest.approx((low + high) / 2, abs=0.1)
        fits.append(np.log2(200 * row["scale_provided"] / (high - low).max()))
        head = np.linalg.norm(joints[8] - joints[9])
        assert 0.6 * row["normalizer"] == pytest.approx(0.75 * head, abs=0.05)
    assert np.abs(fits).max() <= demo.BOX_JITTER + 0.01
    assert min(fits) < -0.1 and max(fits) > 0.1


def test_the_same_bytes_every_time_whatever_the_counts(written, tmp_path):
    demo.write_demo(tmp_path / "again", train=2, valid=1)
    for row in _rows(tmp_path / "again"):
        name = row["img_paths"]
        again, before = ((f / "images" / name).read_bytes() for f in (tmp_path / "again", written))
        assert again == before


def test_nobody_is_in_both_splits(written):
    poses = [tuple(np.ravel(row["joint_self"])) for row in _rows(written)]
    photos = [path.read_bytes() for path in (written / "images").iterdir()]
    assert len(set(poses)) == len(set(photos)) == 14


def test_a_body_is_symmetric_and_its_right_is_on_the_left_from_the_front():
    for seed in range(30):
        points = figures.sample_pose(np.random.default_rng(seed))
        assert points[12, 0] < points[13, 0] and points[2, 0] < points[3, 0]
        right, left = (
            np.linalg.norm(points[start] - points[end], axis=1)
            for start, end in (np.transpose(RIGHT_BONES), np.transpose(LEFT_BONES))
        )
        assert right == pytest.approx(left)


def test_joints_lie_on_the_drawn_limbs():
    rng = np.random.default_rng(1)
    for _ in range(5):
        points = figures.sample_pose(rng) * 150 + (150, 150, 0)
        canvas = figures.Canvas(300, 320, np.array([0, 0, -1.0]))
        for solid in figures.figure_solids(points, figures.sample_outfit(rng), 150):
            canvas.draw(solid)
        drawn = np.asarray(canvas.image())[..., 3]
        x, y = points[[*range(9), *range(10, 16)], :2].round().astype(int).T
        assert (drawn[y, x] == 255).all()


def test_a_face_shows_from_the_front_and_hair_from_behind():
    rng = np.random.default_rng(0)
    points, outfit = figures.sample_pose(rng) * 200, figures.sample_outfit(rng)
    heads = []
    for yaw in (0, 180):
        canvas = figures.Canvas(200, 200, np.array([0, 0, -1.0]))
        turned = (points - points[9]) @ figures.turn(1, yaw).T + (100, 60, 0)
        for solid in figures.figure_solids(turned, outfit, 200):
            canvas.draw(solid)
        heads.append(np.asarray(canvas.image(), float)[84:90, 94:107, :3].mean(axis=(0, 1)))
    front, behind = heads
    assert np.abs(front - outfit.skin).sum() < np.abs(front - outfit.hair).sum()
    assert np.abs(behind - outfit.hair).sum() < np.abs(behind - outfit.skin).sum()


def test_right_and_left_limbs_look_the_same():
    rng = np.random.default_rng(3)
    points, outfit = figures.sample_pose(rng) * 200, figures.sample_outfit(rng)
    limbs = figures.figure_solids(points, outfit, 200)[:20]
    looks = [(solid.radii, solid.color.tolist()) for solid in limbs]
    assert looks[:6] == looks[6:12] and looks[12:16] == looks[16:]


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(FileExistsError):
        demo.write_demo(tmp_path, train=1, valid=0)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_set_that_failed_in_the_middle(tmp_path):
    painted = []

    def fail_at_the_third(rng):
        painted.append(rng)
        if len(painted) == 3:
            raise OSError("disk full")
        return demo.paint_person(rng)

    with pytest.raises(OSError, match="disk full"):
        demo.write_demo(tmp_path / "set", train=5, valid=0, paint=fail_at_the_third)
    assert len(painted) == 3 and not list(tmp_path.iterdir())


def test_steps_are_run_in_order_until_one_fails(tmp_path, monkeypatch, caplog):
    ran = []

    def run(words):
        ran.append(words)
        return 7 if len(ran) == 3 else 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "run_process", run)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as end:
        runner.main()
    assert end.value.code == 7
    assert [words[0] for words in ran] == [sys.executable] * 3
    assert [words[1] for words in ran] == ["stack-hg.py", "stack-hg.py", "collect-scale-distri.py"]
    for number, step in enumerate(runner.STEPS[:3], 1):
        assert (
            f"{number} of {len(runner.STEPS)}, about" in caplog.text and f"$ {step.command}\n" in caplog.text
        )


@pytest.mark.slow
def test_a_demo_ends_with_the_code_of_the_step_that_failed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "utils.demo"],
        cwd=tmp_path,  # where there is no stack-hg.py
        env=environment() | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "stack-hg.py" in done.stderr
    assert "1 of " in done.stdout and "2 of " not in done.stdout


def test_time_left_follows_the_pace_so_far():
    total = sum(step.seconds for step in runner.STEPS)
    assert runner.time_left(runner.STEPS, 0, 0) == f"about {total / 60:.0f} min"
    slow = 3 * runner.STEPS[0].seconds
    assert (
        runner.time_left(runner.STEPS, 1, slow)
        == f"about {3 * (total - runner.STEPS[0].seconds) / 60:.0f} min"
    )
    assert runner.time_left(runner.STEPS, len(runner.STEPS) - 1, total) == "about 10 s"
    steps = [runner.Step("", seconds, "") for seconds in (60, 33, 90)]
    assert [runner.time_left(steps, done, 60) for done in (0, 1)] == ["about 3 min", "about 2 min"]
    assert runner.time_left(steps, 2, 93) == "about 90 s" and runner.time_left(steps, 1, 20) == "about 40 s"


def test_the_end_in_ten_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(runner.STAGE1, 0, [0.123, 0.789], first=runner.END - 6)
    write_run(runner.CONTROL, 0, [0.8, 0.812], first=runner.END - 2)
    write_run(runner.JOINT, 0, [0.7, 0.834], first=runner.END - 2)
    (runner.JOINT / "agent.txt").write_text("scale: 1\nrotation: 2\n")
    text = runner.summary(299.6)
    assert len(text.splitlines()) <= 10
    for part in (
        "5 min 0 s",
        "78.9 %",
        "12.3 %",
        "rotation: 2",
        "81.2 % with random",
        "83.4 % with adv",
        "one seed",
        f"After epoch {runner.END - 1}: ",
    ):
        assert part in text


def test_the_occlusion_demos_steps_and_end(tmp_path, monkeypatch):
    """Each step reads what an earlier one has left; the end says what came out."""
    monkeypatch.chdir(tmp_path)
    ran = []
    monkeypatch.setattr(steps, "run_process", lambda words: ran.append(" ".join(words)))
    demo_occlusion.run_steps(demo_occlusion.STEPS)
    assert len(ran) == len(demo_occlusion.STEPS)
    assert sum(step.seconds for step in demo_occlusion.STEPS) <= 180
    assert [name for name in ("--occ_draws uniform", "--joint_dir uniform") if name in ran[3]]
    write_run(demo_occlusion.BASE, 0, [0.5, 0.625])
    stems = [demo_occlusion.BASE / demo_occlusion.BEGIN]
    for arm, folder in demo_occlusion.ARMS.items():
        assert any(f"--exp_id demo-occlusion/{folder.name} " in line for line in ran), arm
        stems.append(folder / demo_occlusion.LAST)
    for k, stem in enumerate(stems):
        stem.parent.mkdir(parents=True, exist_ok=True)
        path = stem.with_name(f"{stem.name}-occlusion.txt")
        path.write_text(f"title\n1 2\n3 4\nmean of all 4{k}.00, without a mask 5{k}.00\n")
    lines = demo_occlusion.summary(170).splitlines()
    assert lines[0] == "The demo took 2 min 50 s." and len(lines) <= 10
    assert [line.rpartition(": ")[2] for line in lines[2:5]] == [
        f"mean of all 4{k}.00, without a mask 5{k}.00" for k in range(3)
    ]
