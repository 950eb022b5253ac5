"""Files that are there whole or not at all, and digests of what they hold."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, keys in the order given, all or nothing. NaN and infinity are refused: JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, all or nothing."""
    with atomic_file(path) as new:
        new.write_text(text, encoding="utf-8")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it becomes ``path`` if the block ends well and vanishes if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(path)
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``; it takes the place of ``path`` if the block ends well and vanishes if not.

    For one writer at a time.
    """
    for left in path.parent.glob(f".{path.name}.*.new"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    new = _beside(path)
    new.mkdir(parents=True)
    try:
        yield new
        old = _beside(path)
        if path.exists():
            path.replace(old)
        new.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A new name in the same folder, so that a rename stays on one disk."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
