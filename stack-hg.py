"""Stage 1: train the pose network with random augmentation, or evaluate it."""

from options.parser import StageParser

if __name__ == "__main__":
    groups = ("train_or_evaluate", "resume_pose", "start", "rate", "pose_training", "epochs", "ranks")
    parser = StageParser(__doc__, *groups, "overwrite", "evaluation", "image")
    opt = parser.parse()  # before the imports below, which take seconds
    if not opt.is_train and opt.load_prefix_pose is None:
        parser.error("nothing to do: --is_train true trains, --load_prefix_pose names what to evaluate")

import argparse
import time
from functools import partial
from pathlib import Path

from data.augmentation import Augmentation
from data.loading.loader import PatchLoader
from models.losses import pose_loss
from utils.display.evaluation_report import report_evaluation
from utils.display.gallery import pose_gallery
from utils.display.photograph import report_photograph
from utils.display.report import Report
from utils.evaluation.evaluate import Evaluation, evaluate
from utils.evaluation.meters import Meters
from utils.evaluation.metrics import PckCounter
from utils.records.epochs import checkpoint_name, save_epoch
from utils.run import Run
from utils.schedule import pose_schedule
from utils.system.files import locked
from utils.system.process import progress, run_stage
from utils.training import Learner, fresh_or_resumed, used_resources


def main(opt: argparse.Namespace) -> None:
    run = Run(opt, opt.exp_folder)
    if opt.is_train:
        with locked(run.folder):
            train(run)
    else:
        network = run.pose_network()
        checkpoint = run.load_pose(network)
        if opt.image is not None:
            report_photograph(run, network)
        else:
            report_evaluation(run, network, checkpoint, run.folder / opt.load_prefix_pose)


def train(run: Run) -> None:
    """Train from the start, or resume from `--load_prefix_pose`; each epoch is scored and saved."""
    opt = run.opt
    pose = Learner(run.pose_network(), opt.lr, opt.sync_bn, opt.weight_decay, opt.optimizer)
    checkpoint = run.load_pose(pose.network) if opt.load_prefix_pose else None
    retention = fresh_or_resumed(run, pose, checkpoint, run.pose_path, "--load_prefix_pose")
    pose.schedule = pose_schedule(opt, pose.epoch, 0)
    train_loader = run.loader(run.dataset.train, "random", run.streams["order"])
    valid_loader = run.loader(run.dataset.valid, "identity")

    with Report(run, "stack-hg", pose, retention) as report:
        while pose.epoch < opt.nEpochs:
            began = time.monotonic()
            run.streams.start(pose.epoch)
            trained = train_epoch(run, pose, train_loader, report)
            train_seconds = time.monotonic() - began
            resources = used_resources(run, train_loader, train_seconds)
            valid = evaluate(run, pose.network, valid_loader)
            row = {
                "epoch": pose.epoch,
                "lr": pose.schedule.rate(pose.epoch, 0, len(train_loader)),
                **trained,
                **valid.row(),
                "train_seconds": train_seconds,
                "valid_seconds": time.monotonic() - began - train_seconds,
                **resources,
            }
            save = partial(save_pose, run, pose, valid)
            report.end_epoch(row, save, partial(pose_gallery, run, pose.network, valid), valid)


def save_pose(run: Run, pose: Learner, valid: Evaluation, best: bool) -> list[Path]:
    """The checkpoint and the predictions of an epoch."""
    name = checkpoint_name(run.opt.lr, pose.epoch)
    return save_epoch(run.folder, name, pose.checkpoint(run), best, valid.files(run.dataset.valid))


def train_epoch(run: Run, pose: Learner, loader: PatchLoader, report: Report) -> dict[str, float]:
    """One pass over the training people with random augmentation; the mean loss and the PCK it saw."""
    pose.network.train()
    means, pck = Meters("loss"), PckCounter(run.dataset.threshold, run.skeleton)
    bar = progress(loader, f"epoch {pose.epoch}", run.opt.bs)
    for index, people in enumerate(bar):
        pose.set_lr(pose.schedule.rate(pose.epoch, index, len(loader)))
        augmentation = people.local_rows(Augmentation.random(people.total, run.streams["random"]))
        sample = run.augment(people, augmentation)
        outputs = run.forward(pose.parallel, sample.image)
        loss = pose.step(pose_loss(outputs, sample.heatmap), people.weight)
        means.add(people.count, loss=loss)
        pck.add(outputs[-1].detach(), sample, people.counted)
        report.batch(bar, pose.epoch, index, lambda: {**means.read(), "pck": pck.read()})
    pose.require_finite()
    return {"train_loss": means.read()["loss"], "train_pck": pck.read()}


if __name__ == "__main__":
    run_stage(lambda: main(opt))
