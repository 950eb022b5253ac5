"""Jobs through the pool, several at once: which of them still need to run, how they go, how they ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from pipeline.sweeps.jobs import pool
from pipeline.sweeps.jobs.job import Job
from pipeline.sweeps.jobs.progress import Live
from pipeline.sweeps.jobs.records import FailedBefore, filed_jobs, record_failure, values_before, wait_for_the_living
from pipeline.system.errors import PipelineError
from pipeline.system.fork_server import GRACE_S
from pipeline.tracking import RunRow, Store

# Opens the sweep's run, or goes on with it, and gives its id. Not before the first job is known to be able to run.
PARENT: ContextVar[Callable[[], str]] = ContextVar("PARENT")


@dataclass(frozen=True)
class Outcome:
    """What a sweeper learns of a job."""

    job: Job
    value: float | tuple[float, ...] | None  # None: it failed
    reason: str = ""


@dataclass(frozen=True)
class Rules:
    """How jobs are treated, whatever they are."""

    slots: Sequence[pool.Slot]
    timeout_s: float | None
    fail_fast: bool
    retry_failed: bool


def run_jobs(root: Path, jobs: Iterator[Job], count: int | None, rules: Rules) -> Iterator[Outcome]:
    """Run each job in a process of its own and yield the outcomes as they come.

    Args:
        jobs: the next one is asked for when a slot is free, so it may depend on the outcomes so far.
        count: of all jobs, where it is known.

    Raises:
        PipelineError: a job failed and the rules say fail_fast; the others have been ended, in order.
    """
    parent = PARENT.get()()
    store = Store(root)
    with pool.opened(rules.slots, pool.SERVER.get()) as workers, Live(count) as live:
        wait_for_the_living(store, parent, GRACE_S)
        before = filed_jobs(store, parent)
        more = True
        while more or workers.running:
            while more and workers.free:
                asked = next(jobs, None)
                if asked is None:
                    more = False
                    break
                job = asked.child_of(parent)
                if outcome := _done_before(before, job, rules.retry_failed):
                    live.ended(job, outcome.reason, None)
                    yield outcome
                else:
                    job.freeze()
                    workers.start(job)
            for ended in workers.wait():
                outcome = _outcome(store, ended)
                live.ended(ended.job, outcome.reason, ended)
                yield outcome
                if outcome.value is None and rules.fail_fast:
                    raise PipelineError(f"job {ended.job.number} ({ended.job.label}) failed: {outcome.reason}")
            live.show(workers.running.values())
            if rules.timeout_s is not None:
                workers.end_slow(rules.timeout_s)


def _done_before(before: Mapping[str, RunRow], job: Job, retry_failed: bool) -> Outcome | None:
    """What an earlier start of the same sweep found; None if the job is to run."""
    try:
        values = values_before(before.get(job.key), job.record, retry_failed)
    except FailedBefore as error:
        return Outcome(job, None, str(error))
    return None if values is None else Outcome(job, values)


def _outcome(store: Store, ended: pool.Ended) -> Outcome:
    if ended.good:
        return Outcome(ended.job, ended.said["value"])
    record_failure(store, ended.job, ended.reason)
    return Outcome(ended.job, None, f"{ended.reason} (see {ended.job.folder / 'job.log'})")
