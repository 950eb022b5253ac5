"""Runs as plain values, for whoever compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun


@dataclass(frozen=True)
class RunRow:
    """One run as the store has it now. Metrics are the newest points."""

    run_id: str
    experiment_id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    start_ms: int
    end_ms: int | None
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]

    @classmethod
    def of(cls, run: MlflowRun) -> RunRow:
        info, data = run.info, run.data
        return cls(info.run_id, info.experiment_id, info.run_name, info.status, info.start_time, info.end_time,
                   dict(data.metrics), dict(data.params), dict(data.tags))  # fmt: skip
