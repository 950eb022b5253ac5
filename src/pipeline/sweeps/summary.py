"""A sweep's results as files: ``summary.csv`` and ``summary.json``."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config.words import shell_words
from pipeline.files import atomic_file, write_json
from pipeline.sweeps.rows import Group, Objective, Row, ranked
from pipeline.sweeps.wording import command_of


def write_summary(
    folder: Path,
    sweep_id: str,
    command: str,
    rows: Sequence[Row],
    objectives: Sequence[Objective],
) -> None:
    """Write folder/summary.csv, a row a job, and folder/summary.json, which also has the best; each all or nothing."""
    rows = sorted(rows, key=lambda row: row.number)
    _write_csv(folder / "summary.csv", rows, objectives)
    groups = [group for group in ranked(rows, objectives) if group.n]
    value = {
        "sweep": sweep_id,
        "command": command,
        "counts": dict(sorted(Counter(row.status for row in rows).items())),
        "objectives": [asdict(objective) for objective in objectives],
        "num_configurations": len(groups),
        "best": _best_json(groups[0]) if groups else None,
        "rows": [_row_json(row) for row in rows],
    }
    write_json(folder / "summary.json", value)


def _write_csv(path: Path, rows: Sequence[Row], objectives: Sequence[Objective]) -> None:
    keys = list(dict.fromkeys(key for row in rows for key in row.values))
    first = [objective.name for objective in objectives]
    metrics = [*first, *sorted({name for row in rows for name in row.metrics} - set(first))]
    with atomic_file(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", *keys, "status", *metrics, "elapsed_s", "run_id", "overrides"])
        for row in rows:
            values = [row.values.get(key, "") for key in keys]
            measured = [row.metrics.get(name, "") for name in metrics]
            elapsed_s = "" if row.elapsed_s is None else round(row.elapsed_s, 3)
            words = shell_words(row.words)
            writer.writerow([row.number, *values, row.status, *measured, elapsed_s, row.run_id, words])


def _best_json(group: Group) -> dict[str, Any]:
    return {
        "values": group.values,
        "mean": group.mean,
        "sd": group.sd,
        "n": group.n,
        "numbers": [row.number for row in group.counted],
        "run_ids": [row.run_id for row in group.counted],
        "command": command_of(group),
    }


def _row_json(row: Row) -> dict[str, Any]:
    metrics = {name: value if math.isfinite(value) else None for name, value in row.metrics.items()}
    return {**asdict(row), "metrics": metrics}
