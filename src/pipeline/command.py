"""How a command starts and ends: arguments before imports, one message and an exit code for what a user can cause.

Nothing heavy is imported here, nor at the head of any module that is started as `python -m pipeline.NAME`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import PipelineError
from pipeline.processes import Rank, leave_the_word_to_the_first
from pipeline.shortage import shortage

MULTIRUN = ({"-m"}, {"--multirun"})
# What is slow to import, by the names that people know. Modules of MLflow's that opening a store imports are with it.
PACKAGES = {
    "torch": ("torch",),
    "Lightning": ("pytorch_lightning",),
    "MLflow": ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "sqlalchemy.dialects.sqlite"),
}


def described(command: str, description: str | None) -> argparse.ArgumentParser:
    """description: the docstring of the command's module, as it is."""
    return argparse.ArgumentParser(
        prog=f"python -m pipeline.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def load(command: str, *packages: str) -> None:
    """Import what the work needs, once the arguments are known to be right, and say what takes the time.

    packages: names of PACKAGES.
    """
    new = [package for package in packages if PACKAGES[package][0] not in sys.modules]
    rank = Rank.of(os.environ)
    if new and (rank is None or rank.local == 0):
        names = new[0] if len(new) == 1 else f"{', '.join(new[:-1])} and {new[-1]}"
        print(f"{command}: loading {names}", file=sys.stderr, flush=True)
    if "MLflow" in packages:
        importlib.import_module("pipeline.tracking")  # before it: turns its reports of usage off
    for module in (module for package in packages for module in PACKAGES[package]):
        importlib.import_module(module)
    settle()


def settle() -> None:
    """To be called once all is imported: what is there stays, so no garbage collection looks through it again."""
    if not gc.isenabled():  # `pipeline.start` has turned it off
        gc.freeze()
        gc.enable()


def _nothing(record: logging.LogRecord) -> bool:
    """For a logger that prints the traceback of each error that it raises. Hydra undoes a level and `disabled`."""
    return False


@contextmanager
def explained(stage: str, how_it_goes_on: str | None = None) -> Iterator[None]:
    """What a user can cause ends with one message and its exit code; a fault of ours keeps its traceback.

    how_it_goes_on: after an interruption, in words; None: as its command line says.
    """
    logging.getLogger("mlflow.store.db.utils").addFilter(_nothing)
    rank = Rank.of(os.environ)
    first = rank is None or rank.local == 0
    try:
        yield
    except PipelineError as error:
        leave_the_word_to_the_first(rank)
        _fail(stage, shortage(error, stage) or str(error), error.exit_code)
    except KeyboardInterrupt:
        if first:
            _fail(stage, "interrupted", 130)
        sys.exit(130)
    except SystemExit as error:
        if first and error.code in (130, 143):
            words = _how_it_goes_on(stage) if how_it_goes_on is None else how_it_goes_on
            print(f"{stage}: interrupted{words}", file=sys.stderr)
        raise
    except Exception as error:
        message, exit_code = _known(error, stage)
        if not message:
            raise
        _fail(stage, message, exit_code)


def _how_it_goes_on(stage: str) -> str:
    if os.environ.get("DVC_STAGE") == stage:
        return "; the same dvc command goes on from here"
    if stage != "train":
        return ""
    if any(words <= set(sys.argv) for words in MULTIRUN):
        return "; the same command goes on with this sweep"
    return "; by hand the same command starts anew, under DVC it goes on"


def _known(error: Exception, stage: str) -> tuple[str, int]:
    """Message and exit code of a foreign error that a user can cause; no message if it is none of them."""
    if message := shortage(error, stage):
        return message, 1
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} is no setting: expected KEY=VALUE or GROUP=NAME. In a shell, quote what has spaces or "
            f"special signs: 'model.units=[512, 256]'. Hydra says: {str(error).partition(chr(10))[0]}"
        ), 2
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return str(error), 2
    return "", 1


def _fail(stage: str, message: str, exit_code: int) -> None:
    print(f"{stage}: error: {message}", file=sys.stderr)
    sys.exit(exit_code)
