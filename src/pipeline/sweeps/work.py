"""What runs in the process of one job."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.processes import end_with
from pipeline.sweeps.jobs import LOG, Job


def run_job(folder: str, parent: int, tell: Connection, environment: Mapping[str, str]) -> None:
    """Run the frozen job; what it prints goes to its log. Ends the process with the stage's exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()  # a process group of its own, with all that it starts
    end_with(parent, signal.SIGTERM)
    os.environ.update(environment)
    _print_to(Path(folder, LOG))
    job = Job.read(Path(folder))
    run = importlib.import_module(f"pipeline.{job.stage}").run_frozen  # by name: nothing imports a stage
    try:
        tell.send({"value": run(job.record, job.folder, lambda **news: tell.send(news))})
    except BaseException as error:
        if words := _in_words(error):
            tell.send({"error": words})
        raise


def _in_words(error: BaseException) -> str:
    """One line, as foreign errors may go on with a page of SQL; nothing where only the exit code says something."""
    cause = error.__context__ if isinstance(error, SystemExit) else error  # the stage's reason to exit
    if cause is None:
        return ""
    lines = str(cause).splitlines() or [""]
    return lines[0] if isinstance(cause, PipelineError) else f"{type(cause).__name__}: {lines[0]}"


def _print_to(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
