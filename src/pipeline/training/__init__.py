"""Lightning around the network: batches, metrics, the module, progress, checkpoints. Builds no configuration.

What a search looks at is here too, since it imports nothing: the validation split decides, never the test set.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
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


def objective_values(
    sweep: SweepConfig, trainer: TrainerConfig, metrics: Mapping[str, float]
) -> float | tuple[float, ...]:
    """What a search optimizes: a number where there is one objective."""
    values = tuple(metrics[name] for name in objectives(sweep, trainer, metrics))
    return values if len(values) > 1 else values[0]
