"""The process that forks the jobs of a sweep, and what a job does in its fork."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.sweeps.jobs.job import Job
from pipeline.system.errors import PipelineError
from pipeline.system.fork_server import die_with_parent, serve

MODULE = "pipeline.sweeps.jobs.worker"


def serve_jobs(control: socket.socket, near_end: socket.socket, parent: int, prepare: Callable[[], None]) -> None:
    """Fork a job for each connection that comes over `control`, until its other end is closed.

    Args:
        near_end: that other end, of which this process has a copy.
        parent: the sweep's process.
        prepare: imports what jobs need, so that they share it.
    """
    near_end.close()  # with its copy, a fork would never learn that the sweep's process is gone
    os.setsid()  # Ctrl-C, and the end of a terminal, are the sweep's to handle
    die_with_parent(parent, signal.SIGTERM)
    prepare()
    gc.freeze()  # or each job's collector would copy the memory that it shares with the others
    if request := serve(control, _accept):
        folder, events = request.arguments
        sys.argv[:] = [__file__, folder, events]
        run_job(Path(folder), Connection(int(events), readable=False))


def _accept(control: socket.socket) -> socket.socket:
    data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    if not data:
        raise EOFError
    return socket.socket(fileno=descriptors[0])


def run_job(folder: Path, events: Connection) -> None:
    """Run the job that stands in its folder. Ends the process with the stage's exit code."""
    job = Job.read(folder)
    run = importlib.import_module(f"pipeline.{job.stage}").run_job  # by name: nothing imports a stage
    try:
        events.send({"value": run(job.config, job.folder, lambda **event: events.send(event))})
    except BaseException as error:
        if message := _message(error):
            events.send({"error": message})
        raise


def _message(error: BaseException) -> str:
    """One line, as foreign errors may go on with a page of SQL; nothing where only the exit code says something."""
    cause = error.__context__ if isinstance(error, SystemExit) else error  # the stage's reason to exit
    if cause is None:
        return ""
    lines = str(cause).splitlines() or [""]
    return lines[0] if isinstance(cause, PipelineError) else f"{type(cause).__name__}: {lines[0]}"
