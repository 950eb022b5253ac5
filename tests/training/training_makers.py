"""A small data set that can be learned but not perfectly, and one training on it.

Shapes: N samples, 6 x 6 pixels, 3 classes.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from config.config_makers import train_config
from pipeline.config.schema import TrainConfig
from pipeline.data.processed import Split
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.training.fit import Fit, fit

PIXELS = InputSpec((6, 6), "uint8", 0.0, 255.0)
NUM_CLASSES = 3
NUM_TRAIN, BATCH, STEPS_PER_EPOCH = 90, 16, 6  # the last batch has 10
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}


def digits(count: int, seed: int = 0) -> Split:
    """Noisy images (count, 6, 6) uint8 of three patterns, labels (count,) int64."""
    patterns = np.random.default_rng(99).integers(0, 256, (NUM_CLASSES, 6, 6))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, count)
    images = np.clip(patterns[labels] * 0.3 + rng.normal(90, 60, (count, 6, 6)), 0, 255).astype(np.uint8)
    return Split(images, labels)  # type: ignore[arg-type]  # in memory instead of a map


def small_config(changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """16 hidden units, 4 epochs of 6 steps, the last epoch is kept."""
    small = {"model.units": [16], "trainer.num_epochs": 4, "trainer.batch_size": BATCH, "trainer.keep": "last"}
    return train_config(small | dict(changes or {}))


def initial_network(cfg: TrainConfig) -> DenseNetwork:
    torch.manual_seed(cfg.seed)
    return DenseNetwork(cfg.model, PIXELS, NUM_CLASSES)


class SimulatedCrash(Exception):
    """Instead of a power cut."""


@dataclass
class Trained:
    """A training with all that it said on the way."""

    fit: Fit
    epochs: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # calls of on_epoch
    steps: list[tuple[str, list[tuple[int, float]]]] = field(default_factory=list)  # calls of on_steps
    printed: str = ""

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return self.fit.network.state_dict()


def trained(
    work: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    train: Split | None = None,
    validation: Split | None = None,
    crash_in_epoch: int | None = None,
    crash_at_batch: int | None = None,
    stop_at_chunk: int | None = None,
    terminal: bool = False,
) -> Trained:
    """Train a small network.

    Args:
        crash_in_epoch: raise at the end of this epoch (0-based), before its checkpoint is written.
        crash_at_batch: raise in this forward pass, counted from 0 in this process, validation included.
        stop_at_chunk: ask it to stop before this chunk, counted from 0 in this process.
    """
    cfg = small_config(changes)
    network = initial_network(cfg)
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal, _environ={"TERM": "xterm"})
    told: dict[str, list[Any]] = {"epochs": [], "steps": []}

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        told["epochs"].append((epoch, values))
        if epoch == crash_in_epoch:
            raise SimulatedCrash

    passes = iter(range(10**9))

    def count(*_: Any) -> None:
        if next(passes) == crash_at_batch:
            raise SimulatedCrash

    network.register_forward_hook(count)
    chunks = itertools.count()
    done = fit(
        network, train or digits(NUM_TRAIN), validation, cfg, work, console, on_epoch,
        lambda name, points: told["steps"].append((name, points)),
        lambda: stop_at_chunk is not None and next(chunks) >= stop_at_chunk,
    )  # fmt: skip
    return Trained(done, told["epochs"], told["steps"], console.file.getvalue())  # type: ignore[attr-defined]


def assert_same_weights(one: Trained, other: Trained) -> None:
    """Bit for bit."""
    for name, weight in one.weights.items():
        assert torch.equal(other.weights[name], weight), name


def differ(one: Trained, other: Trained) -> bool:
    return any(not torch.equal(other.weights[name], weight) for name, weight in one.weights.items())
