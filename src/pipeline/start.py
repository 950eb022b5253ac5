"""What `python -m pipeline.NAME` does before it imports anything else of the project."""

from __future__ import annotations

import atexit
import gc
import os


def begin() -> None:
    """Have a warm process do the work, if there shall be one; else make imports here quick.

    The garbage collector is off until what does the work is imported (`pipeline.command.settle` turns it on again): a
    sixth of that time. Its look through everything at Python's end, 2 s with torch, Lightning and MLflow, is left out.
    """
    if os.environ.get("PIPELINE_WARM"):
        from pipeline.forks.client import hand_over

        hand_over()
    gc.disable()
    atexit.register(gc.freeze)
