"""A tracking server on PostgreSQL and S3. docs/reliability.md has the commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.copies import assert_same
from large_server_makers import S3, Postgres, postgres, s3
from mlflow_server import TrackingServer
from pipeline.tracking import Store
from pipeline.tracking import replica as following
from pipeline.tracking.replica import sync_all
from project_maker import Project

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as database:
        yield database


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3]:
    with s3() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def server(database: Postgres, bucket: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    folder = tmp_path_factory.mktemp("large") / "files"
    server = TrackingServer(folder, database.url, "s3://runs/pipeline", **bucket.environment)
    server.start()
    yield server
    server.kill()


def test_the_pipeline_and_a_sweep_are_there(
    prepared: Project, server: TrackingServer, bucket: S3, tmp_path: Path
) -> None:
    """The runs in PostgreSQL, their files in S3; nothing on the server's own disk."""
    project = prepared.copy(tmp_path / "work")
    project.run("dvc", "repro", MLFLOW_TRACKING_URI=server.url)
    on_server = ("tracking=server", f"tracking.server={server.url}")
    project.run(*TRAIN, "-m", *on_server, "seed=0,1,2,3", "trainer.num_epochs=1", "hydra.launcher.n_jobs=4")
    project.run(sys.executable, "-m", "pipeline", "sync", MLFLOW_TRACKING_URI=server.url)

    assert len(project.all_runs()) == 6  # the pipeline's, the sweep's and its four
    assert_same(project.store, server)
    names = bucket.names()
    ends = [sum(name.endswith(end) for name in names) for end in ("dvc/model.safetensors", "MLmodel")]
    assert ends == [5, 2]  # each training's weights; the model that was evaluated, and that of the sweep's best
    assert not (server.folder / "artifacts").exists()


def test_the_database_dies_amid_a_run(
    database: Postgres, server: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server then answers with errors; both go on when it is back."""
    monkeypatch.setattr(following, "PERIOD_S", 0.3)
    store = Store(tmp_path / "project")
    with store.run("outages", "no database", server=server.url) as run:
        run.metrics({"loss": 0.5}, 0)
        database.kill()
        run.text("hello", "notes.txt")
        run.metrics({"loss": 0.25}, 1)
    database.start()
    sync_all(store, server.url)
    assert_same(store, server)


def test_files_cannot_be_stored_for_a_while(
    database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PERIOD_S", 0.3)
    store, late = Store(tmp_path / "project"), S3()
    server = TrackingServer(tmp_path / "server", database.url, "s3://runs", **late.environment)
    server.start()
    try:
        with store.run("outages", "no files", server=server.url) as run:
            run.text("hello", "notes.txt")
            run.metrics({"loss": 0.5}, 0)
        late.start()
        sync_all(store, server.url)
        assert_same(store, server)
        assert [name for name in late.names() if name.endswith("notes.txt")]
    finally:
        server.kill()
        late.kill()
