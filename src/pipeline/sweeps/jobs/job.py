"""One job of a sweep: a configuration with a number, a folder and a name that says what differs.

What MLflow has of the jobs is the one record of what is done, whichever launcher did it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config.check import validate
from pipeline.config.overrides import job_section
from pipeline.config.schema import SweepConfig, TrackingConfig, TrainConfig, TrainerConfig
from pipeline.runtime.origin import JOB_TAG, flat, origin_of, sweep_tags
from pipeline.runtime.places import Places, project_root
from pipeline.runtime.stage_runner import check_record, visible
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.files import read_json, write_json
from pipeline.tracking import REASON_TAG, RunRow, Store
from pipeline.training import objective_values
from pipeline.training.devices import require_device

JOB_FILE, LOG_FILE = "job.json", "job.log"


@dataclass(frozen=True)
class Job:
    """What a process needs to run one job. It knows no command line: the configuration is composed and resolved."""

    stage: str
    key: str  # digest of what the result is a function of
    folder: Path
    config: Mapping[str, Any]  # the whole resolved configuration; its `sweep.job` says which job this is

    @property
    def number(self) -> int:
        return int(self.config["sweep"]["job"]["number"])

    @property
    def label(self) -> str:
        return str(self.config["sweep"]["job"]["label"]) or f"job {self.number}"

    @property
    def overrides(self) -> list[str]:
        return list(self.config["sweep"]["job"]["words"])

    @property
    def plan(self) -> dict[str, Any]:
        """What is certain before it starts."""
        return {"key": self.key, **self.config["sweep"]["job"]}

    def child_of(self, parent: str) -> Job:
        """The job once the sweep has a run."""
        return replace(self, config={**self.config, "sweep": {**self.config["sweep"], "parent": parent}})

    def write(self) -> None:
        """Into its folder, for the process that runs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / JOB_FILE, {**vars(self), "folder": str(self.folder)})

    @classmethod
    def read(cls, folder: Path) -> Job:
        fields = read_json(folder / JOB_FILE)
        return cls(**{**fields, "folder": Path(fields["folder"])})


def checked_job(stage: str, number: int, overrides: Sequence[str], config: dict[str, Any], folder: Path) -> Job:
    """The job of a composed configuration, with its key and its folder.

    Raises:
        ConfigError: its configuration is wrong; the message says which job's.
    """
    config["sweep"]["job"] = job_section(overrides, config["sweep"]["varied"] or (), number)
    try:
        check_record(stage, config)
        cfg = validate(TrainConfig, visible(config, stage, TrainConfig))
        require_device(cfg.trainer)
    except ConfigError as error:
        label = config["sweep"]["job"]["label"]
        raise ConfigError(f"job {number} ({label}) cannot run, so none is started: {error}") from None
    root = project_root()
    key = origin_of(cfg, Places(root, root, folder, config)).key
    return Job(stage, key, _unused_folder(folder, key), config)


def _unused_folder(folder: Path, key: str) -> Path:
    """A folder that another configuration's job has not used: a sweep may go on with other values."""
    file = folder / JOB_FILE
    return folder.with_name(f"{folder.name}-{key[:8]}") if file.exists() and read_json(file)["key"] != key else folder


# ---------------------------------------------------------------- jobs as MLflow has them


POLL_S = 0.2


class JobLost(PipelineError):
    """A job ended without being able to say why."""


class FailedBefore(PipelineError):
    """A job failed in an earlier start of its sweep and is not to be run again."""


def job_runs(store: Store, parent: str) -> dict[str, RunRow]:
    """The newest run of each job, by the job's key. Runs whose process died are closed first."""
    store.reap()
    return {row.tags[JOB_TAG]: row for row in reversed(store.children(parent)) if JOB_TAG in row.tags}


def wait_until_ended(store: Store, parent: str, timeout_s: float) -> None:
    """Until no job of an earlier start is running: a sweep that was killed leaves its jobs some time to close."""
    end_s = time.monotonic() + timeout_s
    while any(row.status == "RUNNING" for row in job_runs(store, parent).values()) and time.monotonic() < end_s:
        time.sleep(POLL_S)


def failure_reason(row: RunRow) -> str:
    """Why it failed, in a line: an error of the store goes on with a page of SQL."""
    return row.tags.get(REASON_TAG, "").partition("\n")[0]


def kept_metrics(row: RunRow) -> dict[str, float]:
    """Metrics by the names of objectives: those of the kept epoch are `val/loss`, not the last epoch's."""
    kept = {name: f"kept_{name.replace('/', '_')}" for name in row.metrics if "/" in name}
    return {name: row.metrics.get(kept.get(name, name), value) for name, value in row.metrics.items()}


def values_of_job(row: RunRow, config: Mapping[str, Any]) -> float | tuple[float, ...]:
    """The objectives of a finished job."""
    sweep, trainer = validate(SweepConfig, config["sweep"]), validate(TrainerConfig, config["trainer"])
    return objective_values(sweep, trainer, kept_metrics(row))


def earlier_values(
    row: RunRow | None, config: Mapping[str, Any], retry_failed: bool
) -> float | tuple[float, ...] | None:
    """The values of a job in an earlier start of the same sweep; None if the job is to run.

    Raises:
        FailedBefore: it failed, and is not to be run again.
    """
    if row and row.status == "FINISHED":
        return values_of_job(row, config)
    if row and row.status == "FAILED" and not retry_failed:
        reason = failure_reason(row) or "no reason"
        raise FailedBefore(f"failed before ({reason}); sweep.retry_failed=true runs it again")
    return None


def values_of_earlier_job(cfg: TrainConfig, places: Places) -> float | tuple[float, ...] | None:
    """The same for a job that looks for itself, as it must where the launcher starts them all.

    A job that SLURM has put back into its queue has failed in MLflow's eyes, and runs again.
    """
    if cfg.sweep.parent is None:
        return None
    row = job_runs(Store(places.root), cfg.sweep.parent).get(origin_of(cfg, places).key)
    return earlier_values(row, places.resolved, cfg.sweep.retry_failed or "SLURM_RESTART_COUNT" in os.environ)


def record_failure(store: Store, job: Job, reason: str) -> None:
    """Make sure that a job which ended badly has a FAILED run: a process that was killed or ended cannot."""
    sweep = validate(SweepConfig, job.config["sweep"])
    if sweep.parent is None:
        return
    row = job_runs(store, sweep.parent).get(job.key)
    if row and row.status == "FAILED":
        return
    tracking = validate(TrackingConfig, job.config["tracking"])
    tags, resume = sweep_tags(sweep, job.key, job.folder), row.run_id if row else None
    with (
        suppress(JobLost),
        store.run(tracking.experiment, job.label, resume=resume, tags=tags, server=tracking.server) as run,
    ):
        if row is None:
            run.params(flat(job.config))
        raise JobLost(reason)
