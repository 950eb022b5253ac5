"""What a name on the command line means: the one place that answers.

A name is that of a run or the beginning of its id; likewise of a sweep, whose own id or whose run's id may be meant;
``@champion``, ``NAME@ALIAS`` or ``NAME@3`` for a version of a registered model; a revision of git; ``workspace``; or a
folder with a model. Each command says which of these it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.model import DESCRIPTION
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.files import read_json, sha256_of
from pipeline.system.git import commit_of
from pipeline.tracking.database import Version
from pipeline.tracking.leaderboard import DESCRIPTION_TAG, MODEL_TAG
from pipeline.tracking.run import RunRow
from pipeline.tracking.store import Store

ID_TAG, ROLE_TAG, COMMAND_TAG = "sweep.id", "sweep.role", "sweep.command"
BEST_TAG = "sweep.best_run_id"
PARENT = "parent"  # the role of a sweep's own run
CHAMPION = "champion"  # the alias of the version that is in use
WORKSPACE = "workspace"  # DVC's word for what lies in the folder now
RUN_FILE = "run.json"  # beside a model: which run trained it
MIN_ID_CHARS = 6  # of the beginning of an id; fewer could be the name of something else
MIN_SWEEP_CHARS = 4  # where only a sweep can be meant
MAX_LISTED = 5


@dataclass(frozen=True)
class TrainedRun:
    """A training that left a model."""

    row: RunRow

    def __str__(self) -> str:
        return f"run {self.row.run_id[:8]} ({self.row.name})"


@dataclass(frozen=True)
class Sweep:
    """A sweep, by its own run."""

    row: RunRow

    @property
    def identity(self) -> str:
        return self.row.tags[ID_TAG]

    def __str__(self) -> str:
        return f"sweep {self.identity}"


@dataclass(frozen=True)
class Revision:
    """A commit of git, whose models/ DVC has."""

    commit: str

    def __str__(self) -> str:
        return f"revision {self.commit[:8]}"


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a model; ``models`` of the project is the workspace's."""

    path: Path
    is_workspace: bool = False

    def __str__(self) -> str:
        return "models/ as it is now" if self.is_workspace else str(self.path)


Target = TrainedRun | Sweep | Version | Revision | ModelFolder
NAMES = {
    "workspace": WORKSPACE,
    "revision": "a revision of git",
    "run": "a run (its name, or the beginning of its id)",
    "version": f"@{CHAMPION}",
    "sweep": "a sweep",
    "folder": f"a folder with {DESCRIPTION}",
}  # kind -> what people call it, in the order in which a message lists them


def find(
    store: Store, name: str, kinds: Sequence[str], *, given: str = "", before_search: Callable[[], None] | None = None
) -> Target:
    """What a name means.

    Args:
        kinds: keys of NAMES that the command takes.
        given: the name as it stands on the command line, for messages, such as ``model=NAME``.
        before_search: called before MLflow's client is needed, which takes 2 s to import.

    Raises:
        ConfigError: nothing is called so, or several things are. The message lists what there is.
    """
    given = given or name
    if "workspace" in kinds and name == WORKSPACE:
        return ModelFolder(store.root / "models", is_workspace=True)
    if "version" in kinds and (version := find_version(store, name, given)):
        return version
    if "folder" in kinds:
        for folder in (Path(name), store.root / name):
            if (folder / DESCRIPTION).exists():
                return ModelFolder(folder)
    if before_search:
        before_search()
    min_chars = MIN_SWEEP_CHARS if len(kinds) == 1 else MIN_ID_CHARS
    if "sweep" in kinds and (row := _only_sweep(store, name, given, min_chars)):
        return Sweep(row)
    if "run" in kinds and (row := _only_run(store, name, given)):
        return TrainedRun(row)
    if "revision" in kinds and (commit := commit_of(store.root, name)):
        return Revision(commit)
    raise ConfigError(_nothing(store, name, given, kinds))


