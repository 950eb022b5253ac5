"""What a command does before it imports anything heavy, and after all else; what is asked of its libraries."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# What is slow to import, by the names that people know. Modules of MLflow's that opening a store imports are with it.
PACKAGES = {
    "torch": ("torch",),
    "Lightning": ("pytorch_lightning",),
    "MLflow": ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "sqlalchemy.dialects.sqlite"),
}
_ended_well = False


def begin(module: str, arguments: Sequence[str], *, may_be_warm: bool = True) -> None:
    """Have a warm process do the work, if there shall be one; else make imports here quick.

    The garbage collector is off until what does the work is imported (`settle` turns it on again): a sixth of that
    time. Its look through everything at Python's end, 2 s with torch, Lightning and MLflow, is left out.

    Args:
        module: that Python runs, with these arguments.
    """
    set_thread_environment()
    set_mlflow_environment()
    is_fork = os.environ.pop("PIPELINE_WARM_FORK", None) == str(os.getpid())  # fork_server.FORK
    if not is_fork:  # which the warm process ends in the same way
        atexit.register(_end)  # before what is imported registers its own: it is called after that
        if may_be_warm and os.environ.get("PIPELINE_WARM", "0") not in ("", "0"):
            from pipeline.system.fork_client import hand_over

            hand_over(module, arguments)
    gc.disable()


def set_thread_environment() -> None:
    """How the libraries below torch wait and round. They read it once, so it is set before anything imports torch."""
    # Idle OpenMP threads sleep soon instead of spinning for a millisecond: beside one busy process a step took 3.5 ms,
    # not 30 ms. Not at once, because waking costs: 1.5 ms a step on an idle machine, 2.0 ms without (docs/log.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # Matrix products give the same bits in every run on one type of machine, with any number of threads. Without STRICT
    # one run in some dozens came out otherwise with two threads (docs/log.md).
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def set_mlflow_environment() -> None:
    """What commands ask of MLflow, unless the user has decided. MLflow reads the first two when it is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no usage reports, no look-up at start
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")  # a model file runs no code when it is loaded
    # A request to a tracking server that fails is repeated by the next look at the run, not by the request itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")  # seconds
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # amid the training's own lines


@contextmanager
def errors_alone(*loggers: str) -> Iterator[None]:
    """Inside, these loggers of libraries log errors alone: a user can do nothing about their tips and remarks."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in loggers}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def load(command: str, *packages: str) -> None:
    """Import what the work needs, once the arguments are known to be right, and say what takes the time.

    packages: names of PACKAGES.
    """
    from pipeline.system.processes import Rank

    new = [package for package in packages if PACKAGES[package][0] not in sys.modules]
    rank = Rank.of(os.environ)
    if new and (rank is None or rank.local_rank == 0):
        names = new[0] if len(new) == 1 else f"{', '.join(new[:-1])} and {new[-1]}"
        print(f"{command}: loading {names}", file=sys.stderr, flush=True)
    for module in (module for package in packages for module in PACKAGES[package]):
        importlib.import_module(module)
    settle()


def settle() -> None:
    """To be called once all is imported: what is there stays, so no garbage collection looks through it again."""
    if not gc.isenabled():  # `begin` has turned it off
        gc.freeze()
        gc.enable()


def command_line() -> str:
    """This command as people type it."""
    words = sys.orig_argv[1:]
    if words[:2] == ["-m", "pipeline"] or (words[:1] == ["-m"] and words[1:2] and words[1].startswith("pipeline.")):
        words = ["pipeline", *words[1].split(".")[1:], *words[2:]]
    elif words and Path(words[0]).name == "pipeline":
        words[0] = "pipeline"
    else:
        words = ["python", *words]
    return shlex.join(words)


def run(main: Callable[..., object], *arguments: str) -> None:
    """What a module that Python is started with ends with."""
    global _ended_well
    main(*arguments)
    _ended_well = True


def _end() -> None:
    gc.freeze()
    if _ended_well:
        from pipeline.system.fork_server import exit_at_once

        exit_at_once(0)
