"""The sqlite file behind a store: made once, whole or not at all, and right again after the project was moved.

This is the only module that knows MLflow's tables: those of KNOWN_SCHEMAS. Others are read by MLflow's public client.
"""

from __future__ import annotations

import logging
import re
import shlex
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pipeline.system.errors import PipelineError
from pipeline.system.locks import is_alive, locked, tokens
from pipeline.tracking.leaderboard import MODEL_ID_TAG

log = logging.getLogger(__name__)

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow_artifacts"
LOCK = Path(".pipeline", "store.lock")
KNOWN_SCHEMAS = ("dc11669786a5",)  # Alembic's revisions of MLflow's tables that the SQL here was written for: 3.17
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
    with _opened(root):
        pass


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: int
    run_id: str | None  # None: registered in the UI, from a file
    model_id: str | None
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"version {self.number} of {self.name}"


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model, with its versions that are not deleted, newest first."""

    name: str
    aliases: dict[str, int]  # alias -> number of a version
    versions: tuple[Version, ...]

    def version(self, alias: str) -> Version | None:
        """That an alias names, or a number; None: there is none."""
        number = self.aliases.get(alias, int(alias) if alias.isdecimal() else None)
        return next((version for version in self.versions if version.number == number), None)


@dataclass(frozen=True)
class RunFiles:
    """What is known of a run without MLflow's client."""

    name: str
    is_active: bool  # not deleted
    folder: Path  # of its artifacts


@contextmanager
def reading(root: Path) -> Iterator[SqlReader | ClientReader]:
    """The store at ``root``, opened once; it is made if missing.

    By SQL where MLflow's tables are those that this module knows, else by MLflow's client, with a warning.

    Raises:
        PipelineError: the database cannot be read.
    """
    try:
        with _opened(root) as connection:
            if (schema := _schema(connection)) in KNOWN_SCHEMAS:
                yield SqlReader(connection)
                return
        _warn_of_schema(root / DATABASE, schema)
        yield ClientReader(root)
    except sqlite3.Error as error:
        raise PipelineError(
            f"{root / DATABASE} cannot be read: {error}. If another version of MLflow wrote it, copy the file, then "
            f"run: mlflow db upgrade {sqlite_uri(root / DATABASE)}"
        ) from error


@dataclass(frozen=True)
class SqlReader:
    """Answers what MLflow's client would answer only after its 2 s of imports."""

    connection: sqlite3.Connection

    def registered_models(self) -> list[RegisteredModel]:
        """All, by name."""
        aliases: dict[str, dict[str, int]] = {}
        for name, alias, number in self._rows("SELECT name, alias, version FROM registered_model_aliases"):
            aliases.setdefault(name, {})[alias] = int(number)
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for name, number, key, value in self._rows("SELECT name, version, key, value FROM model_version_tags"):
            tags.setdefault((name, number), {})[key] = value
        versions: dict[str, list[Version]] = {}
        for name, number, run_id in self._rows(
            "SELECT name, version, run_id FROM model_versions WHERE current_stage != 'Deleted_Internal' "
            "ORDER BY version DESC"
        ):
            its_tags = tags.get((name, number), {})
            version = Version(name, int(number), run_id, its_tags.get(MODEL_ID_TAG), its_tags)
            versions.setdefault(name, []).append(version)
        return [
            RegisteredModel(name, aliases.get(name, {}), tuple(versions.get(name, ())))
            for (name,) in self._rows("SELECT name FROM registered_models ORDER BY name")
        ]

    def run_files(self, run_id: str) -> RunFiles | None:
        """None: there is no run of this id."""
        query = "SELECT name, lifecycle_stage = 'active', artifact_uri FROM runs WHERE run_uuid = ?"
        row = self._first(query, run_id)
        return RunFiles(str(row[0]), bool(row[1]), local_path(row[2])) if row else None

    def metric(self, run_id: str, key: str) -> float | None:
        """The newest value of a metric of a run; None: it has none."""
        row = self._first("SELECT value FROM latest_metrics WHERE run_uuid = ? AND key = ? AND NOT is_nan", run_id, key)
        return float(row[0]) if row else None

    def has_tag(self, key: str, value: str) -> bool:
        """Whether any run, deleted or not, has the tag with this value. MLflow's search takes 30 ms, this 0.1."""
        return self._first("SELECT 1 FROM tags WHERE key = ? AND value = ? LIMIT 1", key, value) is not None

    def _rows(self, query: str) -> Iterator[Any]:
        return self.connection.execute(query)

    def _first(self, query: str, *values: str) -> Any:
        return self.connection.execute(query, values).fetchone()


