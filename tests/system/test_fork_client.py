"""What a warm process is started with, and what another one is needed for."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.system import fork_client

CHOICES = {"MLFLOW_DISABLE_TELEMETRY": "false", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}


def test_a_warm_process_has_the_users_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    class Process:
        pid, returncode = 1, None

        def __init__(self, _: list[str], env: dict[str, str], **options: Any) -> None:
            started.append(env)

    for name, value in CHOICES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(subprocess, "Popen", Process)
    fork_client.start(str(tmp_path / "socket"))

    assert [{name: environment[name] for name in CHOICES} for environment in started] == [CHOICES]


@pytest.mark.parametrize("name", ["MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"])
def test_another_choice_about_reports_of_usage_needs_another_process(name: str) -> None:
    """MLflow reads it when it is imported."""
    assert fork_client.read_at_import({name: "true", "MLFLOW_TRACKING_URI": "http://runs"}) == {name: "true"}
