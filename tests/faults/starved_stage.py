"""Stages started as DVC starts them, or by hand, with little memory or as another user. Script of test_resources.py.

Argument: the project. All is imported once and each start is a fork. A line of input is JSON: stage, words (by hand;
null under DVC), memory_bytes (that it may take; null: any), user (null: this one). Prints each one's exit code and what
it said, as JSON.
"""

import json
import os
import resource
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from pipeline.cli import dispatch
from pipeline.system.fork_server import OTHERS, TRAINING, exit_at_once, exit_status, import_available
from pipeline.system.startup import settle

OF_OURS = (
    "pipeline.runtime.stage_runner",
    "pipeline.sweeps.command_line",
    "pipeline.train",
    "pipeline.evaluate",
)
STAGES = ("configure", "download", "preprocess", "train", "evaluate")


def live(job: dict[str, Any], log: int) -> None:
    os.chdir(sys.argv[1])  # a disk that is mounted anew for each test
    os.dup2(log, 1)
    os.dup2(log, 2)
    if job["words"] is None:
        os.environ |= {"DVC_STAGE": job["stage"], "DVC_ROOT": str(Path.cwd())}
    if job["memory_bytes"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + job["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if job["user"] is not None:
        os.setgid(job["user"])
        os.setuid(job["user"])
    sys.argv = [job["stage"], *(job["words"] or ())]
    dispatch(job["stage"])


def ended(job: dict[str, Any], log: int) -> int:
    """Its exit status."""
    try:
        live(job, log)
    except SystemExit as end:
        return exit_status(end.code)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


import_available(*(f"pipeline.{stage}" for stage in STAGES), *OF_OURS, *TRAINING, *OTHERS)
settle()
for line in sys.stdin:
    with tempfile.TemporaryFile() as log:
        pid = os.fork()
        if pid == 0:
            exit_at_once(ended(json.loads(line), log.fileno()))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log.seek(0)
        print(json.dumps([code, log.read().decode()]), flush=True)
