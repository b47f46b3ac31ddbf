"""Stage 2's collection: how hard each bin of a kind, such as scale, is for each person."""

import logging
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from data.crops import PersonBatch
from data.kinds import Kind
from data.people import People, scorable
from models.losses import hardness_distribution
from utils.agents.ceiling import ceiling, ceiling_lines
from utils.agents.pretraining import hardest_bins, uniform_share, warn_of_uniform_rows
from utils.evaluation.evaluate import crop_pck
from utils.records.distributions import (
    distribution_path,
    pck_path,
    read_distributions,
    read_pck,
    write_distributions,
    write_pck,
)
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError
from utils.system.process import progress

log = logging.getLogger(__name__)


class Collected(NamedTuple):
    """Distributions f32 [N, bins] of N people, and with --repeats R above 1 their PCK f32 [R, N, bins]."""

    rows: Tensor
    pck: Tensor | None


def collect(run: Run, kind: Kind) -> dict[str, Collected]:
    """Write the distributions of all people over the bins of a kind, and log a summary of each split.

    The pose network is that of --load_prefix_pose. An existing file is checked and kept, unless --overwrite
    true. With --repeats above 1, PCK is written, too, with its `ceiling` in the first line.

    Returns:
        Split -> what was collected of the people who can be scored.

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
        scored = torch.from_numpy(scorable(people, run.skeleton))
        if path.exists() and not run.opt.overwrite:
            rows, pck = _existing(run, split, people, kind)
            log.info(
                "%s already exists and matches this run: kept (--overwrite true collects it again)", path
            )
        else:
            rows, pck = _measured(run, network, split, people, kind, scored)
            log.info("%s: %d people", path, len(people))
        collected[split] = Collected(rows[scored], None if pck is None else pck[:, scored])
        log.info("%s", summary(collected[split].rows, split, kind))
        if pck is not None:
            log.info("%s", "\n".join(ceiling_lines(collected[split].pck, run.dataset.metric_name)))
    warn_of_uniform_rows({kind.name: torch.cat([one.rows for one in collected.values()])})
    return collected


def _existing(run: Run, split: str, people: People, kind: Kind) -> Collected:
    source = run.distribution_source(split, kind.name, people) | {"repeats": run.opt.repeats}
    rows = read_distributions(distribution_path(run.folder, split, kind.name), source)
    if run.opt.repeats == 1:
        return Collected(rows, None)
    path = pck_path(run.folder, split, kind.name)
    if not path.exists():
        raise UserError(f"{path} does not exist, but its rows do: --overwrite true collects both again")
    return Collected(rows, read_pck(path, source))


def _measured(
    run: Run, network: nn.Module, split: str, people: People, kind: Kind, scored: Tensor
) -> Collected:
    """Measure people, and write the files; scored: who can be scored, bool [N]."""
    source, path = run.distribution_source(split, kind.name, people), pck_path(run.folder, split, kind.name)
    pck = collect_pck(run, network, people, kind, run.opt.repeats)
    rows = hardness_distribution(pck.mean(dim=0))
    if run.opt.repeats == 1:
        pck = None
        path.unlink(missing_ok=True)  # of rows that are replaced
    else:
        source |= {"repeats": run.opt.repeats}
        write_pck(path, pck, source | {"ceiling": ceiling(pck[:, scored])})
    write_distributions(distribution_path(run.folder, split, kind.name), rows, source)
    return Collected(rows, pck)


def collect_pck(run: Run, network: nn.Module, people: People, kind: Kind, repeats: int = 1) -> Tensor:
    """PCK f32 [repeats, N, bins] of people under each bin; 1 for those who cannot be scored.

    A bin is measured once at its mean, or `repeats` times at values inside it, drawn as the agent's are.
    """
    bins, n = len(kind.means), len(people)
    values, margin = torch.tensor(kind.means)[:, None].expand(1, -1, n), kind.name
    if repeats > 1:
        margin = "drawn"
        chosen = torch.arange(bins).repeat_interleave(n).repeat(repeats)
        split = "val" if people.valid[0] else "train"
        drawn = Augmentation.drawn({kind.name: chosen}, run.streams[f"{split} {kind.name}s"])
        values = getattr(drawn, kind.field).view(repeats, bins, n)
    pck = torch.zeros(repeats, bins, n, device=run.device)
    for batch in progress(run.loader(people, margin, scored=True), f"{kind.name}s", run.opt.bs):
        for here, found in zip(values[..., batch.index.cpu()], pck, strict=True):
            found[:, batch.index] = bin_pck(run, network, batch, kind, here).T
    pck = ranks.total(pck).cpu()  # each person is on one rank
    pck[..., torch.from_numpy(~scorable(people, run.skeleton))] = 1
    return pck.transpose(1, 2)


@torch.no_grad()
def bin_pck(
    run: Run, network: nn.Module, people: PersonBatch, kind: Kind, values: Tensor | None = None
) -> Tensor:
    """PCK f32 [N, bins] of each person under each bin, from one batch of bins * N crops.

    values: of the kind, f32 [bins, N]; without them the means of the bins.
    """
    augmentation = Augmentation.bins(kind.name, len(people))
    if values is not None:
        augmentation = replace(augmentation, **{kind.field: values.flatten()})
    return crop_pck(run, network, people, augmentation).T


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
