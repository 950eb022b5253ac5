"""A share of the machine for each job, and the jobs that run in them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pipeline.sweeps.jobs.job import LOG, Job
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.fork_client import Forked
from pipeline.system.fork_server import GRACE_S, end_with, serve

DIED = "the process that starts the jobs has died, and the jobs with it. Start the same command again: it goes on"
POLL_S = 0.2
NEWS_FD = 3  # of a job's process: where it tells how it goes


@dataclass(frozen=True)
class Slot:
    """A share of the machine for one job."""

    num_threads: int
    gpus: tuple[int | str, ...] | None = None  # as CUDA_VISIBLE_DEVICES names them; None: leave that alone

    def environment(self) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": str(self.num_threads)}
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


@dataclass
class Started:
    """A job's process, or the wait for it."""

    forked: Forked
    told: Connection
    pid: int | None = None

    def close(self) -> None:
        self.forked.connection.close()
        self.told.close()


class Server:
    """The process that forks jobs. Start it before anything is opened here: then a fork is as good as a new process.

    Raises:
        PipelineError: from `news`, if it has died; its jobs have then been ended.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        """prepare: called there before the first job, beside what this process goes on with."""
        near_end, far_end = socket.socketpair()
        self._control = near_end
        self._jobs: dict[int, Started] = {}
        self._news: deque[tuple[int, str, Any]] = deque()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_fork_jobs, args=(far_end, near_end, os.getpid(), prepare), name="jobs")
        self.process.start()
        far_end.close()

    def start(self, number: int, folder: Path, environment: Mapping[str, str]) -> None:
        """A job's process; what it prints goes to its log."""
        near_end, far_end = socket.socketpair()
        told, tell = multiprocessing.Pipe(duplex=False)
        log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        with suppress(OSError), far_end:  # it has died: `news` will say so
            socket.send_fds(self._control, [b"1"], [far_end.fileno()])
        forked = Forked(near_end)
        files = {0: nothing, 1: log, 2: log, NEWS_FD: tell.fileno()}
        with suppress(OSError):
            forked.ask("pipeline.sweeps.jobs.worker", [str(folder), str(NEWS_FD)], {**os.environ, **environment}, files)
        for file in (log, nothing):
            os.close(file)
        tell.close()
        self._jobs[number] = Started(forked, told)

    def signal(self, number: int, which: signal.Signals) -> None:
        self._jobs[number].forked.signal(which)

    def news(self, timeout_s: float) -> tuple[int, str, Any] | None:
        """(number, "started", "said" or "ended", what), if there is any within the timeout."""
        if not self._news:
            ends: dict[Any, int] = {job.told: number for number, job in self._jobs.items() if not job.told.closed}
            ends |= {job.forked.connection: number for number, job in self._jobs.items()}
            for end in wait(list(ends), timeout_s):
                self._hear(ends[end], end)
        return self._news.popleft() if self._news else None

    def _hear(self, number: int, end: Any) -> None:
        job = self._jobs.get(number)
        if job is None or (end is job.told and job.told.closed):
            return
        if end is job.told:
            self._hear_news(number, job, most=1)
            return
        told = job.forked.number()
        if told is None:
            self._end_jobs()
            raise PipelineError(DIED)
        if job.pid is None:
            job.pid = told
            if told > 0:
                self._news.append((number, "started", told))
            else:
                self._news.append((number, "said", {"error": "no process could be started: no memory or none left"}))
            return
        self._hear_news(number, job)  # its last words
        self._news.append((number, "ended", told if job.pid > 0 else 1))
        self._jobs.pop(number).close()

    def _hear_news(self, number: int, job: Started, most: int | None = None) -> None:
        while most != 0 and not job.told.closed and job.told.poll():
            try:
                self._news.append((number, "said", job.told.recv()))
            except (EOFError, OSError):  # closed, or killed amid a word
                job.told.close()
            most = most and most - 1

    def close(self) -> None:
        """End it at once; it may still be at its imports."""
        self._control.close()
        for job in self._jobs.values():
            job.close()
        self.process.terminate()
        self.process.join()

    def _end_jobs(self) -> None:
        """The kernel has told them to end as the process died. Back when the last one has gone."""
        end_s = time.monotonic() + GRACE_S
        for job in self._jobs.values():
            with suppress(EOFError, OSError):
                while job.told.poll(max(0.0, end_s - time.monotonic())):
                    job.told.recv()
        for job in self._jobs.values():
            if job.pid:
                with suppress(ProcessLookupError):
                    os.kill(job.pid, signal.SIGKILL)


def _fork_jobs(control: socket.socket, far_end: socket.socket, parent: int, prepare: Callable[[], None]) -> None:
    """What the process that forks jobs does; and in a fork of it, the job."""
    far_end.close()  # a fork has it too, and would never hear that nobody is there
    os.setsid()  # Ctrl-C, and the end of a terminal, are the sweep's to handle
    end_with(parent, signal.SIGTERM)
    prepare()
    gc.freeze()  # or each job's collector would copy the memory that it shares with the others
    if job := serve(control, _accept):
        sys.argv[:] = ["-m", *job.arguments]
        runpy.run_module(job.module, run_name="__main__", alter_sys=True)


def _accept(control: socket.socket) -> socket.socket:
    data, fds, _, _ = socket.recv_fds(control, 1, 1)
    if not data:
        raise EOFError
    return socket.socket(fileno=fds[0])


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
        self._server.start(job.number, job.folder, slot.environment())

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
                self._server.signal(number, signal.SIGTERM)
            elif running.elapsed_s > timeout_s + GRACE_S:
                self._server.signal(number, signal.SIGKILL)

    def end_all(self) -> None:
        """SIGTERM for all jobs, and SIGKILL for those that do not end."""
        for which in (signal.SIGTERM, signal.SIGKILL):
            for number in self.running:
                self._server.signal(number, which)
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
