"""What runs in the process of a job, `python -m pipeline.sweeps.jobs.worker FOLDER NEWS`.

`pipeline.sweeps.jobs.pool` forks it.
"""

from __future__ import annotations

import importlib
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.sweeps.jobs.job import Job
from pipeline.system.errors import PipelineError


def run_job(folder: Path, tell: Connection) -> None:
    """Run the frozen job. Ends the process with the stage's exit code."""
    job = Job.read(folder)
    run = importlib.import_module(f"pipeline.{job.stage}").run_job  # by name: nothing imports a stage
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


if __name__ == "__main__":
    run_job(Path(sys.argv[1]), Connection(int(sys.argv[2]), readable=False))
