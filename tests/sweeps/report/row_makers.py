"""Rows of sweeps that never ran."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.sweeps.report.rows import Objective, Row

ACCURACY = Objective("val/accuracy", "max")
LOSS = Objective("val/loss", "min")
WEIGHTS = Objective("num_weights", "min")


def row(
    number: int,
    values: Mapping[str, object] | None = None,
    accuracy: float | None = None,
    status: str = "FINISHED",
    reason: str = "",
    **metrics: float,
) -> Row:
    """`loss=` is val/loss; other metrics by their names. A job that never started has neither run nor time."""
    texts = {key: str(value) for key, value in (values or {}).items()}
    named = {"val/loss" if name == "loss" else name: value for name, value in metrics.items()}
    return Row(
        number=number,
        label=" ".join(f"{key}={text}" for key, text in texts.items()),
        values=texts,
        status=status,
        metrics=named if accuracy is None else {"val/accuracy": accuracy, **named},
        run_id="" if status == "WAITING" else f"run{number}",
        elapsed_s=None if status == "WAITING" else 10.0 + number,
        overrides=tuple(f"{key}={text}" for key, text in texts.items()),
        reason=reason,
    )


def seeds(first: int, units: int, accuracies: list[float]) -> list[Row]:
    """One configuration with seeds 0, 1, …"""
    return [
        row(first + seed, {"model.units": units, "seed": seed}, accuracy) for seed, accuracy in enumerate(accuracies)
    ]
