"""One project for all tests of this folder: made and run once, put back after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from project_maker import Project, make_project


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which the pipeline has run once and its results are committed."""
    project = make_project(tmp_path_factory.mktemp("project") / "work")
    project.repro()
    project.commit_all("results")
    return project


@pytest.fixture
def project(ready: Project) -> Iterator[Project]:
    """The ready project, put back after each test."""
    before = ready.outputs()
    yield ready
    ready.back_to_commit(before)
