"""The table of runs that a link opens."""

from __future__ import annotations

import base64
import json
import zlib

from pipeline.tracking import Store, leaderboard_url


def test_an_experiment_carries_the_view_that_the_link_names(store: Store) -> None:
    experiment_id = store.experiment("mnist")
    tags = store.client.get_experiment(experiment_id).tags
    view = json.loads(tags["mlflow.sharedViewState.leaderboard"])
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    assert state["orderByKey"] == "metrics.`test/accuracy`"
    assert state["orderByAsc"] is False
    assert {"metrics.`kept_val_accuracy`", "params.`model.units`", "params.`seed`"} <= set(state["selectedColumns"])
    assert tags["mlflow.note.content"].startswith("# mnist\n")
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_links_open_the_view_for_trained_models() -> None:
    assert leaderboard_url(5000, "1") == (
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=leaderboard"
    )
