"""A person's own files, as they are now: DVC watches this instead of a folder that may lie anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.system.files import read_json, sha256_of_json

STATE_FILE = "data/own.json"


def user_data_state(path: str | None, root: Path) -> dict[str, Any]:
    """What tells a changed folder or file from an unchanged one: names, sizes and times of change, not the content.

    Args:
        path: relative to `root`; null for data that is nobody's own.
    """
    if path is None:
        return {"path": None}
    place = root / path
    files = (
        [place] if place.is_file() else [Path(folder, name) for folder, _, names in os.walk(place) for name in names]
    )
    facts = sorted((str(file.relative_to(place)), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return {"path": path, "num_files": len(facts), "state": sha256_of_json(facts)}


def recheck_user_data(root: Path) -> None:
    """Have DVC look at a person's own files when it runs next, whether a setting has changed by then or not."""
    state = root / STATE_FILE
    if state.exists() and read_json(state)["path"] is not None:
        state.unlink()
