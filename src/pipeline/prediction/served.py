"""MLflow's form of a model: what its server takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.subjects import Subjects
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.tracking import MODEL_ID_TAG, Store

EXAMPLE = "serving_input_example.json"  # that MLflow writes beside a model: two training images


@dataclass(frozen=True)
class Served:
    """A model of the store and its folder."""

    folder: Path
    what: str

    @property
    def example(self) -> Path:
        """A body to send."""
        return self.folder / EXAMPLE


def served_model(root: Path, asked: str | None) -> Served:
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
    return Served(store.model_folder(model_id), what)
