"""A person's own files, as they are now: DVC watches this instead of a folder that may lie anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.files import sha256_of_json


def own_data(path: str | None, root: Path) -> dict[str, Any]:
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
