"""Jobs through the pool, several at once: which of them still need to run, how they go, how they ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.sweeps.jobs.job import (
    LOG_FILE,
    FailedBefore,
    Job,
    earlier_values,
    job_runs,
    record_failure,
    wait_until_ended,
)
from pipeline.sweeps.jobs.pool import ForkServer, JobProcess, Pool, Slot
from pipeline.system.errors import PipelineError
from pipeline.system.fork_server import KILL_AFTER_S
from pipeline.tracking import RunRow, Store

REFRESHES_PER_S = 4


@dataclass(frozen=True)
class SweepContext:
    """What Hydra's plug-ins need of the sweep that they run in."""

    open_run: Callable[[], str]  # begins the sweep's run or goes on with it, once all jobs can run; its id
    server: ForkServer | None  # of our launcher's jobs: started before Hydra made the launcher


SWEEP: ContextVar[SweepContext] = ContextVar("SWEEP")


@dataclass(frozen=True)
class Outcome:
    """What a sweeper learns of a job."""

    job: Job
    value: float | tuple[float, ...] | None  # None: it failed
    reason: str = ""


@dataclass(frozen=True)
class Rules:
    """How jobs are treated, whatever they are."""

    slots: Sequence[Slot]
    timeout_s: float | None
    fail_fast: bool
    retry_failed: bool


def run_jobs(root: Path, jobs: Iterator[Job], count: int | None, rules: Rules) -> Iterator[Outcome]:
    """Run each job in a process of its own and yield the outcomes as they come.

    Args:
        jobs: the next one is taken when a slot is free, so it may depend on the outcomes so far.
        count: of all jobs; None: not certain yet.

    Raises:
        PipelineError: a job failed and the rules say fail_fast; the others have been ended, in order.
    """
    sweep = SWEEP.get()
    assert sweep.server is not None
    parent = sweep.open_run()
    store = Store(root)
    with Pool(rules.slots, sweep.server) as pool, Progress(count) as progress:
        wait_until_ended(store, parent, KILL_AFTER_S)
        earlier = job_runs(store, parent)
        more = True
        while more or pool.running:
            while more and pool.free:
                if (new := next(jobs, None)) is None:
                    more = False
                    break
                job = new.child_of(parent)
                if outcome := _earlier_outcome(earlier, job, rules.retry_failed):
                    progress.print_outcome(job, outcome.reason, None)
                    yield outcome
                else:
                    job.write()
                    pool.start(job)
            for ended in pool.wait():
                outcome = _outcome(store, ended)
                progress.print_outcome(ended.job, outcome.reason, ended)
                yield outcome
                if outcome.value is None and rules.fail_fast:
                    raise PipelineError(f"job {ended.job.number} ({ended.job.label}) failed: {outcome.reason}")
            progress.draw(pool.running.values())
            if rules.timeout_s is not None:
                pool.end_overdue(rules.timeout_s)


def _earlier_outcome(earlier: Mapping[str, RunRow], job: Job, retry_failed: bool) -> Outcome | None:
    """Of the job in an earlier start of the same sweep; None if the job is to run."""
    try:
        values = earlier_values(earlier.get(job.key), job.config, retry_failed)
    except FailedBefore as error:
        return Outcome(job, None, str(error))
    return None if values is None else Outcome(job, values)


def _outcome(store: Store, ended: JobProcess) -> Outcome:
    if ended.succeeded:
        return Outcome(ended.job, ended.report["value"])
    record_failure(store, ended.job, ended.reason)
    return Outcome(ended.job, None, f"{ended.reason} (see {ended.job.folder / LOG_FILE})")


# ---------------------------------------------------------------- what a person sees meanwhile


class Progress:
    """On a terminal the running jobs are redrawn in place; elsewhere only what has ended is printed."""

    def __init__(self, count: int | None, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.count, self.num_ended = count, 0
        self._live = Live(console=self.console, transient=True, refresh_per_second=REFRESHES_PER_S)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def draw(self, running: Iterable[JobProcess]) -> None:
        if not self._live.is_started:
            return
        table = Table.grid(padding=(0, 2))
        for one in running:
            table.add_row(*_cells(one))
        self._live.update(table)

    def print_outcome(self, job: Job, reason: str, ended: JobProcess | None) -> None:
        """One line; `ended` is None for a job of an earlier start."""
        self.num_ended += 1
        of = f"/{self.count}" if self.count else ""
        if reason:
            text = Text(f"failed: {reason}", style="red")
        elif ended is None:
            text = Text("done before")
        else:
            pruned = "  pruned" if ended.report.get("pruned") else ""
            text = Text(f"{_metrics(ended.report)}  {ended.elapsed_s:.0f} s{pruned}")
        self.console.print(Text(f"{self.num_ended:>3}{of}  {job.label}  "), text, sep="")


def _cells(running: JobProcess) -> list[str]:
    name = [f"#{running.job.number}", running.job.label]
    report = running.report
    if "epoch" not in report:
        return [*name, "starting", "", ""]
    left = "" if running.left_s is None else f"{running.left_s:.0f} s left"
    return [*name, f"epoch {report['epoch']}/{report['num_epochs']}", _metrics(report), left]


def _metrics(report: Mapping[str, Any]) -> str:
    values = report.get("values", {})
    names = [name for name in ("val/loss", "val/accuracy") if name in values] or ["train/loss", "train/accuracy"]
    return "  ".join(f"{name} {values[name]:.4f}" for name in names if name in values)
