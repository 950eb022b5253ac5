"""For all tests."""

import gc
import shutil
import signal
from pathlib import Path

import pytest

import warm_process
from lanes import SEED
from pipeline.system.startup import set_mlflow_environment, set_thread_environment
from pipeline.tracking import Store
from pipeline.tracking.database import ARTIFACTS, DATABASE, ensure_database
from project_maker import mark_as_project

set_thread_environment()  # before anything imports torch
set_mlflow_environment()  # or MLflow


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as below nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if not hasattr(config, "workerinput"):  # the process that pytest-xdist's workers descend from
        warm_process.announce()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        warm_process.dismiss()


def pytest_report_header() -> str:
    return f"random cases: PIPELINE_TESTS_SEED={SEED}"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, closed; made once, a test copies it."""
    root = tmp_path_factory.mktemp("empty_store")
    ensure_database(root)
    return root / DATABASE


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store in the test's folder, which is the project's, as DVC would announce it."""
    (tmp_path / ARTIFACTS).mkdir()
    mark_as_project(tmp_path)
    shutil.copy(empty_database, tmp_path / DATABASE)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return Store(tmp_path)


gc.disable()  # while all is imported: a seventh of the quick tests' time went into looking through it again and again


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000)


HEAVY = ("slow", "mnist", "browser", "ddp", "slurm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes first: of what begins last, no worker shall wait for much."""

    def weight(path: Path) -> int:
        return -sum(any(map(item.get_closest_marker, HEAVY)) for item in items if item.path == path)

    weights = {path: weight(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: weights[item.path])
