"""pycocotools as its own example uses it."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def by_hand(content, results, sigmas):
    """AP, AP50, AP75, APM, APL and AR of a results file, for the content of an annotation file."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = content
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(str(results)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6].tolist()
