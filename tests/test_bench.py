"""The bench runs as its users run it, on a tiny network."""

import re

import pytest
from support.stages import demo_data, run_stage


@pytest.mark.slow
def test_each_stage_is_measured_beside_its_floor(tmp_path):
    done = run_stage("tests/bench.py", "--data_dir", demo_data(tmp_path))
    last = done.stdout.splitlines()[-5:]
    assert last[0].startswith("images per second of each stage")
    for line, stage in zip(last[1:], (1, 2, 2, 3), strict=True):
        assert re.fullmatch(
            rf"  stage {stage}, \w+ +batch +4, eager +\d+\.\d, floor +\d+\.\d, ratio \d+\.\d\d", line
        )
