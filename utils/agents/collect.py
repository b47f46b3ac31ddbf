"""Stage 2's collection: how hard each bin of a kind, such as scale, is for each person."""

import logging

import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.kinds import Kind
from data.people import People, scorable
from models.losses import hardness_distribution
from utils.agents.pretraining import hardest_bins, uniform_share, warn_of_uniform_rows
from utils.evaluation.evaluate import crop_pck
from utils.records.distributions import distribution_path, read_distributions, write_distributions
from utils.run import Run
from utils.system import ranks
from utils.system.process import progress

log = logging.getLogger(__name__)


def collect(run: Run, kind: Kind) -> dict[str, Tensor]:
    """Write the distributions of all people over the bins of a kind, and log a summary of each split.

    The pose network is that of --load_prefix_pose. An existing file is checked and kept, unless --overwrite
    true.

    Returns:
        Split -> distributions of the people who can be scored, f32 [N, bins].

    Raises:
        UserError, DataError: a checkpoint or the data set is missing, or an existing file does not fit the
        run.
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
    warn_of_uniform_rows({kind.name: torch.cat([*collected.values()])})
    return collected


def collect_rows(run: Run, network: nn.Module, people: People, kind: Kind) -> Tensor:
    """Hardness distributions f32 [N, bins] of people; uniform for those who cannot be scored."""
    bins = len(kind.means)
    rows = torch.zeros(len(people), bins, device=run.device)
    for batch in progress(run.loader(people, kind.name, scored=True), f"{kind.name}s", run.opt.bs):
        rows[batch.index] = hardness_distribution(bin_pck(run, network, batch, kind))
    rows = ranks.total(rows).cpu()  # each row is nonzero on one rank
    rows[torch.from_numpy(~scorable(people, run.skeleton))] = 1 / bins
    return rows


@torch.no_grad()
def bin_pck(run: Run, network: nn.Module, people: PersonBatch, kind: Kind) -> Tensor:
    """PCK f32 [N, bins] of each person at the mean of each bin, from one batch of bins * N crops."""
    return crop_pck(run, network, people, Augmentation.bins(kind.name, len(people))).T


def summary(rows: Tensor, split: str, kind: Kind) -> str:
    """As text: the mean row, the share of uniform rows, and how often each bin is the hardest."""
    hardest = hardest_bins(rows)
    hardest = hardest.sum(dim=0) / hardest.sum().clamp(min=1)
    lines = [
        f"{split}: {len(rows)} people, {100 * uniform_share(rows):.1f} % with a uniform row",
        f"{kind.name + ' bin':<16}" + "".join(f"{mean:>8g}" for mean in kind.means),
        f"{'mean row':<16}" + "".join(f"{value:>8.3f}" for value in rows.mean(dim=0)),
        f"{'hardest, share':<16}" + "".join(f"{value:>8.3f}" for value in hardest),
    ]
    return "\n".join(lines)
