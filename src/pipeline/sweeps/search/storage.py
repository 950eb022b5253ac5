"""Where Optuna keeps a study: a journal file, or a database by its URL."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.locks import locked

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal import JournalFileOpenLock

VARIABLE = "OPTUNA_STORAGE"  # Optuna's own name for it
IN_ENVIRONMENT = f"env:{VARIABLE}"  # what a job's configuration says of a URL with a password
JOURNAL = "study.journal"  # in the sweep's folder
SQLITE_TIMEOUT_S = 60  # several jobs report to one file


def place_of(given: str | None, folder: Path, root: Path) -> str:
    """A URL, or the absolute path of a journal file.

    Args:
        given: hydra.sweeper.storage; None: OPTUNA_STORAGE, else a journal in the sweep's folder.

    Raises:
        ConfigError: it is MLflow's database.
    """
    wanted = given or os.environ.get(VARIABLE) or str(folder / JOURNAL)
    file = root / wanted
    in_sqlite = root / urlsplit(wanted).path.removeprefix("/") if wanted.startswith("sqlite") else file
    if in_sqlite.resolve() == (root / "mlflow.db").resolve():
        raise ConfigError(
            f"hydra.sweeper.storage={shown_place(wanted)} is MLflow's database. Optuna needs one of its own, because "
            "both keep a table alembic_version: leave it null, or give sqlite:///study.db"
        )
    return wanted if is_url(wanted) else str(file)


def refuse_password(given: str | None) -> None:
    """Of what is typed or written in conf/: others see it in the process list, and it would be recorded."""
    if given and is_url(given) and urlsplit(given).password:
        raise ConfigError(
            f"hydra.sweeper.storage={shown_place(given)} holds a password. Give the URL in the environment instead: "
            f"{VARIABLE}=… pipeline train -m …"
        )


def storage_for_jobs(place: str) -> str:
    """How a job's configuration names it. A URL with a password goes by this process's environment."""
    if not is_url(place) or not urlsplit(place).password:
        return place
    os.environ[VARIABLE] = place
    return IN_ENVIRONMENT


def shown_place(place: str) -> str:
    """Without a password."""
    if not is_url(place):
        return place
    parts = urlsplit(place)
    if not parts.password:
        return place
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def is_url(place: str) -> bool:
    return "://" in place


def open_storage(place: str) -> BaseStorage:
    """Raises PipelineError if it cannot be opened."""
    from optuna.storages import JournalStorage, RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    place = os.environ[VARIABLE] if place == IN_ENVIRONMENT else place
    if not is_url(place):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(place, lock_obj=_lock(place)))
    timeout = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}} if place.startswith("sqlite") else {}
    try:
        return get_storage(RDBStorage(place, engine_kwargs=timeout))
    except Exception as error:  # of SQLAlchemy or of a driver: no such host, no such module, another schema
        raise PipelineError(f"the study's storage {shown_place(place)} cannot be opened: {error}") from None


def _lock(place: str) -> JournalFileOpenLock:
    """The kernel's, which a killed process leaves at once. Optuna's own would make the others wait for 30 s."""
    from optuna.storages.journal import JournalFileOpenLock

    class KernelLock(JournalFileOpenLock):
        held = ExitStack()

        def acquire(self) -> bool:
            self.held.enter_context(locked(Path(f"{place}.lock")))
            drop_partial_line(Path(place))
            return True

        def release(self) -> None:
            self.held.close()

    return KernelLock(place)


def drop_partial_line(journal: Path) -> None:
    """What a full disk or a power cut left of a line; the next one would be appended to it, and never be read."""
    if not journal.exists() or not journal.stat().st_size:
        return
    with open(journal, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
