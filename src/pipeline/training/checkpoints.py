"""Checkpoints that a kill at any instant leaves readable: each file is whole or not there, and ends with its digest.

- last.ckpt and last-before.ckpt: to resume from; after each epoch, within a long one every so often, and on one device
  at a signal
- best.ckpt: the weights to keep, if they are not the last ones
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import TorchCheckpointIO

from pipeline.system.errors import PipelineError
from pipeline.system.resource_errors import is_memory

LAST, BEFORE, BEST = "last.ckpt", "last-before.ckpt", "best.ckpt"
MAX_SAVE_SHARE = 0.02  # of the time may go into saving within epochs
CHUNKS_BETWEEN_CHECKS = 8  # several processes agree that it is time to save; one looks at its clock for each chunk
_MARK = b"\nsha256:"
_TAIL_BYTES = len(_MARK) + 64

ZIP = b"PK\3\4"
# What torch.load raises for a file that is none of its own, by what the file pretends.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError,
              EOFError, OSError, MemoryError, OverflowError, struct.error)  # fmt: skip

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The training was asked to stop, and has saved what it takes to go on from there."""


# ---------------------------------------------------------------- files


class AtomicCheckpointIO(TorchCheckpointIO):
    """How Lightning writes and reads checkpoints. torch.load reads the files too: it looks past the digest."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """All or nothing. What last.ckpt was before becomes last-before.ckpt."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f"{target.name}.new")  # always the same name: a kill leaves one at most
        try:
            with open(new, "w+b") as file:
                _write(checkpoint, file)
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0, os.SEEK_END)
                file.write(_MARK + digest.encode())
                file.flush()
                os.fsync(file.fileno())
            if target.name == LAST and target.exists():
                target.replace(target.with_name(BEFORE))
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Raises PipelineError if the file is not what was written."""
        if not is_whole(Path(path)):
            raise PipelineError(f"{path} is damaged. Start the same command again: it goes on from an earlier one")
        return _read(Path(path), map_location=map_location)


def _write(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
    """Raises the OSError of a full disk, which torch hides behind where in its own code that was."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, file.name) from error
        raise


def is_whole(path: Path) -> bool:
    """Whether the file is there and is what was written."""
    try:
        size = path.stat().st_size - _TAIL_BYTES
        if size < 0:
            return False
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while size:
                part = file.read(min(size, 2**20))
                digest.update(part)
                size -= len(part)
            return file.read() == _MARK + digest.hexdigest().encode()
    except FileNotFoundError:
        return False


def _read(path: Path, **options: Any) -> dict[str, Any]:
    """What a whole file holds. A digest proves no author: nothing in it is run, whatever it says.

    Raises:
        PipelineError: torch makes no checkpoint of it.
    """
    with open(path, "rb") as file:
        start = file.read(len(ZIP))
    try:
        if start != ZIP:  # torch's old formats, which it never wrote here
            raise pickle.UnpicklingError(f"it starts with {start.hex(' ') or 'nothing'}")
        with warnings.catch_warnings(action="ignore"):  # torch's remarks on a foreign pickle
            loaded = torch.load(path, weights_only=True, **options)
    except UNREADABLE as error:
        if is_memory(error):
            raise PipelineError(f"{path} takes more memory to read than there is") from error
        reason = str(error).partition(".")[0][:200] or type(error).__name__
        raise PipelineError(f"{path} is no checkpoint of ours, and was not run: {reason}. Remove it") from error
    if not isinstance(loaded, dict):
        raise PipelineError(
            f"{path} is no checkpoint of ours: expected a dict, found {type(loaded).__name__}. Remove it"
        )
    return loaded


def candidates(work: Path) -> Iterator[Path]:
    """The checkpoints to resume from, the newest first; after `discard_damaged` the first one is whole."""
    return (path for path in (work / LAST, work / BEFORE) if path.exists())


def discard_damaged(work: Path, keeps_best: bool) -> None:
    """Remove, with a warning, what no training can resume from: all of it where the best epoch's weights are lost.

    Raises:
        PipelineError: a checkpoint takes more memory to read than there is. It stays.
    """
    for path in candidates(work):
        state = _state(path)
        if state is None:
            log.warning("%s is damaged: the training goes on from what was saved before it", path)
            path.unlink(missing_ok=True)  # another process may have been first
            continue
        if keeps_best and state["history"] and not is_whole(work / BEST):  # the best one was saved before
            log.warning(
                "%s is damaged or gone, and with it the best epoch so far: the training begins anew", work / BEST
            )
            for name in (LAST, BEFORE, BEST):
                (work / name).unlink(missing_ok=True)
        return


def _state(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None: it is damaged. Not by mmap, for which torch looks at no lengths."""
    try:
        state = _read(path, map_location="cpu") if is_whole(path) else {}
    except PipelineError as error:
        if error.__cause__ is not None and is_memory(error.__cause__):  # the file may be good: its digest is right
            raise
        return None
    return state if isinstance(state.get("history"), list) else None


# ---------------------------------------------------------------- within an epoch


class MidEpochCheckpoint(Callback):
    """Saves between two chunks of an epoch: when the last time is long ago, and when the training is to stop.

    Args:
        every_s: seconds between two times, more where saving takes long.
        stop_requested: asked before each chunk; with several processes the answer is theirs to give by ending.
    """

    def __init__(self, work: Path, every_s: float, stop_requested: Callable[[], bool]) -> None:
        self.path, self.every_s, self.stop_requested = work / LAST, every_s, stop_requested
        self._due_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._due_s = time.monotonic() + self.every_s

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        stop = trainer.world_size == 1 and self.stop_requested()
        mid_epoch = batch_idx > 0 and not trainer.is_last_batch  # else the epoch's own checkpoint is as good, or near
        if mid_epoch and (stop or self._is_due(trainer, batch_idx)):
            start_s = time.monotonic()
            trainer.save_checkpoint(self.path)
            end_s = time.monotonic()
            self._due_s = end_s + max(self.every_s, (end_s - start_s) / MAX_SAVE_SHARE)
        if stop and (mid_epoch or batch_idx == 0):
            raise Interrupted

    def _is_due(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        if trainer.world_size == 1:
            return time.monotonic() >= self._due_s
        if batch_idx % CHUNKS_BETWEEN_CHECKS:
            return False
        return trainer.strategy.reduce_boolean_decision(time.monotonic() >= self._due_s, all=False)


def rewind_to_chunk(loops: Mapping[str, Any]) -> dict[str, Any]:
    """Lightning's counters as they were before the chunk that is about to begin.

    Lightning counts a chunk as ready before `on_train_batch_start`, and would count it twice when it resumes.
    """
    fit_loop = dict(loops["fit_loop"])
    progress = dict(fit_loop["epoch_loop.batch_progress"])
    for scope in ("total", "current"):
        progress[scope] = {**progress[scope], "ready": progress[scope]["completed"]}
    return {**loops, "fit_loop": {**fit_loop, "epoch_loop.batch_progress": progress}}
