"""Lightning around the network: batches, metrics, the module, progress, checkpoints. Builds no configuration.

What a search looks at is here too, since it imports nothing: the validation split decides, never the test set.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Literal

from pipeline.config.schema import SweepConfig, TrainerConfig


def objectives(sweep: SweepConfig, trainer: TrainerConfig, available: Container[str]) -> tuple[str, ...]:
    """The metrics that are asked for; else the monitored one, or the training loss without a validation split."""
    if sweep.objectives:
        return sweep.objectives
    return (trainer.monitor if trainer.monitor in available else "train/loss",)


def direction(metric: str) -> Literal["min", "max"]:
    """Whether less or more of a metric is better."""
    return "max" if metric.endswith("accuracy") else "min"
