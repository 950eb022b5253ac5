"""The network that is meant by a name, as the pipeline loads it or as MLflow serves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.comparison.subjects import Subjects
from pipeline.model import DESCRIPTION
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.startup import load
from pipeline.tracking import MODEL_ID_TAG, Store

if TYPE_CHECKING:
    from pipeline.model.portable import TrainedModel

EXAMPLE = "serving_input_example.json"  # that MLflow writes beside a model: two training images


@dataclass(frozen=True)
class NamedModel:
    """A network and where it comes from."""

    model: TrainedModel
    what: str


def find_model(root: Path, asked: str | None, command: str) -> NamedModel:
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


def _in(folder: Path, what: str) -> NamedModel:
    from pipeline.model.portable import load_model  # with torch, which MLflow's server loads itself

    return NamedModel(load_model(folder), what)


# ---------------------------------------------------------------- MLflow's form of a model, which its server takes


@dataclass(frozen=True)
class ServedModel:
    """A model of the store and its folder."""

    folder: Path
    what: str

    @property
    def example(self) -> Path:
        """A body to send."""
        return self.folder / EXAMPLE


def served_model(root: Path, asked: str | None) -> ServedModel:
    """@champion (also if nothing is asked for), or a run by its name or the beginning of its id.

    Raises:
        ConfigError: nothing is called so, or several things are.
        PipelineError: the run has made no model for MLflow: it has not finished, or is a job of a sweep.
    """
    store, asked = Store(root), asked or f"@{CHAMPION}"
    if asked.endswith(f"@{CHAMPION}"):
        version = Registry(store).resolve(asked)
        model_id, what = version.model_id, f"{version}, @{CHAMPION}"
        if model_id is None:
            raise PipelineError(
                f"{version} was registered by other means than this project's: serve it with MLflow alone, or choose "
                "another: pipeline champion VERSION"
            )
    else:
        row = Subjects(root, store).run_called(asked)
        if row is None:
            raise ConfigError(f"model={asked}: no run is called so. Expected @{CHAMPION}, a run's name, or its id")
        model_id, what = row.tags.get(MODEL_ID_TAG), f"run {row.run_id[:8]} ({row.name})"
    if model_id is None:
        raise PipelineError(
            f"{what} has no model that MLflow can serve (a job of a sweep leaves weights alone). Make its settings the "
            "pipeline's: pipeline adopt RUN"
        )
    return ServedModel(store.model_folder(model_id), what)
