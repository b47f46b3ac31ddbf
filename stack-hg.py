"""Stage 1: train the stacked-hourglass pose network with random augmentation, or evaluate it."""

import logging
import time

from torch.optim import Optimizer

from data.augment import Augmentation, augment
from data.patches import PatchLoader
from models.hourglass import StackedHourglass
from models.losses import pose_loss
from options.parser import StageParser
from utils.checkpoint import SUFFIX, checkpoint_name, save_epoch, write_predictions
from utils.errors import UserError
from utils.history import History
from utils.loops import Means, evaluate, progress, require_finite
from utils.metrics import PckCounter
from utils.process import run_stage
from utils.report import Report
from utils.runs import Run
from utils.training import refuse_to_overwrite, resume, rmsprop, scheduled_lr, set_lr

log = logging.getLogger("stack-hg")


def main() -> None:
    opt = StageParser(__doc__, "train_or_evaluate", "resume_pose", "rate", "epochs", "overwrite").parse()
    run = Run(opt, opt.exp_folder)
    network = run.pose_network()
    if opt.is_train:
        train(run, network)
    else:
        evaluate_checkpoint(run, network)


def evaluate_checkpoint(run: Run, network: StackedHourglass) -> None:
    """Print the per-joint table of `--load_prefix_pose` and write its predictions."""
    prefix = run.opt.load_prefix_pose
    if prefix is None:
        raise UserError(
            "nothing to do: --is_train true trains, --load_prefix_pose names a checkpoint to evaluate"
        )
    run.load_pose(network)
    result = evaluate(run, network, run.loader(run.dataset.valid, "identity"))
    log.info("%d people, loss %.6f\n%s", result.table.people, result.loss, result.table)
    path = run.folder / f"{prefix.removesuffix(SUFFIX)}-preds.mat"
    write_predictions(path, result.preds)
    log.info("predictions: %s", path)


def train(run: Run, network: StackedHourglass) -> None:
    """Train from the start, or go on from `--load_prefix_pose`; each epoch is scored and saved."""
    opt = run.opt
    optimizer = rmsprop(network, opt.lr)
    history, start = History(), 0
    if opt.load_prefix_pose is None:
        refuse_to_overwrite(run.folder, opt.overwrite, "--load_prefix_pose")
    else:
        checkpoint = run.load_pose(network)
        resume(checkpoint, optimizer, run.generator)
        history, start = History.of_checkpoint(checkpoint), checkpoint["epoch"] + 1
    train_loader = run.loader(run.dataset.train, "random", run.generator)
    valid_loader = run.loader(run.dataset.valid, "identity")
    report = Report(run, "stack-hg", history, start)

    for epoch in range(start, opt.nEpochs):
        began = time.monotonic()
        set_lr(optimizer, scheduled_lr(opt.lr, epoch))
        row = train_epoch(run, network, optimizer, train_loader, epoch, report)
        trained = time.monotonic()
        valid = evaluate(run, network, valid_loader)
        history.append(
            {
                "epoch": epoch,
                "lr": scheduled_lr(opt.lr, epoch),
                **row,
                "valid_loss": valid.loss,
                "valid_pck": valid.table.mean,
                "valid_auc": valid.table.auc["Mean"],
                "train_seconds": trained - began,
                "valid_seconds": time.monotonic() - trained,
            }
        )
        checkpoint = run.checkpoint(network, optimizer, history, epoch)
        name = checkpoint_name(opt.lr, epoch)
        save_epoch(run.folder, name, checkpoint, history.improved("valid_pck"), valid.preds)
        report.epoch(valid)
    report.close()


def train_epoch(
    run: Run,
    network: StackedHourglass,
    optimizer: Optimizer,
    loader: PatchLoader,
    epoch: int,
    report: Report,
) -> dict:
    """One pass over the training people with random augmentation; the mean loss and PCK it saw."""
    network.train()
    means, counter = Means(), PckCounter(run.dataset.threshold)
    for batch, people in enumerate(progress(loader, f"epoch {epoch}")):
        augmentation = Augmentation.random(len(people), run.generator)
        sample = augment(people, augmentation, run.opt.in_res, run.opt.out_res)
        outputs = run.forward(network, sample.image)
        loss = pose_loss(outputs, sample.heatmap)
        require_finite(loss.item(), f"epoch {epoch}, batch {batch}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        means.add(len(people), loss=loss.item())
        counter.add(outputs[-1].detach(), sample)
        report.batch(epoch, batch, len(loader), loss=means["loss"])
    return {"train_loss": means["loss"], "train_pck": counter.mean}


if __name__ == "__main__":
    run_stage(main)
