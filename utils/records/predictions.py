"""Files of predictions: `preds`, and the people they belong to."""

import io
import json
from pathlib import Path

import numpy as np
import scipy.io
from torch import Tensor

from data.people import People
from utils.system.errors import UserError

HEADER, HEADER_BYTES = b"MATLAB 5.0 MAT-file", 116  # text at the start of a MATLAB file


def encode_predictions(preds: Tensor, people: People) -> bytes:
    """Encode predictions as a MATLAB file.

    Args:
        preds: [N, K, 2], px of the photographs. people: the N people, in the same order.

    Returns:
        The file's bytes: `preds` f64 [N, K, 2]; of each person `image` (path below the data folder),
        `center` [N, 2] px and `scale` [N]; and `people`, their fingerprint.
    """
    contents = {
        "preds": preds.double().numpy(),
        "image": people.image.astype(object),
        "center": people.center.astype(np.float64),
        "scale": people.scale.astype(np.float64),
        "people": people.fingerprint,
    }
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, contents, oned_as="column")
    # SciPy's header has the time: without it the same predictions are the same bytes.
    return HEADER.ljust(HEADER_BYTES) + buffer.getvalue()[HEADER_BYTES:]


def encode_results(results: list[dict]) -> bytes:
    """Encode results in COCO's format as JSON, with a line per person."""
    return ("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n").encode()


def refuse_other_people(path: Path, people: People, overwrite: bool) -> None:
    """Raise a `UserError` if predictions would replace those of other people, or another file.

    Files of the 2018 release do not record their people; these are compared by number.
    """
    if overwrite or not path.exists():
        return
    try:
        found = scipy.io.loadmat(path, variable_names=("preds", "people"))
        same = len(found["preds"]) == len(people)
        if "people" in found:
            same = found["people"].item() == people.fingerprint
    except Exception as error:  # the reader raises nearly any kind on damaged bytes
        raise UserError(f"{path} is not a file of predictions: --overwrite true replaces it") from error
    if not same:
        raise UserError(
            f"{path} has predictions for {len(found['preds'])} other people, this run has {len(people)}: "
            "--overwrite true replaces it"
        )


def refuse_other_boxes(path: Path, image_ids: list[int], overwrite: bool) -> None:
    """Raise a `UserError` if results in COCO's format would replace those of other boxes, or another file.

    image_ids: of the boxes in order, by which other boxes are told.
    """
    if overwrite or not path.exists():
        return
    try:
        found = [one["image_id"] for one in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a file of results: --overwrite true replaces it") from error
    if found != image_ids:
        raise UserError(
            f"{path} has results of {len(found)} other boxes, this run has {len(image_ids)}: "
            "--overwrite true replaces it"
        )
