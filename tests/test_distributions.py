"""Files of collected distributions: exact round trips, the released format, and no damage goes unseen."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from utils.records.distributions import (
    distribution_path,
    pck_path,
    read_distributions,
    read_pck,
    write_distributions,
    write_pck,
)
from utils.system.errors import UserError

SOURCE = {
    "kind": "scale",
    "split": "train",
    "dataset": "demo",
    "people": 5,
    "fingerprint": "fedcba9876543210",
    "checkpoint": "lr-0.00025-3.pth.tar",
    "weights": "abcdef0123456789",
    "sha256": "0123456789abcdef",
    "in_res": 64,
}


def some_rows(people: int = 5, seed: int = 0) -> torch.Tensor:
    rows = torch.rand(people, 7, generator=torch.Generator().manual_seed(seed))
    rows[0, 2:] = 0
    return rows / rows.sum(dim=1, keepdim=True)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "train_scales.txt"
    write_distributions(path, some_rows(), SOURCE)
    return path


def refusal(path, source=SOURCE) -> str:
    """The message of the reader's error: one line that names the file."""
    with pytest.raises(UserError) as error:
        read_distributions(path, source)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


def with_row(path, row: str) -> None:
    """Replace person 2's row."""
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = row + "\n"
    path.write_text("".join(lines))


def test_round_trip_keeps_six_decimals(path):
    rows = read_distributions(path, SOURCE)
    assert rows.dtype == torch.float32
    assert_close(rows, some_rows(), atol=1e-6, rtol=0)
    assert_close(rows.sum(dim=1), torch.ones(5), atol=1e-6, rtol=0)
    header, *lines = path.read_text().splitlines()
    assert json.loads(header.removeprefix("#")) == SOURCE
    assert [len(line.split()) for line in lines] == [7] * 5
    write_distributions(path, some_rows(seed=1), SOURCE)
    assert_close(read_distributions(path, SOURCE), some_rows(seed=1), atol=1e-6, rtol=0)


def test_pck_of_each_measurement_keeps_six_decimals_and_what_is_recorded_of_it(tmp_path):
    path = pck_path(tmp_path, "val", "scale")
    assert path.name == "val_scales_pck.txt"
    pck = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    write_pck(path, pck, SOURCE | {"repeats": 3, "ceiling": {"uniform": 0.5}})
    assert_close(read_pck(path, SOURCE), pck, atol=1e-6, rtol=0)
    header, *lines = path.read_text().splitlines()
    assert json.loads(header.removeprefix("#"))["ceiling"] == {"uniform": 0.5}
    assert [float(number) for number in lines[2].split()[:7]] == pytest.approx(pck[0, 2].tolist(), abs=1e-6)
    for damaged, message in (("\n1.5 ", "0 to 1"), ("\n", "expected 21 numbers")):
        path.write_text("\n".join([header, *lines]).replace(f"\n{lines[1].split()[0]} ", damaged) + "\n")
        with pytest.raises(UserError, match=message):
            read_pck(path, SOURCE)


def test_another_number_of_measurements_is_another_collection(path):
    read_distributions(path, SOURCE | {"repeats": 1})  # as files of earlier versions, which do not say so
    assert "collected for --repeats 1, this run has 2" in refusal(path, SOURCE | {"repeats": 2})
    write_distributions(path, some_rows(), SOURCE | {"repeats": 2})
    read_distributions(path, SOURCE)  # pretraining takes either


def test_names_are_those_of_the_release(tmp_path):
    names = [distribution_path(tmp_path, split, kind).name for split, kind in (("train", "scale"),)]
    names += [distribution_path(tmp_path, "val", "rotation").name]
    assert names == ["train_scales.txt", "val_rotations.txt"]


def test_released_files_are_read(golden, tmp_path):
    """No first line that says what they are of; rows rounded to two digits."""
    arrays = golden("g_collect")
    path = tmp_path / "val_scales.txt"
    path.write_bytes(b"\n".join(arrays["out_lines"].tolist()) + b"\n")
    rows = read_distributions(path, SOURCE | {"people": len(arrays["out_lines"])})
    np.testing.assert_allclose(rows.numpy(), arrays["out_reread_normalised"], atol=1e-6)


