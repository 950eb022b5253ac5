"""One store for the project: made once, found again, right after a move."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from pipeline.system.errors import PipelineError
from pipeline.system.startup import set_mlflow_environment
from pipeline.tracking import MODEL_TAG, Store
from pipeline.tracking.database import ensure_database
from pipeline.tracking.replica import Replica

SCRIPT = Path(__file__).with_name("many_at_once.py")
Start = Callable[..., subprocess.Popen[str]]


def local(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


def test_eight_processes_at_once_on_an_empty_folder_make_one_experiment_and_eight_runs(
    tmp_path: Path, start: Start
) -> None:
    out, err = start(SCRIPT, tmp_path, cwd=tmp_path).communicate(timeout=60)
    assert out.split() == ["0"] * 8, err

    store = Store(tmp_path)
    experiments = {found.name: found.experiment_id for found in store.client.search_experiments()}
    assert sorted(experiments) == ["Default", "sweep"]
    runs = store.client.search_runs([experiments["sweep"]])
    assert sorted(run.data.params["job"] for run in runs) == [str(number) for number in range(8)]
    for run in runs:
        history = store.client.get_metric_history(run.info.run_id, "loss")
        assert [point.value - int(run.data.params["job"]) for point in history] == list(range(20))
        assert run.info.status == "FINISHED"


def test_making_a_store_leaves_mlflows_log_and_other_databases_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While MLflow makes its tables another thread may connect to a database of its own, which waits for the disk."""
    from mlflow.store.tracking import sqlalchemy_store
    from sqlalchemy import create_engine

    waits, other = {}, tmp_path / "other.db"

    class Store(sqlalchemy_store.SqlAlchemyStore):  # type: ignore[misc]
        def __init__(self, uri: str, artifacts: str) -> None:
            for name, address in (("own", uri), ("other", f"sqlite:///{other}"), ("memory", "sqlite://")):
                engine = create_engine(address)
                with engine.connect() as connection:
                    waits[name] = connection.exec_driver_sql("PRAGMA synchronous").scalar()
                engine.dispose()
            super().__init__(uri, artifacts)

    monkeypatch.setattr(sqlalchemy_store, "SqlAlchemyStore", Store)
    logger = logging.getLogger("mlflow.store.db.utils")
    monkeypatch.setattr(logger, "level", logging.INFO)
    ensure_database(tmp_path / "project")

    assert waits == {"own": 0, "other": 2, "memory": 2}  # OFF, FULL
    assert logger.level == logging.INFO
    assert "Creating initial" not in caplog.text


def test_importing_the_package_does_not_import_mlflow_and_sets_nothing(tmp_path: Path, start: Start) -> None:
    code = """
import os, sys
before = dict(os.environ)
import pipeline.tracking, pipeline.tracking.store
print('mlflow' in sys.modules, 'torch' in sys.modules, os.environ == before)
"""
    assert start("-c", code, cwd=tmp_path).communicate(timeout=60)[0].split() == ["False", "False", "True"]


@pytest.mark.parametrize(("given", "kept"), [(None, "true"), ("false", "false")])
def test_commands_turn_reports_of_usage_off_unless_the_user_has_decided(
    given: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    if given:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", given)
    set_mlflow_environment()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == kept


def test_short_waits_for_a_server_are_set_by_commands_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that imports this package, and copies its runs to a server, keeps MLflow's."""
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    Replica(store.root, store.client, "http://127.0.0.1:9")
    assert [name for name in names if name in os.environ] == []
    set_mlflow_environment()
    assert [os.environ[name] for name in names] == ["5", "0", "true"]


def test_stray_settings_and_an_old_mlruns_folder_change_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "mlruns/0").mkdir(parents=True)
    (elsewhere / "mlruns/0/meta.yaml").write_text("name: Default\n")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with store.run("mnist", "one") as run:
        run.text("hello", "greeting.txt")
    assert store.run_exists(run.id)
    assert run.id != "0" * 32
    assert [file.name for file in sorted(elsewhere.rglob("*"))] == ["mlruns", "0", "meta.yaml"]
    assert local(store.client.get_run(run.id).info.artifact_uri).is_relative_to(store.root / "mlflow_artifacts")


