"""A share of the machine for each job, and the jobs that run in them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.sweeps.jobs.job import LOG_FILE, Job
from pipeline.sweeps.jobs.worker import MODULE, serve_jobs
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.fork_client import Forked
from pipeline.system.fork_server import KILL_AFTER_S
from pipeline.system.processes import usable_cores

SERVER_DIED = (
    "the process that starts the jobs has died, and the jobs with it. Start the same command again: it goes on"
)
POLL_S = 0.2
EVENTS_FD = 3  # of a job's process: where it sends events


# ---------------------------------------------------------------- shares of the machine


@dataclass(frozen=True)
class Slot:
    """A share of the machine for one job."""

    num_threads: int
    gpus: tuple[int | str, ...] | None = None  # as CUDA_VISIBLE_DEVICES names them; None: leave that alone

    def environment(self) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": str(self.num_threads)}
        return threads if self.gpus is None else {**threads, "CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus))}


def gpus_for(accelerator: str) -> list[int | str]:
    """The GPUs that this process may use, where jobs may want one, as CUDA_VISIBLE_DEVICES names them."""
    if accelerator == "cpu":
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(range(count)) if visible is None else list(visible.split(",")[:count])


def slots(
    num_jobs: int | None, num_threads: int | None, gpus: Sequence[int | str], gpus_per_job: int, count: int | None
) -> list[Slot]:
    """The machine in equal shares.

    Args:
        num_jobs: at once; None: one a core, or one for each share of the GPUs.
        num_threads: of each job; None: cores / jobs.
        gpus: those to give out; none: CUDA_VISIBLE_DEVICES stays as it is.
        count: of all jobs; None: not certain yet. Fewer jobs have larger shares.

    Raises:
        ConfigError: there is no share for even one job.
    """
    options = {"n_jobs": num_jobs, "threads": num_threads, "gpus_per_job": gpus_per_job}
    if wrong := [f"hydra.launcher.{key}={value}" for key, value in options.items() if value is not None and value < 1]:
        raise ConfigError(f"{', '.join(wrong)}: give 1 or more, or leave it out")
    if 0 < len(gpus) < gpus_per_job:
        raise ConfigError(f"a job wants {gpus_per_job} GPUs, but only {len(gpus)} are given out: hydra.launcher.gpus")
    cores = usable_cores()
    whole = len(gpus) // gpus_per_job * gpus_per_job
    shares = [tuple(gpus[n : n + gpus_per_job]) for n in range(0, whole, gpus_per_job)]
    at_once = min(
        num_jobs or len(shares) or cores,
        max(count or 1, 1) if count is not None else sys.maxsize,
        len(shares) or sys.maxsize,
    )
    threads = num_threads or max(1, cores // at_once)
    return [Slot(threads, shares[n] if shares else None) for n in range(at_once)]


# ---------------------------------------------------------------- jobs


class ForkServer:
    """The process that forks jobs. Start it before anything is opened here: then a fork is as good as a new process."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        """prepare: called there before the first job, beside what this process goes on with."""
        self._control, far_end = socket.socketpair()
        context = multiprocessing.get_context("fork")
        arguments = far_end, self._control, os.getpid(), prepare
        self.process = context.Process(target=serve_jobs, args=arguments, name="jobs")
        with far_end:
            self.process.start()

    def fork(self, folder: Path, environment: Mapping[str, str]) -> tuple[Forked, connection.Connection]:
        """A job's process and the events that it sends; what it prints goes to its log.

        If the server has died, the process is one that has ended without a number.
        """
        near_end, far_end = socket.socketpair()
        receive_end, send_end = multiprocessing.Pipe(duplex=False)
        forked = Forked(near_end)
        with far_end, send_end, open(folder / LOG_FILE, "ab") as log, open(os.devnull, "rb") as nothing:
            files = {0: nothing.fileno(), 1: log.fileno(), 2: log.fileno(), EVENTS_FD: send_end.fileno()}
            with suppress(OSError):
                socket.send_fds(self._control, [b"1"], [far_end.fileno()])
                far_end.close()
                forked.request(MODULE, [str(folder), str(EVENTS_FD)], {**os.environ, **environment}, files)
        return forked, receive_end

    def close(self) -> None:
        """End it at once; it may still be at its imports."""
        self._control.close()
        self.process.terminate()
        self.process.join()


@dataclass
class JobProcess:
    """A job's process, or the wait for it; what its events have said, and how it ended."""

    job: Job
    slot: Slot
    forked: Forked
    events: connection.Connection
    pid: int | None = None
    start_s: float | None = None  # None: it waits for the imports of the process that forks it
    end_s: float | None = None
    exit_code: int | None = None  # None: it has not ended; negative: the signal that killed it
    first_epoch: int | None = None  # the first one of an event, and when: a job may go on with a later one
    first_epoch_s: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)  # of all events: the newest epoch, its value or its error
    timeout: str = ""  # why it was ended, if it took too long

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self.start_s is None else (self.end_s or time.monotonic()) - self.start_s

    @property
    def left_s(self) -> float | None:
        """Seconds to go, by the epochs since the first event that had one; None: there are none yet."""
        epoch, total = self.report.get("epoch"), self.report.get("num_epochs")
        if epoch is None or total is None or self.first_epoch is None or epoch == self.first_epoch:
            return None
        return (time.monotonic() - self.first_epoch_s) / (int(epoch) - self.first_epoch) * (int(total) - int(epoch))

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0 and "value" in self.report

    @property
    def reason(self) -> str:
        """Why it has failed, in one line."""
        if message := self.timeout or self.report.get("error"):
            return str(message)
        if self.exit_code is not None and self.exit_code < 0:
            name = signal.Signals(-self.exit_code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with exit code {self.exit_code}"

    def update(self, event: Mapping[str, Any]) -> None:
        self.report |= event
        if self.first_epoch is None and "epoch" in event:
            self.first_epoch, self.first_epoch_s = event["epoch"], time.monotonic()

    def receive_events(self) -> None:
        """All that have come."""
        while not self.events.closed and self.events.poll():
            try:
                self.update(self.events.recv())
            except (EOFError, OSError):  # closed, or killed amid an event
                self.events.close()

    def end(self, exit_code: int) -> None:
        """Take in its last events."""
        self.receive_events()
        self.exit_code, self.end_s = exit_code, time.monotonic()
        self.close()

    def close(self) -> None:
        self.forked.connection.close()
        self.events.close()


class Pool:
    """Runs jobs in the slots it is given. However its block is left, its jobs have ended."""

    def __init__(self, slots: Sequence[Slot], server: ForkServer) -> None:
        self.free = list(slots)
        self.running: dict[int, JobProcess] = {}
        self._server = server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(PipelineError):  # the server has died, and its jobs with it
            self.end_all()
        for running in self.running.values():
            running.close()

    def start(self, job: Job) -> None:
        """Needs a free slot."""
        slot = self.free.pop(0)
        self.running[job.number] = JobProcess(job, slot, *self._server.fork(job.folder, slot.environment()))

    def wait(self, timeout_s: float = POLL_S) -> list[JobProcess]:
        """The jobs that have ended, at the latest after the timeout; takes in the events of the others.

        Raises:
            PipelineError: the server has died; its jobs have been ended.
        """
        if not self.running:
            return []
        sources: dict[Any, JobProcess] = {one.forked.connection: one for one in self.running.values()}
        sources |= {one.events: one for one in self.running.values() if not one.events.closed}
        ended = []
        for source in connection.wait(list(sources), timeout_s):
            running = sources[source]
            if source is running.events:
                running.receive_events()
                continue
            if (number := running.forked.receive()) is None:
                self._kill_orphans()
                raise PipelineError(SERVER_DIED)
            if running.pid is None and number > 0:
                running.pid, running.start_s = number, time.monotonic()
                continue
            if running.pid is None:  # -1, and then comes errno
                running.update({"error": "no process could be started: no memory or none left"})
            running.end(1 if running.pid is None else number)
            self.free.append(self.running.pop(running.job.number).slot)
            ended.append(running)
        return ended

    def end_overdue(self, timeout_s: float) -> None:
        """SIGTERM for the jobs that took longer, which lets them close their runs; then SIGKILL."""
        for running in self.running.values():
            if running.elapsed_s > timeout_s and not running.timeout:
                running.timeout = f"took longer than hydra.launcher.timeout_s={timeout_s:g} and was ended"
                running.forked.signal(signal.SIGTERM)
            elif running.elapsed_s > timeout_s + KILL_AFTER_S:
                running.forked.signal(signal.SIGKILL)

    def end_all(self) -> None:
        """SIGTERM for all jobs, and SIGKILL for those that do not end."""
        for which in (signal.SIGTERM, signal.SIGKILL):
            for running in self.running.values():
                running.forked.signal(which)
            end_s = time.monotonic() + KILL_AFTER_S
            while self.running and time.monotonic() < end_s:
                self.wait()

    def _kill_orphans(self) -> None:
        """The kernel has sent them SIGTERM as the server died. Back when the last one has gone."""
        end_s = time.monotonic() + KILL_AFTER_S
        for running in self.running.values():
            with suppress(EOFError, OSError):
                while running.events.poll(max(0.0, end_s - time.monotonic())):
                    running.events.recv()
        for running in self.running.values():
            if running.pid:
                with suppress(ProcessLookupError):
                    os.kill(running.pid, signal.SIGKILL)
