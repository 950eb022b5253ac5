"""The network that is meant by a name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.comparison.subjects import revision_models
from pipeline.model.portable import TrainedModel, load_model
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load
from pipeline.tracking import Store
from pipeline.tracking.database import Version
from pipeline.tracking.lookup import (
    CHAMPION,
    NAMES,
    ModelFolder,
    Revision,
    Sweep,
    TrainedRun,
    champions,
    describe,
    find,
    run_of,
)


@dataclass(frozen=True)
class Found:
    """A network and where it comes from."""

    model: TrainedModel
    what: str


def find_model(root: Path, name: str | None, command: str) -> Found:
    """The model that a name means; without one the champion, where there is one, else models/.

    Args:
        command: which has loaded torch; it says when MLflow is loaded, to look for a run.

    Raises:
        ConfigError: nothing is called so, or several things are.
        PipelineError: it has no model that can be read.
    """
    store = Store(root)
    if name is None:
        name = f"@{CHAMPION}" if champions(store) else str(root / "models")
    target = find(store, name, tuple(NAMES), given=f"model={name}", before_search=partial(load, command, "MLflow"))
    match target:
        case ModelFolder(path):
            return _in(path, str(path))
        case Revision(commit):
            with revision_models(root, commit, name) as models:
                return _in(models, str(target))
        case Version(run_id=run_id):
            if run_id is None or not store.run_exists(run_id):
                raise ConfigError(
                    f"{target} has no run in the store: its files cannot be found. Give a run or a folder"
                )
            return _in(store.artifacts(run_id) / "dvc", describe(store, target))
        case TrainedRun() | Sweep():
            row = run_of(store, target)
            return _in(store.artifacts(row.run_id) / "dvc", describe(store, target))


def _in(folder: Path, what: str) -> Found:
    return Found(load_model(folder), what)
