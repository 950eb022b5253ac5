"""What a run records, and how it goes on."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.system.errors import PipelineError
from pipeline.tracking import DatasetRef, Store


def test_a_resumed_run_is_the_same_run_and_loses_the_reason_it_ended_for(store: Store) -> None:
    with store.run("mnist", "one") as first:
        first.metrics({"loss": 2.0}, step=0)
    with pytest.raises(RuntimeError, match="boom"), store.run("mnist", "one", resume=first.id):
        raise RuntimeError("boom")
    assert store.client.get_run(first.id).data.tags["exit.reason"] == "RuntimeError: boom"
    with store.run("mnist", "other name", resume=first.id, tags={"stage": "evaluate"}) as second:
        assert store.client.get_run(first.id).info.status == "RUNNING"
        second.metrics({"loss": 1.0}, step=1)
    run = store.client.get_run(first.id)
    assert second.id == first.id
    assert (run.info.status, run.info.run_name, run.data.tags["stage"]) == ("FINISHED", "one", "evaluate")
    assert "exit.reason" not in run.data.tags
    assert [point.value for point in store.client.get_metric_history(first.id, "loss")] == [2.0, 1.0]


def test_the_time_between_an_end_and_going_on_is_noted(store: Store) -> None:
    """So that a table of times can leave it out."""
    with store.run("mnist", "one") as run:
        pass
    for seconds in (100, 50):
        store.client.set_terminated(run.id, end_time=int(1000 * (time.time() - seconds)))
        with store.run("mnist", "one", resume=run.id):
            pass
    idle_s = float(store.client.get_run(run.id).data.tags["idle_s"])
    assert idle_s == pytest.approx(150, abs=5)


def test_a_point_repeated_after_resuming_is_not_recorded_twice(store: Store) -> None:
    with store.run("mnist", "one") as run:
        run.metric_points([("loss", 2.0, 0), ("loss", 1.5, 1)])
    with store.run("mnist", "one", resume=run.id) as run:
        run.metrics({"loss": 1.5}, step=1)
        run.metric_points([("loss", 1.25, 1), ("loss", 1.0, 2)])  # an epoch may come out otherwise in its time only
    history = [(point.step, point.value) for point in store.client.get_metric_history(run.id, "loss")]
    assert history == [(0, 2.0), (1, 1.5), (2, 1.0)]


@pytest.mark.parametrize("lost", ["deleted", "never there"])
def test_a_run_that_is_gone_is_replaced_by_a_new_one_and_a_warning_says_so(
    store: Store, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    old_id = "0" * 32
    if lost == "deleted":
        with store.run("mnist", "old") as old:
            old_id = old.id
        store.client.delete_run(old_id)
    with store.run("mnist", "new", resume=old_id) as run:
        pass
    assert run.id != old_id
    assert store.run_exists(run.id)
    assert f"Run {old_id} is no longer in" in caplog.text


def test_a_run_that_another_process_writes_cannot_be_resumed(store: Store) -> None:
    with store.run("mnist", "one") as run:
        with (
            pytest.raises(PipelineError, match="being written by another process"),
            store.run("mnist", "one", resume=run.id),
        ):
            pass
        assert store.client.get_run(run.id).info.status == "RUNNING"


def test_a_parameter_that_changed_on_resume_is_a_tag_not_an_error(store: Store) -> None:
    with store.run("mnist", "one") as run:
        run.params({"optimizer.lr": 0.001, "seed": 0})
    with store.run("mnist", "one", resume=run.id) as run:
        run.params({"optimizer.lr": 0.01, "seed": 0, "trainer.num_epochs": 5})
    data = store.client.get_run(run.id).data
    assert data.params == {"optimizer.lr": "0.001", "seed": "0", "trainer.num_epochs": "5"}
    assert json.loads(data.tags["param_drift"]) == {"optimizer.lr": ["0.001", "0.01"]}


def test_parameters_are_written_as_json_so_that_equal_runs_have_equal_ones(store: Store) -> None:
    values = {"text": "relu", "whole": 1, "real": 1e-3, "flag": True, "nothing": None, "list": [512, 256]}
    with store.run("mnist", "one") as run:
        run.params(values | {f"many.{number}": number for number in range(250)})
    params = store.client.get_run(run.id).data.params
    assert {name: params[name] for name in values} == {
        "text": "relu", "whole": "1", "real": "0.001", "flag": "true", "nothing": "null", "list": "[512, 256]"
    }  # fmt: skip
    assert len(params) == 256


def test_an_object_is_refused_as_a_parameter_by_name(store: Store) -> None:
    with store.run("mnist", "one") as run, pytest.raises(TypeError, match="parameter 'model' is a object"):
        run.params({"model": object()})


def test_a_long_parameter_is_kept_whole_in_an_artifact_and_says_so(store: Store) -> None:
    long = "x" * 10_000
    with store.run("mnist", "one") as run:
        run.params({"model.units": long})
    param = store.client.get_run(run.id).data.params["model.units"]
    assert len(param) == 6000
    assert param.endswith("[10000 characters, cut here]")
    assert Path(store.client.download_artifacts(run.id, "params/model.units.txt")).read_text() == long


def test_numbers_that_are_not_finite_are_recorded(store: Store) -> None:
    with store.run("mnist", "one") as run:
        run.metrics({"nan": math.nan, "inf": math.inf, "minus_inf": -math.inf})
    metrics = store.client.get_run(run.id).data.metrics
    assert math.isnan(metrics["nan"])
    assert metrics["inf"] > 1e308
    assert metrics["minus_inf"] < -1e308


def test_more_points_than_one_call_may_hold_are_all_recorded(store: Store) -> None:
    with store.run("mnist", "one") as run:
        run.metric_points([("loss_step", 1 / (step + 1), step) for step in range(2500)])
    history = store.client.get_metric_history(run.id, "loss_step")
    assert [(point.step, point.value) for point in history] == [(step, 1 / (step + 1)) for step in range(2500)]


def test_a_dataset_keeps_its_whole_digest(store: Store) -> None:
    digest = "0123456789abcdef" * 4
    with store.run("mnist", "one") as run:
        used = run.dataset("mnist-test", digest, "data/processed/test", "test")
    entry = store.client.get_run(run.id).inputs.dataset_inputs[0]
    assert used == DatasetRef("mnist-test", digest[:36])
    assert (entry.dataset.digest, json.loads(entry.dataset.source)["digest"]) == (digest[:36], digest)
    assert {tag.key: tag.value for tag in entry.tags} == {"mlflow.data.context": "test"}


def test_a_table_written_again_replaces_the_first_and_the_ui_shows_it_as_a_table(store: Store) -> None:
    with store.run("mnist", "one") as run:
        for recall in (0.5, 0.75):
            run.table({"class": ["0", "1"], "recall": [np.float32(recall), math.nan]}, "evaluation/per_class.json")
    file = Path(store.client.download_artifacts(run.id, "evaluation/per_class.json"))
    assert json.loads(file.read_text()) == {"columns": ["class", "recall"], "data": [["0", 0.75], ["1", None]]}
    shown = json.loads(store.client.get_run(run.id).data.tags["mlflow.loggedArtifacts"])
    assert shown == [{"path": "evaluation/per_class.json", "type": "table"}]


def test_files_folders_and_json_are_kept_as_artifacts(store: Store, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/roc.svg").write_text("<svg/>")
    with store.run("mnist", "one") as run:
        run.artifact(tmp_path / "plots")
        run.artifact(tmp_path / "plots/roc.svg", "figures")
        run.json({"accuracy": 0.97}, "metrics.json")
    folder = Path(store.client.download_artifacts(run.id, ""))
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert files == ["figures/roc.svg", "metrics.json", "plots/roc.svg"]


def test_a_note_starts_with_its_headline(store: Store) -> None:
    with store.run("mnist", "one") as run:
        run.note("97.85 % of 10,000 test images", "Trained for 5 epochs.")
    note = store.client.get_run(run.id).data.tags["mlflow.note.content"]
    assert note == "**97.85 % of 10,000 test images**\n\nTrained for 5 epochs."
