"""From a composed configuration to a job that can run, or a word about why it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config.check import validate
from pipeline.config.schema import TrainConfig
from pipeline.config.words import job_section
from pipeline.devices import require_device
from pipeline.errors import ConfigError
from pipeline.origin import origin_of
from pipeline.places import Places, project_root
from pipeline.stage import check_record, visible
from pipeline.sweeps.jobs import Job


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
