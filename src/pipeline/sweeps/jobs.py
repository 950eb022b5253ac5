"""One job of a sweep: a configuration with a number, a folder and a name that says what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_json

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
