"""What the forge runs is there, and may do no more than it must."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from project_maker import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def read(path: Path) -> dict[Any, Any]:
    """YAML takes the key `on` for true."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


CALLS = [(path.name, step["run"]) for path in WORKFLOWS for step in steps(path) if "run" in step]


@pytest.mark.parametrize(("workflow", "command"), CALLS, ids=lambda word: word)
def test_what_a_workflow_runs_is_there(workflow: str, command: str) -> None:
    program, *words = command.split()
    if program == "make":
        assert set(words) <= set(TARGETS)
    elif program != "git":
        assert os.access(ROOT / program, os.X_OK)


def test_a_change_and_a_night_are_tested() -> None:
    ci, nightly = (read(ROOT / f".github/workflows/{name}.yml") for name in ("ci", "nightly"))

    assert {"push", "pull_request"} == set(ci[True])
    assert {"schedule", "workflow_dispatch"} == set(nightly[True])
    assert ("ci.yml", ".ci/run") in CALLS
    assert ("nightly.yml", "make test-all") in CALLS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_ends_in_time(path: Path) -> None:
    workflow = read(path)

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] > 0 for job in workflow["jobs"].values())
    assert all("permissions" not in job for job in workflow["jobs"].values())


def test_actions_are_the_forge_s_own_of_a_named_version() -> None:
    used = [step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step]

    assert used
    assert [action for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", action)] == []


def test_the_cache_follows_the_locks() -> None:
    keys = [
        step["with"]["key"] for path in WORKFLOWS for step in steps(path) if "actions/cache" in step.get("uses", "")
    ]

    assert keys
    assert all("hashFiles('requirements*.lock')" in key for key in keys)


def test_the_bot_leaves_torch_and_comes_weekly() -> None:
    updates = {update["package-ecosystem"]: update for update in read(ROOT / ".github/dependabot.yml")["updates"]}

    assert set(updates) == {"pip", "github-actions"}
    assert {update["schedule"]["interval"] for update in updates.values()} == {"weekly"}
    assert "torch" in [ignored["dependency-name"] for ignored in updates["pip"]["ignore"]]
