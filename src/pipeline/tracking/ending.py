"""What an exception that leaves a run means for its status."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pipeline.errors import ProcessLost

INTERRUPTED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


@dataclass(frozen=True)
class Ending:
    """How a run ends: MLflow's status, the reason where there is one, the exit code where a signal decides it."""

    status: str
    reason: str = ""
    exit_code: int | None = None

    @classmethod
    def of(cls, error: BaseException, caught: int | None) -> Ending:
        """The ending for an exception that left the block, ``caught`` being the signal behind it."""
        if caught is None and isinstance(error, KeyboardInterrupt):
            caught = signal.SIGINT
        if caught is None and isinstance(error, SystemExit) and error.code in INTERRUPTED:  # of a run within this one
            caught = int(error.code) - 128
        if caught is not None and not isinstance(error, ProcessLost):
            return cls("KILLED", signal.Signals(caught).name, 128 + caught)
        if isinstance(error, SystemExit) and not error.code:
            return cls("FINISHED")
        return cls("FAILED", f"{type(error).__name__}: {error}")
