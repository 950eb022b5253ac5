"""Whether data/processed is what a configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.data.card import DataCard
from pipeline.errors import ConfigError
from pipeline.files import read_yaml


def require_same_data(cfg: Config, processed: Path) -> None:
    """Stages by hand only read data/processed; refuse one that was made with other settings.

    Raises:
        DataContractError: there is none yet.
        ConfigError: it was made with other settings; the message names them.
    """
    made_with = _dotted(DataCard.read(processed / "data_card.json").made_with)
    made_with |= _downloaded(processed.parents[1] / "dvc.lock")
    asked = _dotted(cfg.model_dump(mode="json", include={"data", "expand"}))
    differing = [key for key in asked if key in made_with and asked[key] != made_with[key]]
    if differing:
        settings = ", ".join(f"{key}={made_with[key]} (asked for: {asked[key]})" for key in differing)
        raise ConfigError(
            f"{processed} was made with {settings}. Stages by hand only read it. Make it anew with the same overrides: "
            f"`dvc exp run -S …`; or edit conf/ and run `dvc repro preprocess`; or leave the overrides of data out"
        )


def _dotted(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}


def _downloaded(lock: Path) -> dict[str, Any]:
    """Kind and path of what download fetched last, as DVC wrote it down; empty before it ran."""

    if not lock.exists():
        return {}
    stages = read_yaml(lock)["stages"]
    watched = stages.get("download", {}).get("params", {}).get("params.yaml", {})
    return {key: value for key, value in watched.items() if key in ("data.kind", "data.path")}
