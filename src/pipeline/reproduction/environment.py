"""What a run was made with beside code, data and settings."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.runtime.origin import THREADS_TAG
from pipeline.tracking import RunRow, provenance


def environment(row: RunRow, root: Path) -> tuple[bool, str]:
    """Versions, processor and threads, then and now: whether they are the same, and in words.

    Others need not give other bits.
    """
    now = provenance(root).tags
    names = [name for name in row.tags if name.startswith("version.") or name == "machine.cpu"]
    other = [
        f"{name.partition('.')[2]} {row.tags[name]}, now {now[name]}"
        for name in names
        if now.get(name) != row.tags[name]
    ]
    threads, cores = int(row.tags.get(THREADS_TAG, 1)), os.cpu_count() or 1
    if threads > cores:
        other.append(f"threads {threads}, now {cores}")
    return not other, "; ".join(other) or "the same versions and processor"


def same_threads(row: RunRow) -> dict[str, str]:
    """Environment variables with which a training has as many threads as the run had."""
    return {"OMP_NUM_THREADS": row.tags[THREADS_TAG]} if THREADS_TAG in row.tags else {}
