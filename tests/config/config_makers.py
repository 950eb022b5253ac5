"""The configuration of conf/, with some keys changed."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any

from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import Config, TrainConfig

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
# What a person must add to a choice before it can mean anything.
NEEDED = {
    "data=image_folder": ["data.path=pictures"],
    "data=table": ["data.path=flowers.csv", "data.label=species"],
}


@cache
def default_yaml() -> str:
    return compose_yaml(CONF)


@cache
def _defaults() -> dict[str, Any]:
    return parse(default_yaml())


def settings(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole default configuration as plain values; `changes` has dotted keys."""
    values = copy.deepcopy(_defaults())
    for key, value in (changes or {}).items():
        *groups, leaf = key.split(".")
        reduce(dict.__getitem__, groups, values)[leaf] = value
    return values


def whole_config(changes: Mapping[str, Any] | None = None) -> Config:
    return validate(Config, settings(changes))


def train_config(changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """What the stage train sees."""
    values = settings(changes)
    return validate(TrainConfig, {key: values[key] for key in TrainConfig.model_fields})


def group_options() -> list[str]:
    """Every choice that conf/ offers, as an override: `optimizer=sgd`."""
    files = sorted(CONF.glob("*/*.yaml"))
    return [
        f"{file.parent.name}={file.stem}" for file in files if file.parent.name != "experiment" and file.stem != "base"
    ]


@cache
def composed(*overrides: str) -> Config:
    """Composed by Hydra with these overrides, and checked."""
    return validate(Config, parse(compose_yaml(CONF, overrides)))


def clean_environment() -> dict[str, str]:
    """For a fresh Python that finds our sources and is not inside any project yet."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "HYDRA_"))}
    return {**outside, "PYTHONPATH": str(ROOT / "src")}
