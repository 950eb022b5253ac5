"""The end of a sweep, also of one that was cut short: its table is printed, written and recorded.

``summary.csv`` and ``summary.json`` lie in the sweep's folder; they, the figures and the best job's model go into the
sweep's run in MLflow.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config.check import validate
from pipeline.config.overrides import shell_words, values_of
from pipeline.config.schema import SweepConfig, TrainerConfig
from pipeline.evaluation.figures import save
from pipeline.model.portable import load_model
from pipeline.runtime.origin import FOLDER_TAG, NUMBER_TAG, PROCESSED, PRUNED_TAG, WORDS_TAG
from pipeline.runtime.recording import record_model
from pipeline.sweeps.jobs.job import failure_reason, job_runs, kept_metrics
from pipeline.sweeps.report import figures
from pipeline.sweeps.report.rows import SEED, Group, Objective, Row, all_keys, ranked
from pipeline.sweeps.report.table import command_of, note, print_summary
from pipeline.system.files import atomic_file, read_json, write_json
from pipeline.tracking import IDLE_TAG, MODEL_ID_TAG, Run, RunRow, Store
from pipeline.tracking.lookup import COMMAND_TAG, ID_TAG
from pipeline.training import direction, objectives


def write_summary(
    folder: Path, sweep_id: str, command: str, rows: Sequence[Row], objectives: Sequence[Objective]
) -> None:
    """Write folder/summary.csv, a row a job, and folder/summary.json, which also has the best; each all or nothing."""
    rows = sorted(rows, key=lambda row: row.number)
    _write_csv(folder / "summary.csv", rows, objectives)
    groups = ranked(rows, objectives)
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
    keys = all_keys(rows)
    first = [objective.name for objective in objectives]
    metrics = [*first, *sorted({name for row in rows for name in row.metrics} - set(first))]
    with atomic_file(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", *keys, "status", *metrics, "elapsed_s", "run_id", "overrides"])
        for row in rows:
            values = [row.values.get(key, "") for key in keys]
            measured = [row.metrics.get(name, "") for name in metrics]
            elapsed_s = "" if row.elapsed_s is None else round(row.elapsed_s, 3)
            overrides = shell_words(row.overrides)
            writer.writerow([row.number, *values, row.status, *measured, elapsed_s, row.run_id, overrides])


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
    value = asdict(row) | {"metrics": metrics}
    return {"words" if name == "overrides" else name: entry for name, entry in value.items()}  # the file's key for them


# ---------------------------------------------------------------- the end of a sweep


PLANNED = "planned.json"  # in the sweep's folder: the jobs, where they are known before the first one starts
GROUPS = {"optimizer": "optimizer.name", "scheduler": "scheduler.name", "model": "model.name", "data": "data.name"}


def summarize(
    store: Store,
    run: Run,
    base: Mapping[str, Any],
    keys: Sequence[str],
    folder: Path,
    console: Console,
    log_keys: Sequence[str],
) -> str:
    """Write down and print how the sweep went, whether it is over or was cut short.

    Args:
        keys: what was swept; log_keys are those that were drawn evenly on a logarithmic scale.

    Returns:
        What the user must hear: that jobs failed; else nothing.
    """
    rows = rows_of(store, run.id, keys, folder)
    if not rows:
        return ""
    goals = goals_of(base, rows)
    tags = store.row(run.id).tags
    sweep = tags[ID_TAG]
    write_summary(folder, sweep, tags[COMMAND_TAG], rows, goals)
    for name, figure in _figures(rows, goals, log_keys).items():
        save(figure, folder / "figures" / f"{name}.png")
    _record(store, run, rows, goals, folder, base["tracking"]["server"])
    first = f"kept_{goals[0].name.replace('/', '_')}" if "/" in goals[0].name else goals[0].name
    swept = [key for key in keys if key not in GROUPS] + [GROUPS[key] for key in keys if key in GROUPS]
    store.save_sweep_view(run.id, sweep, swept, first, ascending=goals[0].mode == "min")
    print_summary(console, rows, goals)
    what_next = {"see its jobs": f"pipeline ui --sweep {sweep}"}
    if any(row.score(goals[0]) is not None for row in rows):
        what_next["make the best the pipeline's"] = f"pipeline adopt {sweep}"
    for purpose, command in what_next.items():
        console.print(f"{purpose}: {command}", soft_wrap=True)
    failed = [row for row in rows if row.status == "FAILED"]
    if not failed:
        return ""
    return (
        f"{len(failed)} of {len(rows)} jobs failed, the first ({failed[0].label}) with: {failed[0].reason}\n"
        "The others are done and kept. Start the same command with sweep.retry_failed=true to run the failed ones again"
    )


def rows_of(store: Store, parent: str, keys: Sequence[str], folder: Path) -> list[Row]:
    """The jobs of the sweep: those with a run, and those that were planned and never started.

    A sweep may have gone on with other code, data or fixed settings; only those like its newest one are compared.
    """
    runs = job_runs(store, parent)
    newest = max(runs.values(), key=lambda run: run.start_ms, default=None)
    rows = [_row(run, keys) for run in runs.values() if newest is not None and _comparable(run, newest, keys)]
    planned = read_json(folder / PLANNED) if (folder / PLANNED).exists() else []
    for job in planned:
        if job["key"] not in runs:
            overrides = tuple(job["words"])
            rows.append(Row(job["number"], job["label"], _swept(overrides, keys), "WAITING", {}, "", None, overrides))
    return sorted(rows, key=lambda row: row.number)


def _comparable(run: RunRow, newest: RunRow, keys: Sequence[str]) -> bool:
    for tag in ("origin.code_sha256", "origin.data_sha256"):  # not there if the job could not begin
        if tag in run.tags and tag in newest.tags and run.tags[tag] != newest.tags[tag]:
            return False
    return _fixed(run, keys) == _fixed(newest, keys)


def _fixed(run: RunRow, keys: Sequence[str]) -> dict[str, str]:
    """What its overrides say beside what is swept and where it is filed."""
    values = values_of(json.loads(run.tags[WORDS_TAG]))
    return {k: v for k, v in values.items() if k not in (*keys, SEED) and not k.startswith(("sweep.", "tracking."))}


def _row(run: RunRow, keys: Sequence[str]) -> Row:
    overrides = tuple(json.loads(run.tags[WORDS_TAG]))
    elapsed_s = None if run.end_ms is None else (run.end_ms - run.start_ms) / 1000 - float(run.tags.get(IDLE_TAG, 0))
    return Row(
        number=int(run.tags[NUMBER_TAG]), label=run.name, values=_swept(overrides, keys),
        status="PRUNED" if PRUNED_TAG in run.tags else run.status, metrics=kept_metrics(run), run_id=run.run_id,
        elapsed_s=elapsed_s, overrides=overrides, reason=failure_reason(run),
    )  # fmt: skip


def _swept(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    values = values_of(overrides)
    return {key: values[key] for key in keys if key in values}


def goals_of(base: Mapping[str, Any], rows: Sequence[Row]) -> list[Objective]:
    available = {name for row in rows for name in row.metrics}
    sweep, trainer = validate(SweepConfig, base["sweep"]), validate(TrainerConfig, base["trainer"])
    return [Objective(name, direction(name)) for name in objectives(sweep, trainer, available)]


def _figures(rows: Sequence[Row], goals: Sequence[Objective], log_keys: Sequence[str]) -> dict[str, Any]:
    if not ranked(rows, goals) or not all_keys(rows):
        return {}
    drawn = {
        "parallel_coordinates": figures.parallel_coordinates(rows, goals, log_keys),
        "against_parameters": figures.against_parameters(rows, goals, log_keys),
        "importances": figures.importances(rows, goals[0], log_keys),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _record_model(store: Store, run_id: str, server: str | None) -> None:
    """MLflow's model of the best job, from the weights that it left."""
    row = store.row(run_id)
    models = Path(row.tags[FOLDER_TAG], "models")
    if MODEL_ID_TAG not in row.tags and models.exists():
        with store.added_to(run_id, server) as run:
            record_model(run, store.root / PROCESSED, load_model(models), row.params)


