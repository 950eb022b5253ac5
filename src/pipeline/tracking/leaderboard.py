"""Tags that several modules know, and the views of the UI: a sorted table of runs, and the links that open it."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping, Sequence

MODEL_TAG = "model.sha256"  # digest of models/model.safetensors
DESCRIPTION_TAG = "model.json.sha256"  # digest of models/model.json, which names weights, data, settings and code
PARENT_TAG = "mlflow.parentRunId"  # the UI shows a run below its parent
LIVE_TAG = "pipeline.live"  # token of the process that writes the run; gone when the run has ended
IDLE_TAG = "idle_s"  # wall seconds between its ends and its going on, so far
REASON_TAG = "exit.reason"
MODEL_ID_TAG = "model.id"  # of a run and of a registered version: MLflow's model


# ---------------------------------------------------------------- a sorted table of runs, and links that open it


NOTE_TAG = "mlflow.note.content"  # Markdown; the UI shows about three lines, so the headline comes first
VIEW = "leaderboard"
VIEW_TAG = "mlflow.sharedViewState.{}"  # MLflow's internal format; if it changes, the page shows default columns
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
    return {NOTE_TAG: note, KIND_TAG: "custom_model_development", **view_tag(VIEW, "Leaderboard", COLUMNS, SORT_BY)}


def leaderboard_url(port: int, experiment_id: str, view: str = VIEW) -> str:
    """The table of an experiment's runs as a saved view shows it; by default best test accuracy first."""
    return f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs?{CLASSIC}&viewStateShareKey={view}"


def experiments_url(port: int) -> str:
    """The list of experiments."""
    return f"http://127.0.0.1:{port}/#/experiments?{CLASSIC}"


def view_tag(
    key: str, name: str, columns: Sequence[str], sort_by: str, *, ascending: bool = False, only: str = ""
) -> dict[str, str]:
    """An experiment's tag that is an entry of the UI's menu of views.

    Args:
        columns: as MLflow's filters write them: metrics.`test/accuracy`.
        only: a filter; all runs without one.
    """
    state = {"orderByKey": sort_by, "orderByAsc": ascending, "selectedColumns": list(columns), "searchFilter": only}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now_ms = int(time.time() * 1000)
    view = {"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"}
    return {VIEW_TAG.format(key): json.dumps(view)}


def with_ids(view: str, ids: Mapping[str, str]) -> str:
    """The value of a `view_tag` with other ids in its filter."""
    entry = json.loads(view)
    packed = entry["state"].removeprefix("deflate;")
    state = zlib.decompress(base64.b64decode(packed)).decode()
    for old, new in ids.items():
        state = state.replace(old, new)
    return json.dumps({**entry, "state": f"deflate;{base64.b64encode(zlib.compress(state.encode())).decode()}"})