def find_run(store: Store, name: str) -> RunRow:
    """The training that a name means: a run, that of a version, or the best of a sweep.

    Raises:
        ConfigError: nothing is called so, or several things are, or the sweep has no finished job.
        PipelineError: the version came into the registry without a run.
    """
    return run_of(store, find(store, name, ("run", "version", "sweep")))


def run_of(store: Store, target: Target) -> RunRow:
    """The training behind a run, a sweep or a version. Raises as `find_run`."""
    match target:
        case TrainedRun():
            return target.row
        case Sweep():
            return best_of(store, target)
        case Version():
            row = store.found_row(target.run_id) if target.run_id else None
            if row is None:
                raise PipelineError(f"{target} has no run in the store, so nothing says how it was scored")
            return row
    raise TypeError(f"{target} is no run of the store")


def best_of(store: Store, sweep: Sweep) -> RunRow:
    """The best job. Of a sweep with seeds: of the best mean that of its first seed, not the luckiest."""
    best = sweep.row.tags.get(BEST_TAG)
    if best is None:
        raise ConfigError(f"{sweep} has no finished job yet")
    return store.row(best)


def describe(store: Store, target: Target) -> str:
    """What a name turned out to mean, in a few words."""
    if isinstance(target, Version) and target in champions(store):
        return f"{target}, @{CHAMPION}"
    if isinstance(target, Sweep):
        return f"{target}, its best: {TrainedRun(best_of(store, target))}"
    return str(target)


# ---------------------------------------------------------------- versions


def champions(store: Store) -> list[Version]:
    """Of all registered models that have one."""
    return [version for model in store.registered_models() if (version := model.version(CHAMPION))]


def find_version(store: Store, name: str, given: str = "") -> Version | None:
    """The version that ``@ALIAS``, ``MODEL@ALIAS`` or ``MODEL@3`` means; None: the name has no such form or meaning.

    Raises:
        ConfigError: there is no champion yet, or no such model, or several registered models have one.
    """
    model_name, at, alias = name.rpartition("@")
    if not at or not alias:
        return None
    models = [model for model in store.registered_models() if model_name in ("", model.name)]
    versions = [version for model in models if (version := model.version(alias))]
    if len(versions) > 1:
        choice = ", ".join(f"{version.name}@{alias}" for version in versions)
        whose = "have a champion" if alias == CHAMPION else f"have {alias}"
        raise ConfigError(f"{given or name}: several models {whose}. Give one of {choice}")
    if not versions and alias == CHAMPION:
        if not models and (names := [model.name for model in store.registered_models()]):
            raise ConfigError(
                f"{given or name}: no registered model is called {model_name}. Expected one of {', '.join(names)}"
            )
        which = f"version of {model_name}" if model_name else "model"
        raise ConfigError(
            f"{given or name}: no {which} is the champion yet. `dvc repro` registers one, and pipeline champion "
            "VERSION makes it the champion"
        )
    return versions[0] if versions else None


# ---------------------------------------------------------------- models


def run_of_model(store: Store, folder: Path, artifact: Path | None = None) -> RunRow | None:
    """The run that trained the model in a folder: what run.json names if it is about this model, else the newest.

    run.json is not DVC's: after `dvc checkout` the model may be older than it. Looking for a run makes no store.

    Args:
        artifact: the newest run that has kept this is meant, so that a revision and the workspace with the same model
            are the same run; without one the newest.
    """
    if not store.exists:
        return None
    digest, written = sha256_of(folder / DESCRIPTION), folder / RUN_FILE
    noted = read_json(written) if artifact is None and written.exists() else {}
    if noted.get(DESCRIPTION_TAG) == digest and (own := store.found_row(noted["run_id"])):
        return own
    rows = store.rows(f"tags.`{DESCRIPTION_TAG}` = '{digest}'")
    kept = (row for row in rows if artifact and (store.artifacts(row.run_id) / artifact).exists())
    return next(kept, rows[0] if rows else None)


