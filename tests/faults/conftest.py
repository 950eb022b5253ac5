"""One project for all tests of this folder, made and run once."""

from __future__ import annotations

import pytest

from project_maker import Project, make_project


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With data to train on and nothing trained."""
    project = make_project(tmp_path_factory.mktemp("prepared") / "work")
    project.run("dvc", "repro", "preprocess")
    return project
