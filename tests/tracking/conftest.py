"""The project is a folder within the test's, so that a test can move it, or work beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pipeline
from pipeline.tracking import Store
from pipeline.tracking.database import DATABASE
from project_maker import mark_as_project

SOURCES = Path(pipeline.__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with an empty store, as DVC would announce it."""
    root = tmp_path / "project"
    (root / "mlflow_artifacts").mkdir(parents=True)
    shutil.copy(empty_database, root / DATABASE)
    mark_as_project(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    return root


@pytest.fixture
def store(project: Path) -> Store:
    return Store(project)


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script in a fresh Python that finds our sources, output in pipes; what a failed test leaves is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str | Path, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(SOURCES), **environment}
        command = [sys.executable, *map(str, words)]
        process = subprocess.Popen(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)
