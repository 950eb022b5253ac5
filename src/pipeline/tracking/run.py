"""One run: what a stage may record of it, and its values as the store has them."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pipeline.tracking.leaderboard import NOTE_TAG
from pipeline.tracking.logged_model import log_model
from pipeline.tracking.provenance import PATCH_FILE, Provenance

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun
    from torch import nn

TABLES_TAG = "mlflow.loggedArtifacts"  # MLflow's list of the JSON files to show as tables
PARAM_CHARS = 6000  # MLflow's limits; longer values would be cut without a word
TAG_CHARS = 8000
DIGEST_CHARS = 36
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100

T = TypeVar("T")


@dataclass(frozen=True)
class RunRow:
    """One run as the store has it now. Metrics are the newest points."""

    run_id: str
    experiment_id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    start_ms: int
    end_ms: int | None
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]

    @classmethod
    def of(cls, run: MlflowRun) -> RunRow:
        info, data = run.info, run.data
        return cls(info.run_id, info.experiment_id, info.run_name, info.status, info.start_time, info.end_time,
                   dict(data.metrics), dict(data.params), dict(data.tags))  # fmt: skip


class DatasetRef(NamedTuple):
    """A data set as MLflow knows it, to hang metrics on."""

    name: str
    digest: str


class Run:
    """One run of a store. Made by ``Store.run``."""

    def __init__(self, client: MlflowClient, run_id: str, *, resumed: bool = False) -> None:
        self.client = client
        self.id = run_id
        self.resumed = resumed
        self._logged_steps: dict[str, set[int]] = {}  # key -> steps that a resumed run has already

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings: dotted names to scalars or lists of scalars, written as JSON (strings as they are).

        A value over 6,000 characters is kept whole in the artifact ``params/NAME.txt``, and its parameter says so.
        On a resumed run a parameter that changed keeps its first value; the tag ``param_drift`` holds both.

        Raises:
            TypeError: a value is neither; an object's text would differ from run to run.
        """
        from mlflow.entities import Param

        before: Mapping[str, str] = self.client.get_run(self.id).data.params
        texts = {name: self._param_text(name, value) for name, value in values.items()}
        drift = {name: [before[name], text] for name, text in texts.items() if before.get(name, text) != text}
        new = [Param(name, text) for name, text in texts.items() if name not in before]
        for batch in batches_of(new, PARAMS_PER_CALL):
            self.client.log_batch(self.id, params=batch)
        if drift:
            self.tags({"param_drift": json.dumps(drift)})

    def metrics(
        self, values: Mapping[str, float], step: int = 0, model_id: str | None = None, dataset: DatasetRef | None = None
    ) -> None:
        """Record numbers at one step; with ``model_id`` and ``dataset`` also as results of that model on that data."""
        points = [(key, value, step) for key, value in values.items()]
        if model_id is None and dataset is None:
            self.metric_points(points)
        else:
            self._log_points(points, model_id, dataset)

    def metric_points(self, points: Iterable[tuple[str, float, int]]) -> None:
        """Record (key, value, step) points, NaN and infinity included. A resumed run gets no point twice."""
        new = [point for point in points if not self.resumed or self._is_new(point[0], point[2])]
        self._log_points(new, None, None)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags. One over 8,000 characters is cut, and says so."""
        from mlflow.entities import RunTag

        new = [RunTag(key, truncate(str(value), TAG_CHARS)) for key, value in values.items()]
        for batch in batches_of(new, PARAMS_PER_CALL):
            self.client.log_batch(self.id, tags=batch)

    def note(self, headline: str, body: str = "") -> None:
        """The description that the UI shows above the run, as Markdown, headline first."""
        self.tags({NOTE_TAG: f"**{headline}**\n\n{body}".strip()})

    def provenance(self, origin: Provenance) -> None:
        """Record where the run comes from; uncommitted changes become the artifact ``code/uncommitted.patch``."""
        self.tags(origin.tags)
        if origin.patch:
            self.text(origin.patch, PATCH_FILE)

    def dataset(self, name: str, digest: str, source: str, context: str) -> DatasetRef:
        """Record which data was used, and as what (``context``: training, validation, test).

        The digest is the caller's (DVC's md5): MLflow's own looks at the first 10,000 values only. MLflow keeps 36
        characters of it; the whole stands in the source.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        used = DatasetRef(name, digest[:DIGEST_CHARS])
        entry = Dataset(used.name, used.digest, "local", json.dumps({"uri": source, "digest": digest}))
        inputs = [DatasetInput(entry, [InputTag("mlflow.data.context", context)])]
        try:
            self.client.log_inputs(self.id, inputs)
        except MlflowException:  # another run has just entered the same data: MLflow looks, then adds, unlocked
            self.client.log_inputs(self.id, inputs)
        return used

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder with all that is in it, below ``folder`` of the run's artifacts."""
        self.client.log_artifact(self.id, str(path), folder)

    def text(self, content: str | bytes, artifact_file: str) -> None:
        """Write an artifact such as ``failure/traceback.txt``. One of the same name is replaced."""
        place = PurePosixPath(artifact_file)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, place.name)
            file.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            self.artifact(file, None if place.parent == PurePosixPath(".") else str(place.parent))

    def json(self, value: Any, artifact_file: str) -> None:
        """Write a JSON artifact. NaN and infinity are refused: JSON has neither."""
        self.text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", artifact_file)

    def table(self, columns: Mapping[str, Sequence[Any]], artifact_file: str) -> None:
        """Write columns of equal length as a JSON artifact that the UI shows as a table. NaN becomes an empty cell.

        MLflow's own ``log_table`` would append to a table of the same name; this replaces it.
        """
        rows = [[table_cell(value) for value in row] for row in zip(*columns.values(), strict=True)]
        self.json({"columns": list(columns), "data": rows}, artifact_file)
        tables = json.loads(self.client.get_run(self.id).data.tags.get(TABLES_TAG, "[]"))
        entry = {"path": artifact_file, "type": "table"}
        if entry not in tables:
            self.tags({TABLES_TAG: json.dumps([*tables, entry])})

    def model(
        self,
        module: nn.Module,
        example: np.ndarray,
        *,
        name: str,
        requirements: Sequence[str],
        params: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
    ) -> str:
        """Log a module (raw images to probabilities) as a model that loads without pickle and without our code.

        See ``pipeline.tracking.logged_model.log_model``. Returns the model's id: ``models:/<id>`` loads it.
        """
        texts = {key: truncate(as_text(value), PARAM_CHARS) for key, value in (params or {}).items()}
        return log_model(
            self.client, self.id, module, example, name=name, requirements=requirements, params=texts, classes=classes
        )

    def _param_text(self, name: str, value: Any) -> str:
        try:
            text = as_text(value)
        except TypeError as error:
            kind = type(value).__name__
            raise TypeError(f"parameter {name!r} is a {kind}; give a string, number, bool, None or a list") from error
        if len(text) > PARAM_CHARS:
            self.text(text, f"params/{name}.txt")
        return truncate(text, PARAM_CHARS)

    def _log_points(
        self, points: Iterable[tuple[str, float, int]], model_id: str | None, dataset: DatasetRef | None
    ) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        data = dataset or (None, None)
        metrics = [Metric(key, float(value), now_ms, step, model_id, *data) for key, value, step in points]
        for batch in batches_of(metrics, METRICS_PER_CALL):
            self.client.log_batch(self.id, metrics=batch)

    def _is_new(self, key: str, step: int) -> bool:
        """Whether the step has no point yet: an epoch that was logged but not saved is trained, and logged, again."""
        if key not in self._logged_steps:
            self._logged_steps[key] = {point.step for point in self.client.get_metric_history(self.id, key)}
        return step not in self._logged_steps[key]


# ---------------------------------------------------------------- values as MLflow can hold them


def as_text(value: Any) -> str:
    """Strings as they are, the rest as JSON: equal values have equal texts.

    Raises:
        TypeError: an object; its text would differ from run to run.
    """
    return value if isinstance(value, str) else json.dumps(value)


def truncate(text: str, limit: int) -> str:
    """The text, or its beginning and a note of what is missing."""
    note = f" ... [{len(text)} characters, cut here]"
    return text if len(text) <= limit else text[: limit - len(note)] + note


def table_cell(value: Any) -> Any:
    """A JSON value: NumPy's numbers as Python's, NaN and infinity as an empty cell."""
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def batches_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
