"""The lock files name every file by its hash, but torch's, and are what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project_maker import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENTRY = re.compile(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)


def locked(file: str) -> dict[str, str]:
    """Name -> version of all that is there with a hash."""
    return {name: version for name, version, _ in ENTRY.findall((ROOT / file).read_text(encoding="utf-8"))}


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-peers.lock"])
def test_every_package_has_a_version_and_a_hash(file: str) -> None:
    names = re.findall(r"^([^\s#=]+)", (ROOT / file).read_text(encoding="utf-8"), re.M)

    assert list(locked(file)) == names


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        (PROJECT["dependencies"], ["requirements.lock", "requirements-torch.lock"]),
        *((EXTRAS[extra], ["requirements.lock"]) for extra in EXTRAS if extra != "peers"),
        (EXTRAS["peers"], ["requirements-peers.lock"]),
    ],
    ids=["project", *(extra for extra in EXTRAS if extra != "peers"), "peers"],
)
def test_the_locked_versions_lie_in_the_ranges(asked: list[str], files: list[str]) -> None:
    """After an edit of the ranges: `make lock`."""
    versions = {name: version for file in files for name, version in (locked(file) or torch_alone()).items()}
    wanted = [Requirement(text) for text in asked]

    assert [str(one) for one in wanted if versions.get(canonicalize_name(one.name), "none") not in one.specifier] == []


def torch_alone() -> dict[str, str]:
    """The file that has no hash, because the index chooses the build."""
    name, _, version = (ROOT / "requirements-torch.lock").read_text(encoding="utf-8").strip().partition("==")
    return {name: version}


def test_torch_has_a_version_and_no_hash() -> None:
    """A hash would be that of one index's build; in the same file pip would ask for one."""
    assert [f"torch=={version}" for version in torch_alone().values()] == [
        text for text in PROJECT["dependencies"] if Requirement(text).name == "torch"
    ]
    assert "torch" not in locked("requirements.lock")


def test_the_peers_lock_adds_and_changes_nothing() -> None:
    assert set(locked("requirements-peers.lock")) & {"torch", *locked("requirements.lock")} == set()
