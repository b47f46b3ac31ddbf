"""Stage 2's collector: how hard each bin of scale or rotation is for every person."""

import logging

import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.kinds import Kind
from data.people import People, scorable
from models.losses import hardness_distribution
from utils.agents.pretraining import hardest_bins
from utils.evaluation.evaluate import crop_pck
from utils.records.distributions import distribution_path, read_distributions, write_distributions
from utils.run import Run
from utils.system import ranks
from utils.system.process import progress

log = logging.getLogger(__name__)


def collect(run: Run, kind: Kind) -> dict[str, Tensor]:
    """Write the distributions of a kind of all people, and return those of people who have PCK, by split.

    The pose network of --load_prefix_pose is fixed. A file that exists already is checked and kept, unless
    --overwrite true. At the end a summary is logged.

    Raises:
        UserError, DataError: what the run needs is missing, or a file does not fit the run.
    """
    network = run.pose_network()
    run.load_pose(network)
    network.eval()
    collected = {}
    for split, people in (("train", run.dataset.train), ("val", run.dataset.valid)):
        path = distribution_path(run.folder, split, kind.name)
        source = run.distribution_source(split, kind.name, people)
        if path.exists() and not run.opt.overwrite:
            rows = read_distributions(path, source)
            log.info(
                "%s already exists and matches this run: kept (--overwrite true collects it again)", path
            )
        else:
            rows = collect_rows(run, network, people, kind)
            write_distributions(path, rows, source)
            log.info("%s: %d people", path, len(people))
        collected[split] = rows[torch.from_numpy(scorable(people, run.skeleton))]
        log.info("%s", summary(collected[split], split, kind))
    return collected


def collect_rows(run: Run, network: nn.Module, people: People, kind: Kind) -> Tensor:
    """Hardness distributions f32 [N, bins] of people, in their order; uniform where a person has no PCK."""
    bins = len(kind.means)
    rows = torch.zeros(len(people), bins, device=run.device)
    for batch in progress(run.loader(people, kind.name, scored=True), f"{kind.name}s", run.opt.bs):
        rows[batch.index] = hardness_distribution(bin_pck(run, network, batch, kind))
    rows = ranks.total(rows).cpu()  # each rank has rows of its own
    rows[torch.from_numpy(~scorable(people, run.skeleton))] = 1 / bins
    return rows


@torch.no_grad()
def bin_pck(run: Run, network: nn.Module, people: PersonBatch, kind: Kind) -> Tensor:
    """PCK f32 [N, bins] of each person under each bin's mean, from one batch of bins * N crops."""
    return crop_pck(run, network, people, Augmentation.bins(kind.name, len(people))).T


def summary(rows: Tensor, split: str, kind: Kind) -> str:
    """The mean row, the share of uniform rows, and how often each bin is the hardest of its row."""
    hardest = hardest_bins(rows)
    uniform = hardest.sum(dim=1) == 0
    hardest = hardest.sum(dim=0) / max(1, int((~uniform).sum()))
    lines = [
        f"{split}: {len(rows)} people, {100 * uniform.float().mean():.1f} % with a uniform row",
        f"{kind.name + ' bin':<16}" + "".join(f"{mean:>8g}" for mean in kind.means),
        f"{'mean row':<16}" + "".join(f"{value:>8.3f}" for value in rows.mean(dim=0)),
        f"{'hardest, share':<16}" + "".join(f"{value:>8.3f}" for value in hardest),
    ]
    return "\n".join(lines)
