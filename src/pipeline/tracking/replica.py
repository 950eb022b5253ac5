"""Copies of runs on a tracking server. What is trained and how it is tracked knows only the local store.

A copy is found by a tag that holds the local run's id, and a point is one row of the server however often it is sent,
so copying can be cut off at any instant and repeated at will.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pipeline.system.errors import PipelineError
from pipeline.system.locks import locked
from pipeline.tracking.database import all_pages, local_path
from pipeline.tracking.leaderboard import LIVE_TAG, PARENT_TAG, VIEW_TAG, with_ids
from pipeline.tracking.run import METRICS_PER_CALL, PARAMS_PER_CALL, batches_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModelOutput
    from mlflow.entities import Run as MlflowRun

    from pipeline.tracking.store import Store

SOURCE_RUN, SOURCE_MODEL = "replica.source_run", "replica.source_model"  # of a copy: the local id
COPIED = "replica.copied"  # of a local run: which server has all of it, and what "all" was
LOCAL_TAGS = (COPIED, LIVE_TAG)  # mean something to the local store alone
LOCK = Path(".pipeline", "replica.lock")
SHARED_VIEWS = VIEW_TAG.format("")

Item = TypeVar("Item", bound=Hashable)


def server_from(given: str | None) -> str | None:
    """The tracking server: what the settings say, else MLFLOW_TRACKING_URI if that is one; None: there is none."""
    named = given or os.environ.get("MLFLOW_TRACKING_URI", "")
    return named if named.startswith(("http://", "https://")) else None


def without_password(server: str) -> str:
    """Without the password that the address may hold."""
    parts = urlsplit(server)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def reason_of(error: Exception, server: str) -> str:
    """Why a server did not answer, in a line, without the password in its address."""
    text = str(error).replace(server, without_password(server))
    if inner := re.search(r"\[Errno \d+\] ([\w ]+)|(Read timed out)|(too many \d+ error responses)", text):
        return inner[1] or inner[0]
    return text.partition("\n")[0][:200]


class Replica:
    """The copies that a server has of a local store's runs.

    What was sent is remembered by this object only: losing it costs sending it again. Any method raises what MLflow
    raises for a server that does not answer.
    """

    def __init__(self, root: Path, local: MlflowClient, server: str) -> None:
        from mlflow import MlflowClient

        self.root, self.local, self.remote = root, local, MlflowClient(server, server)
        self.name = without_password(server)
        self._sent: set[tuple[str, Hashable]] = set()  # (id on the server, what)
        self._ids: dict[str, str] = {}  # of runs and models: local to the server's

    def copy(self, run_id: str, again: bool = False) -> bool:
        """Bring the copy of a run up to date. Returns whether the run has ended and the copy is complete.

        Args:
            again: also if the copy was complete before: the server may have lost it.
        """
        with locked(self.root / LOCK):  # two at once would both find no copy, and make one
            run = self.local.get_run(run_id)
            files = _files(local_path(run.info.artifact_uri))
            mark = self._mark(run, list(files))
            if run.data.tags.get(COPIED) == mark and not again:
                return True
            copy_id = self._run(run)
            self._values(copy_id, run)
            if inputs := _inputs(run):
                names = tuple(entry.dataset.name for entry in inputs)
                self._once(copy_id, names, self.remote.log_inputs, copy_id, inputs)
            for state, path in files.items():
                folder = state[0].rpartition("/")[0] or None
                self._once(copy_id, state, self.remote.log_artifact, copy_id, str(path), folder)
            for output in run.outputs.model_outputs if run.outputs else []:
                self._model(copy_id, output)
            if run.info.status not in ("FINISHED", "FAILED", "KILLED"):
                self._once(copy_id, "status", self.remote.update_run, copy_id, run.info.status)
                return False
            self._drop_old_tags(copy_id, run)
            self.remote.set_terminated(copy_id, run.info.status, run.info.end_time)
            self.local.set_tag(run_id, COPIED, mark)
            return True

    def is_complete(self, run_id: str) -> bool:
        """Whether the run has ended and was copied as it is now. Asks the local store only."""
        run = self.local.get_run(run_id)
        return run.data.tags.get(COPIED) == self._mark(run, list(_files(local_path(run.info.artifact_uri))))

    def _mark(self, run: MlflowRun, files: list[Any]) -> str:
        return f"{self.name} {_digest(run, files)}"

    def ids(self) -> dict[str, list[str]]:
        """All copies: local run id to the server's, several where a request was answered after it was given up."""
        copies: dict[str, list[str]] = {}
        for run in _runs(self.remote, f"tags.`{SOURCE_RUN}` != ''"):
            copies.setdefault(run.data.tags[SOURCE_RUN], []).append(run.info.run_id)
        return copies

    # ---------------------------------------------------------------- runs

    def _run(self, run: MlflowRun) -> str:
        local_id = run.info.run_id
        if local_id not in self._ids:
            experiment = self._experiment(run.info.experiment_id)
            copies = _runs(self.remote, f"tags.`{SOURCE_RUN}` = '{local_id}'", [experiment])
            if not copies:
                tags = {**self._tags(run), SOURCE_RUN: local_id}
                copies = [self.remote.create_run(experiment, run.info.start_time, tags, run.info.run_name)]
            self._ids[local_id], *others = [str(copy.info.run_id) for copy in sorted(copies, key=_fullest_first)]
            for other in others:
                self.remote.delete_run(other)
        return self._ids[local_id]

    def _experiment(self, local_id: str) -> str:
        local = self.local.get_experiment(local_id)
        remote = self.remote.get_experiment_by_name(local.name)
        tags = {key: value for key, value in local.tags.items() if not key.startswith(f"{SHARED_VIEWS}sweep-")}
        if remote is None:
            return str(self.remote.create_experiment(local.name, tags=tags))
        for key in tags.keys() - remote.tags.keys():  # what people edited on the server stays
            self.remote.set_experiment_tag(remote.experiment_id, key, tags[key])
        return str(remote.experiment_id)

    def _tags(self, run: MlflowRun) -> dict[str, str]:
        tags = {key: value for key, value in run.data.tags.items() if key not in LOCAL_TAGS}
        if parent := tags.get(PARENT_TAG):
            tags[PARENT_TAG] = self._run(self.local.get_run(parent))
        return tags

    def _values(self, copy_id: str, run: MlflowRun) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params = [("param", *item) for item in run.data.params.items()]
        for batch in self._new(copy_id, params, PARAMS_PER_CALL):
            self.remote.log_batch(copy_id, params=[Param(key, value) for _, key, value in batch])
        tags = [("tag", *item) for item in self._tags(run).items()]
        for batch in self._new(copy_id, tags, PARAMS_PER_CALL):
            self.remote.log_batch(copy_id, tags=[RunTag(key, value) for _, key, value in batch])
        history = (point for key in run.data.metrics for point in self.local.get_metric_history(run.info.run_id, key))
        points = [(point.key, _same_nan(point.value), point.timestamp, point.step) for point in history]
        for new_points in self._new(copy_id, points, METRICS_PER_CALL):
            self.remote.log_batch(
                copy_id, metrics=[Metric(key, float(value), at, step) for key, value, at, step in new_points]
            )
        self._view(copy_id, run)

    def _view(self, copy_id: str, run: MlflowRun) -> None:
        """A sweep's table of jobs, which is a view of the experiment and names the sweep's run."""
        local = self.local.get_experiment(run.info.experiment_id)
        experiment = self.remote.get_run(copy_id).info.experiment_id if "sweep.id" in run.data.tags else None
        key = f"{SHARED_VIEWS}sweep-{run.data.tags.get('sweep.id')}"
        if experiment and key in local.tags:
            value = with_ids(local.tags[key], {run.info.run_id: copy_id})
            self._once(copy_id, local.tags[key], self.remote.set_experiment_tag, experiment, key, value)

    def _drop_old_tags(self, copy_id: str, run: MlflowRun) -> None:
        """Such as why it ended, of a run that went on."""
        kept = {*self._tags(run), SOURCE_RUN}
        for key in self.remote.get_run(copy_id).data.tags.keys() - kept:
            self.remote.delete_tag(copy_id, key)

    # ---------------------------------------------------------------- models

    def _model(self, copy_id: str, output: LoggedModelOutput) -> None:
        from mlflow.entities import LoggedModelOutput, Metric

        model = self.local.get_logged_model(output.model_id)
        if model.model_id not in self._ids:
            experiment = self.remote.get_run(copy_id).info.experiment_id
            copies = self.remote.search_logged_models([experiment], f"tags.`{SOURCE_MODEL}` = '{model.model_id}'")
            tags = {**model.tags, SOURCE_MODEL: model.model_id}
            copy, *others = sorted(copies, key=lambda copy: str(copy.model_id)) or [
                self.remote.create_logged_model(experiment, model.name, copy_id, tags, model.params, model.model_type)
            ]
            for other in others:
                self.remote.delete_logged_model(other.model_id)
            if str(copy.status) != "READY":  # it is new, or its copying was cut off
                self.remote.log_model_artifacts(copy.model_id, str(local_path(model.artifact_location)))
                self.remote.log_outputs(copy_id, [LoggedModelOutput(copy.model_id, output.step)])
                self.remote.finalize_logged_model(copy.model_id, model.status)
            self._ids[model.model_id] = copy.model_id
        copied_model = self._ids[model.model_id]
        rows = [
            (point.key, _same_nan(point.value), point.timestamp, point.step, point.dataset_name, point.dataset_digest)
            for point in model.metrics or []
        ]
        for batch in self._new(copied_model, rows, METRICS_PER_CALL):
            points = [Metric(key, float(value), at, step, copied_model, *data) for key, value, at, step, *data in batch]
            self.remote.log_batch(copy_id, metrics=points)

    # ---------------------------------------------------------------- what was sent

    def _new(self, copy_id: str, items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
        """The items that were not sent, in batches. A batch counts as sent when the caller comes back for the next."""
        new = [item for item in items if (copy_id, item) not in self._sent]
        for batch in batches_of(new, size):
            yield batch
            self._sent.update((copy_id, item) for item in batch)

    def _once(self, copy_id: str, what: Hashable, send: Callable[..., object], *arguments: object) -> None:
        if (copy_id, what) not in self._sent:
            send(*arguments)
            self._sent.add((copy_id, what))


def _runs(client: MlflowClient, condition: str, experiments: Sequence[str] | None = None) -> list[MlflowRun]:
    if experiments is None:
        experiments = [experiment.experiment_id for experiment in all_pages(client.search_experiments)]
    return all_pages(client.search_runs, experiments, condition) if experiments else []


def _fullest_first(copy: MlflowRun) -> tuple[int, int, str]:
    """Of several copies the one that has most comes first, that is the one that was filled."""
    models = len(copy.outputs.model_outputs) if copy.outputs else 0
    return -models, -len(copy.data.metrics), str(copy.info.run_id)


def _inputs(run: MlflowRun) -> list[DatasetInput]:
    return list(run.inputs.dataset_inputs) if run.inputs else []


def _files(root: Path) -> dict[tuple[str, int, int], Path]:
    """(name, size, time of change) of each artifact, and where it lies."""
    files = [(path, path.stat()) for path in sorted(root.rglob("*")) if path.is_file()]
    return {(path.relative_to(root).as_posix(), s.st_size, s.st_mtime_ns): path for path, s in files}


def _digest(run: MlflowRun, files: list[Any]) -> str:
    tags = {key: value for key, value in run.data.tags.items() if key not in LOCAL_TAGS}
    inputs = [entry.dataset.digest for entry in _inputs(run)]
    outputs = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
    body = [run.info.status, run.info.end_time, run.data.metrics, run.data.params, tags, files, inputs, outputs]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _same_nan(value: float) -> float | str:
    """NaN is not equal to itself, so as a number it would be sent again and again."""
    return "nan" if value != value else value


def sync_all(store: Store, server: str) -> tuple[int, int, int]:
    """Copy all runs. Returns how many were copied, how many of them are still going, and how many were complete.

    Raises:
        PipelineError: the server does not answer.
    """
    from mlflow.exceptions import MlflowException

    replica = Replica(store.root, store.client, server)
    copied = going = complete = 0
    try:
        copies = replica.ids()
        for row in reversed(store.rows("")):  # oldest first, as they came
            lost = len(copies.get(row.run_id, [])) != 1
            if not lost and replica.is_complete(row.run_id):
                complete += 1
                continue
            copied += 1
            going += not replica.copy(row.run_id, again=lost)
    except (MlflowException, OSError) as error:
        raise PipelineError(
            f"{without_password(server)} does not answer ({reason_of(error, server)}). Copied before: {copied} runs. "
            "Nothing is lost: start this again when it does"
        ) from error
    return copied, going, complete


# ---------------------------------------------------------------- a thread that keeps the copy of a run up to date


PERIOD_S, LONGEST_S = 5.0, 60.0  # between two looks; longer and longer while the server does not answer
LAST_LOOK_S = 5.0  # that the end of a run may wait for its last copy
CATCH_UP = "pipeline sync"

log = logging.getLogger(__name__)


class Follower:
    """Copies a run now and then, and once more when it is closed."""

    def __init__(self, replica: Callable[[], Replica], run_id: str, server: str) -> None:
        self.run_id, self.server, self._address = run_id, without_password(server), server
        self.complete, self._replica = False, replica
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """After the run has ended. What the server does not have by then is left for a later catching up."""
        self._closing.set()
        self._thread.join(LAST_LOOK_S)
        if not self.complete:
            log.warning("%s does not have all of run %s yet. Later: %s", self.server, self.run_id, CATCH_UP)

    def _follow(self) -> None:
        replica, wait_s, last = None, 0.0, False
        while not last:
            last = self._closing.wait(wait_s)
            try:
                replica = replica or self._replica()
                self.complete = replica.copy(self.run_id)
                wait_s = PERIOD_S
            except Exception as error:
                if wait_s <= PERIOD_S:
                    why = reason_of(error, self._address)
                    log.warning("%s does not answer; the run goes on without it (%s)", self.server, why)
                wait_s = min(LONGEST_S, 2 * max(wait_s, PERIOD_S))


@contextmanager
def followed(root: Path, run_id: str, local_uri: str, server: str | None) -> Iterator[None]:
    """Have the run copied while the block goes, and a last time at its end; without a server nothing is done."""
    if server is None:
        yield
        return

    def replica() -> Replica:
        from mlflow import MlflowClient

        return Replica(root, MlflowClient(local_uri, local_uri), server)

    follower = Follower(replica, run_id, server)
    try:
        yield
    finally:
        follower.close()
