"""How much is tried: what each change is tested by (.ci/run), or all of it (make test-all).

A test that is marked `long` runs in make test-all alone: a further case of what another test holds in .ci/run.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import pytest

ALL = os.environ.get("PIPELINE_TESTS") == "all"
SEED = datetime.now(UTC).toordinal() if ALL else 0  # of random cases: others each day, but the same for each change


def long(*values: Any) -> Any:
    """A case of a parametrized test that make test-all alone tries."""
    return pytest.param(*values, marks=pytest.mark.long)


def number(each_change: int, everything: int) -> int:
    return everything if ALL else each_change
