"""Whether data/processed is what a configuration asks for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.data.card import DataCard
from pipeline.system.errors import ConfigError
from pipeline.system.files import read_yaml


def require_same_data(cfg: Config, processed: Path) -> None:
    """Stages by hand only read data/processed; refuse one that was made with other settings.

    Raises:
        DataContractError: there is none yet.
        ConfigError: it was made with other settings; the message names them.
    """
    made_with = _dotted(DataCard.read(processed / "data_card.json").made_with)
    made_with |= _downloaded(processed.parents[1] / "dvc.lock")
    wanted = _dotted(cfg.model_dump(mode="json", include={"data", "expand"}))
    differing = [key for key in wanted if key in made_with and wanted[key] != made_with[key]]
    if differing:
        settings = ", ".join(f"{key}={made_with[key]} (asked for: {wanted[key]})" for key in differing)
        raise ConfigError(
            f"{processed} was made with {settings}. Stages by hand only read it. To use it as it is, add to your "
            f"command: {_as_overrides(differing, made_with)}. To make it anew: `dvc exp run -S …` with the same "
            "overrides, or edit conf/ and run `dvc repro preprocess`"
        )


def _as_overrides(differing: Sequence[str], made_with: Mapping[str, Any]) -> str:
    """The overrides that ask for what is there."""
    if "data.name" not in differing:
        return shlex.join([f"{key}={_typed(made_with[key])}" for key in differing])
    given = [f"{key}={made_with[key]}" for key in ("data.path", "data.label") if made_with.get(key) is not None]
    return shlex.join([f"data={made_with['data.name']}", *given])


def _typed(value: Any) -> str:
    return "null" if value is None else json.dumps(value) if isinstance(value, (bool, list, dict)) else str(value)


def _dotted(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}


def _downloaded(lock: Path) -> dict[str, Any]:
    """Kind and path of what download fetched last, as DVC wrote it down; empty before it ran."""
    if not lock.exists():
        return {}
    stages = read_yaml(lock)["stages"]
    watched = stages.get("download", {}).get("params", {}).get("params.yaml", {})
    return {key: value for key, value in watched.items() if key in ("data.kind", "data.path")}