def _record(
    store: Store, run: Run, rows: Sequence[Row], goals: Sequence[Objective], folder: Path, server: str | None
) -> None:
    counts = Counter(row.status for row in rows)
    run = store.ended_run(run.id)  # counts of a sweep that went on are new points, not what a resumed run knows already
    by_status = {f"sweep/{name.lower()}": counts[name] for name in ("FINISHED", "FAILED", "KILLED", "PRUNED")}
    run.metrics({"sweep/jobs": len(rows), **by_status})
    if groups := ranked(rows, goals):
        best = groups[0]
        run.metrics({f"best/{goals[0].name.replace('/', '_')}": best.mean})
        _record_model(store, best.counted[0].run_id, server)
        run.tags({"sweep.best_run_id": best.counted[0].run_id, **{f"best.{k}": v for k, v in best.values.items()}})
    keys = all_keys(rows)
    columns: dict[str, list[Any]] = {"job": [row.number for row in rows]}
    columns |= {key: [row.values.get(key, "") for row in rows] for key in keys}
    columns |= {goal.name: [row.metrics.get(goal.name, float("nan")) for row in rows] for goal in goals}
    columns |= {"status": [row.status for row in rows], "run": [row.run_id for row in rows]}
    run.table(columns, "sweep/jobs.json")
    run.artifact(folder / "summary.csv", "sweep")
    run.artifact(folder / "summary.json", "sweep")
    if (folder / "figures").exists():
        run.artifact(folder / "figures", None)
    headline, _, body = note(rows, goals).partition("\n")
    run.note(headline.strip("* "), body.strip())
