"""How a command ends: one message and an exit code for what a user can cause, a traceback for a fault of ours."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.system.errors import PipelineError
from pipeline.system.processes import Rank, mute_errors_off_rank_zero
from pipeline.system.resource_errors import shortage

MULTIRUN = ({"-m"}, {"--multirun"})


def _drop(record: logging.LogRecord) -> bool:
    """For a logger that prints the traceback of each error that it raises. Hydra undoes a level and `disabled`."""
    return False


@contextmanager
def explained(stage: str, how_it_goes_on: str | None = None) -> Iterator[None]:
    """What a user can cause ends with one message and its exit code; a fault of ours keeps its traceback.

    how_it_goes_on: what to do after an interruption; None: as its command line says.
    """
    logging.getLogger("mlflow.store.db.utils").addFilter(_drop)
    rank = Rank.of(os.environ)
    first = rank is None or rank.local_rank == 0
    try:
        yield
    except PipelineError as error:
        mute_errors_off_rank_zero(rank)
        _fail(stage, shortage(error, stage) or str(error), error.exit_code)
    except KeyboardInterrupt:
        if first:
            _fail(stage, "interrupted", 130)
        sys.exit(130)
    except SystemExit as error:
        if first and error.code in (130, 143):
            next_step = _how_it_goes_on(stage) if how_it_goes_on is None else how_it_goes_on
            print(f"{stage}: interrupted{next_step}", file=sys.stderr)
        raise
    except Exception as error:
        message, exit_code = _foreign_message(error, stage)
        if not message:
            raise
        _fail(stage, message, exit_code)


def _how_it_goes_on(stage: str) -> str:
    if os.environ.get("DVC_STAGE") == stage:
        return "; the same dvc command goes on from here"
    if stage != "train":
        return ""
    if any(switches <= set(sys.argv) for switches in MULTIRUN):
        return "; the same command goes on with this sweep"
    return "; by hand the same command starts anew, under DVC it goes on"


def _foreign_message(error: Exception, stage: str) -> tuple[str, int]:
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
