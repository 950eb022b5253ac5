"""What a person sees first: a sorted table of runs with the columns that matter, and links that open it."""

from __future__ import annotations

import base64
import json
import time
import zlib
from typing import Any

NOTE_TAG = "mlflow.note.content"  # Markdown; the UI shows about three lines, so the headline comes first
VIEW = "leaderboard"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # MLflow's internal format; if it changes, the page shows default columns
KIND_TAG = "mlflow.experimentKind"

SORT_BY = "metrics.`test/accuracy`"
COLUMNS = (
    "attributes.`Models`",
    SORT_BY,
    *(f"metrics.`{name}`" for name in ("test/loss", "kept_val_accuracy", "kept_train_accuracy")),
    *(f"params.`{name}`" for name in ("model.units", "optimizer.name", "optimizer.lr")),
    *(f"params.`{name}`" for name in ("trainer.num_epochs", "trainer.batch_size", "data.name", "seed")),
)
# Without the first parameter MLflow opens its view for language-model apps, with no metrics and an assistant panel.
CLASSIC = "workflowType=machine_learning"


def experiment_tags(name: str) -> dict[str, str]:
    """Tags that give a new experiment a title, a ready table and MLflow's view for trained models."""
    note = f"# {name}\n\nBest test accuracy first. Tick runs and press *Compare* to see them side by side."
    return {NOTE_TAG: note, KIND_TAG: "custom_model_development", VIEW_TAG: json.dumps(_view())}


def leaderboard_url(port: int, experiment_id: str) -> str:
    """The table of an experiment's runs, best test accuracy first."""
    return f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs?{CLASSIC}&viewStateShareKey={VIEW}"


def experiments_url(port: int) -> str:
    """The list of experiments."""
    return f"http://127.0.0.1:{port}/#/experiments?{CLASSIC}"


def run_url(port: int, experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs/{run_id}?{CLASSIC}"


def _view() -> dict[str, Any]:
    state = {"orderByKey": SORT_BY, "orderByAsc": False, "selectedColumns": list(COLUMNS)}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now_ms = int(time.time() * 1000)
    return {"name": "Leaderboard", "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"}
