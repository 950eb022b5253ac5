"""The process from which jobs are forked: all is imported before, and each job still has a process of its own.

It is forked from the sweep's process before that has opened a database or started a thread, and it starts none itself,
so that a fork of it is as good as a new process, 6 s earlier. A job that dies, by whatever means, costs itself. When
the sweep's process is gone, however it went, this one ends the jobs and itself.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from pipeline.model import kernels
from pipeline.processes import end_with
from pipeline.sweeps.work import run_job

GRACE_S = 20.0  # for a job to close its run after SIGTERM; then SIGKILL
# Imported by a training on its way, at its first metric or its model's export. Private names may go with a new torch:
# then each job imports them itself.
IMPORTED_LATER = (
    "mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.pytorch", "mlflow.pyfunc", "torch.export",
    "torch._functorch.aot_autograd", "torch._export.serde.serialize", "torch._inductor.ir", "sympy",
    "mlflow.store.tracking.sqlalchemy_workspace_store", "alembic.command", "sqlalchemy.dialects.sqlite",
    "pipeline.data.same", "email.policy",
)  # fmt: skip


@dataclass
class Started:
    process: BaseProcess
    told: Connection

    def close(self) -> None:
        self.process.close()
        self.told.close()


def serve(requests: Connection, far_end: Connection, parent: int, stage: str) -> None:
    """Start and stop jobs as asked: ("start", number, folder, environment), ("stop", number), ("kill", number).

    Answers: (number, "started", pid), (number, "said", news) whenever a job tells something, (number, "ended", exit
    code) at last. Each job inherits `requests`, so the far end hears of its closing when the last job is gone too.
    """
    far_end.close()  # a fork has it too, and would never hear that nobody is there
    os.setsid()  # Ctrl-C, and the end of a terminal, are the sweep's to handle
    end_with(parent, signal.SIGTERM)
    for name in (f"pipeline.{stage}", *IMPORTED_LATER):
        with suppress(ImportError):
            importlib.import_module(name)
    kernels.load()
    gc.freeze()  # or each job's collector would copy the memory that it shares with the others
    jobs: dict[int, Started] = {}
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the sweep's process is gone
            while True:
                _wait_and_answer(requests, jobs)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end(jobs)


def _wait_and_answer(requests: Connection, jobs: dict[int, Started]) -> None:
    ready = wait([requests, *(job.told for job in jobs.values()), *(job.process.sentinel for job in jobs.values())])
    for number, job in list(jobs.items()):
        gone = job.process.sentinel in ready  # before its last words are read: then none can follow
        _pass_on(requests, number, job.told)
        if gone:
            job.process.join()
            exit_code = job.process.exitcode
            jobs.pop(number).close()
            requests.send((number, "ended", exit_code))
    if requests in ready:
        _do(requests, jobs, *requests.recv())


def _do(requests: Connection, jobs: dict[int, Started], what: str, number: int, *details: Any) -> None:
    match what:
        case "start":
            try:
                jobs[number] = _start(number, *details)
            except OSError as error:  # no memory, or no process left
                requests.send((number, "said", {"error": f"no process could be started: {error}"}))
                requests.send((number, "ended", 1))
            else:
                requests.send((number, "started", jobs[number].process.pid))
        case "stop" if number in jobs:
            jobs[number].process.terminate()
        case "kill" if number in jobs:
            jobs[number].process.kill()


def _start(number: int, folder: str, environment: Mapping[str, str]) -> Started:
    context = multiprocessing.get_context("fork")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=run_job, args=(folder, os.getpid(), tell, environment), name=f"job {number}")
    process.start()
    tell.close()
    return Started(process, told)


def _pass_on(requests: Connection, number: int, told: Connection) -> None:
    while told.poll():
        try:
            news = told.recv()
        except (EOFError, OSError):  # closed, or killed amid a word
            return
        requests.send((number, "said", news))


def _end(jobs: Mapping[int, Started]) -> None:
    for job in jobs.values():
        job.process.terminate()
    end_s = time.monotonic() + GRACE_S
    for job in jobs.values():
        job.process.join(max(0.0, end_s - time.monotonic()))
        job.process.kill()
