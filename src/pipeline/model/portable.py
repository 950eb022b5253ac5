"""A trained network as two files that need no code of ours to read: model.safetensors (weights) and model.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.config.check import validate
from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import atomic_file, read_json, sha256_of, write_json
from pipeline.model.dense import DenseNetwork, InputSpec

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


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
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, new)
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
    for file in (DESCRIPTION, WEIGHTS):
        if not (folder / file).exists():
            raise PipelineError(f"{folder / file} is missing: train a model first: `dvc repro train`")
    try:
        description = read_json(folder / DESCRIPTION)
        weights = load_file(folder / WEIGHTS)
        cfg = validate(ModelConfig, description["architecture"])
        spec, classes = InputSpec.from_json(description["input"]), list(description["classes"])
        expected, training = description["sha256"][WEIGHTS], description["training"]
    except (ConfigError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{folder}: not a model of this pipeline: {error!r}. `dvc checkout` brings it back"
        ) from None
    found = sha256_of(folder / WEIGHTS)
    if found != expected:
        raise PipelineError(
            f"{folder / WEIGHTS} is not what {DESCRIPTION} describes: expected sha256 {expected}, found {found}. "
            "`dvc checkout` brings the pair back"
        )
    network = DenseNetwork(cfg, spec, len(classes))
    _load_weights(network, weights, folder)
    return Portable(network.eval(), classes, spec, found, training)


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
