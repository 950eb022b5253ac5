"""dvc.yaml, conf/ and the code say the same."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.config import schema
from pipeline.config.check import valid_keys
from pipeline.config.compose import compose_yaml
from pipeline.runtime.stage_runner import UNWATCHED

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
VIEWS = {
    "download": schema.DownloadConfig,
    "preprocess": schema.PreprocessConfig,
    "train": schema.TrainConfig,
    "evaluate": schema.EvaluateConfig,
}
# How a stage is started, configured and recorded; no line of it changes what a stage computes.
PLUMBING = (
    "pipeline.cli",
    "pipeline.runtime",
    "pipeline.config",
    "pipeline.tracking",
    "pipeline.registry",
    "pipeline.sweeps",
    "pipeline.system.errors",
    "pipeline.system.exit_codes",
    "pipeline.system.fork_client",
    "pipeline.system.fork_server",
)


def imported_files(stage: str) -> set[str]:
    """Files of ours that a stage imports, at its head or inside functions, and those that they import in turn."""
    todo, files = [f"pipeline.{stage}"], set()
    while todo:
        file = source_of(name := todo.pop())
        if file is not None and file not in files and not is_plumbing(name):
            files.add(file)
            todo += imports_of(file)
    return {str(file.relative_to(ROOT)) for file in files}


def is_plumbing(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in PLUMBING)


def source_of(module: str) -> Path | None:
    """The file of a module of ours; None for anything else, such as a function's name."""
    path = ROOT / "src" / module.replace(".", "/")
    candidates = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in candidates if module.startswith("pipeline.") and file.is_file()), None)


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("stage", VIEWS)
def test_deps_cover_the_files_that_a_stage_imports(stage: str) -> None:
    """An edit of any of them runs the stage again; nothing is listed of which a stage imports no file."""
    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}
    covers = {
        file: next((dep for dep in listed if file == dep or file.startswith(f"{dep}/")), None)
        for file in imported_files(stage)
    }

    assert {file for file, dep in covers.items() if dep is None} == set()
    assert set(covers.values()) == listed


@pytest.mark.parametrize("stage", VIEWS)
def test_params_are_exactly_what_a_stage_reads(stage: str) -> None:
    """A stage's typed view has the keys under `params:` and the unwatched ones, no more and no fewer."""
    watched = set(STAGES[stage].get("params", []))
    readable = {key for key in valid_keys(VIEWS[stage]) if not any(key.startswith(f"{w}.") for w in watched)}
    groups = {key for key in readable if any(other.startswith(f"{key}.") for other in readable)}

    leaves = {key for key in readable - groups if not key.startswith(UNWATCHED)}
    assert leaves == watched


def test_params_yaml_is_the_composition_of_conf() -> None:
    """What is committed is what conf/ says; a promoted experiment belongs in conf/experiment/."""
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == compose_yaml(ROOT / "conf")


def test_no_setting_is_templated_into_dvc_yaml() -> None:
    """DVC resolves ${…} before configure runs, so it would be stale by one run."""
    assert "${" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")


def digest(path: Path) -> str:
    """As DVC has it: of a folder the MD5 of a list of its files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    entries = [{"md5": digest(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest() + ".dir"


def test_dvc_lock_was_written_by_the_code_that_is_here() -> None:
    """Else a fresh clone runs stages again for nothing and ends with a changed dvc.lock."""
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    locked = {
        dep["path"]: dep["md5"] for stage in stages.values() for dep in stage["deps"] if dep["path"].startswith("src/")
    }
    here = {path: digest(ROOT / path) for path in locked}

    assert here == locked
