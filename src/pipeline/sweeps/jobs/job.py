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

JOB_FILE, LOG_FILE = "job.json", "job.log"


@dataclass(frozen=True)
class Job:
    """What a process needs to run one job. It knows no command line: the configuration is composed and resolved."""

    stage: str
    key: str  # digest of what the result is a function of
    folder: Path
    config: Mapping[str, Any]  # the whole resolved configuration; its `sweep.job` says which job this is

    @property
    def number(self) -> int:
        return int(self.config["sweep"]["job"]["number"])

    @property
    def label(self) -> str:
        return str(self.config["sweep"]["job"]["label"]) or f"job {self.number}"

    @property
    def overrides(self) -> list[str]:
        return list(self.config["sweep"]["job"]["words"])

    @property
    def plan(self) -> dict[str, Any]:
        """What is certain before it starts."""
        return {"key": self.key, **self.config["sweep"]["job"]}

    def child_of(self, parent: str) -> Job:
        """The job once the sweep has a run."""
        return replace(self, config={**self.config, "sweep": {**self.config["sweep"], "parent": parent}})

    def write(self) -> None:
        """Into its folder, for the process that runs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / JOB_FILE, {**vars(self), "folder": str(self.folder)})

    @classmethod
    def read(cls, folder: Path) -> Job:
        fields = read_json(folder / JOB_FILE)
        return cls(**{**fields, "folder": Path(fields["folder"])})


def checked_job(stage: str, number: int, overrides: Sequence[str], config: dict[str, Any], folder: Path) -> Job:
    """The job of a composed configuration, with its key and its folder.

    Raises:
        ConfigError: its configuration is wrong; the message says which job's.
    """
    config["sweep"]["job"] = job_section(overrides, config["sweep"]["varied"] or (), number)
    try:
        check_record(stage, config)
        cfg = validate(TrainConfig, visible(config, stage, TrainConfig))
        require_device(cfg.trainer)
    except ConfigError as error:
        label = config["sweep"]["job"]["label"]
        raise ConfigError(f"job {number} ({label}) cannot run, so none is started: {error}") from None
    root = project_root()
    key = origin_of(cfg, Places(root, root, folder, config)).key
    return Job(stage, key, _unused_folder(folder, key), config)


def _unused_folder(folder: Path, key: str) -> Path:
    """A folder that another configuration's job has not used: a sweep may go on with other values."""
    file = folder / JOB_FILE
    return folder.with_name(f"{folder.name}-{key[:8]}") if file.exists() and read_json(file)["key"] != key else folder
