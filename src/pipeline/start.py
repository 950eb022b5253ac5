"""What `python -m pipeline.NAME` does before it imports anything else of the project, and after all else."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence

_ended_well = False


def begin() -> None:
    """Have a warm process do the work, if there shall be one; else make imports here quick.

    The garbage collector is off until what does the work is imported (`pipeline.command.settle` turns it on again): a
    sixth of that time. Its look through everything at Python's end, 2 s with torch, Lightning and MLflow, is left out.
    """
    module = started_module(sys.orig_argv)
    if module.partition(".")[0] != "pipeline":  # somebody else's, which imports this package
        return
    is_fork = os.environ.pop("PIPELINE_WARM_FORK", None) == str(os.getpid())  # forks.server.FORK
    if not is_fork:  # which the warm process ends in the same way
        atexit.register(_end)  # before what is imported registers its own: it is called after that
        if os.environ.get("PIPELINE_WARM", "0") not in ("", "0"):
            from pipeline.forks.client import hand_over

            hand_over(module)
    gc.disable()


def started_module(words: Sequence[str]) -> str:
    """What `python -m MODULE …` names, as `-mMODULE` and among Python's other options too."""
    options = iter(words[1:])
    for option in options:
        if option[:2] in ("-X", "-W"):
            if len(option) == 2:
                next(options, "")
        elif not option.startswith("--") and "m" in option:
            return option.partition("m")[2] or next(options, "")
    return ""


def run(main: Callable[[], object]) -> None:
    """What the module that is started as `python -m pipeline.NAME` ends with."""
    global _ended_well
    main()
    _ended_well = True


def _end() -> None:
    gc.freeze()
    if _ended_well:
        from pipeline.forks.server import end_now

        end_now(0)
