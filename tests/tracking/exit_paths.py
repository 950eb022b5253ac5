"""One process for each way a run can end, each announcing itself in a file NAME.ready. Script of test_endings.py."""

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported once, before the forks

from pipeline.system.errors import PipelineError
from pipeline.tracking import Store

ROOT = Path(sys.argv[1])

# Whoever runs the tests in the background (nohup, a CI service) may have them ignored, and children inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def sleep() -> None:
    while True:
        time.sleep(0.05)


def swallow() -> None:
    """A library that takes Ctrl-C for a wish to stop early, and returns."""
    try:
        sleep()
    except KeyboardInterrupt:
        return


def explode() -> None:
    raise RuntimeError("boom")


def refuse() -> None:
    raise PipelineError("the data is not there")


CASES = {
    "normal": lambda: None,
    "exit_0": sys.exit,
    "exception": explode,
    "pipeline_error": refuse,
    "swallowed_sigint": swallow,
    **dict.fromkeys(("sigint", "sigterm", "sighup", "sigkill"), sleep),
}


def work(name: str) -> None:
    with Store(ROOT).run("endings", name) as run:
        ready = ROOT / f"{name}.new"
        ready.write_text(f"{os.getpid()} {run.id}")
        ready.rename(ROOT / f"{name}.ready")
        CASES[name]()


gc.freeze()  # else each child copies the memory it only wants to leave behind
children = {}
for name in CASES:
    pid = os.fork()
    if pid == 0:
        work(name)
        sys.exit()
    children[name] = pid
print(json.dumps({name: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for name, pid in children.items()}))
