"""How much is tried: what each change is tested by (.ci/run), or all of it (make test-all).

A test that is marked `long` runs in make test-all alone: a further case, or a rarer ending, of what another test holds
in .ci/run. docs/reliability.md names those of its rows.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import pytest

ALL = os.environ.get("PIPELINE_TESTS") == "all"
# Of random cases: others each day, but the same for each change. One of another day is tried again by this variable.
SEED = int(os.environ.setdefault("PIPELINE_TESTS_SEED", str(datetime.now(UTC).toordinal() if ALL else 0)))


def long(*values: Any) -> Any:
    """A case of a parametrized test that make test-all alone tries."""
    return pytest.param(*values, marks=pytest.mark.long)


def number(each_change: int, everything: int) -> int:
    return everything if ALL else each_change
