"""Settings given in Python, over those of conf/ and checked with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from pipeline.config import choices
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import Section
from pipeline.runtime.places import is_project, project_root
from pipeline.system.errors import ConfigError, PipelineError

Choice = str | Mapping[str, Any]  # the name of a file in a group of conf/; or {"name": that, key: value, …}


class DataSettings(TypedDict, total=False):
    """conf/data/, which says more about each."""

    label: str  # table: the column that holds the class
    classes: Sequence[str]  # names in the order of the labels 0..C-1
    image_shape: tuple[int, int] | None  # folder of images: (height, width) to resize to
    color: Literal["gray", "rgb"]  # folder of images
    test_fraction: float  # share held out as the test set, of data that brings none
    validation_fraction: float  # share of the training samples; 0: train on all of them
    split_seed: int


class NetworkSettings(TypedDict, total=False):
    """conf/model/dense.yaml, which says more about each."""

    activation: Literal["relu", "gelu", "silu", "elu", "tanh", "sigmoid", "linear"]
    dropout: float  # share of each hidden layer's outputs set to 0 while training
    normalization: Literal["none", "batch", "layer"]
    initialization: Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "torch"]


class TrainerSettings(TypedDict, total=False):
    """conf/trainer/default.yaml, which says more about each."""

    accelerator: Literal["cpu", "gpu", "auto"]
    devices: int
    strategy: Literal["ddp", "fsdp"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    num_threads: int
    monitor: Literal["val/loss", "val/accuracy"]
    keep: Literal["best", "last"]  # which epoch's weights the model gets
    early_stopping: Mapping[str, float] | None  # {"patience_epochs": 3, "min_delta": 0.0}
    gradient_clip_norm: float | None


def home() -> Path:
    """The folder whose conf/ counts: the project that you are in, or the checkout that this package is in.

    Raises:
        ConfigError: there is neither.
    """
    try:
        return project_root()
    except PipelineError as error:
        if is_project(checkout := Path(__file__).parents[3]):
            return checkout
        raise ConfigError(f"{error} Or install this package from a clone: pip install --editable FOLDER") from None


def composed(root: Path, **groups: Choice | None) -> dict[str, Any]:
    """The whole configuration with these choices of its groups; what they set is not checked yet.

    Raises:
        ConfigError: no such choice.
    """
    overrides, changes = [], {}
    for group, choice in groups.items():
        values = {"name": choice} if isinstance(choice, str) else dict(choice or {})
        if name := values.pop("name", None):
            if name not in (known := choices(root / "conf" / group)):
                raise ConfigError(f"{group}={name}: there is no such choice. There is: {', '.join(known)}")
            overrides.append(f"{group}={name}")
        changes[group] = values
    record = parse(compose_yaml(root / "conf", overrides))
    return record | {group: record[group] | values for group, values in changes.items()}


def part(record: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """What a stage sees of a configuration."""
    seen = {key: record[key] for key in section.model_fields}
    if "data" in seen:
        view: Any = section.model_fields["data"].annotation
        seen["data"] = {key: record["data"][key] for key in view.model_fields}
    return seen


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None, which stands for what conf/ says."""
    return {key: value for key, value in values.items() if value is not None}
