"""Fit time of the book's training beside a hand-written PyTorch loop, in turn, in one process.

Use:  make bench        (or: python benchmarks/fit.py --epochs 5 --rounds 5)

The clock includes all of the training loop: for ours Lightning, shuffling, metrics, checkpoints and, in the last row,
tracking in MLflow; for the hand-written loop slices of tensors that are scaled beforehand, nothing else. Data is
random uint8 of MNIST's shape: the arithmetic does not depend on it. Compare ratios; the seconds are this machine's.
"""

from __future__ import annotations

import pipeline  # isort: skip  # noqa: F401  before torch: it decides how torch's threads wait

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import TrainConfig
from pipeline.data.arrays import Split
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.rmsprop import KerasRMSprop
from pipeline.stage import visible
from pipeline.tracking import Store
from pipeline.training.fit import fit

NUM_IMAGES, BATCH = 60_000, 128
SPEC = InputSpec((28, 28), "uint8", 0.0, 255.0)


def random_split() -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 28, 28), dtype=np.uint8)
    return Split(images, rng.integers(0, 10, NUM_IMAGES))  # type: ignore[arg-type]


def book_config(num_epochs: int) -> TrainConfig:
    overrides = ["+experiment=book", f"trainer.num_epochs={num_epochs}", "tracking.progress=false"]
    record = parse(compose_yaml(Path("conf"), overrides))
    return validate(TrainConfig, visible(record, "train", TrainConfig))


def by_hand(train: Split, cfg: TrainConfig) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    optimizer = KerasRMSprop(network.parameters(), lr=1e-3, rho=0.9, eps=1e-7)
    samples = torch.from_numpy(np.array(train.images)).flatten(1).float() / 255
    labels = torch.from_numpy(np.array(train.labels))
    for _ in range(cfg.trainer.num_epochs):
        for start in range(0, NUM_IMAGES, BATCH):
            optimizer.zero_grad()
            logits = network(samples[start : start + BATCH])
            torch.nn.functional.cross_entropy(logits, labels[start : start + BATCH]).backward()
            optimizer.step()


def ours(train: Split, cfg: TrainConfig) -> None:
    with tempfile.TemporaryDirectory() as work:
        network = DenseNetwork(cfg.model, SPEC, 10)
        fit(network, train, None, cfg, Path(work), Console(quiet=True), lambda *_: None, lambda *_: None)


def ours_tracked(train: Split, cfg: TrainConfig, store: Store) -> None:
    with tempfile.TemporaryDirectory() as work, store.run("bench", "fit") as run:
        network = DenseNetwork(cfg.model, SPEC, 10)
        fit(
            network, train, None, cfg, Path(work), Console(quiet=True),
            on_epoch=lambda epoch, values: run.metrics(values, step=epoch),
            on_steps=lambda name, points: run.metric_points((name, value, step) for step, value in points),
        )  # fmt: skip


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cfg, train = book_config(options.epochs), random_split()
    torch.set_num_threads(cfg.trainer.num_threads)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        subjects: dict[str, Callable[[], None]] = {
            "hand-written loop": lambda: by_hand(train, cfg),
            "ours, not tracked": lambda: ours(train, cfg),
            "ours, everything on": lambda: ours_tracked(train, cfg, store),
        }
        for work in subjects.values():  # the first round pays for imports and the store
            work()
        rounds = [{name: seconds(work) for name, work in subjects.items()} for _ in range(options.rounds)]
    report(rounds, options.epochs)


def report(rounds: list[dict[str, float]], num_epochs: int) -> None:
    base = next(iter(rounds[0]))
    title = f"{num_epochs} epoch(s) of {NUM_IMAGES:,} images, batches of {BATCH}, {len(rounds)} rounds, "
    title += f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table("", "seconds (median)", "ratio to the loop (median, min–max)", title=title, title_justify="left")
    for name in rounds[0]:
        ratios = sorted(row[name] / row[base] for row in rounds)
        spread = f"{statistics.median(ratios):.2f}  ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        table.add_row(name, f"{statistics.median(row[name] for row in rounds):.2f}", spread)
    Console().print(table)


if __name__ == "__main__":
    main()
