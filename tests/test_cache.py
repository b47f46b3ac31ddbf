"""Caches: the same patches to the bit, made once; one line where a file is damaged or there is no room."""

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.stages import REPOSITORY, command, demo_data, environment

from data import DataError
from data.augmentation import MARGINS
from data.datasets import load_dataset
from data.loading.cache import PatchFile, PatchMemory
from data.loading.loader import PatchLoader
from data.loading.patches import VERSION
from utils.patch_store import Caches, build_file
from utils.system.devices import free_memory
from utils.system.errors import UserError

CPU = torch.device("cpu")
NAME = "demo-train-random-64px"


@pytest.fixture
def data(tmp_path):
    return load_dataset("demo", demo_data(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path):
    """Where caches go; made by the first."""
    return tmp_path / "caches" / "here"


def loader(data, workers=0, seed=None, cache=None, margin=MARGINS["random"], in_res=64, rows=None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return PatchLoader(data.train, data.root, in_res, margin, 5, workers, CPU, generator, rows, cache=cache)


def epochs(loader, count=2):
    return [batch for _ in range(count) for batch in loader]


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, value in vars(other).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(getattr(one, name), value)
                assert (
                    getattr(one, name).stride() == value.stride()
                )  # what follows computes in the same order
            else:
                assert getattr(one, name) == value


def no_decoding(monkeypatch):
    def decoded(*arguments):
        raise AssertionError("a photograph was decoded")

    monkeypatch.setattr("data.loading.patches.read_patch", decoded)


@pytest.mark.parametrize("place", ["folder", "memory"])
@pytest.mark.parametrize("workers", [0, 2])
def test_cached_patches_are_the_decoded_ones(data, folder, monkeypatch, place, workers):
    """Shuffled and in order, of everyone and of some; PyTorch's own random numbers are as without a cache."""
    some = np.array([1, 4, 5, 9])
    decoded = [epochs(loader(data, seed=3)), epochs(loader(data)), epochs(loader(data, rows=some))]
    before = torch.get_rng_state()
    cache = Caches(folder if place == "folder" else CPU).get(NAME, loader(data, workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(cache, PatchFile if place == "folder" else PatchMemory)
    no_decoding(monkeypatch)
    cached = [loader(data, workers, seed=3, cache=cache), loader(data, workers, cache=cache)]
    cached.append(loader(data, workers, cache=cache, rows=some))
    for found, expected in zip(cached, decoded, strict=True):
        assert_same_batches(epochs(found), expected)


def test_a_cache_is_made_once(data, folder, monkeypatch):
    for place in (folder, CPU):
        caches = Caches(place)
        first = caches.get(NAME, loader(data))
        with monkeypatch.context() as patched:
            no_decoding(patched)
            if place == CPU:
                assert caches.get(NAME, loader(data)) is first
            else:
                assert Caches(place).get(NAME, loader(data)).path == first.path
    (path,) = folder.iterdir()
    assert path.name == f"{NAME}-{loader(data).patches.fingerprint}.npy"
    patches, (everyone,) = np.load(path, mmap_mode="r"), [loader(data).patches[list(range(len(data.train)))]]
    sides = loader(data).patches.windows.side
    assert len(set(sides)) > 1
    for patch, side in zip(everyone.patch.permute(0, 2, 3, 1).numpy(), sides, strict=True):
        one, patches = np.split(patches, [3 * side**2])
        np.testing.assert_array_equal(one, patch[:side, :side].ravel())
    assert not len(patches)


def test_size_is_announced(data, folder, caplog):
    with caplog.at_level("INFO"):
        cache = Caches(folder).get(NAME, loader(data))
    size = cache.path.stat().st_size
    assert size == cache.size
    assert f"writing {cache.path} ({size / 1e9:.3g} GB)" in caplog.text


def test_the_name_follows_what_decides_the_pixels(data, monkeypatch):
    """Another photograph, margin, resolution, people or version of the code is another file."""
    path = data.root / data.train.image[3]
    found = [loader(data).patches.fingerprint]
    assert found == [loader(data).patches.fingerprint]
    os.utime(path, ns=(0, 1))
    found.append(loader(data).patches.fingerprint)
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    os.utime(path, ns=(0, 1))
    found.append(loader(data).patches.fingerprint)
    path.write_bytes(content + b"\1")
    os.utime(path, ns=(0, 1))  # another file of the same size and modification time
    found.append(loader(data).patches.fingerprint)
    found.append(loader(data, margin=MARGINS["identity"]).patches.fingerprint)
    found.append(loader(data, in_res=128).patches.fingerprint)
    found.append(loader(SimpleNamespace(train=data.train[:5], root=data.root)).patches.fingerprint)
    monkeypatch.setattr("data.loading.patches.VERSION", VERSION + 1)
    found.append(loader(data).patches.fingerprint)
    assert len(set(found)) == len(found)


def test_a_changed_photograph_is_decoded_anew(data, folder):
    Caches(folder).get(NAME, loader(data))
    path = data.root / data.train.image[0]
    with Image.open(path) as photo:
        photo.rotate(180).save(path)
    cache = Caches(folder).get(NAME, loader(data))
    assert_same_batches(epochs(loader(data, cache=cache)), epochs(loader(data)))
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("place", ["folder", "memory"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_photograph_that_does_not_decode_is_named_as_ever(data, folder, workers, place):
    path = data.root / data.train.image[7]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError) as error:
        list(loader(data))
    line = str(error.value)
    assert "person 7 " in line
    with pytest.raises(DataError, match=re.escape(line)):
        Caches(folder if place == "folder" else CPU).get(NAME, loader(data, workers))
    assert not multiprocessing.active_children()
    assert not folder.exists() or not list(folder.iterdir())


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-101])


def too_long(path):
    path.write_bytes(path.read_bytes() + b"more")


def of_another_type(path):
    path.write_bytes(path.read_bytes().replace(b"'|u1'", b"'|i1'", 1))


def of_other_widths(path):
    path.write_bytes(path.read_bytes().replace(b"'<f4'", b"'<i4'", 1))


def of_other_checksums(path):
    path.write_bytes(path.read_bytes().replace(b"'<u4'", b"'<i4'", 1))


def empty(path):
    path.write_bytes(b"")


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [cut_off, too_long, of_another_type, of_other_widths, of_other_checksums, empty, a_folder]
)
def test_a_damaged_file_is_refused(data, folder, damage):
    path = Caches(folder).get(NAME, loader(data)).path
    damage(path)
    with pytest.raises(DataError) as error:
        Caches(folder).get(NAME, loader(data))
    line = str(error.value)
    assert line.startswith(str(path)) and "\n" not in line
    assert "Is a directory" in line if damage is a_folder else "delete it" in line


@pytest.mark.parametrize("part", ["patch", "width", "checksum"])
def test_bytes_that_have_changed_are_found_when_they_are_read(data, folder, part):
    cache = Caches(folder).get(NAME, loader(data))
    content, people, sides = cache.path.read_bytes(), len(data.train), loader(data).patches.windows.side
    ends = {"patch": len(content) - 8 * people - 2 * 128, "checksum": len(content)}
    ends["width"] = ends["checksum"] - 4 * people - 128  # a head of 128 bytes precedes each array
    before = 3 * (sides[-1] ** 2 + sides[-2] ** 2 // 2) if part == "patch" else 8  # the last person but one
    first = ends[part] - before
    count = 4000 if part == "patch" else 4
    cache.path.write_bytes(content[:first] + bytes(count) + content[first + count :])
    damaged = Caches(folder).get(NAME, loader(data))
    damaged.read([*range(people - 2), people - 1])
    with pytest.raises(DataError, match=rf"\.npy is damaged .* person {people - 2}\): delete it$"):
        list(loader(data, cache=damaged))


def test_a_file_that_goes_away_in_use_is_named(data, folder):
    cache = Caches(folder).get(NAME, loader(data))
    batches = iter(loader(data, cache=cache))
    next(batches)
    os.truncate(cache.path, 1000)
    with pytest.raises(DataError, match="was truncated"):
        list(batches)
    cache.path.unlink()
    with pytest.raises(DataError, match="No such file"):
        list(loader(data, cache=cache))


def test_no_room_is_said_before_anything_is_decoded(data, folder, monkeypatch):
    no_decoding(monkeypatch)
    size = PatchFile(folder, loader(data).patches.windows.side).size
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=size - 1))
    with pytest.raises(UserError, match=f"needs {size / 1e9:.3g} GB.*with another folder") as error:
        Caches(folder).get(NAME, loader(data))
    assert str(folder) in str(error.value) and not list(folder.iterdir())
    monkeypatch.setattr("utils.patch_store.free_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"--cache gpu: .* GB of memory, cpu has 1e-06 GB free"):
        Caches(CPU).get(NAME, loader(data))


def test_a_file_system_that_cannot_reserve_room_will_do(data, folder, monkeypatch):
    def refuse(file, offset, size):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    number = errno.ENOSPC
    with pytest.raises(UserError, match="No space left on device"):
        Caches(folder).get(NAME, loader(data))
    number = errno.EOPNOTSUPP
    assert Caches(folder).get(NAME, loader(data)).path.exists()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
def test_of_two_builds_only_one_gets_room_for_one(data, folder, monkeypatch):
    """Another run's begins before the first has written anything."""
    decoder = loader(data)
    caches = [PatchFile(folder / f"{name}.npy", decoder.patches.windows.side) for name in ("a", "b")]
    room = caches[0].size * 3 // 2

    def usage(path):
        return SimpleNamespace(free=room - sum(512 * file.stat().st_blocks for file in folder.iterdir()))

    class Late:
        patches, batch_size = decoder.patches, decoder.batch_size

        def __iter__(self):
            with pytest.raises(UserError, match=r"b\.npy needs .*: free some space"):
                build_file(caches[1], "b", loader(data))
            yield from decoder

        def __len__(self):
            return len(decoder)

    monkeypatch.setattr("shutil.disk_usage", usage)
    build_file(caches[0], "a", Late())
    assert list(folder.iterdir()) == [caches[0].path]
    caches[0].open()


def test_free_memory_is_less_than_there_is():
    assert 0 < free_memory(CPU) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_disk_that_gets_full_leaves_nothing(data, folder, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file, self.written = file, 0

        def write(self, content):
            self.written += memoryview(content).nbytes
            if self.written > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

    write = PatchFile.write
    monkeypatch.setattr(PatchFile, "write", lambda cache, file, batches: write(cache, Full(file), batches))
    with pytest.raises(UserError, match=r"\.npy cannot be written: No space left on device"):
        Caches(folder).get(NAME, loader(data))
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(data, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{tmp_path}/file/here cannot be written to: Not a directory"):
        Caches(tmp_path / "file" / "here").get(NAME, loader(data))
    cache = Caches(tmp_path).get(NAME, loader(data))

    def read_only(*arguments, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    assert Caches(tmp_path).get(NAME, loader(data)).path == cache.path  # reading is enough
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written to: Read-only file system"):
        Caches(tmp_path).get("other", loader(data))


def test_two_that_build_the_same_file_do_not_disturb_each_other(data, folder):
    """The other begins and ends while the first one writes."""
    decoder = loader(data)
    path = folder / f"{NAME}-{decoder.patches.fingerprint}.npy"
    cache = PatchFile(path, decoder.patches.windows.side)

    class Slow:
        patches, batch_size = decoder.patches, decoder.batch_size

        def __iter__(self):
            for k, batch in enumerate(decoder):
                if k == 1:
                    build_file(cache, NAME, loader(data))
                    cache.open()
                yield batch

        def __len__(self):
            return len(decoder)

    build_file(cache, NAME, Slow())
    assert list(folder.iterdir()) == [cache.path]
    cache.open()
    assert_same_batches(epochs(loader(data, cache=cache)), epochs(loader(data)))


def test_the_first_rank_of_a_machine_makes_what_rank_0_made_elsewhere(data, folder, monkeypatch):
    monkeypatch.setattr("utils.system.ranks.rank", lambda: 1)
    monkeypatch.setattr("utils.system.ranks.local_rank", lambda: 1)
    with pytest.raises(DataError, match="cannot be read"):  # waiting makes nothing
        Caches(folder).get(NAME, loader(data))
    monkeypatch.setattr("utils.system.ranks.local_rank", lambda: 0)
    assert Caches(folder).get(NAME, loader(data)).path.exists()


HANGING = f"""
import runpy, sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from data.loading import patches
read = patches.read_patch
def read_patch(path, *box):
    if path.name == "train-0011.jpg":
        time.sleep(600)
    return read(path, *box)
patches.read_patch = read_patch
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A program that runs a stage; the last training person is never decoded."""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_killed_leaves_no_cache(tmp_path, folder, sent):
    """What SIGKILL leaves has a temporary name, and the next run there removes it; other files stay."""
    place = ("--data_dir", tmp_path / "data", "--exp_dir", tmp_path, "--exp_id", "a", "--cache", folder)
    flags = (*place, "--is_train", "true", "--nEpochs", 1)
    demo_data(tmp_path / "data")
    program, *arguments = command("stack-hg.py", *flags)
    process = subprocess.Popen(
        [program, "-c", HANGING, *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder.exists() and any(path.stat().st_size for path in folder.iterdir())):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    left = [path.name for path in folder.iterdir()]
    if sent == signal.SIGTERM:
        assert errors.startswith("stack-hg.py: stopped by SIGTERM: ") and not left
    else:
        half = next(path for path in folder.iterdir() if path.name.endswith(".tmp"))
        assert left == [half.name] and half.name.startswith(f".{NAME}-")
        os.utime(half, (0, 0))
    (folder / ".foreign.tmp").touch()
    data = load_dataset("demo", tmp_path / "data")
    for _ in range(2):  # the second time where the cache exists
        cache = Caches(folder).get(NAME, loader(data))
        assert sorted(path.name for path in folder.iterdir()) == [".foreign.tmp", cache.path.name]
        again = folder / f".{cache.path.name}.01234567.tmp"
        again.write_text("half")
        os.utime(again, (0, 0))


def test_patches_in_memory_take_what_was_announced(data):
    memory = Caches(CPU).get(NAME, loader(data))
    taken = memory.patch.nbytes + memory.width.nbytes
    assert PatchMemory.size(loader(data).patches.windows.side) == taken
