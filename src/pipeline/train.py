"""Stage 3: from arrays to a trained model; weights, a description of them, and how the training went.

Reads   data/processed/
Writes  models/ metrics/train.json metrics/learning.json plots/history.csv    see `pipeline.stages.train`

Settings are checked before torch, Lightning and MLflow are imported, so a mistake is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipeline.command import load
from pipeline.config.schema import TrainConfig
from pipeline.stage import run_stage
from pipeline.start import run


def work() -> Callable[..., Any]:
    load("train", "torch", "Lightning", "MLflow")
    from pipeline.stages.train import train_once

    return train_once


def sweep(root: Path, words: Sequence[str]) -> AbstractContextManager[list[str]]:
    """What `-m` runs in."""
    from pipeline.config.compose import require_choices
    from pipeline.sweeps.command import Command

    command = Command.read(root / "conf", words)
    require_choices(root / "conf", command.words)
    if command.cfg.dry_run:
        load("train", "MLflow")
    else:
        work()  # before the process from which jobs are forked is made
    from pipeline.sweeps.sweep import tracked_sweep

    return tracked_sweep(root, words, command)


def main() -> None:
    """`dvc repro train`, or by hand `python -m pipeline.train model.units=64`; with -m a sweep."""
    run_stage("train", TrainConfig, work, sweep)


if __name__ == "__main__":
    run(main)
