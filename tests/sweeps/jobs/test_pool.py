"""Jobs in processes of their own, with functions instead of trainings: events, ends, and how they are ended."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipeline.sweeps.jobs import pool
from pipeline.sweeps.jobs.job import LOG_FILE, Job
from pipeline.sweeps.jobs.pool import ForkServer, JobProcess, Pool, Slot, gpus_for, slots
from pipeline.system import fork_server as server
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.fork_client import Forked
from pipeline.system.fork_server import NUMBER
from training.ranks_makers import lives

# Python 3.12 warns of forks beside threads: those of what other tests have imported; a sweep's process has none yet.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

Send = Callable[..., None]
Act = Callable[[Send], Any]


def deaf(send: Send) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send(deaf=True)
    time.sleep(1000)


def waiting(send: Send) -> None:
    send(waiting=True)
    time.sleep(1000)


def raising(send: Send) -> None:
    raise ValueError("no such thing\nand a page of SQL")


def refusing(send: Send) -> None:
    """As a stage does what a user can mend: said, and then the exit code."""
    try:
        raise PipelineError("the training diverged")
    except PipelineError:
        sys.exit(1)


def sending_much(send: Send) -> int:
    for epoch in range(500):
        send(epoch=epoch, text="x" * 1000)
    return 7


def environment(send: Send) -> dict[str, str | None]:
    return {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}


ACTS: dict[str, Act] = {
    "value": lambda send: 42.0,
    "deaf": deaf,
    "waiting": waiting,
    "raising": raising,
    "refusing": refusing,
    "exit": lambda send: sys.exit(3),
    "exit_0": lambda send: sys.exit(0),
    "_exit": lambda send: os._exit(3),
    "killed": lambda send: os.kill(os.getpid(), signal.SIGKILL),
    "printing": lambda send: print("said by the job", flush=True),
    "sending_much": sending_much,
    "environment": environment,
}


@dataclass
class Tried:
    """A pool of two slots and jobs that each do one of ACTS."""

    pool: Pool
    server: ForkServer
    folder: Path
    number: int = -1

    def start(self, act: str) -> Job:
        self.number += 1
        config = {"act": act, "sweep": {"job": {"number": self.number, "label": act, "words": []}}}
        job = Job("tiny", f"{self.number}", self.folder / str(self.number), config)
        job.write()
        self.pool.start(job)
        return job

    def ended(self, within_s: float = 20) -> JobProcess:
        """The next job to end."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            for ended in self.pool.wait(0.05):
                return ended
        raise TimeoutError(f"no job has ended within {within_s} s")

    def until_event(self, number: int, key: str) -> None:
        end_s = time.monotonic() + 20
        while key not in self.pool.running[number].report:
            assert time.monotonic() < end_s
            self.pool.wait(0.05)

    def did(self, act: str) -> JobProcess:
        self.start(act)
        return self.ended()

    @property
    def processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.server.process.pid)
        return [own, *own.children(recursive=True)]


@contextmanager
def trying(folder: Path, slots: list[Slot]) -> Iterator[Tried]:
    made = ForkServer(prepare=lambda: None)
    try:
        with Pool(slots, made) as workers:
            yield Tried(workers, made, folder)
    finally:
        made.close()


