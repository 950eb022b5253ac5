"""MLflow's form of a model: what its server takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.system.errors import PipelineError
from pipeline.tracking import MODEL_ID_TAG, Store
from pipeline.tracking.database import Version
from pipeline.tracking.lookup import CHAMPION, describe, find, run_of

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


def served_model(root: Path, name: str | None) -> Served:
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
        return Served(store.model_folder(target.model_id), describe(store, target))
    model_id, what = run_of(store, target).tags.get(MODEL_ID_TAG), describe(store, target)
    if model_id is None:
        raise PipelineError(
            f"{what} has no model that MLflow can serve (a job of a sweep leaves weights alone). Make its settings the "
            "pipeline's: pipeline adopt RUN"
        )
    return Served(store.model_folder(model_id), what)
