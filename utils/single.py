"""The pose of one person in any photograph: drawn on it, and as JSON."""

import io
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from data.annotations import JOINT_NAMES
from data.geometry import PIXELS_PER_SCALE
from data.heatmap import predict_points
from data.patches import read_patch
from utils.display.drawing import clear_peaks, draw_skeleton, encode_jpeg
from utils.errors import UserError
from utils.evaluation import flip_tested_heatmaps
from utils.files import write_file
from utils.runs import Run

log = logging.getLogger(__name__)

WIDEST = 100.0  # times the photograph's longer side: the widest square that can be asked for


def open_photograph(path: Path) -> Image.Image:
    """A photograph in RGB, upright as its camera noted.

    Raises:
        UserError: it does not exist or does not decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as photo:
                return ImageOps.exif_transpose(photo).convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"--image {path}: there is no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--image {path}: wanted a whole image file ({reason})") from error


def person_square(
    size: tuple[int, int], center: list[float] | None, scale: float | None
) -> tuple[np.ndarray, float]:
    """Center f32 [2] px and scale (side / 200 px) of the person's square.

    Args:
        size: width and height of the photograph, px. center, scale: as asked for; without both the square
            is the smallest that holds the whole photograph.

    Raises:
        UserError: one of them lacks the other, the center is not in the photograph, or the square is smaller
            than a pixel or out of all proportion to the photograph.
    """
    width, height = size
    if center is None and scale is None:
        return np.array([width / 2, height / 2], np.float32), max(size) / PIXELS_PER_SCALE
    if center is None or scale is None:
        raise UserError("--center X Y and --scale S go together: the middle and the side / 200 of a square")
    x, y = center
    if not (0 <= x <= width and 0 <= y <= height):
        raise UserError(f"--center {x:g} {y:g}: outside the image, which is {width} x {height} px")
    side = PIXELS_PER_SCALE * scale
    if not 1 <= side <= WIDEST * max(size):
        raise UserError(
            f"--scale {scale:g}: a square of {side:g} px in an image of {width} x {height} px; a person of "
            f"half its height has --scale {height / 2 / PIXELS_PER_SCALE:.2f}"
        )
    return np.array([x, y], np.float32), scale


@torch.no_grad()
def predict_pose(
    run: Run, network: nn.Module, photo: Image.Image, center: np.ndarray, scale: float
) -> tuple[Tensor, Tensor]:
    """Joints of the person in a square, with the flip test; the network is put in eval mode.

    Returns:
        (joints f32 [16, 2], px of the photograph; confidence f32 [16]: highest values of their heat maps, in
        general between 0 and 1, and 0 where a map has nothing above 0: its joint is nowhere.)
    """
    network.eval()
    file = io.BytesIO()
    photo.save(file, "BMP")
    patch, _ = read_patch(file, center, scale, 1.0, run.opt.in_res)
    image = torch.from_numpy(patch.copy()).permute(2, 0, 1)[None].to(run.device).float() / 255
    heatmaps = flip_tested_heatmaps(run, network, image)[1].cpu()
    joints = predict_points(heatmaps, torch.from_numpy(center)[None], torch.tensor([scale]), torch.zeros(1))
    return joints[0], heatmaps[0].amax(dim=(1, 2)).clamp(min=0).nan_to_num(0)


def report_photograph(run: Run, network: nn.Module) -> None:
    """Predict the pose in the photograph of `--image`.

    Writes `<its name>-pose.jpg` and `<its name>-pose.json` into the run's folder, and logs where. The JSON
    has image, size [width, height] px, center [x, y] px, scale, checkpoint, and joints: name -> x, y px and
    confidence; x and y are null for a joint that is nowhere. Its px are those of the upright photograph.

    Raises:
        UserError: the photograph or the square is not to be had, or a file cannot be written.
    """
    opt = run.opt
    photo = open_photograph(opt.image)
    center, scale = person_square(photo.size, opt.center, opt.scale)
    joints, confidence = predict_pose(run, network, photo, center, scale)
    peaks = confidence.numpy()
    drawing = draw_skeleton(
        np.asarray(photo),
        joints.numpy(),
        clear_peaks(peaks),
        size=min(PIXELS_PER_SCALE * scale, max(photo.size)),
    )
    result = {
        "image": str(opt.image),
        "size": list(photo.size),
        "center": center.tolist(),
        "scale": scale,
        "checkpoint": run.pose_path.name,
        "joints": {
            name: {"x": x if peak else None, "y": y if peak else None, "confidence": round(peak, 4)}
            for name, (x, y), peak in zip(JOINT_NAMES, joints.tolist(), peaks.tolist(), strict=True)
        },
    }
    stem = run.folder / f"{opt.image.stem}-pose"
    write_file(Path(f"{stem}.jpg"), encode_jpeg(drawing, quality=92))
    write_file(Path(f"{stem}.json"), json.dumps(result, indent=1) + "\n")
    log.info("pose: %s.jpg and %s.json", stem, stem.name)
