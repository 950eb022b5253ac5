"""What MLflow knows of a sweep's jobs: the one record of what is done, whichever launcher did it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pipeline.config.check import validate
from pipeline.config.schema import SweepConfig, TrackingConfig, TrainConfig, TrainerConfig
from pipeline.runtime.origin import JOB_TAG, flat, origin_of, sweep_tags
from pipeline.runtime.places import Places
from pipeline.sweeps.jobs.job import Job
from pipeline.system.errors import PipelineError
from pipeline.tracking import REASON_TAG, RunRow, Store
from pipeline.training.objectives import objectives

POLL_S = 0.2


class JobLost(PipelineError):
    """A job ended without being able to say why."""


class FailedBefore(PipelineError):
    """A job failed in an earlier start of its sweep and is not to be run again."""


def filed_jobs(store: Store, parent: str) -> dict[str, RunRow]:
    """The newest run of each job, by the job's key. Runs whose process died are closed first."""
    store.reap()
    return {row.tags[JOB_TAG]: row for row in reversed(store.children(parent)) if JOB_TAG in row.tags}


def wait_for_the_living(store: Store, parent: str, timeout_s: float) -> None:
    """Until no job of an earlier start is alive: a sweep that was killed leaves its jobs some time to close."""
    end_s = time.monotonic() + timeout_s
    while any(row.status == "RUNNING" for row in filed_jobs(store, parent).values()) and time.monotonic() < end_s:
        time.sleep(POLL_S)


def reason_of(row: RunRow) -> str:
    """Why it failed, in a line: an error of the store goes on with a page of SQL."""
    return row.tags.get(REASON_TAG, "").partition("\n")[0]


def metrics_of(row: RunRow) -> dict[str, float]:
    """Metrics by the names of objectives: those of the kept epoch are `val/loss`, not the last epoch's."""
    kept = {name: f"kept_{name.replace('/', '_')}" for name in row.metrics if "/" in name}
    return {name: row.metrics.get(kept.get(name, name), value) for name, value in row.metrics.items()}


def values_of(row: RunRow, record: Mapping[str, Any]) -> float | tuple[float, ...]:
    """The objectives' values of a finished job."""
    metrics = metrics_of(row)
    sweep, trainer = validate(SweepConfig, record["sweep"]), validate(TrainerConfig, record["trainer"])
    found = tuple(metrics[name] for name in objectives(sweep, trainer, metrics))
    return found if len(found) > 1 else found[0]


def values_before(
    row: RunRow | None, record: Mapping[str, Any], retry_failed: bool
) -> float | tuple[float, ...] | None:
    """What an earlier start of the same sweep found in a job; None if the job is to run.

    Raises:
        FailedBefore: it failed, and is not to be run again.
    """
    if row and row.status == "FINISHED":
        return values_of(row, record)
    if row and row.status == "FAILED" and not retry_failed:
        reason = reason_of(row) or "no reason"
        raise FailedBefore(f"failed before ({reason}); sweep.retry_failed=true runs it again")
    return None


def known_values(cfg: TrainConfig, places: Places) -> float | tuple[float, ...] | None:
    """The same for a job that looks for itself, as it must where the launcher starts them all.

    A job that SLURM has put back into its queue has failed in MLflow's eyes, and runs again.
    """
    if cfg.sweep.parent is None:
        return None
    row = filed_jobs(Store(places.root), cfg.sweep.parent).get(origin_of(cfg, places).key)
    return values_before(row, places.resolved, cfg.sweep.retry_failed or "SLURM_RESTART_COUNT" in os.environ)


def record_failure(store: Store, job: Job, reason: str) -> None:
    """Make sure that a job which ended badly has a FAILED run: a killed process, or one told to end, cannot."""
    sweep = validate(SweepConfig, job.record["sweep"])
    if sweep.parent is None:
        return
    own = filed_jobs(store, sweep.parent).get(job.key)
    if own and own.status == "FAILED":
        return
    tracking = validate(TrackingConfig, job.record["tracking"])
    tags, resume = sweep_tags(sweep, job.key, job.folder), own.run_id if own else None
    with (
        suppress(JobLost),
        store.run(tracking.experiment, job.label, resume=resume, tags=tags, server=tracking.server) as run,
    ):
        if own is None:
            run.params(flat(job.record))
        raise JobLost(reason)
