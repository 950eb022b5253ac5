"""A trained network as two files that need no code of ours to read: model.safetensors (weights) and model.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline.config.check import validate
from pipeline.config.schema import ModelConfig
from pipeline.model import DESCRIPTION, WEIGHTS, require_files
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.files import atomic_file, read_json, sha256_of, write_json


@dataclass(frozen=True)
class Portable:
    """A trained network and what it says of itself."""

    network: DenseNetwork
    classes: list[str]
    input: InputSpec
    model_sha256: str
    training: dict[str, Any]  # which epoch's weights these are; digests of the data, the configuration and the code


def save_model(
    folder: Path,
    network: DenseNetwork,
    cfg: ModelConfig,
    spec: InputSpec,
    classes: list[str],
    training: dict[str, Any],
) -> str:
    """Write both files; the same network gives the same bytes. Returns the digest of the weights' file."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / WEIGHTS) as new:
        new.write_bytes(save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}))
    digest = sha256_of(folder / WEIGHTS)
    description = {
        "architecture": cfg.model_dump(mode="json"),
        "classes": classes,
        "input": spec.as_json(),
        "output": "logits (samples, classes); softmax makes them probabilities",
        "sha256": {WEIGHTS: digest},
        "training": training,
    }
    write_json(folder / DESCRIPTION, description)
    return digest


def load_model(folder: Path) -> Portable:
    """Read both files, check the digest, build the network in eval mode.

    Raises:
        PipelineError: a file is missing or is not what was saved.
    """
    require_files(folder)
    try:
        description = read_json(folder / DESCRIPTION)
        weights = load_file(folder / WEIGHTS)
        cfg = validate(ModelConfig, description["architecture"])
        spec, classes = _input_spec(description["input"]), _class_names(description["classes"])
        expected, training = description["sha256"][WEIGHTS], description["training"]
    except (ConfigError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PipelineError(
            f"{folder}: not a model of this pipeline: {error!r}. `dvc checkout` brings it back"
        ) from None
    found = sha256_of(folder / WEIGHTS)
    if found != expected:
        raise PipelineError(
            f"{folder / WEIGHTS} is not what {DESCRIPTION} describes: expected sha256 {expected}, found {found}. "
            "`dvc checkout` brings the pair back"
        )
    _require_room_in(weights, [prod(spec.shape), *cfg.units, len(classes)], folder)
    network = DenseNetwork(cfg, spec, len(classes))
    _load_weights(network, weights, folder)
    return Portable(network.eval(), classes, spec, found, training)


def _input_spec(values: dict[str, Any]) -> InputSpec:
    """Raises ValueError for what is no shape, type or scaling of samples."""
    spec = InputSpec.from_json(values)
    if not isinstance(spec.shape, tuple) or not all(type(size) is int and size > 0 for size in spec.shape):
        raise ValueError(f"input.shape: expected sizes above 0, found {spec.shape!r:.60}")
    if spec.dtype not in ("uint8", "float32"):
        raise ValueError(f"input.dtype: expected uint8 or float32, found {spec.dtype!r:.60}")
    for name, value in (("offset", spec.offset), ("scale", spec.scale)):
        numbers = value if isinstance(value, tuple) else (value,)
        several = isinstance(value, tuple) and spec.shape != (len(numbers),)
        if several or not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"input.{name}: expected a finite number, or one a feature, found {value!r:.60}")
    if spec.kind is not None and not isinstance(spec.kind, str):
        raise ValueError(f"input.kind: expected a name, found {spec.kind!r:.60}")
    names = spec.features
    if names is not None and (spec.shape != (len(names),) or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"input.features: expected a name for each value, found {names!r:.60}")
    return spec


def _class_names(values: Any) -> list[str]:
    if not isinstance(values, list) or not values or not all(isinstance(name, str) for name in values):
        raise ValueError(f"classes: expected names, found {values!r:.60}")
    return values


def _require_room_in(weights: dict[str, Tensor], widths: list[int], folder: Path) -> None:
    """Refuse a description of more weights than there are, before memory is taken for them."""
    needed, found = sum(a * b for a, b in pairwise(widths)), sum(weight.numel() for weight in weights.values())
    if needed > found:
        raise PipelineError(
            f"{folder}: weights and description do not fit: layers of {' x '.join(map(str, widths))} hold {needed:,} "
            f"weights, {WEIGHTS} {found:,}. `dvc checkout` brings the pair back"
        )


def _load_weights(network: DenseNetwork, weights: dict[str, Tensor], folder: Path) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise PipelineError(f"{folder}: weights and description do not fit: {error}") from None


class Probabilities(nn.Module):
    """The network as it is served: raw samples in, probabilities of the classes out."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Tensor) -> Tensor:
        """(B, *shape) → (B, C), each row sums to 1."""
        return torch.softmax(self.network(samples), dim=1)


# ---------------------------------------------------------------- what it says of samples


BATCH = 2048  # samples; only memory and speed depend on it


def predict_log_probabilities(model: Portable, samples: NDArray[Any]) -> NDArray[np.float32]:
    """(N, ...) raw samples → (N, C) float32, natural logarithms of the classes' probabilities."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH):
            logits = model.network(torch.from_numpy(np.array(samples[start : start + BATCH])))
            parts.append(torch.log_softmax(logits, dim=1).numpy())
    return np.concatenate(parts)
