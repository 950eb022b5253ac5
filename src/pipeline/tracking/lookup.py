"""The sweeps that were recorded, found by what people call them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.system.errors import ConfigError
from pipeline.tracking import RunRow, Store

ID_TAG, ROLE_TAG, COMMAND_TAG = "sweep.id", "sweep.role", "sweep.command"
PARENT = "parent"  # the role of a sweep's own run


def sweeps(store: Store, identity: str | None = None) -> list[RunRow]:
    """The sweeps' own runs, newest first; with an identity those of it alone. Looking for them makes no store."""
    also = "" if identity is None else f" and tags.`{ID_TAG}` = '{identity}'"
    return store.rows(f"tags.`{ROLE_TAG}` = '{PARENT}'{also}") if store.exists else []


def called(found: Sequence[RunRow], name: str) -> RunRow | None:
    """The newest of the sweeps with this id, or the one whose run's id begins so.

    Raises:
        ConfigError: several begin so.
    """
    if exact := [row for row in found if row.tags[ID_TAG] == name]:
        return exact[0]
    alike = [row for row in found if row.run_id.startswith(name)]
    if len(alike) > 1:
        raise ConfigError(f"{name}: {len(alike)} sweeps begin so: {newest_in_words(alike)}. Give more of the id")
    return alike[0] if alike else None


def newest_in_words(found: Sequence[RunRow], count: int = 5) -> str:
    """`s1a2b3c4d5e6 (2026-11-23 09:41, sweep units × seed), …`."""
    return ", ".join(f"{row.tags[ID_TAG]} ({when(row)}, {row.name})" for row in found[:count]) or "none"


def when(row: RunRow) -> str:
    return f"{datetime.fromtimestamp(row.start_ms / 1000):%Y-%m-%d %H:%M}"
