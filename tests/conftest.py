"""Shared fixtures: golden numbers, and real photographs where there are any."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # here and in stages' processes: sums then have one order

import numpy as np
import pytest

from utils.process import Terminal

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"


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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with `lsp/`, `lspet/` and `mpii/`; tests that ask for it skip where there is none."""
    folder = Path(os.environ.get("POSE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"no real photographs: {folder} is not there (POSE_TEST_DATA names the folder)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
