"""Average precision by object keypoint similarity (OKS): how results on COCO and its kin are published.

OKS (https://cocodataset.org/#keypoints-eval) is the mean over a person's annotated joints of
exp(-d^2 / (2 * area * (2 sigma)^2)), where d is the error in px, area the person's and sigma the joint's
constant. AP is the mean of the average precisions at the OKS thresholds 0.50, 0.55 ... 0.95, and over the
categories of the annotation file. pycocotools computes it.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.coco_truth import CocoTruth
from data.skeleton import UNKNOWN_SIGMA, Skeleton

CONFIDENT = 0.2  # maximum of a heatmap: joints that do not exceed it do not count in a person's score
COLUMNS = {"AP": "valid_ap", "AP50": "valid_ap50", "AP75": "valid_ap75", "AR": "valid_ar"}
"""The shares in an epoch's row of the history, and their columns there."""
_STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APM": 3, "APL": 4, "AR": 5}  # places in COCOeval.stats


@dataclass(frozen=True)
class KeypointScores:
    """Results in COCO's format, and their average precision.

    results: {image_id, category_id, keypoints [3K], score} per person; see `keypoint_results`. shares: AP,
    AP50, AP75, APM (people of 32^2 to 96^2 px), APL (larger ones) and AR; NaN without such people.
    """

    results: list[dict]
    shares: dict[str, float]

    def row(self) -> dict[str, float]:
        """The columns of an epoch's row in the history."""
        return {column: self.shares[name] for name, column in COLUMNS.items()}

    def __str__(self) -> str:
        head = "".join(f"{name:>9}" for name in self.shares)
        return f"{'':<10}{head}\n{'OKS':<10}" + "".join(f"{100 * one:>9.2f}" for one in self.shares.values())


def keypoint_results(
    found: np.ndarray,
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    box_scores: Sequence[float] | None = None,
) -> list[dict]:
    """Predictions in COCO's results format.

    The score of a person is as in HRNet's evaluation (Sun et al., CVPR 2019): the score of the box times the
    mean confidence of the joints that are more confident than `CONFIDENT`, 0 without any.

    Args:
        found: f64 [N, K, 3], x, y px of the photograph, and confidence. image_ids, category_ids: N each.
        box_scores: a detector's, N; without it they are 1, as of annotated boxes.
    """
    confidence = found[..., 2]
    confident = confidence > CONFIDENT
    scores = np.where(confident, confidence, 0).sum(axis=1) / confident.sum(axis=1).clip(min=1)
    if box_scores is not None:
        scores *= box_scores
    keypoints = found.reshape(len(found), -1).round(3)  # 0.001 px: shorter files
    columns = (image_ids, category_ids, keypoints.tolist(), scores.tolist())
    names = ("image_id", "category_id", "keypoints", "score")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def average_precision(truth: CocoTruth, results: list[dict], skeleton: Skeleton) -> KeypointScores:
    """Score results against the annotated people of `truth` in the photographs `truth.evaluated`.

    Crowds and people without an annotated joint are ignored.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        annotated = COCO()
        annotated.dataset = {
            "images": truth.images,
            "categories": truth.categories,
            # Copies, since pycocotools writes into them; with it, 0 is the id of no annotation.
            "annotations": [one | {"id": number} for number, one in enumerate(truth.annotations, 1)],
        }
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes([dict(one) for one in results]), "keypoints")
        evaluation.params.imgIds = truth.evaluated
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas or [UNKNOWN_SIGMA] * len(skeleton))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [float(share) if share >= 0 else math.nan for share in evaluation.stats]
    return KeypointScores(results, {name: stats[place] for name, place in _STATS.items()})
