"""A share of the machine for each job, and the jobs that run in them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError, PipelineError
from pipeline.sweeps.jobs import Job
from pipeline.sweeps.server import GRACE_S, serve
from pipeline.sweeps.storage import VARIABLE

DIED = "the process that starts the jobs has died, and the jobs with it. Start the same command again: it goes on"
POLL_S = 0.2


@dataclass(frozen=True)
class Slot:
    """A share of the machine for one job."""

    num_threads: int
    gpus: tuple[int | str, ...] | None = None  # as CUDA_VISIBLE_DEVICES names them; None: leave that alone

    def environment(self) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": str(self.num_threads)}
        if VARIABLE in os.environ:  # set for a search after the process that starts the jobs was made
            threads[VARIABLE] = os.environ[VARIABLE]
        return threads if self.gpus is None else {**threads, "CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus))}


@dataclass
class Running:
    """A job and what it has told so far: its newest epoch, its value or its error."""

    job: Job
    slot: Slot
    start_s: float | None = None  # None: it waits for the imports of the process that starts it
    first_epoch: int | None = None  # the first one that was told, and when: a job may go on with a later one
    first_epoch_s: float = 0.0
    said: dict[str, Any] = field(default_factory=dict)
    too_slow: str = ""  # that it was ended for it, in words

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self.start_s is None else time.monotonic() - self.start_s

    @property
    def left_s(self) -> float | None:
        """Seconds to go, by the epochs since the first one that was told; None: there are none yet."""
        epoch, total = self.said.get("epoch"), self.said.get("num_epochs")
        if epoch is None or total is None or self.first_epoch is None or epoch == self.first_epoch:
            return None
        return (time.monotonic() - self.first_epoch_s) / (int(epoch) - self.first_epoch) * (int(total) - int(epoch))

    def heard(self, news: Mapping[str, Any]) -> None:
        self.said |= news
        if self.first_epoch is None and "epoch" in news:
            self.first_epoch, self.first_epoch_s = news["epoch"], time.monotonic()


@dataclass(frozen=True)
class Ended:
    """How a job's process ended."""

    job: Job
    exit_code: int  # negative: the signal that killed it
    said: Mapping[str, Any]
    elapsed_s: float

    @property
    def good(self) -> bool:
        return self.exit_code == 0 and "value" in self.said

    @property
    def reason(self) -> str:
        if error := self.said.get("error"):
            return str(error)
        if self.exit_code < 0:
            name = signal.Signals(-self.exit_code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with exit code {self.exit_code}"


class Server:
    """The process that forks jobs, seen from the sweep's process. Start it before anything is opened there.

    Raises:
        PipelineError: from all who use it, if it has died; its jobs have then been ended.
    """

    def __init__(self, stage: str) -> None:
        context = multiprocessing.get_context("fork")
        near_end, far_end = context.Pipe()
        self._requests = near_end
        self._pids: dict[int, int] = {}  # of the jobs that run
        self.process = context.Process(
            target=serve, args=(far_end, near_end, os.getpid(), stage), name="jobs", daemon=False
        )
        self.process.start()
        far_end.close()

    def ask(self, *request: Any) -> None:
        try:
            self._requests.send(request)
        except OSError:
            raise PipelineError(DIED) from None

    def news(self, timeout_s: float) -> tuple[int, str, Any] | None:
        """(number, "started", "said" or "ended", what), if there is any within the timeout."""
        ready = self._requests.poll(timeout_s)
        if not ready and self.process.is_alive():  # its sentinel would be of no use: the jobs hold that open
            return None
        if not ready or (heard := self._heard()) is None:
            self._end_its_jobs()
            raise PipelineError(DIED)
        number, what, news = heard
        if what == "started":
            self._pids[number] = news
        elif what == "ended":
            self._pids.pop(number, None)
        return heard

    def close(self) -> None:
        """End it at once; it may still be at its imports."""
        self._requests.close()
        self.process.terminate()
        self.process.join()

    def _heard(self) -> tuple[int, str, Any] | None:
        """None: nobody is left at the other end, neither the process nor any job of it."""
        with suppress(EOFError, OSError):
            heard: tuple[int, str, Any] = self._requests.recv()
            return heard
        return None

    def _end_its_jobs(self) -> None:
        """The kernel has told them to end as the process died. Back when the last one has gone."""
        end_s = time.monotonic() + GRACE_S
        while (left_s := end_s - time.monotonic()) > 0:
            if self._requests.poll(left_s) and self._heard() is None:
                return
        for pid in self._pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


SERVER: ContextVar[Server] = ContextVar("SERVER")  # of this sweep, started before Hydra made a launcher


class Pool:
    """Runs jobs in the slots it is given. Used through `opened`, so that no process stays."""

    def __init__(self, slots: Sequence[Slot], server: Server) -> None:
        self.free = list(slots)
        self.running: dict[int, Running] = {}
        self._server = server

    def start(self, job: Job) -> None:
        """Needs a free slot."""
        slot = self.free.pop(0)
        self.running[job.number] = Running(job, slot)
        self._server.ask("start", job.number, str(job.folder), slot.environment())

    def wait(self, timeout_s: float = POLL_S) -> list[Ended]:
        """The jobs that have ended, at the latest after the timeout; takes in what the others have told."""
        ended = []
        while self.running and (heard := self._server.news(timeout_s)):
            number, what, news = heard
            timeout_s = 0.0
            if what == "started":
                self.running[number].start_s = time.monotonic()
            elif what == "said":
                self.running[number].heard(news)
            else:
                gone = self.running.pop(number)
                self.free.append(gone.slot)
                said = {**gone.said, "error": gone.too_slow} if gone.too_slow else gone.said
                ended.append(Ended(gone.job, news, said, gone.elapsed_s))
        return ended

    def end_slow(self, timeout_s: float) -> None:
        """SIGTERM for the jobs that took longer, which lets them close their runs; then SIGKILL."""
        for number, running in self.running.items():
            if running.elapsed_s > timeout_s and not running.too_slow:
                running.too_slow = f"took longer than hydra.launcher.timeout_s={timeout_s:g} and was ended"
                self._server.ask("stop", number)
            elif running.elapsed_s > timeout_s + GRACE_S:
                self._server.ask("kill", number)

    def end_all(self) -> None:
        """SIGTERM for all jobs, and SIGKILL for those that do not end."""
        for what in ("stop", "kill"):
            for number in self.running:
                self._server.ask(what, number)
            end_s = time.monotonic() + GRACE_S
            while self.running and time.monotonic() < end_s:
                self.wait()


@contextmanager
def opened(slots: Sequence[Slot], server: Server) -> Iterator[Pool]:
    """A pool; however the block is left, its jobs have ended."""
    pool = Pool(slots, server)
    try:
        yield pool
    finally:
        with suppress(PipelineError):  # the server is gone, and its jobs with it
            pool.end_all()


def gpus_for(accelerator: str) -> list[int | str]:
    """The GPUs that this process may use, where jobs may want one, as CUDA_VISIBLE_DEVICES names them."""
    if accelerator == "cpu":
        return []
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(range(count)) if given is None else list(given.split(",")[:count])


def slots(
    num_jobs: int | None, num_threads: int | None, gpus: Sequence[int | str], gpus_per_job: int, count: int | None
) -> list[Slot]:
    """The machine in equal shares.

    Args:
        num_jobs: at once; None: one a core, or one for each share of the GPUs.
        num_threads: of each job; None: cores / jobs.
        gpus: those to give out; none: CUDA_VISIBLE_DEVICES stays as it is.
        count: of all jobs, where it is known; fewer jobs have larger shares.

    Raises:
        ConfigError: there is no share for even one job.
    """
    asked = {"n_jobs": num_jobs, "threads": num_threads, "gpus_per_job": gpus_per_job}
    if wrong := [f"hydra.launcher.{key}={value}" for key, value in asked.items() if value is not None and value < 1]:
        raise ConfigError(f"{', '.join(wrong)}: give 1 or more, or leave it out")
    if 0 < len(gpus) < gpus_per_job:
        raise ConfigError(f"a job wants {gpus_per_job} GPUs, but only {len(gpus)} are given out: hydra.launcher.gpus")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    whole = len(gpus) // gpus_per_job * gpus_per_job
    shares = [tuple(gpus[n : n + gpus_per_job]) for n in range(0, whole, gpus_per_job)]
    at_once = min(
        num_jobs or len(shares) or cores,
        max(count or 1, 1) if count is not None else sys.maxsize,
        len(shares) or sys.maxsize,
    )
    threads = num_threads or max(1, cores // at_once)
    return [Slot(threads, shares[n] if shares else None) for n in range(at_once)]