@pytest.fixture(autouse=True)
def tiny_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage `pipeline.tiny` that does what its configuration names."""
    run = SimpleNamespace(run_job=lambda config, out, send: ACTS[config["act"]](send))
    monkeypatch.setitem(sys.modules, "pipeline.tiny", run)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pool, server):
        monkeypatch.setattr(module, "KILL_AFTER_S", 0.5)


@pytest.fixture
def tried(tmp_path: Path) -> Iterator[Tried]:
    with trying(tmp_path, [Slot(1), Slot(1)]) as tried:
        yield tried


def assert_gone(processes: list[psutil.Process], within_s: float = 5) -> None:
    end_s = time.monotonic() + within_s
    while left := [process for process in processes if lives(process)]:
        assert time.monotonic() < end_s, left
        time.sleep(0.02)


# ---------------------------------------------------------------- one job


def test_a_job_gives_its_value(tried: Tried) -> None:
    ended = tried.did("value")
    assert (ended.succeeded, ended.exit_code, ended.report["value"]) == (True, 0, 42.0)


@pytest.mark.parametrize(
    ("act", "code", "reason"),
    [
        ("raising", 1, "ValueError: no such thing"),
        ("refusing", 1, "the training diverged"),
        ("exit", 3, "ended with exit code 3"),
        ("exit_0", 0, "ended with exit code 0"),
        ("_exit", 3, "ended with exit code 3"),
        ("killed", -9, "killed by SIGKILL (out of memory?)"),
    ],
)
def test_a_job_that_fails_says_why_in_one_line_and_costs_itself(tried: Tried, act: str, code: int, reason: str) -> None:
    other = tried.start("waiting")
    failed = tried.did(act)
    assert (failed.succeeded, failed.exit_code, failed.reason) == (False, code, reason)
    assert list(tried.pool.running) == [other.number]
    assert tried.did("value").succeeded


def test_what_a_job_prints_is_in_its_log_with_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled(), trying(tmp_path, [Slot(1)]) as tried:  # else pytest's own files would stand in the way
        printed, raised = tried.did("printing"), tried.did("raising")
    assert (printed.job.folder / LOG_FILE).read_text() == "said by the job\n"
    assert "ValueError: no such thing" in (raised.job.folder / LOG_FILE).read_text()


def test_half_a_megabyte_of_events_arrives_while_nobody_listens(tried: Tried) -> None:
    """The job waits for the reader instead of losing any; the value comes last."""
    tried.start("sending_much")
    time.sleep(0.3)
    ended = tried.ended()
    assert (ended.report["epoch"], ended.report["value"]) == (499, 7)


def test_a_job_sees_its_share_of_the_machine(tmp_path: Path) -> None:
    with trying(tmp_path, [Slot(3, (1, 2))]) as tried:
        assert tried.did("environment").report["value"] == {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "1,2"}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "1,2"


def test_a_job_without_a_process_has_ended(tmp_path: Path) -> None:
    """Where the system has no process left; the slot is free again."""
    near_end, far_end = socket.socketpair()
    events, no_sender = multiprocessing.Pipe(duplex=False)
    no_sender.close()
    far_end.sendall(NUMBER.pack(-1) + NUMBER.pack(errno.EAGAIN))
    full: Any = SimpleNamespace(fork=lambda folder, environment: (Forked(near_end), events))
    with far_end, Pool([Slot(1)], full) as workers:
        workers.start(Job("tiny", "0", tmp_path, {"sweep": {"job": {"number": 0, "label": "", "words": []}}}))
        ended = [one for _ in range(2) for one in workers.wait()]

    assert [one.reason for one in ended] == ["no process could be started: no memory or none left"]
    assert (workers.running, workers.free) == ({}, [Slot(1)])


# ---------------------------------------------------------------- ended from outside


def test_a_slow_job_is_ended_and_says_so(tried: Tried) -> None:
    tried.start("waiting")
    tried.until_event(0, "waiting")
    while 0 in tried.pool.running and not tried.pool.running[0].timeout:
        tried.pool.end_overdue(0.2)
    assert tried.ended().reason == "took longer than hydra.launcher.timeout_s=0.2 and was ended"


def test_the_wait_for_the_server_does_not_count_as_the_jobs_time(tried: Tried) -> None:
    job = tried.start("waiting")
    running = tried.pool.running[job.number]
    assert (running.start_s, running.elapsed_s) == (None, 0.0)
    tried.until_event(job.number, "waiting")
    assert running.start_s is not None


@pytest.mark.usefixtures("short_grace")
def test_a_slow_job_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    with trying(tmp_path, [Slot(1)]) as tried:
        tried.start("deaf")
        tried.until_event(0, "deaf")
        end_s, ended = time.monotonic() + 10, []
        while not ended:
            assert time.monotonic() < end_s
            tried.pool.end_overdue(0.1)
            ended = tried.pool.wait(0.05)
    assert ended[0].reason.startswith("took longer than")


@pytest.mark.usefixtures("short_grace")
def test_no_process_outlives_the_block(tmp_path: Path) -> None:
    """Not even a job that ignores SIGTERM, when the block ends by an exception."""
    processes: list[psutil.Process] = []

    def block() -> None:
        with trying(tmp_path, [Slot(1), Slot(1)]) as tried:
            tried.start("waiting")
            tried.start("deaf")
            tried.until_event(1, "deaf")
            processes.extend(tried.processes)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()
    assert len(processes) == 3
    assert_gone(processes, within_s=0.5)


@pytest.mark.usefixtures("short_grace")
def test_a_server_that_is_killed_takes_its_jobs_along(tmp_path: Path) -> None:
    """Whoever waits hears of it once they are gone, those that ignore SIGTERM included."""
    with trying(tmp_path, [Slot(1), Slot(1)]) as tried:
        tried.start("waiting")
        tried.start("deaf")
        tried.until_event(1, "deaf")
        processes = tried.processes
        os.kill(tried.server.process.pid, signal.SIGKILL)
        with pytest.raises(PipelineError, match="the process that starts the jobs has died"):
            tried.ended()
        assert_gone(processes, within_s=0.5)
    assert len(processes) == 3


def test_a_server_that_gets_sigterm_ends_its_jobs(tried: Tried) -> None:
    tried.start("waiting")
    tried.until_event(0, "waiting")
    processes = tried.processes
    os.kill(tried.server.process.pid, signal.SIGTERM)
    with pytest.raises(PipelineError, match="the process that starts the jobs has died"):
        tried.ended()
    assert_gone(processes, within_s=0.5)


@pytest.mark.usefixtures("short_grace")
def test_nothing_outlives_a_sweep_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL: the server ends the jobs and itself."""
    sweep = os.fork()
    if sweep == 0:  # the sweep's process
        try:
            with trying(tmp_path, [Slot(1), Slot(1)]) as tried:
                tried.start("waiting")
                tried.start("deaf")
                tried.until_event(1, "deaf")
                (tmp_path / "ready").touch()
                time.sleep(1000)
        finally:
            os._exit(1)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    processes = psutil.Process(sweep).children(recursive=True)
    os.kill(sweep, signal.SIGKILL)
    os.waitpid(sweep, 0)
    assert len(processes) == 3
    assert_gone(processes)


