"""What a training is a function of, and the tags that identify a run. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import SweepConfig, TrainConfig
from pipeline.runtime.places import Places
from pipeline.system.files import read_yaml, sha256_of, sha256_of_json
from pipeline.tracking import PARENT_TAG

PROCESSED = "data/processed"
DATA_CARD = f"{PROCESSED}/data_card.json"
WORK_TAG = "checkpoints"  # the folder of a training's checkpoints
JOB_TAG, NUMBER_TAG, WORDS_TAG = "sweep.job", "sweep.number", "sweep.words"  # of a run that is a job of a sweep
FOLDER_TAG = "sweep.folder"  # where it wrote; on the parent where all of them did
THREADS_TAG = "machine.threads"  # that a training really had: with another number, last digits can be others
PRUNED_TAG = "sweep.pruned"  # after which epoch (0-based) a search gave it up
UNRECORDED = (
    "tracking",
    "sweep",
    "data.files",
    "data.mirrors",
    "data.archive",
    "data.classes",
)  # no settings people compare


@dataclass(frozen=True)
class Origin:
    """What a training is a function of; equal origins give equal weights on one type of machine and as many threads."""

    data_sha256: str
    config_sha256: str  # of the settings that train reads, without `tracking`
    code_sha256: str  # of the files and folders that dvc.yaml lists under train's `deps:`

    def as_json(self) -> dict[str, str]:
        return dict(vars(self))

    @property
    def key(self) -> str:
        return sha256_of_json(self.as_json())[:16]


def origin_of(cfg: TrainConfig, places: Places) -> Origin:
    card = places.inputs / DATA_CARD  # holds the digests of all arrays
    settings = cfg.model_dump(mode="json", exclude={"tracking", "sweep"}, by_alias=True)
    return Origin(sha256_of(card), sha256_of_json(settings), code_sha256(places.project))


def code_sha256(project: Path, stage: str = "train") -> str:
    """Digest of the source files and folders that dvc.yaml lists under a stage's `deps:`."""
    deps = [project / dep for dep in read_yaml(project / "dvc.yaml")["stages"][stage]["deps"] if dep.startswith("src/")]
    files = sorted(file for dep in deps for file in (dep.rglob("*.py") if dep.is_dir() else [dep]))
    return sha256_of_json({file.relative_to(project).as_posix(): sha256_of(file) for file in files})


def work_folder(places: Places, origin: Origin) -> Path:
    """Where a training keeps its checkpoints: outside DVC's outputs, and never another configuration's."""
    if places.under_dvc:
        return places.out / ".pipeline/checkpoints" / origin.key
    return places.out / "checkpoints"


def sweep_tags(cfg: SweepConfig, key: str, out: Path) -> dict[str, str]:
    """What makes a run the child of its sweep; nothing for a single training."""
    if cfg.parent is None or cfg.job is None:
        return {}
    place = {PARENT_TAG: cfg.parent, JOB_TAG: key, NUMBER_TAG: str(cfg.job.number), FOLDER_TAG: str(out)}
    return {**place, WORDS_TAG: json.dumps(cfg.job.words)}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to scalars and lists, without nulls and what nobody compares (addresses, experiments)."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in UNRECORDED:
            continue
        if isinstance(value, Mapping):
            settings |= flat(value, f"{name}.")
        elif key == "_target_":
            settings |= {f"{prefix}target": value, f"{prefix}name": optimizer_name(value)}
        elif value is not None:  # null: a key that means nothing for this choice
            settings[name] = value
    return settings


def optimizer_name(target: str) -> str:
    """`rmsprop`, `sgd`, `adam`, `adamw`: what people call the class of that path."""
    return target.rpartition(".")[2].removeprefix("Keras").lower()


def shown(path: Path, root: Path) -> str:
    """A path as people type it: relative to the project where it lies inside."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
