"""The sqlite file behind a store: made once, whole or not at all, and right again after the project was moved.

This is the only module that knows MLflow's tables.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pipeline.system.errors import PipelineError
from pipeline.system.locks import is_alive, locked, tokens

log = logging.getLogger(__name__)

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow_artifacts"
LOCK = Path(".pipeline", "store.lock")
ABSOLUTE_PLACES = (  # tables and their columns with an absolute place below ARTIFACTS
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


def artifacts_uri(root: Path) -> str:
    return (root / ARTIFACTS).as_uri()


def local_path(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


def sqlite_uri(file: Path) -> str:
    """Absolute: the same database from every working directory.

    Raises:
        PipelineError: the path has a % or ?, which SQLAlchemy and MLflow read as parts of a URI, each in its own way.
    """
    if set("%?") & set(str(file)):
        raise PipelineError(f"MLflow cannot keep a database at {file}: rename the folder so that it has no % and no ?.")
    return f"sqlite:///{file}"


def ensure_database(root: Path) -> None:
    """Make ``root/mlflow.db`` and ``root/mlflow_artifacts`` if missing; follow the project if it was moved.

    Any number of processes may call this at once: MLflow's own migrations take no lock, and seven of eight processes
    on an empty folder would crash.
    """
    sqlite_uri(root / DATABASE)
    if not (root / DATABASE).exists():
        with locked(root / LOCK):
            if not (root / DATABASE).exists():
                _create(root)
    if _old_places(root):
        with locked(root / LOCK):
            _relocate(root)


def newest_experiment(root: Path, name: str | None = None) -> str | None:
    """Id of the experiment called ``name``, or of the one with the newest run. None: there is none."""
    with _opened(root) as connection:
        if name is not None:
            query = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
            found = connection.execute(query, [name]).fetchone()
        else:
            query = "SELECT experiment_id FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT 1"
            found = connection.execute(query).fetchone()
    return None if found is None else str(found[0])


def registered_models(root: Path) -> dict[str, dict[str, int]]:
    """Name -> alias -> number of a version, of all registered models."""
    with _read(root) as connection:
        found: dict[str, dict[str, int]] = {
            str(name): {} for (name,) in connection.execute("SELECT name FROM registered_models ORDER BY name")
        }
        for name, alias, number in connection.execute("SELECT name, alias, version FROM registered_model_aliases"):
            found[name][str(alias)] = int(number)
    return found


def model_versions(root: Path, name: str) -> list[tuple[int, str | None, dict[str, str]]]:
    """(number, id of its run, tags) of the versions of a registered model that are not deleted, newest first."""
    with _read(root) as connection:
        tags: dict[int, dict[str, str]] = {}
        query = "SELECT version, key, value FROM model_version_tags WHERE name = ?"
        for number, key, value in connection.execute(query, [name]):
            tags.setdefault(number, {})[key] = value
        query = (
            "SELECT version, run_id FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal' "
            "ORDER BY version DESC"
        )
        return [(int(number), run_id, tags.get(number, {})) for number, run_id in connection.execute(query, [name])]


def run_files(root: Path, run_id: str) -> tuple[str, bool, Path] | None:
    """(name, whether it is not deleted, folder of its files) of a run; None: there is none of this id."""
    with _read(root) as connection:
        query = "SELECT name, lifecycle_stage = 'active', artifact_uri FROM runs WHERE run_uuid = ?"
        found = connection.execute(query, [run_id]).fetchone()
    return (str(found[0]), bool(found[1]), local_path(found[2])) if found else None


def newest_value(root: Path, run_id: str, metric: str) -> float | None:
    """Of a metric of a run; None: it has none."""
    with _read(root) as connection:
        query = "SELECT value FROM latest_metrics WHERE run_uuid = ? AND key = ? AND NOT is_nan"
        found = connection.execute(query, [run_id, metric]).fetchone()
    return float(found[0]) if found else None


def was_tagged(root: Path, key: str, value: str) -> bool:
    """Whether any run, deleted or not, has the tag with this value. MLflow's search takes 30 ms, this 0.1."""
    with _opened(root) as connection:
        query = "SELECT EXISTS (SELECT 1 FROM tags WHERE key = ? AND value = ?)"
        return bool(connection.execute(query, [key, value]).fetchone()[0])


def _create(root: Path) -> None:
    (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / LOCK.parent) as folder:
        new = Path(folder, DATABASE)
        _migrate(new, artifacts_uri(root))
        with closing(sqlite3.connect(new)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file; 9 ms a write on a busy disk, not 24
        new.replace(root / DATABASE)


def _migrate(new: Path, artifacts: str) -> None:
    """MLflow's tables and its default experiment, without waiting for the disk: 1 s, not 6 when the disk is busy."""
    import sqlalchemy
    from mlflow.store.db import utils
    from mlflow.store.tracking import sqlalchemy_store

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "Creating initial MLflow database tables"
    untyped_utils: Any = utils
    engine = untyped_utils.create_sqlalchemy_engine(sqlite_uri(new))
    sqlalchemy.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    untyped_utils._initialize_tables(engine)
    engine.dispose()
    untyped_store: Any = sqlalchemy_store.SqlAlchemyStore
    untyped_store(sqlite_uri(new), artifacts)._dispose_engine()  # makes it; else each first client races to


def _relocate(root: Path) -> None:
    """Point every absolute place in the database at this root, in one transaction."""
    old_places = _old_places(root)
    new = artifacts_uri(root)
    for old in old_places:
        _check_movable(root, local_path(old))
    with _opened(root) as connection, connection:
        for old in old_places:
            for table, column in ABSOLUTE_PLACES:
                changed = f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                below_old = f"WHERE {column} = ? OR substr({column}, 1, ?) = ?"
                values = [new, len(old) + 1, old, len(old) + 1, f"{old}/"]
                connection.execute(f"{changed} {below_old}", values)
            log.warning("The project was moved: %s now points to %s, no longer to %s.", root / DATABASE, new, old)


def _check_movable(root: Path, old: Path) -> None:
    """Refuse where following the project could lose files."""
    if any(is_alive(root, token) for token in tokens(root)):
        raise PipelineError(
            f"{root / DATABASE} keeps its files in {old}, but the project is in {root} and a run is going on. "
            f"Wait for the run to end, then start again: the database is then moved over by itself."
        )
    if old.is_dir() and not (root / ARTIFACTS).is_dir():
        raise PipelineError(
            f"{root / DATABASE} was copied here without its files, which are in {old}. "
            f"Copy that folder to {root / ARTIFACTS}, or remove {root / DATABASE} to start an empty store."
        )


def _old_places(root: Path) -> list[str]:
    """Artifact folders that the database names and that are not this root's."""
    with _opened(root) as connection:
        places = [str(row[0]) for row in connection.execute("SELECT DISTINCT artifact_location FROM experiments")]
    found = {match[1] for place in places if (match := re.match(rf"(.*/{ARTIFACTS})(/.*)?$", place))}
    return sorted(found - {artifacts_uri(root)})


@contextmanager
def _read(root: Path) -> Iterator[sqlite3.Connection]:
    """To answer without MLflow, which takes 2 s to import."""
    ensure_database(root)
    try:
        with _opened(root) as connection:
            yield connection
    except sqlite3.Error as error:
        raise PipelineError(
            f"{root / DATABASE} cannot be read: {error}. If another version of MLflow wrote it, copy the file, then "
            f"run: mlflow db upgrade {sqlite_uri(root / DATABASE)}"
        ) from error


@contextmanager
def _opened(root: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(root / DATABASE, timeout=30)) as connection:
        yield connection
