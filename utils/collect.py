"""Stage 2's collector: how hard each bin of scale or rotation is for every person."""

import argparse
import logging

import torch
from torch import Tensor, nn

from data.annotations import People
from data.augment import BIN_MEANS, NUM_BINS, Augmentation, PersonBatch, augment
from data.heatmap import predict_points
from models.losses import hardness_distribution
from utils.distributions import distribution_path, read_distributions, write_distributions
from utils.loops import progress
from utils.metrics import person_pckh, scorable
from utils.plots import plot_distributions
from utils.runs import Run

log = logging.getLogger(__name__)

UNITS = {"scale": "log2", "rotation": "degrees"}


def collect(opt: argparse.Namespace, kind: str) -> None:
    """Write the distributions of `kind` ("scale" or "rotation") of all train and valid people.

    The pose network of --load_prefix_pose is fixed. A file that is there already is checked and kept, unless
    --overwrite true. At the end a summary is logged and plotted.

    Raises:
        UserError, DataError: what the run needs is missing, or a file does not fit the run.
    """
    run = Run(opt, opt.agent_folder)
    network = run.pose_network()
    run.load_pose(network)
    network.eval()
    collected = {}
    for split, people in (("train", run.dataset.train), ("val", run.dataset.valid)):
        path = distribution_path(run.folder, split, kind)
        source = run.distribution_source(split, kind, people)
        if path.exists() and not opt.overwrite:
            rows = read_distributions(path, source)
            log.info("%s is there already and fits: kept (--overwrite true collects again)", path)
        else:
            rows = collect_rows(run, network, people, kind)
            write_distributions(path, rows, source)
            log.info("%s: %d people", path, len(people))
        collected[split] = rows[torch.from_numpy(scorable(people))]
    for split, rows in collected.items():
        log.info("%s", summary(rows, split, kind))
    plot = run.folder / f"{kind}-distributions.png"
    plot_distributions(plot, collected, BIN_MEANS[kind], f"{kind} ({UNITS[kind]})")
    log.info("plot: %s", plot)


def collect_rows(run: Run, network: nn.Module, people: People, kind: str) -> Tensor:
    """Hardness distributions f32 [N, 7] of people, in their order; uniform where a person has no PCK."""
    rows = torch.full((len(people), NUM_BINS), 1 / NUM_BINS)
    for batch in progress(run.loader(people, kind, scored=True), f"{kind}s", run.opt.bs):
        rows[batch.index.cpu()] = hardness_distribution(bin_pckh(run, network, batch, kind)).cpu()
    return rows


@torch.no_grad()
def bin_pckh(run: Run, network: nn.Module, people: PersonBatch, kind: str) -> Tensor:
    """PCKh f32 [N, 7] of each person under each bin's mean, from one batch of 7 * N crops."""
    return crop_pckh(run, network, people, Augmentation.bins(kind, len(people))).T


@torch.no_grad()
def crop_pckh(run: Run, network: nn.Module, people: PersonBatch, augmentation: Augmentation) -> Tensor:
    """PCKh f32 [K, N] of N people under K augmentations each (K * N rows); the network is in eval mode."""
    sample = augment(people, augmentation, run.opt.in_res, run.opt.out_res)
    heatmaps = run.forward(network, sample.image)[-1]
    pred = predict_points(heatmaps, sample.center, sample.scale, sample.rotation)
    pckh = person_pckh(pred, sample.points, sample.normalizer, sample.heatmap, run.dataset.threshold)
    return pckh.view(-1, len(people))


def summary(rows: Tensor, split: str, kind: str) -> str:
    """The mean row, the share of uniform rows, and how often each bin is the hardest of its row."""
    uniform = (rows - rows.mean(dim=1, keepdim=True)).abs().amax(dim=1) < 1e-6
    hardest = (rows == rows.amax(dim=1, keepdim=True)).float()  # bins that tie share the person
    hardest = (hardest / hardest.sum(dim=1, keepdim=True))[~uniform].sum(dim=0) / max(
        1, int((~uniform).sum())
    )
    lines = [
        f"{split}: {len(rows)} people, {100 * uniform.float().mean():.1f} % with a uniform row",
        f"{kind + ' bin':<16}" + "".join(f"{mean:>8g}" for mean in BIN_MEANS[kind]),
        f"{'mean row':<16}" + "".join(f"{value:>8.3f}" for value in rows.mean(dim=0)),
        f"{'hardest, share':<16}" + "".join(f"{value:>8.3f}" for value in hardest),
    ]
    return "\n".join(lines)
