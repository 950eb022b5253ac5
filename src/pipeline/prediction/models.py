"""The network that is meant by a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.subjects import Subjects
from pipeline.model import DESCRIPTION
from pipeline.model.portable import Portable, load_model
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load
from pipeline.tracking import Store


@dataclass(frozen=True)
class Found:
    """A network and where it comes from."""

    model: Portable
    what: str


def find_model(root: Path, asked: str | None, command: str) -> Found:
    """@champion (NAME@champion where several have one), a run (its name, or the beginning of its id), or a folder.

    Nothing asked for: the champion, where there is one, else models/.

    Args:
        command: which has loaded torch; it says when MLflow is loaded, to look for a run.

    Raises:
        ConfigError: nothing is called so, or several things are.
        PipelineError: it has no model that can be read.
    """
    store = Store(root)
    if asked is None:
        asked = f"@{CHAMPION}" if _has_champion(store) else str(root / "models")
    if asked.endswith(f"@{CHAMPION}"):
        version = Registry(store).resolve(asked)
        if version.run_id is None or not store.run_exists(version.run_id):
            raise ConfigError(f"{version} has no run in the store: its files cannot be found. Give a run or a folder")
        return _in(store.artifacts(version.run_id) / "dvc", f"{version}, @{CHAMPION}")
    for folder in (Path(asked), root / asked):
        if (folder / DESCRIPTION).exists():
            return _in(folder, str(folder))
    load(command, "MLflow")
    row = Subjects(root, store).run_called(asked)
    if row is None:
        raise ConfigError(
            f"model={asked}: nothing is called so. Expected @{CHAMPION}, a run (its name, or the beginning of its id), "
            f"or a folder with {DESCRIPTION}"
        )
    return _in(store.artifacts(row.run_id) / "dvc", f"run {row.run_id[:8]} ({row.name})")


def _has_champion(store: Store) -> bool:
    registry = Registry(store)
    return any(registry.champion(name) for name in registry.names())


def _in(folder: Path, what: str) -> Found:
    return Found(load_model(folder), what)
