"""What is compared: from what a name means to the networks behind it, and what each answered for every test sample.

tracking/lookup.py says what the name means: a run, a sweep, a version, a revision, a folder. For each network there are
the predictions that its evaluation kept; where there are none, its weights answer now.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.model import DESCRIPTION, WEIGHTS
from pipeline.runtime.origin import DATA_CARD, PROCESSED, flat
from pipeline.system.errors import PipelineError
from pipeline.system.files import parse_yaml, read_json, read_yaml, sha256_of
from pipeline.system.git import git
from pipeline.tracking import DESCRIPTION_TAG, MODEL_TAG, RunRow, Store, as_text
from pipeline.tracking.database import Version
from pipeline.tracking.lookup import (
    CHAMPION,
    NAMES,
    WORKSPACE,
    ModelFolder,
    Revision,
    Sweep,
    TrainedRun,
    best_of,
    find,
    run_of,
)

if TYPE_CHECKING:
    from pipeline.model.portable import TrainedModel

SEED = "seed"
PREDICTIONS = Path("predictions")  # among a run's artifacts


@dataclass(frozen=True)
class Answers:
    """One network's predictions of the test set."""

    log_probabilities: NDArray[np.float32]  # (N, C)
    labels: NDArray[np.int64]  # (N,)
    classes: list[str]
    test_set: str  # digest of its samples and labels

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,)"""
        right: NDArray[np.bool_] = self.log_probabilities.argmax(1) == self.labels
        return right


@dataclass(frozen=True)
class Member:
    """A network of a subject: one seed."""

    answers: Answers
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    run_id: str | None  # None: no run of the store trained it

    @property
    def seed(self) -> int:
        return int(self.params[SEED])


@dataclass(frozen=True)
class Subject:
    """What is compared: one network, or several that differ in the seed alone."""

    name: str  # as it was asked for
    what: str  # what that was
    members: tuple[Member, ...]
    run_id: str | None  # the run, or the sweep's own, that a comparison is logged to

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(S, N)"""
        return np.stack([member.answers.right for member in self.members])

    @property
    def accuracies(self) -> list[float]:
        return [float(share) for share in self.right.mean(1)]

    @property
    def settings(self) -> dict[str, str]:
        """Without the seed."""
        return {key: value for key, value in self.members[0].params.items() if key != SEED}


class Subjects:
    """Finds subjects by their names, in the project of a store."""

    def __init__(self, store: Store) -> None:
        self.root, self.store = store.root, store

    def named(self, name: str) -> Subject:
        """The champion, a sweep, a run, a revision of git, the workspace, or a folder with a model.

        Raises:
            ConfigError: nothing is called so, or several things are.
            PipelineError: it is known, and its model or its data is not to be had.
        """
        target = find(self.store, name, tuple(NAMES))
        match target:
            case Version():
                return self.champion(target, name)
            case Sweep():
                return self._of_sweep(name, target)
            case Revision():
                with revision_models(self.root, target.commit, name) as models:
                    settings = parse_yaml(git(self.root, "show", f"{target.commit}:params.yaml"))
                    return self._of_models(models, name, str(target), settings)
            case ModelFolder(path, is_workspace):
                return self._of_models(
                    path, name, str(target), read_yaml(self.root / "params.yaml") if is_workspace else None
                )
            case TrainedRun(row):
                return Subject(name, str(target), (self.of_run(row),), row.run_id)

    def champion(self, version: Version, name: str | None = None) -> Subject:
        """Raises PipelineError: it came into the registry without a run, or left no predictions and no model."""
        row = run_of(self.store, version)
        name = name or f"{version.name}@{CHAMPION}"
        return Subject(name, f"{version}, run {row.run_id[:8]}", (self.of_run(row),), row.run_id)

    # ---------------------------------------------------------------- runs

    def of_run(self, row: RunRow) -> Member:
        """With the predictions that its evaluation kept; else its weights answer now."""
        files = self.store.artifacts(row.run_id)
        if (files / PREDICTIONS).exists():
            answers = _kept_answers(files / PREDICTIONS)
        elif (files / "dvc" / DESCRIPTION).exists():
            answers = self._answers_of(_loaded(files / "dvc"), f"run {row.run_id[:8]}")
        else:
            raise PipelineError(
                f"run {row.run_id[:8]} ({row.name}, {row.status}) has neither predictions nor a model among its "
                f"artifacts in {files}. Compare one that has finished"
            )
        return Member(answers, row.params, row.metrics, row.run_id)

    def _of_sweep(self, name: str, sweep: Sweep) -> Subject:
        """Its best configuration, with all of its seeds."""
        best = best_of(self.store, sweep)
        jobs = [job for job in self.store.children(sweep.row.run_id) if _is_same_but_seed(job, best)]
        by_seed = {job.params[SEED]: job for job in reversed(jobs)}  # the newest of each
        members = tuple(self.of_run(by_seed[seed]) for seed in sorted(by_seed, key=int))
        settings = " ".join(word for word in best.name.split() if not word.startswith(f"{SEED}="))
        what = f"{sweep}, its best{f' ({settings})' if settings else ''}"
        return Subject(name, what, members, sweep.row.run_id)

    # ---------------------------------------------------------------- models that DVC knows

    def _of_models(self, models: Path, name: str, what: str, settings: Mapping[str, Any] | None) -> Subject:
        """settings: that the model was trained with; None: they are not known, so only a run of the store can be it."""
        if _is_whole(models) and (row := self._run_that_trained(models)):
            return Subject(name, f"{what}, run {row.run_id[:8]}", (self.of_run(row),), row.run_id)
        if settings is None:
            raise PipelineError(
                f"{name}: no run in the store trained this model, so its settings and its seed are not known. "
                f"Compare a run, a revision of git, or {WORKSPACE}"
            )
        model = _loaded(models)
        params = {key: as_text(value) for key, value in flat(settings).items()}
        return Subject(name, what, (Member(self._answers_of(model, name), params, {}, None),), None)

    def _run_that_trained(self, models: Path) -> RunRow | None:
        """The newest; rather one that was evaluated."""
        if not self.store.exists:
            return None
        found = self.store.rows(f"tags.`{DESCRIPTION_TAG}` = '{sha256_of(models / DESCRIPTION)}'")
        evaluated = (row for row in found if (self.store.artifacts(row.run_id) / PREDICTIONS).exists())
        return next(evaluated, found[0] if found else None)

    def _answers_of(self, model: TrainedModel, whose: str) -> Answers:
        card = self.root / DATA_CARD
        found = sha256_of(card) if card.exists() else "nothing"
        if model.training["data_sha256"] != found:
            raise PipelineError(
                f"{whose} was trained on other data ({model.training['data_sha256'][:12]}) than {PROCESSED} "
                f"holds ({found[:12]}), and kept no predictions: its test set is not here. Evaluate it where its data "
                "is: git checkout REVISION && dvc checkout && dvc repro"
            )

        test = load_split(self.root / PROCESSED, "test")
        digests = DataCard.read(card).splits["test"]
        return Answers(model.predict_log_proba(test.images), np.asarray(test.labels), model.classes, digest_of(digests))