def test_files_that_do_not_say_whose_they_are_are_read_with_a_warning(path, caplog):
    read_distributions(path, SOURCE)
    assert not caplog.records
    header, *lines = path.read_text().splitlines(keepends=True)
    earlier = {name: value for name, value in SOURCE.items() if name != "fingerprint"}
    path.write_text("".join([f"# {json.dumps(earlier)}\n", *lines]))
    assert_close(read_distributions(path, SOURCE), some_rows(), atol=1e-6, rtol=0)
    path.write_text("".join(lines))
    assert_close(read_distributions(path, SOURCE), some_rows(), atol=1e-6, rtol=0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert all(str(path) in record.message for record in caplog.records)
    path.write_text("".join([header, *lines]))
    assert "0123" in refusal(path, SOURCE | {"fingerprint": "0123"})


@pytest.mark.parametrize("total", [0.949, 1.051])
def test_rows_may_miss_one_by_no_more_than_rounding(path, total):
    with_row(path, f"{total} 0 0 0 0 0 0")
    assert "row 2 " in refusal(path)
    with_row(path, f"{1 + (total - 1) * 0.95} 0 0 0 0 0 0")
    assert read_distributions(path, SOURCE)[2].tolist() == [1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["scale", "rotation"])
def test_missing_file_names_the_script_that_makes_it(tmp_path, kind):
    message = refusal(tmp_path / "none.txt", SOURCE | {"kind": kind})
    assert f"collect-{kind}-distri.py" in message


def test_every_cut_is_seen(path):
    """Cut after any byte, also within a row, after whole rows, and just before the last line's end."""
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refusal(path)
    path.write_bytes(whole)
    read_distributions(path, SOURCE)


@pytest.mark.parametrize("headless", [False, True])
def test_row_too_many_is_seen(path, headless):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[headless:] + lines[-1:]))
    assert "6 rows" in refusal(path)


BAD_ROWS = {
    "six columns": "0.2 0.2 0.2 0.2 0.1 0.1",
    "eight columns": "0.2 0.2 0.2 0.2 0.1 0.1 0 0",
    "one column": "0.142857",
    "a word": "0.2 0.2 0.2 0.2 0.1 x 0.1",
    "empty": "",
    "NaN": "nan 0.2 0.2 0.2 0.2 0.1 0.1",
    "infinite": "inf 0 0 0 0 0 0",
    "negative": "-0.2 0.4 0.2 0.2 0.2 0.1 0.1",
    "sum below 1": "0.2 0.2 0.2 0.2 0.1 0 0",
    "sum above 1": "0.3 0.2 0.2 0.2 0.1 0.1 0",
    "all 0": "0 0 0 0 0 0 0",
}


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row_is_named(path, row):
    with_row(path, row)
    assert "row 2 (from 0)" in refusal(path)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("weights", "fedcba9876543210"),
        ("dataset", "mpii"),
        ("split", "val"),
        ("kind", "rotation"),
        ("people", 6),
        ("in_res", 256),
    ],
)
def test_file_of_another_source_is_refused(path, name, other):
    message = refusal(path, SOURCE | {name: other})
    assert name in message
    assert str(other) in message
    assert str(SOURCE[name]) in message


def test_a_checkpoint_is_the_same_by_its_weights_and_earlier_files_go_by_its_file(path, tmp_path):
    again = SOURCE | {"checkpoint": "lr-0.00025-3-model-best.pth.tar", "sha256": "fedcba9876543210"}
    assert_close(read_distributions(path, again), read_distributions(path, SOURCE))
    earlier = tmp_path / "val_scales.txt"
    write_distributions(earlier, some_rows(), {name: SOURCE[name] for name in SOURCE if name != "weights"})
    read_distributions(earlier, SOURCE)
    assert "sha256 0123456789abcdef, this run has fedcba9876543210" in refusal(earlier, again)


@pytest.mark.parametrize("header", ["# {", "#", "# 5", "# null", "# [1]", '# "text"', "# rows of people"])
def test_damaged_header_is_seen(path, header):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *lines[1:]]) + "\n")
    assert "first line" in refusal(path)


@pytest.mark.parametrize(
    "junk", [b"\x80\x02\xff\xfe\n" * 5, b"\x00" * 500 + b"\n", b"#\x00\xff\n", b"PK\x03\x04\n"]
)
def test_binary_junk_is_refused(path, junk):
    path.write_bytes(junk)
    refusal(path)


def test_folder_in_its_place_is_refused(tmp_path):
    refusal(tmp_path)