def test_a_folder_name_with_odd_characters_works(tmp_path: Path) -> None:
    root = tmp_path / "my #1 dåta & 'more'"
    root.mkdir()
    with Store(root).run("mnist", "one") as run:
        run.text("hello", "greeting.txt")
    assert Path(Store(root).client.download_artifacts(run.id, "greeting.txt")).read_text() == "hello"
    assert sorted(path.name for path in tmp_path.iterdir()) == [root.name]


@pytest.mark.parametrize("name", ["50% done", "really?"])
def test_a_folder_name_that_mlflow_would_misread_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(PipelineError, match="rename the folder"):
        _ = Store(tmp_path / name).client
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_experiment_is_an_error_that_names_the_command_to_restore_it(store: Store) -> None:
    experiment_id = store.experiment("mnist")
    store.client.delete_experiment(experiment_id)
    with pytest.raises(PipelineError, match=rf"mlflow experiments restore --experiment-id {experiment_id}"):
        store.experiment("mnist")


def test_what_a_person_edited_on_an_experiment_stays(store: Store) -> None:
    experiment_id = store.experiment("mnist")
    store.client.set_experiment_tag(experiment_id, "mlflow.note.content", "my words")
    assert store.experiment("mnist") == experiment_id
    assert store.client.get_experiment(experiment_id).tags["mlflow.note.content"] == "my words"


def test_runs_are_found_by_a_tag_newest_first_and_not_deleted(store: Store) -> None:
    ids = []
    for experiment in ("one", "two", "three"):
        with store.run(experiment, "run", tags={MODEL_TAG: "abc"}) as run:
            ids.append(run.id)
    assert [row.run_id for row in store.rows(f"tags.`{MODEL_TAG}` = 'abc'")] == ids[::-1]
    store.client.delete_run(ids[2])
    assert [row.run_id for row in store.rows(f"tags.`{MODEL_TAG}` = 'abc'")] == [ids[1], ids[0]]
    assert store.rows(f"tags.`{MODEL_TAG}` = 'unknown'") == []


def test_a_deleted_run_does_not_exist(store: Store) -> None:
    with store.run("mnist", "one") as run:
        pass
    assert store.run_exists(run.id)
    store.client.delete_run(run.id)
    assert not store.run_exists(run.id)


def test_a_moved_project_finds_its_files_again(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with store.run("mnist", "one") as run:
        run.text("hello", "greeting.txt")
    model = store.client.create_logged_model(store.experiment("mnist"), "dense", run.id)
    moved = store.root.rename(tmp_path / "moved project")

    there = Store(moved)
    assert Path(there.client.download_artifacts(run.id, "greeting.txt")).read_text() == "hello"
    files = moved / "mlflow_artifacts"
    assert local(there.client.get_logged_model(model.model_id).artifact_location).is_relative_to(files)
    assert local(there.client.get_experiment_by_name("mnist").artifact_location) == files
    assert "The project was moved" in caplog.text


def test_a_project_is_not_moved_over_while_a_run_is_going_on(store: Store, tmp_path: Path) -> None:
    with store.run("mnist", "one"):
        link = tmp_path / "copy"
        link.mkdir()
        shutil.copy(store.root / "mlflow.db", link)
        shutil.copy(store.root / "mlflow.db-wal", link)
        (link / ".pipeline").symlink_to(store.root / ".pipeline")
        with pytest.raises(PipelineError, match="a run is going on"):
            _ = Store(link).client


def test_a_database_copied_without_its_files_is_an_error(store: Store, tmp_path: Path) -> None:
    store.experiment("mnist")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in store.root.glob("mlflow.db*"):
        shutil.copy(file, copy)
    with pytest.raises(PipelineError, match=f"Copy that folder to {copy / 'mlflow_artifacts'}"):
        _ = Store(copy).client


def test_the_newest_experiment_is_the_one_of_the_newest_run(store: Store) -> None:
    assert store.newest_experiment() is None
    for name in ("first", "second"):
        with store.run(name, "run"):
            pass
    store.experiment("empty")
    assert store.newest_experiment() == store.experiment("second")
    assert store.newest_experiment("first") == store.experiment("first")
    assert store.newest_experiment("unknown") is None