@contextmanager
def revision_models(root: Path, commit: str, name: str) -> Iterator[Path]:
    """models/ of a commit, from DVC, in a temporary folder. Raises PipelineError: DVC has none."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder, "models")
        get = [sys.executable, "-m", "dvc", "get", "--quiet", ".", "models", "--rev", commit, "-o", str(models)]
        done = subprocess.run(get, cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise PipelineError(
                f"{name}: DVC has no models/ of revision {commit[:8]} ({done.stderr.strip().splitlines()[-1]}). "
                "Fetch it with `dvc pull`, or make it: git checkout, dvc repro"
            )
        yield models


def _is_same_but_seed(job: RunRow, other: RunRow) -> bool:
    """A finished job of the same settings, code and data."""

    def known(row: RunRow) -> tuple[dict[str, str], list[str | None]]:
        origin = [row.tags.get(f"origin.{what}_sha256") for what in ("code", "data")]
        return {key: value for key, value in row.params.items() if key != SEED}, origin

    return job.status == "FINISHED" and MODEL_TAG in job.tags and known(job) == known(other)


def _loaded(folder: Path) -> TrainedModel:
    """Raises PipelineError."""
    from pipeline.model.portable import load_model  # not above: with it comes torch, 1.3 s, of no use to kept answers

    return load_model(folder)


def _is_whole(models: Path) -> bool:
    """Whether the weights are those that their description names."""
    try:
        return bool(read_json(models / DESCRIPTION)["sha256"][WEIGHTS] == sha256_of(models / WEIGHTS))
    except (OSError, ValueError, LookupError, TypeError, PipelineError):
        return False


def _kept_answers(folder: Path) -> Answers:
    try:
        index = read_json(folder / "index.json")
        digests = {key: index[f"test_{key}"] for key in ("images_sha256", "labels_sha256")}
        kept, labels = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("log_probabilities", "labels"))
        return Answers(kept, labels, index["classes"], digest_of(digests))
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise PipelineError(
            f"{folder}: expected the predictions that an evaluation kept, found {error!r}. Score the model again: "
            "pipeline evaluate evaluate.model_folder=…"
        ) from error


def digest_of(digests: Mapping[str, Any]) -> str:
    """A test set as people compare it by eye."""
    return f"{digests['images_sha256'][:12]}-{digests['labels_sha256'][:12]}"
