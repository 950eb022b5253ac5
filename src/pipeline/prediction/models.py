"""The network that is meant by a name, as the pipeline loads it or as MLflow serves it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.comparison.subjects import revision_models
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.startup import load
from pipeline.tracking import MODEL_ID_TAG, Store
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

if TYPE_CHECKING:
    from pipeline.model.portable import TrainedModel

EXAMPLE = "serving_input_example.json"  # that MLflow writes beside a model: two training images


@dataclass(frozen=True)
class NamedModel:
    """A network and where it comes from."""

    model: TrainedModel
    what: str


def find_model(root: Path, name: str | None, command: str) -> NamedModel:
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


def served_model(root: Path, name: str | None) -> ServedModel:
    """A version (without a name @champion), a run, or the best of a sweep.

    Raises:
        ConfigError: nothing is called so, or several things are.
        PipelineError: the run has made no model for MLflow: it has not finished, or is a job of a sweep.
    """
    store, name = Store(root), name or f"@{CHAMPION}"
    target = find(store, name, ("version", "run", "sweep"), given=f"model={name}")
    if isinstance(target, Version):
        if target.model_id is None:
            raise PipelineError(
                f"{target} was registered by other means than this project's: serve it with MLflow alone, or choose "
                "another: pipeline champion VERSION"
            )
        return ServedModel(store.model_folder(target.model_id), describe(store, target))
    model_id, what = run_of(store, target).tags.get(MODEL_ID_TAG), describe(store, target)
    if model_id is None:
        raise PipelineError(
            f"{what} has no model that MLflow can serve (a job of a sweep leaves weights alone). Make its settings the "
            "pipeline's: pipeline adopt RUN"
        )
    return ServedModel(store.model_folder(model_id), what)
