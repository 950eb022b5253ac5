"""File locks that the kernel drops on any death of their holder: no pid to compare, nothing to time out."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIVE = Path(".pipeline", "live")  # below the project root; one locked file for each run that is being written


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the file ``path`` locked; it is made if missing, with its folder.

    Raises:
        BlockingIOError: ``wait`` is False and another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:  # else removed while we waited
                yield
                return


@contextmanager
def alive(root: Path) -> Iterator[str]:
    """A token that counts as alive until the block ends or the process dies, however it dies."""
    token = uuid.uuid4().hex
    with locked(root / LIVE / token):
        yield token
        (root / LIVE / token).unlink(missing_ok=True)


def is_alive(root: Path, token: str) -> bool:
    """Whether a process holds the token. Asking leaves no file behind."""
    if not (root / LIVE / token).exists():
        return False
    try:
        with locked(root / LIVE / token, wait=False):
            return False
    except BlockingIOError:
        return True


def tokens(root: Path) -> list[str]:
    """Every token with a file, alive or left behind by a process that died."""
    return sorted(path.name for path in (root / LIVE).glob("*"))


def forget(root: Path, token: str) -> None:
    """Remove the file of a dead token."""
    (root / LIVE / token).unlink(missing_ok=True)
