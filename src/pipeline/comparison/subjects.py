"""What a name on the command line means: the networks behind it, and what each answered for every test sample."""

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
from pipeline.registry.versions import CHAMPION, Registry, Version
from pipeline.runtime.origin import flat
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.files import parse_yaml, read_json, read_yaml, sha256_of
from pipeline.system.git import commit_of, git
from pipeline.tracking import DESCRIPTION_TAG, MODEL_TAG, RunRow, Store, as_text
from pipeline.tracking.lookup import ID_TAG, called, newest_in_words, sweeps

if TYPE_CHECKING:
    from pipeline.model.portable import Portable

WORKSPACE = "workspace"  # DVC's word for what lies in the folder now
SHORTEST_ID = 6
SEED = "seed"
DATA_CARD = Path("data/processed/data_card.json")
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
    """A network of a side: one seed."""

    answers: Answers
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    run_id: str | None  # None: no run of the store trained it

    @property
    def seed(self) -> int:
        return int(self.params[SEED])


@dataclass(frozen=True)
class Side:
    """What is compared: one network, or several that differ in the seed alone."""

    name: str  # as it was asked for
    what: str  # what that was
    members: tuple[Member, ...]
    filed_in: str | None  # the run that a comparison is kept with

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


class Sides:
    """Finds sides by their names, in the project at `root`."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root, self.store = root, store

    def named(self, name: str) -> Side:
        """The champion, a sweep, a run (its name or the beginning of its id), a revision of git, or the workspace.

        Raises:
            ConfigError: nothing is called so, or several things are.
            PipelineError: it is known, and its model or its data is not to be had.
        """
        if name == WORKSPACE:
            return self._of_models(
                self.root / "models", name, "models/ as it is now", read_yaml(self.root / "params.yaml")
            )
        if sweep := called(sweeps(self.store), name):
            return self._of_sweep(name, sweep)
        if row := self.run_called(name):
            return Side(name, f"run {row.run_id[:8]} ({row.name})", (self.of_run(row),), row.run_id)
        if name.endswith(f"@{CHAMPION}"):
            return self.champion(Registry(self.store).resolve(name))
        if commit := commit_of(self.root, name):
            with self._models_of(commit, name) as models:
                settings = parse_yaml(git(self.root, "show", f"{commit}:params.yaml"))
                return self._of_models(models, name, f"revision {commit[:8]}", settings)
        raise ConfigError(
            f"{name}: nothing is called so. Expected {WORKSPACE}, a revision of git, a run (its name, or the beginning "
            f"of its id), @{CHAMPION}, or a sweep: {newest_in_words(sweeps(self.store))}"
        )

    def champion(self, version: Version) -> Side:
        """Raises PipelineError: it came into the registry without a run, or left no predictions and no model."""
        row = self.store.found_row(version.run_id) if version.run_id else None
        if row is None:
            raise PipelineError(f"{version} has no run in the store, so nothing says how it was scored")
        return Side(f"{version.name}@{CHAMPION}", f"{version}, run {row.run_id[:8]}", (self.of_run(row),), row.run_id)

    # ---------------------------------------------------------------- runs

    def run_called(self, name: str) -> RunRow | None:
        if not self.store.exists:
            return None
        trained = self.store.rows(f"tags.`{MODEL_TAG}` != ''")
        found = [row for row in trained if row.name == name]
        if not found and len(name) >= SHORTEST_ID:
            found = [row for row in trained if row.run_id.startswith(name)]
        if len(found) > 1:
            ids = ", ".join(row.run_id[:8] for row in found[:5])
            raise ConfigError(f"{name}: {len(found)} runs are called so, the newest {ids}. Give an id")
        return found[0] if found else None

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

    def _of_sweep(self, name: str, sweep: RunRow) -> Side:
        """Its best configuration, with all of its seeds."""
        best_id = sweep.tags.get("sweep.best_run_id")
        if best_id is None:
            raise ConfigError(f"sweep {name} has no finished job yet")
        best = self.store.row(best_id)
        jobs = [job for job in self.store.children(sweep.run_id) if _is_same_but_seed(job, best)]
        by_seed = {job.params[SEED]: job for job in reversed(jobs)}  # the newest of each
        members = tuple(self.of_run(by_seed[seed]) for seed in sorted(by_seed, key=int))
        settings = " ".join(word for word in best.name.split() if not word.startswith(f"{SEED}="))
        what = f"sweep {sweep.tags[ID_TAG]}, its best{f' ({settings})' if settings else ''}"
        return Side(name, what, members, sweep.run_id)

    # ---------------------------------------------------------------- models that DVC knows

    def _of_models(self, models: Path, name: str, what: str, settings: Mapping[str, Any]) -> Side:
        if _is_whole(models) and (row := self._run_that_trained(models)):
            return Side(name, f"{what}, run {row.run_id[:8]}", (self.of_run(row),), row.run_id)
        model = _loaded(models)
        params = {key: as_text(value) for key, value in flat(settings).items()}
        return Side(name, what, (Member(self._answers_of(model, name), params, {}, None),), None)

    def _run_that_trained(self, models: Path) -> RunRow | None:
        """The newest; rather one that was evaluated."""
        if not self.store.exists:
            return None
        found = self.store.rows(f"tags.`{DESCRIPTION_TAG}` = '{sha256_of(models / DESCRIPTION)}'")
        evaluated = (row for row in found if (self.store.artifacts(row.run_id) / PREDICTIONS).exists())
        return next(evaluated, found[0] if found else None)

    def _answers_of(self, model: Portable, whose: str) -> Answers:
        card = self.root / DATA_CARD
        found = sha256_of(card) if card.exists() else "nothing"
        if model.training["data_sha256"] != found:
            raise PipelineError(
                f"{whose} was trained on other data ({model.training['data_sha256'][:12]}) than {DATA_CARD.parent} "
                f"holds ({found[:12]}), and kept no predictions: its test set is not here. Evaluate it where its data "
                "is: git checkout REVISION && dvc checkout && dvc repro"
            )
        from pipeline.model.portable import predict_log_probabilities

        test = load_split(self.root / DATA_CARD.parent, "test")
        digests = DataCard.read(card).splits["test"]
        return Answers(
            predict_log_probabilities(model, test.images), np.asarray(test.labels), model.classes, digest_of(digests)
        )

    # ---------------------------------------------------------------- git and DVC

    @contextmanager
    def _models_of(self, commit: str, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            models = Path(folder, "models")
            get = [sys.executable, "-m", "dvc", "get", "--quiet", ".", "models", "--rev", commit, "-o", str(models)]
            done = subprocess.run(get, cwd=self.root, capture_output=True, text=True)
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


def _loaded(folder: Path) -> Portable:
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
