"""One job of a sweep: a configuration with a number, a folder and a name that says what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config.check import validate
from pipeline.config.overrides import job_section
from pipeline.config.schema import TrainConfig
from pipeline.runtime.origin import origin_of
from pipeline.runtime.places import Places, project_root
from pipeline.runtime.stage_runner import check_record, visible
from pipeline.system.errors import ConfigError
from pipeline.system.files import read_json, write_json
from pipeline.training.devices import require_device

TASK, LOG = "job.json", "job.log"


@dataclass(frozen=True)
class Job:
    """What a process needs to run one job. It knows no command line: the configuration is composed and resolved."""

    stage: str
    key: str  # digest of what the result is a function of
    folder: Path
    record: Mapping[str, Any]  # the whole resolved configuration; its `sweep.job` says which job this is

    @property
    def number(self) -> int:
        return int(self.record["sweep"]["job"]["number"])

    @property
    def label(self) -> str:
        return str(self.record["sweep"]["job"]["label"]) or f"job {self.number}"

    @property
    def plan(self) -> dict[str, Any]:
        """What is known of it before it starts."""
        return {"key": self.key, **self.record["sweep"]["job"]}

    def child_of(self, parent: str) -> Job:
        """The same, once the sweep has a run."""
        return replace(self, record={**self.record, "sweep": {**self.record["sweep"], "parent": parent}})

    def freeze(self) -> None:
        """Write it down for the process that runs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / TASK, {**vars(self), "folder": str(self.folder)})

    @classmethod
    def read(cls, folder: Path) -> Job:
        written = read_json(folder / TASK)
        return cls(**{**written, "folder": Path(written["folder"])})


# ---------------------------------------------------------------- from a composed configuration to a job


def composed_job(stage: str, number: int, words: Sequence[str], record: dict[str, Any], folder: Path) -> Job:
    """The job, its key and its folder.

    Raises:
        ConfigError: its configuration is wrong; the message says which job's.
    """
    record["sweep"]["job"] = job_section(words, record["sweep"]["varied"] or (), number)
    try:
        check_record(stage, record)
        cfg = validate(TrainConfig, visible(record, stage, TrainConfig))
        require_device(cfg.trainer)
    except ConfigError as error:
        label = record["sweep"]["job"]["label"]
        raise ConfigError(f"job {number} ({label}) cannot run, so none is started: {error}") from None
    root = project_root()
    key = origin_of(cfg, Places(root, root, folder, record)).key
    return Job(stage, key, _own_folder(folder, key), record)


def _own_folder(folder: Path, key: str) -> Path:
    """A folder that another configuration's job has not used: a sweep may go on with other values."""
    taken = folder / "job.json"
    return folder if not taken.exists() or Job.read(folder).key == key else folder.with_name(f"{folder.name}-{key[:8]}")
