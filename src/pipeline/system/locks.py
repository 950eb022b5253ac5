"""Locks that the kernel drops on any death of their holder: no pid to compare, nothing to time out.

Why not by the package filelock: docs/decisions/0021-locks-by-flock.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.system.errors import PipelineError

LIVE = Path(".pipeline", "live")  # below the project root; one locked file for each run that is being written


class LockHeld(PipelineError):
    """Another process holds a lock that is not waited for."""


@contextmanager
def locked(
    path: Path, *, wait: bool = True, on_wait: Callable[[], None] | None = None, busy: str = ""
) -> Iterator[None]:
    """Hold the file ``path`` locked; it is made if missing, with its folder.

    Args:
        on_wait: called once if another process holds it, before that is waited for.
        busy: the message of the error.

    Raises:
        LockHeld: ``wait`` is False and another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a") as file:
            if not _take(file.fileno()):
                if not wait:
                    raise LockHeld(busy or f"{path} is locked by another process")
                if on_wait:
                    on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:  # else removed while we waited
                yield
                return


@contextmanager
def locked_folder(folder: Path, *, busy: str) -> Iterator[None]:
    """Hold a folder locked by itself: nothing is left in it.

    Raises:
        LockHeld: another process holds it; `busy` is the message.
    """
    number = os.open(folder, os.O_RDONLY)
    try:
        try:
            is_taken = _take(number)
        except OSError as error:  # NFS locks nothing that is not open for writing, as no folder is
            if error.errno != errno.EBADF:
                raise
            is_taken = True
        if not is_taken:
            raise LockHeld(busy)
        yield
    finally:
        os.close(number)


def _take(number: int) -> bool:
    """Lock an open file, unless another process has."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alive(root: Path) -> Iterator[str]:
    """A token that counts as alive until the block ends or the process dies, however it dies."""
    token = uuid.uuid4().hex
    with locked(root / LIVE / token):
        yield token
        forget(root, token)


def is_alive(root: Path, token: str) -> bool:
    """Whether a process holds the token. Asking leaves no file behind."""
    if not (root / LIVE / token).exists():
        return False
    try:
        with locked(root / LIVE / token, wait=False):
            return False
    except LockHeld:
        return True


def tokens(root: Path) -> list[str]:
    """Every token with a file, alive or left behind by a process that died."""
    return sorted(path.name for path in (root / LIVE).glob("*"))


def forget(root: Path, token: str) -> None:
    """Remove the file of a dead token."""
    (root / LIVE / token).unlink(missing_ok=True)
