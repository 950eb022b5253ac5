"""One training in several processes beside the same in one, and what processes there are."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from data_makers import preprocess_config, write_raw
from pipeline.preprocess import preprocess
from pipeline.train import fit_in_processes
from pipeline.training.fit import fit_processed
from training.training_makers import Trained, digits, small_config

EVERY_STEP = {"tracking.step_metrics_every": 1}


def processed_folder(folder: Path, num_train: int, num_validation: int) -> Path:
    """data/processed with exactly as many samples to train on and to validate with, 6 x 6 pixels, 3 classes."""
    train, test = digits(num_train + num_validation), digits(9, seed=1)
    arrays = {
        "train_images": train.images, "train_labels": train.labels.astype(np.uint8),
        "test_images": test.images, "test_labels": test.labels.astype(np.uint8),
    }  # fmt: skip
    write_raw(folder / "raw", arrays)  # type: ignore[arg-type]
    fraction = num_validation / (num_train + num_validation)
    preprocess(folder / "raw", folder / "processed", preprocess_config(validation_fraction=fraction))
    found = np.load(folder / "processed/train/labels.npy", mmap_mode="r")
    assert len(found) == num_train
    return folder / "processed"


def in_processes(
    devices: int,
    processed: Path,
    work: Path,
    changes: Mapping[str, Any] | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Trained:
    """As the stage trains: the processes are started, and told of nothing but their settings."""
    cfg = small_config(EVERY_STEP | {"trainer.devices": devices} | dict(changes or {}))
    work.mkdir(parents=True, exist_ok=True)
    epochs: list[Any] = []
    steps: list[Any] = []

    def epoch_done(epoch: int, values: dict[str, float]) -> None:
        epochs.append((epoch, values))
        on_epoch(epoch)

    fit = fit_in_processes(
        processed, work, cfg, Console(quiet=True), epoch_done, lambda name, points: steps.append((name, points))
    )
    return Trained(fit, epochs, steps)


def alone(processed: Path, work: Path, changes: Mapping[str, Any] | None = None) -> Trained:
    """The same settings in one process, this one."""
    cfg = small_config(EVERY_STEP | dict(changes or {}))
    epochs: list[Any] = []
    steps: list[Any] = []
    fit = fit_processed(
        processed, work, cfg, Console(file=io.StringIO()),
        on_epoch=lambda epoch, values: epochs.append((epoch, values)),
        on_steps=lambda name, points: steps.append((name, points)),
    )  # fmt: skip
    return Trained(fit, epochs, steps)


def step_losses(found: Trained) -> list[tuple[int, float]]:
    return [point for _, points in found.steps for point in points]


def ranks_of(parent: int) -> list[psutil.Process]:
    """The living processes of a training that this process started, in the order of their numbers."""
    children = psutil.Process(parent).children()
    ranks = [child for child in children if "pipeline.training.distributed" in command_of(child)]
    return sorted(ranks, key=lambda rank: rank.pid)


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@contextmanager
def none_left() -> Iterator[list[psutil.Process]]:
    """The block fills the list with processes; within a second after it they must all have ended."""
    watched: list[psutil.Process] = []
    yield watched
    assert watched, "the block saw no process"
    end_s = time.monotonic() + 1
    while (left := [process for process in watched if lives(process)]) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert left == []


def lives(process: psutil.Process) -> bool:
    """A zombie has ended; only nobody has asked yet how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
