"""Whether a tracking server has what the local store has."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from mlflow_server import TrackingServer
from pipeline.tracking import PARENT_TAG, Store
from pipeline.tracking.replica import LOCAL_TAGS, SOURCE_MODEL, SOURCE_RUN


def assert_same(store: Store, server: TrackingServer) -> None:
    """Every run of the store is on the server exactly once, with all that it has."""
    there = MlflowClient(server.url, server.url)
    experiments = [found.experiment_id for found in there.search_experiments()]
    copies = there.search_runs(experiments, f"tags.`{SOURCE_RUN}` != ''")
    rows = store.rows("")
    ids = {copy.data.tags[SOURCE_RUN]: copy.info.run_id for copy in copies}
    assert Counter(copy.data.tags[SOURCE_RUN] for copy in copies).most_common(1)[0][1] == 1
    assert ids.keys() >= {row.run_id for row in rows}
    for row in rows:
        assert_same_run(store.client, there, row.run_id, ids)


def assert_same_run(local: MlflowClient, there: MlflowClient, run_id: str, ids: dict[str, str]) -> None:
    run, copy = local.get_run(run_id), there.get_run(ids[run_id])
    copied = {key: value for key, value in run.data.tags.items() if key not in LOCAL_TAGS}
    tags = {key: ids[value] if key == PARENT_TAG else value for key, value in copied.items()}
    assert copy.data.tags == tags | {SOURCE_RUN: run_id}
    assert copy.data.params == run.data.params
    for name in ("status", "start_time", "end_time", "run_name"):
        assert getattr(copy.info, name) == getattr(run.info, name), name
    assert points(there, ids[run_id]) == points(local, run_id)
    data = [[(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in found.inputs.dataset_inputs]
            for found in (run, copy)]  # fmt: skip
    assert sorted(data[1]) == sorted(data[0])
    assert files(there, ids[run_id]) == files(local, run_id)
    models, others = ([one.model_id for one in found.outputs.model_outputs] for found in (run, copy))
    assert len(others) == len(models)
    for model_id, other_id in zip(models, others, strict=True):
        model, other = local.get_logged_model(model_id), there.get_logged_model(other_id)
        assert other.tags == model.tags | {SOURCE_MODEL: model_id}
        assert (other.name, other.params, str(other.status)) == (model.name, model.params, str(model.status))
        assert model_points(other.metrics) == model_points(model.metrics)


def points(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, int, str]]]:
    """NaN as text, or it would differ from itself."""
    return {
        key: sorted((one.step, one.timestamp, str(one.value)) for one in client.get_metric_history(run_id, key))
        for key in client.get_run(run_id).data.metrics
    }


def model_points(found: list[Metric] | None) -> list[tuple[Any, ...]]:
    return sorted((m.key, m.step, m.value, m.dataset_name, m.dataset_digest) for m in found or [])


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in client.list_artifacts(run_id, folder):
        found |= files(client, run_id, entry.path) if entry.is_dir else {entry.path: entry.file_size}
    return found
