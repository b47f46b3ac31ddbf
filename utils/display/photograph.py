"""The predicted pose of one person in any photograph: drawn on it, and as JSON."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data import DataError
from data.augmentation import MARGINS, Augmentation
from data.geometry import PIXELS_PER_SCALE
from data.loading.orientation import AS_STORED, exif_orientation, turn_upright
from data.loading.patches import Patches
from data.loading.photographs import UNREADABLE, open_lazily, to_rgb
from data.people import People
from utils.display.drawing import clear_peaks, draw_skeleton, encode_jpeg
from utils.evaluation.evaluate import flip_tested_heatmaps
from utils.run import Run
from utils.system.errors import UserError
from utils.system.files import write_file

log = logging.getLogger(__name__)

WIDEST = 100.0  # limit of --scale: sides of the square / longer side of the photograph


def open_photograph(path: Path) -> Image.Image:
    """A photograph in RGB, turned upright as its EXIF orientation says, which is logged.

    Raises:
        UserError: it does not exist or cannot be decoded.
    """
    try:
        with open_lazily(path) as photo:
            orientation = exif_orientation(photo)
            pixels = np.asarray(to_rgb(photo))
    except FileNotFoundError as error:
        raise UserError(f"--image {path} does not exist") from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--image {path}: expected a complete photograph ({reason})") from error
    if orientation != AS_STORED:
        log.info("--image %s is turned upright (EXIF orientation %d)", path, orientation)
    return Image.fromarray(turn_upright(pixels, orientation))


def person_square(
    size: tuple[int, int], center: list[float] | None, scale: float | None
) -> tuple[np.ndarray, float]:
    """Center f32 [2] px and scale (side / 200 px) of the person's square.

    Args:
        size: width and height of the photograph, px.
        center, scale: values of --center and --scale; if both are None, the square is the smallest that
            contains the photograph.

    Raises:
        UserError: only one of them is given, the center is outside the photograph, or the square is smaller
            than a pixel or more than `WIDEST` times as large as the photograph.
    """
    width, height = size
    if center is None and scale is None:
        return np.array([width / 2, height / 2], np.float32), max(size) / PIXELS_PER_SCALE
    if center is None or scale is None:
        raise UserError("--center X Y and --scale S must be given together: add the other one")
    x, y = center
    if not (0 <= x <= width and 0 <= y <= height):
        raise UserError(
            f"--center {x:g} {y:g}: expected a point in the photograph, which is {width} x {height} px"
        )
    side = PIXELS_PER_SCALE * scale
    if not 1 <= side <= WIDEST * max(size):
        raise UserError(
            f"--scale {scale:g} is a square of {side:g} px in a photograph of {width} x {height} px: for a "
            f"person of half its height use --scale {height / 2 / PIXELS_PER_SCALE:.2f}"
        )
    return np.array([x, y], np.float32), scale


@torch.no_grad()
def predict_pose(
    run: Run, network: nn.Module, path: Path, center: np.ndarray, scale: float
) -> tuple[Tensor, Tensor]:
    """Predict the joints of the person in a square, with the flip test as in validation.

    The network is put in eval mode.

    Args:
        path: the photograph. center: f32 [2] px of the upright photograph. scale: the square's side / 200 px.

    Returns:
        (joints f32 [K, 2], px of the photograph; confidence f32 [K]: the maximum of each heatmap, usually
        in 0..1; 0 if no value is above 0: the joint was not detected.)

    Raises:
        DataError: the photograph cannot be decoded.
    """
    network.eval()
    person = People(
        image=np.array([str(path)]),
        center=center[None],
        scale=np.array([scale], np.float32),
        points=np.zeros((1, len(run.skeleton), 2), np.float32),
        normalizer=np.zeros(1, np.float32),
        valid=np.ones(1, bool),
    )
    people = Patches(person, Path(), run.opt.in_res, MARGINS["identity"], upright=True)[[0]]
    if isinstance(people, DataError):
        raise people
    sample = run.augment(people.to(run.device), Augmentation.identity(1))
    _, heatmaps = flip_tested_heatmaps(run, network, sample.image)
    heatmaps = heatmaps * torch.from_numpy(run.trained_joints).to(run.device)[:, None, None]
    joints = sample.predict(heatmaps)
    return joints[0].cpu(), heatmaps[0].amax(dim=(1, 2)).clamp(min=0).nan_to_num(0).cpu()


def report_photograph(run: Run, network: nn.Module) -> None:
    """Predict the pose in the photograph of `--image`.

    Writes `<stem>-pose.jpg` and `<stem>-pose.json`, named after the photograph, into the run's folder, and
    logs their paths. The JSON has image (absolute path), size [width, height] px, center [x, y] px, scale,
    checkpoint, and joints: name -> x, y px and confidence; x and y are null for a joint that was not
    detected. Coordinates are in px of the upright photograph.

    Raises:
        UserError: the photograph or the square is missing or invalid, existing files belong to another
            photograph, or a file cannot be written.
    """
    opt = run.opt
    stem = run.folder / f"{opt.image.stem}-pose"
    picture, described = Path(f"{stem}.jpg"), Path(f"{stem}.json")
    photo = open_photograph(opt.image)
    _refuse_other_photograph(described, opt.image)
    center, scale = person_square(photo.size, opt.center, opt.scale)
    joints, confidence = predict_pose(run, network, opt.image, center, scale)
    peaks = confidence.numpy()
    drawing = draw_skeleton(
        np.asarray(photo),
        joints.numpy(),
        clear_peaks(peaks),
        size=min(PIXELS_PER_SCALE * scale, max(photo.size)),
        skeleton=run.skeleton,
    )
    result = {
        "image": str(opt.image.resolve()),
        "size": list(photo.size),
        "center": center.tolist(),
        "scale": scale,
        "checkpoint": run.pose_path.name,
        "joints": {
            name: {"x": x if peak else None, "y": y if peak else None, "confidence": round(peak, 4)}
            for name, (x, y), peak in zip(run.skeleton.joints, joints.tolist(), peaks.tolist(), strict=True)
        },
    }
    write_file(described, json.dumps(result, indent=1) + "\n")  # first: it identifies the photograph
    write_file(picture, encode_jpeg(drawing, quality=92))
    log.info("pose: %s and %s", picture, described.name)


def _refuse_other_photograph(described: Path, image: Path) -> None:
    """Raise a `UserError` if the JSON file exists and belongs to another photograph with the same stem."""
    if not described.exists():
        return
    try:
        other = Path(json.loads(described.read_text("utf-8"))["image"]).resolve()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--image {image}: {described} is not a pose file: move or delete it") from error
    if other != image.resolve():
        raise UserError(f"--image {image}: {described} belongs to {other}: move it, or rename one photograph")
