"""Stage 4: the test set, scored once; metrics, predictions kept for later comparison, figures.

Reads   data/processed/test/, models/, plots/history.csv
Writes  metrics/evaluate.json predictions/ plots/ reports/    see `pipeline.stages.evaluate`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.command import load
from pipeline.config.schema import EvaluateConfig
from pipeline.stage import run_stage
from pipeline.start import run


def work() -> Callable[..., Any]:
    load("evaluate", "torch", "MLflow")
    from pipeline.stages.evaluate import evaluate_tracked

    return evaluate_tracked


def main() -> None:
    """`dvc repro evaluate`, or by hand `python -m pipeline.evaluate evaluate.model_folder=outputs/train/…/models`."""
    run_stage("evaluate", EvaluateConfig, work)


if __name__ == "__main__":
    run(main)
