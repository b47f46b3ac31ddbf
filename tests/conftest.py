"""Shared fixtures: golden numbers, and real photographs where there are any."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # here and in stages' processes: sums then have one order

import numpy as np
import pytest
from matplotlib.figure import Figure
from support.experiment import Experiment, tiny_experiment
from support.pages import NASTY
from support.real_data import FOLDER

from data.demo import write_demo
from options.parser import StageParser
from utils.run import Run
from utils.system.process import Terminal

GOLDEN = Path(__file__).resolve().parent / "golden"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none of them is left for the end, with one core at work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _end_logs() -> Iterator[None]:
    """A stage that ran in the tests' own process leaves no log behind."""
    yield
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if isinstance(handler, Terminal) or type(handler) is logging.FileHandler:
            root.removeHandler(handler)
            handler.close()


@pytest.fixture(scope="session")
def golden():
    """`golden("b_heatmap")` -> the arrays of `tests/golden/b_heatmap.npz` by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures of matplotlib that are saved in the test."""
    saved, save = [], Figure.savefig

    def savefig(figure: Figure, *arguments: object, **options: object) -> None:
        saved.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with `lsp/`, `lspet/` and `mpii/`; tests that ask for it skip where there is none."""
    if not FOLDER.is_dir():
        message = f"no real photographs: {FOLDER} is not there (POSE_TEST_DATA names the folder)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return FOLDER


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A tiny experiment up to the pretrained agent; not to be changed."""
    return tiny_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture
def changeable(experiment: Experiment, tmp_path: Path) -> Experiment:
    """A copy of the tiny experiment."""
    return experiment.copy(tmp_path / "checkpoints")


@pytest.fixture(scope="session")
def nasty_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a small demo set, with an id that is no plain word; its networks have learned nothing."""
    folder = tmp_path_factory.mktemp("pages")
    write_demo(folder / "data" / "demo", train=4, valid=6)
    sizes = "--num_stacks 1 --chan 8 --in_res 64 --bs 4 --gpu_id -1 --dataset demo --display_winsize 96"
    places = ["--exp_id", NASTY, "--exp_dir", str(folder / "exp"), "--data_dir", str(folder / "data")]
    groups = ("train_or_evaluate", "resume_pose", "rate", "epochs", "ranks", "evaluation")
    opt = StageParser("", *groups).parse([*sizes.split(), *places])
    return Run(opt, opt.exp_folder)
