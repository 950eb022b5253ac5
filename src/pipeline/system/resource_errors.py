"""What of disk or memory an error says was missing, where, and what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pipeline.system.errors import PipelineError

NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
           errno.EFBIG: "the largest file size is reached"}  # fmt: skip
NOT_WRITABLE = {errno.EROFS: "the folder is read-only", errno.EACCES: "no permission"}
SQLITE = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS}
NO_MEMORY = "can't allocate memory|out of memory|failed to map segment|Cannot allocate memory"
LOWER = {
    "download": "Choose smaller data (data=…)",
    "preprocess": "Give data with fewer or smaller samples",
    "train": "Lower model.units or trainer.batch_size",
    "evaluate": "Evaluate a model with smaller model.units",
}


def shortage(error: BaseException, stage: str) -> str | None:
    """What of disk or memory was missing, where, and what to do; None: the error is about something else.

    Libraries wrap the reason: SQLite's "disk is full" is behind errors of SQLAlchemy and MLflow.
    """
    for reason in _reasons(error):
        if is_memory(reason):
            damaged = isinstance(error, PipelineError) and not isinstance(reason, OSError)  # then it can ask for any
            prefix = f"{error}. If it is whole: " if damaged else ""
            return prefix + _no_memory(str(reason), stage)
        number = _number(reason)
        if isinstance(reason, sqlite3.Error) and number:
            return _no_room(number, Path("mlflow.db"))
        if isinstance(reason, OSError) and (number in NO_ROOM or (reason is error and number in NOT_WRITABLE)):
            return _no_room(number, Path(os.fsdecode(reason.filename2 or reason.filename or Path.cwd())))
    return None


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int:
    """As in errno; 0: none that is known here."""
    if isinstance(error, sqlite3.Error):
        return SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, 0)  # the higher bits are details
    return (isinstance(error, OSError) and error.errno) or 0


def _no_room(number: int, place: Path) -> str:
    if number in NO_ROOM:
        disk = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        problem, step = NO_ROOM[number], "Make room there"
        found = f"{shutil.disk_usage(disk).free / 1e6:.1f} MB free"
    else:
        problem, step = NOT_WRITABLE[number], "Make it writable"
        found = "a read-only disk" if number == errno.EROFS else f"that user {os.geteuid()} may not"
    under_dvc = "DVC_STAGE" in os.environ  # then DVC has removed the outputs before the stage began
    before = "`dvc checkout` brings back the outputs of before" if under_dvc else "what was there before is intact"
    text = f"{problem}: {place}: expected to write there, found {found}. {step}, then start the same command again"
    return f"{text}; {before}"


def is_memory(error: BaseException) -> bool:
    """torch has a RuntimeError for it, and the loader of shared libraries an ImportError."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    worded = isinstance(error, (RuntimeError, ImportError)) and re.search(NO_MEMORY, str(error))
    return isinstance(error, MemoryError) or bool(worded)


def _no_memory(text: str, stage: str) -> str:
    requested = re.search(r"allocate (\d[\d.]* ?\w+)", text)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if "CUDA" in text:
        found = "less than that free on the GPU"
    elif limit != resource.RLIM_INFINITY:
        found = f"a limit of {limit / 1e6:,.0f} MB for the process (ulimit -v)"
    else:
        found = f"too little of {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e6:,.0f} MB"
    step = LOWER.get(stage, "Choose less")
    return (
        f"the memory is used up: expected {requested[1] if requested else 'some'} more, found {found}. {step}, or "
        "start the same command again with more memory"
    )