# ---------------------------------------------------------------- many


def test_memory_and_descriptors_stay_as_they_are_over_fifty_jobs(tmp_path: Path) -> None:
    """Of the sweep's process and of the one that starts the jobs."""
    with trying(tmp_path, [Slot(1), Slot(1)]) as tried:
        seen: dict[int, list[tuple[int, int]]] = {}
        watched = [psutil.Process(), psutil.Process(tried.server.process.pid)]
        for number in range(1, 51):
            assert tried.did("value").succeeded
            if number in (10, 50):
                time.sleep(0.2)  # the server closes a connection just after it has sent the exit status
                seen[number] = [(process.memory_info().rss, process.num_fds()) for process in watched]
    for (rss, descriptors), (rss_before, descriptors_before) in zip(seen[50], seen[10], strict=True):
        assert rss < 1.05 * rss_before
        assert descriptors == descriptors_before


@pytest.mark.parametrize(
    ("num_jobs", "num_threads", "gpus", "gpus_per_job", "count", "expected"),
    [
        (None, None, [], 1, None, [Slot(1)] * 4),  # one a core
        (2, None, [], 1, None, [Slot(2)] * 2),
        (8, None, [], 1, None, [Slot(1)] * 8),
        (None, None, [], 1, 3, [Slot(1)] * 3),  # no more slots than jobs
        (None, None, [], 1, 1, [Slot(4)]),
        (2, 1, [], 1, None, [Slot(1)] * 2),
        (None, None, [0, 1], 1, None, [Slot(2, (0,)), Slot(2, (1,))]),
        (None, None, [0, 1, 2], 2, None, [Slot(4, (0, 1))]),  # what is left over stays idle
        (8, None, [0, 1], 1, None, [Slot(2, (0,)), Slot(2, (1,))]),  # never two jobs on one GPU
    ],
)
def test_the_machine_is_shared_out_evenly(
    monkeypatch: pytest.MonkeyPatch, num_jobs: int | None, num_threads: int | None, gpus: list[int | str],
    gpus_per_job: int, count: int | None, expected: list[Slot],
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert slots(num_jobs, num_threads, gpus, gpus_per_job, count) == expected


def test_gpus_are_given_out_by_the_names_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM, or another person, may have given it some of the machine's."""
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_for("gpu") == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert gpus_for("auto") == ["5", "7"]
    assert gpus_for("cpu") == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((-1, None, [], 1, 4), "hydra.launcher.n_jobs=-1: give 1 or more"),
        ((0, None, [], 1, 4), "hydra.launcher.n_jobs=0: give 1 or more"),
        ((None, 0, [], 1, 4), "hydra.launcher.threads=0: give 1 or more"),
        ((None, None, [3], 2, 4), "a job wants 2 GPUs, but only 1 are given out"),
    ],
)
def test_a_machine_without_a_share_for_a_job_is_a_mistake(asked: Any, said: str) -> None:
    """Nothing would ever start."""
    with pytest.raises(ConfigError, match=said):
        slots(*asked)


def test_a_sweep_with_nothing_left_to_do_has_a_share_all_the_same() -> None:
    assert len(slots(None, None, [], 1, 0)) == 1


def test_the_time_left_follows_from_the_epochs_of_this_start() -> None:
    """A job that goes on at epoch 40 of 50 has not done 40 epochs in its two seconds."""
    running = JobProcess(None, Slot(1), None, None, start_s=0.0)  # type: ignore[arg-type]
    running.update({"epoch": 40, "num_epochs": 50})
    assert running.left_s is None
    running.first_epoch_s -= 2.0
    running.update({"epoch": 41})
    assert running.left_s == pytest.approx(18.0, abs=0.5)