# ---------------------------------------------------------------- sweeps and runs


def sweeps(store: Store, identity: str | None = None) -> list[RunRow]:
    """The sweeps' own runs, newest first; with an identity those of it alone. Looking for them makes no store."""
    also = "" if identity is None else f" and tags.`{ID_TAG}` = '{identity}'"
    return store.rows(f"tags.`{ROLE_TAG}` = '{PARENT}'{also}") if store.exists else []


def trained_runs(store: Store) -> list[RunRow]:
    """The runs that left a model, newest first. Looking for them makes no store."""
    return store.rows(f"tags.`{MODEL_TAG}` != ''") if store.exists else []


def sweeps_text(rows: Sequence[RunRow]) -> str:
    """`s1a2b3c4d5e6 (2026-11-23 09:41, sweep units × seed), …`."""
    return ", ".join(f"{row.tags[ID_TAG]} ({when(row)}, {row.name})" for row in rows[:MAX_LISTED]) or "none"


def runs_text(rows: Sequence[RunRow]) -> str:
    """`1a2b3c4d (dense-512 rmsprop mnist_5k), …`."""
    return ", ".join(f"{row.run_id[:8]} ({row.name})" for row in rows[:MAX_LISTED]) or "none"


def when(row: RunRow) -> str:
    return f"{datetime.fromtimestamp(row.start_ms / 1000):%Y-%m-%d %H:%M}"


def _only_sweep(store: Store, name: str, given: str, min_chars: int) -> RunRow | None:
    """The sweep of this id or name, or one of whose two ids this is the beginning.

    One that began anew has the same identity: the newest is meant.

    Raises:
        ConfigError: several are called so.
    """
    rows = sweeps(store)
    named = (
        [row for row in rows if row.tags[ID_TAG] == name]
        or [row for row in rows if row.name == name]
        or [row for row in rows if _begins(row, name, min_chars) or _begins_identity(row, name, min_chars)]
    )
    newest = list({row.tags[ID_TAG]: row for row in reversed(named)}.values())[::-1]
    return _only(newest, given, "sweeps", sweeps_text)


def _only_run(store: Store, name: str, given: str) -> RunRow | None:
    """The trained run of this name, or whose id begins so. Raises ConfigError: several are called so."""
    rows = trained_runs(store)
    named = [row for row in rows if row.name == name] or [row for row in rows if _begins(row, name)]
    return _only(named, given, "runs", runs_text)


def _only(rows: Sequence[RunRow], given: str, kind: str, as_text: Callable[[Sequence[RunRow]], str]) -> RunRow | None:
    if len(rows) > 1:
        raise ConfigError(f"{given}: {len(rows)} {kind} are called so, the newest {as_text(rows)}. Give an id")
    return rows[0] if rows else None


def _begins(row: RunRow, name: str, min_chars: int = MIN_ID_CHARS) -> bool:
    return len(name) >= min_chars and row.run_id.startswith(name)


def _begins_identity(row: RunRow, name: str, min_chars: int) -> bool:
    return len(name) >= min_chars and row.tags[ID_TAG].startswith(name)


def _nothing(store: Store, name: str, given: str, kinds: Sequence[str]) -> str:
    """The message about a name that nothing has: what was expected, and what there is."""
    if "run" in kinds and store.exists:
        for row in store.rows(""):
            if row.name == name or _begins(row, name):
                return f"{given}: run {row.run_id} is {row.status} and left no model"
    *others, last = [text for kind, text in NAMES.items() if kind in kinds]
    expected = f"{', '.join(others)}, or {last}" if others else last
    there = []
    if "run" in kinds:
        there.append(f"The newest runs: {runs_text(trained_runs(store))}")
    if "sweep" in kinds:
        there.append(f"The newest sweeps: {sweeps_text(sweeps(store))}")
    return ". ".join([f"{given}: nothing is called so. Expected {expected}", *there])
