"""Files that are there whole or not at all, and digests of what they hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
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
    """Raises ValueError for what is no JSON, or JSON nested so deeply that Python gives up."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_yaml(path: Path) -> Any:
    return parse_yaml(path.read_text(encoding="utf-8"))


def parse_yaml(text: str) -> Any:
    """By the C parser where there is one: dvc.lock takes 60 ms without."""
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


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
    with _errors_named(path, _beside(path)) as new:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
    with _errors_named(path, _beside(path)) as new:
        try:
            new.mkdir(parents=True)
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


@contextmanager
def _errors_named(path: Path, new: Path) -> Iterator[Path]:
    """Errors of writing to ``new`` name ``path``, which is what people know."""
    try:
        yield new
    except OSError as error:
        if re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # NumPy's message about a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        named = error.filename2 or error.filename
        within = named is not None and Path(os.fsdecode(named)).is_relative_to(new)
        if within or (named is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            error.filename, error.filename2 = str(path), None
        raise
