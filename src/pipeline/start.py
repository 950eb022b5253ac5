"""What `python -m pipeline.NAME` does before it imports anything else of the project, and after all else."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Callable

_ended_well = False


def begin() -> None:
    """Have a warm process do the work, if there shall be one; else make imports here quick.

    The garbage collector is off until what does the work is imported (`pipeline.command.settle` turns it on again): a
    sixth of that time. Its look through everything at Python's end, 2 s with torch, Lightning and MLflow, is left out.
    """
    is_fork = os.environ.pop("PIPELINE_WARM_FORK", None) == str(os.getpid())  # forks.server.FORK
    if not is_fork and os.environ.get("PIPELINE_WARM"):
        from pipeline.forks.client import hand_over

        hand_over()
    gc.disable()
    if not is_fork:  # which the warm process ends in the same way
        atexit.register(_end)  # before all others: it is called after them


def run(main: Callable[[], object]) -> None:
    """What the module that is started as `python -m pipeline.NAME` ends with."""
    global _ended_well
    main()
    _ended_well = True


def _end() -> None:
    gc.freeze()
    if _ended_well:
        from pipeline.forks.server import leave

        leave(0)
