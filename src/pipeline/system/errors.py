"""What a user can cause, with the exit code that scripts and clusters see.

0 done, 1 a failure explained in one message, 2 a mistake in the configuration, 130 and 143 interrupted.
"""

from __future__ import annotations

from typing import Any


class PipelineError(Exception):
    """A failure whose message says what, where, expected, found and the next step. No traceback is shown."""

    exit_code = 1


class ConfigError(PipelineError):
    """The configuration cannot mean anything: a wrong key, type or pair. Raised before any data is read."""

    exit_code = 2


class ProcessLost(PipelineError):
    """Another process of the training has ended, so this one cannot go on. Its run FAILED, though it may be sent a
    SIGTERM on top: torchrun ends all processes when one has ended.
    """

    exit_code = 3  # what started the processes looks for one with another code


class Diverged(PipelineError):
    """A loss or a weight is no finite number any more, so nothing good can come."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details  # step, epoch, lr, samples: for failure/diverged.json


class DownloadError(PipelineError):
    """No source gave the bytes that were asked for."""


class DataContractError(PipelineError):
    """The data is not what the pipeline can train on. Nothing was written."""
