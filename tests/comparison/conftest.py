"""A store a test: the database is made once a session and copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.tracking import Store
from project_maker import mark_as_project


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "mlflow_artifacts").mkdir()
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    mark_as_project(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return Store(tmp_path)
