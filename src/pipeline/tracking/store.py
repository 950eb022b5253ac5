"""One local MLflow store for a project: every run is written here, and ends with the right status."""

from __future__ import annotations

import logging
import shlex
import signal
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipeline.system import locks
from pipeline.system.errors import PipelineError, ProcessLost
from pipeline.system.signals import DeferredSignals, SignalSafeProxy
from pipeline.tracking.database import (
    DATABASE,
    RegisteredModel,
    RunFiles,
    all_pages,
    artifacts_uri,
    ensure_database,
    found_run,
    local_path,
    mlflow_command,
    open_client,
    reading,
    sqlite_uri,
)
from pipeline.tracking.leaderboard import IDLE_TAG, LIVE_TAG, PARENT_TAG, REASON_TAG, experiment_tags, view_tag
from pipeline.tracking.provenance import source_tags
from pipeline.tracking.replica import followed, server_from
from pipeline.tracking.run import Run, RunRow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities import Run as MlflowRun

log = logging.getLogger(__name__)

SWEEP_METRICS = tuple(f"metrics.`kept_{name}`" for name in ("val_accuracy", "val_loss", "train_loss"))
TRACEBACK_FILE = "failure/traceback.txt"


class Store:
    """The store of the project at ``root``: ``mlflow.db``, ``mlflow_artifacts/`` and, for locks, ``.pipeline/``.

    Nothing is read or written before the first use. MLflow's global state (tracking URI, active run, environment
    variables such as MLFLOW_TRACKING_URI) is neither used nor changed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @property
    def uri(self) -> str:
        return sqlite_uri(self.root / DATABASE)

    @property
    def exists(self) -> bool:
        """Whether anything was ever recorded here."""
        return (self.root / DATABASE).exists()

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client for this store, which is made first if there is none."""
        ensure_database(self.root)
        return cast("MlflowClient", SignalSafeProxy(open_client(self.root)))

    def experiment(self, name: str) -> str:
        """The id of the experiment, which is made if missing. What people edited in the UI stays as they left it.

        Raises:
            PipelineError: the experiment was deleted; the message gives the command that restores it.
        """
        experiment = self.client.get_experiment_by_name(name) or self._new_experiment(name)
        if experiment.lifecycle_stage != "active":
            restore = mlflow_command("experiments", "restore", "--experiment-id", experiment.experiment_id)
            raise PipelineError(
                f"Experiment {name!r} was deleted from {self.root / DATABASE}, so no run can be added to it. "
                f"Choose another name, or restore it: MLFLOW_TRACKING_URI={shlex.quote(self.uri)} {restore}"
            )
        for key, value in experiment_tags(name).items():
            if key not in experiment.tags:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def save_sweep_view(self, parent: str, identity: str, keys: Sequence[str], metric: str, *, ascending: bool) -> None:
        """A table of a sweep's jobs in the UI's menu of views, best first: what was swept, and what came out."""
        columns = [*(f"params.`{key}`" for key in keys), f"metrics.`{metric}`", *SWEEP_METRICS]
        tag = view_tag(
            f"sweep-{identity}", f"Sweep {identity}", list(dict.fromkeys(columns)), f"metrics.`{metric}`",
            ascending=ascending, only=f"tags.`{PARENT_TAG}` = '{parent}'",
        )  # fmt: skip
        experiment = self.client.get_run(parent).info.experiment_id
        for key, value in tag.items():
            self.client.set_experiment_tag(experiment, key, value)

    def run_exists(self, run_id: str) -> bool:
        """Whether the run is in this store and not deleted."""
        files = self._files(run_id)
        return files is not None and files.is_active

    def was_tagged(self, tag: str, value: str) -> bool:
        """Whether any run, deleted or not, has the tag with this value: quicker than to look which."""
        with reading(self.root) as reader:
            return reader.has_tag(tag, value)

    def newest_experiment(self, name: str | None = None) -> str | None:
        """Id of the experiment of this name, or of the one with the newest run. None: there is none."""
        if name is not None:
            experiment = self.client.get_experiment_by_name(name)
            return str(experiment.experiment_id) if experiment and experiment.lifecycle_stage == "active" else None
        ids = [experiment.experiment_id for experiment in all_pages(self.client.search_experiments)]
        newest = self.client.search_runs(ids, max_results=1, order_by=["attributes.start_time DESC"])
        return str(newest[0].info.experiment_id) if newest else None

    def registered_models(self) -> list[RegisteredModel]:
        """By name; reading them makes no store."""
        if not self.exists:
            return []
        with reading(self.root) as reader:
            return reader.registered_models()

    def rows(self, condition: str) -> list[RunRow]:
        """The runs that meet MLflow's filter and are not deleted, newest first."""
        return [RunRow.of(run) for run in self._search(condition)]

    def experiment_name(self, experiment_id: str) -> str:
        return str(self.client.get_experiment(experiment_id).name)

    def row(self, run_id: str) -> RunRow:
        return RunRow.of(self.client.get_run(run_id))

    def found_row(self, run_id: str) -> RunRow | None:
        """None: it is not in this store, or deleted."""
        run = self._active_run(run_id)
        return RunRow.of(run) if run else None

    def artifacts(self, run_id: str) -> Path:
        """The folder of its files.

        Raises:
            PipelineError: there is no such run.
        """
        files = self._files(run_id)
        if files is None:
            raise PipelineError(f"{self.root / DATABASE} has no run {run_id}")
        return files.folder

    def names_and_values(self, run_ids: Iterable[str], metric: str) -> dict[str, tuple[str, float | None]]:
        """The name of each run and the newest value of one of its metrics; without those that are not in this store."""
        if not self.exists:
            return {}
        with reading(self.root) as reader:
            return {
                run_id: (run.name, reader.metric(run_id, metric))
                for run_id in run_ids
                if (run := reader.run_files(run_id)) and run.is_active
            }

    def model_folder(self, model_id: str) -> Path:
        """Of a logged model."""
        return local_path(self.client.get_logged_model(model_id).artifact_location)

    def ended_run(self, run_id: str) -> Run:
        """A run to add something to, newer values included, whatever its status is, which stays."""
        return Run(self.client, run_id)

    @contextmanager
    def added_to(self, run_id: str, server: str | None) -> Iterator[Run]:
        """The same, after which the server gets what was added."""
        with followed(self.root, run_id, self.uri, server_from(server)):
            yield self.ended_run(run_id)

    def children(self, parent: str) -> list[RunRow]:
        """The runs of a parent run, newest first."""
        return self.rows(f"tags.`{PARENT_TAG}` = '{parent}'")

    def reap(self) -> list[str]:
        """End the runs whose process died without ending them (SIGKILL, power cut): KILLED, with the reason.

        Returns their ids. Costs one directory listing when there are none.
        """
        dead = []
        for token in locks.tokens(self.root):
            with suppress(locks.LockHeld), locks.locked(self.root / locks.LIVE / token, wait=False):
                for run in self._search(f"tags.`{LIVE_TAG}` = '{token}' AND attributes.status = 'RUNNING'"):
                    ending = Ending("KILLED", "the process died without ending the run (SIGKILL or power cut)")
                    self._end(run.info.run_id, ending)
                    dead.append(str(run.info.run_id))
                locks.forget(self.root, token)
        return dead

    @contextmanager
    def run(
        self,
        experiment: str,
        name: str,
        *,
        resume: str | None = None,
        tags: Mapping[str, str] | None = None,
        server: str | None = None,
    ) -> Iterator[Run]:
        """A run that always ends right: FINISHED, FAILED (an exception) or KILLED (a signal; exit code 128 + n).

        Args:
            resume: id of a run to go on with. If the store no longer has it, a new run is made and a warning says so.
            tags: set when the run starts.
            server: gets a copy of the run while it goes; None: what MLFLOW_TRACKING_URI names, where that is a server.

        Raises:
            PipelineError: the experiment was deleted, or another process is writing the run to resume.
            SystemExit: with 128 + n after signal n, whatever the block made of it.
        """
        _ = self.client  # opened before this run is alive: a moved project is followed only while no run is
        self.reap()
        with DeferredSignals() as signals, locks.alive(self.root) as token:
            run = self._begin(experiment, name, resume, {**(tags or {}), LIVE_TAG: token})
            with followed(self.root, run.id, self.uri, server_from(server)):
                try:
                    with signals.interruptible():
                        yield run
                except BaseException as error:
                    ending = Ending.of(error, signals.received)
                    self._end_after(run, error, ending)
                    if ending.exit_code is not None:
                        raise SystemExit(ending.exit_code) from error
                    raise
                self._end(run.id, Ending("FINISHED"))

    def _begin(self, experiment: str, name: str, resume: str | None, tags: dict[str, str]) -> Run:
        old = self._active_run(resume) if resume is not None else None
        if old is not None:
            return self._reopen(old, tags)
        if resume is not None:
            log.warning("Run %s is no longer in %s: its work goes on in a new run.", resume, self.root / DATABASE)
        new = self.client.create_run(self.experiment(experiment), tags={**source_tags(), **tags}, run_name=name)
        return Run(self.client, new.info.run_id)

    def _reopen(self, old: MlflowRun, tags: dict[str, str]) -> Run:
        run_id = str(old.info.run_id)
        if locks.is_alive(self.root, old.data.tags.get(LIVE_TAG, "none")):
            raise PipelineError(
                f"Run {run_id} ({old.info.run_name}) is being written by another process. "
                f"Wait for it to end, or leave out the run to resume to start a new one."
            )
        if REASON_TAG in old.data.tags:
            self.client.delete_tag(run_id, REASON_TAG)
        run = Run(self.client, run_id, resumed=True)
        idle_s = float(old.data.tags.get(IDLE_TAG, 0)) + time.time() - (old.info.end_time or time.time() * 1000) / 1000
        run.tags({**tags, IDLE_TAG: f"{idle_s:.1f}"})
        self.client.update_run(run_id, status="RUNNING")
        return run

    def _end_after(self, run: Run, error: BaseException, ending: Ending) -> None:
        """End a run whose block raised. That error matters more than one of the store, which is only logged."""
        try:
            self._end(run.id, ending)
            if ending.status == "FAILED":
                run.text("".join(traceback.format_exception(error)), TRACEBACK_FILE)
        except Exception as problem:
            why = str(problem).partition("\n")[0]
            log.warning("Run %s may not have ended as %s in %s: %s", run.id, ending.status, self.uri, why)

    def _end(self, run_id: str, ending: Ending) -> None:
        if ending.reason:
            self.client.set_tag(run_id, REASON_TAG, ending.reason[:500])
        self.client.set_terminated(run_id, ending.status)
        self.client.delete_tag(run_id, LIVE_TAG)

    def _files(self, run_id: str) -> RunFiles | None:
        if not self.exists:
            return None
        with reading(self.root) as reader:
            return reader.run_files(run_id)

    def _active_run(self, run_id: str) -> MlflowRun | None:
        run = found_run(self.client, run_id)
        return run if run and run.info.lifecycle_stage == "active" else None

    def _search(self, condition: str) -> list[MlflowRun]:
        """Runs that are not deleted, newest first."""
        experiments = [experiment.experiment_id for experiment in all_pages(self.client.search_experiments)]
        newest_first = ["attributes.start_time DESC"]
        return all_pages(self.client.search_runs, experiments, condition, order_by=newest_first)

    def _new_experiment(self, name: str) -> Experiment:
        from mlflow.exceptions import MlflowException

        try:
            made = self.client.create_experiment(name, artifacts_uri(self.root), experiment_tags(name))
            return self.client.get_experiment(made)
        except MlflowException as error:
            if first := self.client.get_experiment_by_name(name):  # made by another process in the meantime
                return first
            raise PipelineError(f"MLflow refuses to make an experiment called {name!r}: {error}") from error


# ---------------------------------------------------------------- the status that an exception gives a run


INTERRUPTED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


@dataclass(frozen=True)
class Ending:
    """How a run ends: MLflow's status, the reason where there is one, the exit code where a signal decides it."""

    status: str
    reason: str = ""
    exit_code: int | None = None

    @classmethod
    def of(cls, error: BaseException, caught: int | None) -> Ending:
        """The ending for an exception that left the block, ``caught`` being the signal behind it."""
        if caught is None and isinstance(error, KeyboardInterrupt):
            caught = signal.SIGINT
        if caught is None and isinstance(error, SystemExit) and error.code in INTERRUPTED:  # of a run within this one
            caught = int(error.code) - 128
        if caught is not None and not isinstance(error, ProcessLost):
            return cls("KILLED", signal.Signals(caught).name, 128 + caught)
        if isinstance(error, SystemExit) and not error.code:
            return cls("FINISHED")
        return cls("FAILED", f"{type(error).__name__}: {error}")
