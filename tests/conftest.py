"""For all tests."""

from pathlib import Path

import pytest

import pipeline  # noqa: F401  before anything imports torch: it decides how torch's threads wait
from pipeline.tracking.database import DATABASE, ensure_database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, closed; made once, a test copies it."""
    root = tmp_path_factory.mktemp("empty_store")
    ensure_database(root)
    return root / DATABASE