class ClientReader:
    """The same by MLflow's public client: slower, and right whatever the tables are."""

    def __init__(self, root: Path) -> None:
        self.client = open_client(root)

    def registered_models(self) -> list[RegisteredModel]:
        models = sorted(all_pages(self.client.search_registered_models), key=lambda model: str(model.name))
        by_name: dict[str, list[Version]] = {}
        for found in all_pages(self.client.search_model_versions):
            tags = dict(found.tags)
            version = Version(found.name, int(found.version), found.run_id, tags.get(MODEL_ID_TAG), tags)
            by_name.setdefault(found.name, []).append(version)
        return [
            RegisteredModel(
                model.name,
                {alias: int(number) for alias, number in model.aliases.items()},
                tuple(sorted(by_name.get(model.name, ()), key=lambda version: -version.number)),
            )
            for model in models
        ]

    def run_files(self, run_id: str) -> RunFiles | None:
        run = found_run(self.client, run_id)
        if run is None:
            return None
        return RunFiles(run.info.run_name, run.info.lifecycle_stage == "active", local_path(run.info.artifact_uri))

    def metric(self, run_id: str, key: str) -> float | None:
        run = found_run(self.client, run_id)
        value = run.data.metrics.get(key) if run else None
        return None if value is None or value != value else float(value)

    def has_tag(self, key: str, value: str) -> bool:
        from mlflow.entities import ViewType

        experiments = all_pages(self.client.search_experiments, view_type=ViewType.ALL)
        ids = [experiment.experiment_id for experiment in experiments]
        quote = '"' if "'" in value else "'"
        condition = f"tags.`{key}` = {quote}{value}{quote}"
        return bool(self.client.search_runs(ids, condition, run_view_type=ViewType.ALL, max_results=1))


def open_client(root: Path) -> Any:
    """MLflow's client for the database.

    Raises:
        PipelineError: MLflow refuses it, as one that another version of MLflow wrote.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = sqlite_uri(root / DATABASE)
    try:
        return MlflowClient(uri, uri)
    except MlflowException as error:
        raise PipelineError(
            f"MLflow cannot open {root / DATABASE}: {error}\n"
            f"If another version of MLflow wrote it, copy the file, then run: {mlflow_command('db', 'upgrade', uri)}"
        ) from error


def found_run(client: Any, run_id: str) -> Any:
    """MLflow's run, deleted or not; None: there is none of this id."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def mlflow_command(*arguments: str) -> str:
    """For a shell."""
    return shlex.join([sys.executable, "-m", "mlflow", *arguments])


def all_pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """All that a search of MLflow's client finds, of all pages."""
    items: list[Any] = []
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        items += page
        token = page.token
        if not token:
            return items


def _schema(connection: sqlite3.Connection) -> str:
    """The revision of MLflow's tables, by Alembic's table; "none" without one."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        row = None
    return str(row[0]) if row else "none"


@cache
def _warn_of_schema(database: Path, schema: str) -> None:
    log.warning("%s has tables of another version of MLflow (%s): it is read by MLflow, more slowly.", database, schema)


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
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def do_not_wait_for_the_disk(connection: Any, _: object) -> None:  # every engine of this process connects here
        if isinstance(connection, sqlite3.Connection) and _file_of(connection) == new.resolve():
            connection.execute("PRAGMA synchronous=OFF")

    untyped_store: Any = SqlAlchemyStore
    event.listen(Engine, "connect", do_not_wait_for_the_disk)
    try:
        with _without_infos("mlflow.store.db.utils"):  # "Creating initial MLflow database tables"
            untyped_store(sqlite_uri(new), artifacts).engine.dispose()
    finally:
        event.remove(Engine, "connect", do_not_wait_for_the_disk)


def _file_of(connection: sqlite3.Connection) -> Path:
    _, _, file = connection.execute("PRAGMA database_list").fetchone()
    return Path(file).resolve()


@contextmanager
def _without_infos(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _opened(root: Path) -> Iterator[sqlite3.Connection]:
    """The database, made if missing, of this root if it was another's."""
    sqlite_uri(root / DATABASE)
    if not (root / DATABASE).exists():
        with locked(root / LOCK):
            if not (root / DATABASE).exists():
                _create(root)
    with closing(sqlite3.connect(root / DATABASE, timeout=30)) as connection:
        if _old_places(connection, root):
            with locked(root / LOCK):
                _relocate(connection, root)
        yield connection


def _old_places(connection: sqlite3.Connection, root: Path) -> list[str]:
    """Artifact folders that the database names and that are not this root's."""
    try:
        places = [str(row[0]) for row in connection.execute("SELECT DISTINCT artifact_location FROM experiments")]
    except sqlite3.OperationalError:  # tables that are not known here: MLflow's client says what they are
        return []
    folders = {match[1] for place in places if (match := re.match(rf"(.*/{ARTIFACTS})(/.*)?$", place))}
    return sorted(folders - {artifacts_uri(root)})


def _relocate(connection: sqlite3.Connection, root: Path) -> None:
    """Point every absolute place in the database at this root, in one transaction."""
    old_places = _old_places(connection, root)
    new = artifacts_uri(root)
    for old in old_places:
        _check_movable(root, local_path(old))
    try:
        with connection:
            for old in old_places:
                for table, column in ABSOLUTE_PLACES:
                    changed = f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    below_old = f"WHERE {column} = ? OR substr({column}, 1, ?) = ?"
                    values = [new, len(old) + 1, old, len(old) + 1, f"{old}/"]
                    connection.execute(f"{changed} {below_old}", values)
    except sqlite3.OperationalError as error:
        raise PipelineError(
            f"{root / DATABASE} keeps its files in {old_places[0]}, and cannot be moved over: {error}. If another "
            f"version of MLflow wrote it, move the project back to where it was"
        ) from error
    for old in old_places:
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
