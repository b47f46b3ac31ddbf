"""The data path alone, on one core: from a photograph's file to a crop. `make bench`, or

python tests/bench_data.py

Beside it one-pass warping with OpenCV, as HRNet and most pose code do it: decode the whole photograph and
warp it straight to the crop (`pip install -r requirements-bench.txt`; without it that row is left out). dB:
how close both come to a plain reading in float64. Photographs are those of the tests (POSE_TEST_DATA names
their folder); where there are none, drawn ones of the same sizes.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.plain import plain_crop, psnr
from support.real_data import FOLDER

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.geometry import PIXELS_PER_SCALE
from data.kinds import KINDS
from data.loading.patches import Patches
from data.people import People
from data.readers.lsp import read_lsp
from data.readers.mpii import read_json
from utils.system.devices import keep_freed_memory

try:
    import cv2
except ImportError:
    cv2 = None

REPEATS = 15
PEOPLE = 16
SIZES = (64, 128, 256)
DRAWN = {"LSP": ((376, 313), 216), "MPII": ((1280, 720), 620)}
"""Of typical people: size of the photograph and side of the box, px."""


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    if cv2 is None:
        say("no row of OpenCV: pip install -r requirements-bench.txt")
    else:
        cv2.setNumThreads(1)
    say(f"one core, {PEOPLE} people, medians of {REPEATS}, ms of processor time per person")
    with tempfile.TemporaryDirectory() as folder:
        root, origin, get_people = FOLDER, "real", read_people
        if not root.is_dir():
            root, origin, get_people = Path(folder), "drawn", draw_people
        last = {}
        for name in DRAWN:
            people = get_people(name, root)
            for res in SIZES:
                say(f"\n{name}, {origin} photographs, crops of {res} px")
                last[f"{name}, {res} px"] = measure(people, root, res)
        say("\nfrom a file to a random crop, per person")
        for case, line in last.items():
            say(f"  {case:<14}{line}")


def read_people(name: str, root: Path) -> People:
    """Some people of a data set; MPII's sample has few, who then come again."""
    if name == "LSP":
        people = read_lsp(root / "lsp" / "joints.mat", "lsp/images")
    else:
        people = read_json(root / "mpii" / "mpii-hr-lsp-normalizer.sample.json", "mpii/images")
    return people[np.linspace(0, len(people) - 1, PEOPLE).astype(int)]


def draw_people(name: str, root: Path) -> People:
    """People in the middle of photographs of smooth colors and some noise."""
    (width, height), side = DRAWN[name]
    rng = np.random.default_rng(0)
    for k in range(PEOPLE):
        coarse = rng.integers(256, size=(height // 12, width // 12, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=int)
        pixels = (smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{name}{k}.jpg", quality=90)
    return People(
        image=np.array([f"{name}{k}.jpg" for k in range(PEOPLE)]),
        center=np.full((PEOPLE, 2), (width / 2, height / 2), dtype=np.float32),
        scale=np.full(PEOPLE, side / PIXELS_PER_SCALE, dtype=np.float32),
        points=rng.uniform(1, height, (PEOPLE, 16, 2)).astype(np.float32),
        normalizer=np.ones(PEOPLE, dtype=np.float32),
        valid=np.zeros(PEOPLE, dtype=bool),
    )


def measure(people: People, root: Path, res: int) -> str:
    """Print the table of one kind of photographs and one size of crops, and return its last line."""
    random = Augmentation.random(PEOPLE, torch.Generator().manual_seed(0))
    geometry = random.only("log2_scale", "rotation")
    patches = Patches(people, root, res, MARGINS["random"])
    wide = Patches(people, root, res, MARGINS["drawn"])
    rows = list(range(PEOPLE))
    batch, wide_batch = patches[rows], wide[rows]
    plain = plain_crops(people, root, geometry, res)

    def quality(images: Tensor) -> float:
        return np.mean([psnr(*pair) for pair in zip(images, plain, strict=True)])

    ours, theirs = "a patch, a random crop of it, and heatmaps", "OpenCV: imread and warpAffine, no heatmaps"
    work = {
        ours: lambda: augment(patches[rows], random, res, res // 4),
        f"  a patch of {batch.patch.shape[-1]} px": lambda: patches[rows],
        "  a random crop of it, and heatmaps": lambda: augment(batch, random, res, res // 4),
    }
    if cv2 is not None:
        work[theirs] = partial(warp_in_one_pass, people, root, geometry, res)
    for name in ("identity", "scale", "rotation"):
        augmentation = Augmentation.bins(name, PEOPLE) if name in KINDS else Augmentation.identity(PEOPLE)
        crops = f"crops in the seven bins of {name}" if name in KINDS else "an un-augmented crop"
        work[f"{crops}, and heatmaps"] = partial(augment, wide_batch, augmentation, res, res // 4)
    took = interleaved(work)
    for name, ms in took.items():
        say(f"{name:<52}{ms:>8.2f}")
    close = quality(augment(batch, geometry, res, res // 4).image)
    if cv2 is None:
        return f"ours {took[ours]:.2f} ms, {close:.1f} dB"
    cv_close = quality(warp_in_one_pass(people, root, geometry, res))
    return (
        f"ours {took[ours]:.2f} ms, OpenCV {took[theirs]:.2f} ms, ratio {took[ours] / took[theirs]:.2f}; "
        f"ours {close:.1f} dB, OpenCV {cv_close:.1f} dB"
    )


def plain_crops(people: People, root: Path, augmentation: Augmentation, res: int) -> list[np.ndarray]:
    """What the crops should be."""
    crops = []
    scales = people.scale * 2 ** augmentation.log2_scale.numpy()
    for k, scale in enumerate(scales):
        with Image.open(root / people.image[k]) as photo:
            pixels = np.asarray(photo.convert("RGB"))
        crops.append(plain_crop(pixels, people.center[k], scale, augmentation.rotation[k].item(), res))
    return crops


def warp_in_one_pass(people: People, root: Path, augmentation: Augmentation, res: int) -> Tensor:
    """Crops f32 [N, 3, res, res] in 0..1."""
    crops = np.empty((len(people), res, res, 3), dtype=np.uint8)
    sides = PIXELS_PER_SCALE * people.scale * 2 ** augmentation.log2_scale.numpy()
    for k, side in enumerate(sides):
        photo = cv2.cvtColor(cv2.imread(str(root / people.image[k])), cv2.COLOR_BGR2RGB)
        center = people.center[k].astype(float) - 0.5  # to OpenCV a pixel's middle is a whole number
        matrix = cv2.getRotationMatrix2D(tuple(center), augmentation.rotation[k].item(), float(res / side))
        matrix[:, 2] += res / 2 - 0.5 - center
        crops[k] = cv2.warpAffine(photo, matrix, (res, res), flags=cv2.INTER_LINEAR)
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


def interleaved(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Ms of processor time per person of each kind of work: medians of repeats that take turns.

    Taking turns, all of them meet the same other work on the machine. The first round does not count.
    """
    seconds = {name: [] for name in work}
    for _ in range(REPEATS + 1):
        for name, function in work.items():
            began = time.thread_time()
            function()
            seconds[name].append(time.thread_time() - began)
    return {name: 1000 * statistics.median(each[1:]) / PEOPLE for name, each in seconds.items()}


def say(line: str) -> None:
    """A line of the table."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
