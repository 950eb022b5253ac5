"""A trained network as two files that need no code of ours to read: model.safetensors (weights) and model.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline.config.schema import ModelConfig
from pipeline.model import DESCRIPTION, WEIGHTS, require_files
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.system.errors import PipelineError
from pipeline.system.files import atomic_file, sha256_of, write_json

PREDICT_BATCH = 2048  # samples; only memory and speed depend on it


@dataclass(frozen=True)
class TrainedModel:
    """A trained network in eval mode, and what model.json says of it."""

    network: DenseNetwork
    classes: list[str]
    input: InputSpec
    model_sha256: str  # of the weights' file
    training: dict[str, Any]  # which epoch's weights these are; digests of the data, the configuration and the code

    def predict_log_proba(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *input.shape) raw samples → (N, C) float32, natural logarithms of the classes' probabilities."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(samples), PREDICT_BATCH):
                logits = self.network(torch.from_numpy(np.array(samples[start : start + PREDICT_BATCH])))
                parts.append(torch.log_softmax(logits, dim=1).numpy())
        return np.concatenate(parts)


class Probabilities(nn.Module):
    """The network as it is served: raw samples in, probabilities of the classes out."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Tensor) -> Tensor:
        """(B, *shape) → (B, C), each row sums to 1."""
        return torch.softmax(self.network(samples), dim=1)


# ---------------------------------------------------------------- the two files


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
        "input": asdict(spec),
        "output": "logits (samples, classes); softmax makes them probabilities",
        "sha256": {WEIGHTS: digest},
        "training": training,
    }
    write_json(folder / DESCRIPTION, description)
    return digest


class Description(BaseModel):
    """model.json as it is read; what it has beside this is for people."""

    model_config = ConfigDict(strict=True)

    architecture: ModelConfig
    classes: Annotated[list[str], Field(min_length=1)]
    input: InputSpec
    sha256: dict[str, str]
    training: dict[str, Any]

    @field_validator("input")
    @classmethod
    def _has_one_for_each_feature(cls, spec: InputSpec) -> InputSpec:
        for name in ("offset", "scale", "features"):
            values = getattr(spec, name)
            if isinstance(values, tuple) and spec.shape != (len(values),):
                raise ValueError(
                    f"{name}: expected one for each value of a sample, whose shape is {spec.shape!r:.60}, "
                    f"found {len(values)}"
                )
        return spec

    @field_validator("sha256")
    @classmethod
    def _has_that_of_the_weights(cls, digests: dict[str, str]) -> dict[str, str]:
        if WEIGHTS not in digests:
            raise ValueError(f"expected that of {WEIGHTS}, found {', '.join(digests) or 'none':.60}")
        return digests


def load_model(folder: Path) -> TrainedModel:
    """Read both files, check the digest, build the network in eval mode.

    Raises:
        PipelineError: a file is missing or is not what was saved.
    """
    require_files(folder)
    try:
        description = Description.model_validate_json((folder / DESCRIPTION).read_bytes())
        weights = load_file(folder / WEIGHTS)
    except ValidationError as error:
        raise _foreign(folder, _first_mistake(error)) from None
    except SafetensorError as error:
        raise _foreign(folder, repr(error)) from None
    expected, found = description.sha256[WEIGHTS], sha256_of(folder / WEIGHTS)
    if found != expected:
        raise PipelineError(
            f"{folder / WEIGHTS} is not what {DESCRIPTION} describes: expected sha256 {expected}, found {found}. "
            "`dvc checkout` brings the pair back"
        )
    cfg, spec, classes = description.architecture, description.input, description.classes
    _require_room_in(weights, [prod(spec.shape), *cfg.units, len(classes)], folder)
    network = DenseNetwork(cfg, spec, len(classes))
    _load_weights(network, weights, folder)
    return TrainedModel(network.eval(), classes, spec, found, description.training)


def _foreign(folder: Path, reason: str) -> PipelineError:
    return PipelineError(f"{folder}: not a model of this pipeline: {reason}. `dvc checkout` brings it back")


def _first_mistake(error: ValidationError) -> str:
    """Where in model.json, what was expected, what was found."""
    mistake = error.errors()[0]
    where = ".".join(map(str, mistake["loc"][:2])) or DESCRIPTION  # deeper are the members of a list, or of a union
    if mistake["type"] == "value_error":
        return f"{where}: {mistake['ctx']['error']}"
    return f"{where}: {mistake['msg']}, found {mistake['input']!r:.60}"


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
