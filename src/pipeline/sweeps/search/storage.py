"""Where Optuna keeps a study: a journal file, or a database by its URL."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pipeline.system.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

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


def refuse_a_password(given: str | None) -> None:
    """Of what is typed or written in conf/: others see it in the process list, and it would be recorded."""
    if given and is_url(given) and urlsplit(given).password:
        raise ConfigError(
            f"hydra.sweeper.storage={shown_place(given)} holds a password. Give the URL in the environment instead: "
            f"{VARIABLE}=… pipeline train -m …"
        )


def handed_on(place: str) -> str:
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


def _lock(place: str) -> Any:
    """The kernel's, which a killed process leaves at once. Optuna's own would make the others wait for 30 s."""
    from optuna.storages.journal._file import BaseJournalFileLock

    class KernelLock(BaseJournalFileLock):
        def acquire(self) -> bool:
            self.file = os.open(f"{place}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self.file, fcntl.LOCK_EX)
            drop_half_a_line(Path(place))
            return True

        def release(self) -> None:
            os.close(self.file)

    return KernelLock()


def drop_half_a_line(journal: Path) -> None:
    """What a full disk or a power cut left of a line; the next one would be appended to it, and never be read."""
    if not journal.exists():
        return
    with open(journal, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        place = end
        while place:
            start = max(0, place - 2**16)
            file.seek(start)
            newline = file.read(place - start).rfind(b"\n")
            if newline >= 0:
                place = start + newline + 1
                break
            place = start
        if place < end:
            file.truncate(place)
