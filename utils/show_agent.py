"""Show what the agent draws for validation people after a joint training, and how hard these draws are.

`python -m utils.show_agent` takes the command line of the joint training; only the flags that name its
folder, data and network have an effect. It writes `agent.txt`, PCK under uniform draws and under the agent's,
and `agent.jpg`, a few people with their draws, into that folder.
"""

import io
import logging

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from data.augmentation import MARGINS, Augmentation
from data.crops import augment
from data.kinds import KINDS, Kind
from data.loading.patches import Patches
from data.people import fixed_rows
from options.parser import STAGE_3, StageParser
from utils.agents import AGENTS
from utils.agents.base import Agent
from utils.agents.collect import bin_pck
from utils.agents.joint import POSE
from utils.agents.scale_rotation import draw
from utils.display.drawing import clear_peaks, draw_skeleton
from utils.display.gallery import predict_crops
from utils.records.checkpoint import find_checkpoint, load_checkpoint, load_weights, newest_checkpoint
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError
from utils.system.files import write_file
from utils.system.process import program, progress, run_stage

log = logging.getLogger(__name__)

ROWS = ("not augmented", "random draw", "the agent's draw")


def main() -> None:
    parser = StageParser(__doc__, *STAGE_3, prog=program())
    parser.set_defaults(is_train=True)  # the flags are those of a training, even without --is_train
    opt = parser.parse()
    if ranks.world() > 1:
        raise UserError(
            "torchrun started several processes: expected one; start the command without torchrun"
        )
    path = newest_checkpoint(opt.joint_folder, POSE, f"--joint_dir {opt.joint_dir}")
    run = Run(opt, opt.joint_folder)
    checkpoint = load_checkpoint(path)
    which = AGENTS["agent"]
    if which.name not in checkpoint:
        raise UserError(f"{path} was trained without a scale-rotation agent: expected a run that has one")
    agent_path = find_checkpoint(run.folder, checkpoint[which.name], f"the agent of {path.name},")
    network = run.pose_network()
    agent = which.build(run, network, opt.agent_lr)
    size, skeleton = run.network_size, run.skeleton
    load_weights(network, checkpoint, path, size, skeleton)
    load_weights(agent.learner.network, load_checkpoint(agent_path), agent_path, size, skeleton)
    network.eval()
    agent.learner.network.eval()
    text = hardness_text(run.dataset.metric_name, hardness(agent))
    log.info("%s", text)
    write_file(run.folder / "agent.txt", text + "\n")
    write_file(run.folder / "agent.jpg", draw_picture(agent))
    log.info("written: %s", run.folder / "agent.txt, .jpg")


@torch.no_grad()
def hardness(agent: Agent) -> dict[str, tuple[Tensor, Tensor]]:
    """How hard each bin is for each validation person who can be scored, and how probable the agent makes it.

    The networks must be in eval mode.

    Returns:
        Kind -> (PCK at the mean of each bin, the agent's distributions), f32 [N, bins] each.
    """
    run, found = agent.run, {kind: ([], []) for kind in KINDS}
    for people in progress(run.loader(run.dataset.valid, "drawn", scored=True), "agent", run.opt.bs):
        sample = run.augment(people, Augmentation.identity(len(people)))
        for kind, logits in agent.predict(sample).items():
            found[kind][0].append(bin_pck(run, agent.pose, people, KINDS[kind]).cpu())
            found[kind][1].append(logits.softmax(dim=1).cpu())
    return {kind: (torch.cat(pck), torch.cat(shares)) for kind, (pck, shares) in found.items()}


def hardness_text(metric_name: str, found: dict[str, tuple[Tensor, Tensor]]) -> str:
    """A line for each kind: expected PCK if bins are drawn uniformly, from the agent's mean distribution, and
    from its distribution for each person. The last two differ by what the agent knows of the person.

    found: the result of `hardness`.
    """
    lines = []
    for kind, (pck, shares) in found.items():
        uniform, mean = pck.mean(), (pck * shares.mean(dim=0)).sum(dim=1).mean()
        per_person = (pck * shares).sum(dim=1).mean()
        lines.append(
            f"{kind}: {metric_name} {100 * uniform:.1f} % under uniform draws of its bins, "
            f"{100 * mean:.1f} % if it drew the same for everyone, {100 * per_person:.1f} % as it draws"
        )
    return "\n".join(lines)


def draw_picture(agent: Agent) -> bytes:
    """A JPEG of a few validation people, not augmented, with a random draw, and with the agent's draw.

    The skeletons are predicted. Below are the agent's distributions. The draws depend only on --seed.
    """
    run = agent.run
    people, side = run.dataset.valid, run.opt.display_winsize
    rows = fixed_rows(people, run.skeleton)
    batch, identity = run.batch(people, rows, "drawn"), Augmentation.identity(len(rows))
    logits = agent.predict(run.augment(batch, identity))
    drawn, bins = draw(logits, batch, agent.streams.batches)
    random = Augmentation.random(len(rows), run.streams["random"]).only(
        *(kind.field for kind in KINDS.values())
    )
    augmentation = Augmentation.cat([identity, random, drawn])
    crops = predict_crops(run, agent.pose, run.augment(batch, augmentation))
    # at a higher resolution than the network's input
    patches = Patches(people, run.dataset.root, side, MARGINS["drawn"])
    sharp = augment(patches[rows.tolist()], augmentation, side, run.opt.out_res, run.skeleton).image
    sharp = (255 * sharp).round().byte().permute(0, 2, 3, 1).numpy()

    figure = Figure(figsize=(2 * len(rows), 6.6 + len(KINDS)), layout="constrained")
    heights = (*(3 for _ in ROWS), *(1 for _ in KINDS))
    axes = figure.subplots(len(heights), len(rows), squeeze=False, height_ratios=heights)
    pictures = zip(axes.flat, sharp, crops.pred, crops.heatmaps, crops.pck, strict=False)
    for panel, picture, pred, heatmaps, pck in pictures:
        drawn = clear_peaks(heatmaps.max(axis=(1, 2)))
        panel.imshow(draw_skeleton(picture, pred, drawn, skeleton=run.skeleton))
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"{run.dataset.metric} {100 * pck:.0f} %", fontsize="small")
    for line, title in zip(axes, ROWS, strict=False):
        line[0].set_ylabel(title)
    for kind, line in zip(KINDS.values(), axes[len(ROWS) :], strict=True):
        shares = 100 * logits[kind.name].softmax(dim=1).cpu()
        for panel, share, chosen in zip(line, shares, bins[kind.name], strict=True):
            draw_bars(panel, kind, share, int(chosen))
        line[0].set_ylabel(f"{kind.name}, %", fontsize="small")
        line[0].set_xlabel(kind.label, fontsize="small")
    jpeg = io.BytesIO()
    figure.savefig(jpeg, format="jpeg", dpi=100, pil_kwargs={"quality": 80})
    return jpeg.getvalue()


def draw_bars(panel: Axes, kind: Kind, percent: Tensor, chosen: int) -> None:
    """Plot the agent's distribution [bins] as bars, the drawn bin in another color."""
    places = range(len(percent))
    panel.bar(places, percent, color=["C3" if place == chosen else "0.6" for place in places])
    panel.axhline(100 / len(percent), color="0.3", linestyle="--", linewidth=0.8)
    panel.set_xticks(places, [f"{mean:g}" for mean in kind.means])
    panel.tick_params(labelsize="x-small")


if __name__ == "__main__":
    run_stage(main)
