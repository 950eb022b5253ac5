"""A stack of Dense (fully connected) layers.

Shapes: B batch, P inputs of one sample (784 for 28 x 28 pixels), H hidden units, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from pipeline.config.schema import Count, ModelConfig

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "linear": nn.Identity,
}
NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
# The gain of He's initialization is that of relu, whatever the activation: Keras' he_uniform does the same.
INITIALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
}


@dataclass(frozen=True)
class InputSpec:
    """What one sample is, before the network scales it: network input = (sample - offset) / scale."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # where it is read from a file

    shape: tuple[Count, ...]  # (28, 28), (28, 28, 3) or (number of features,)
    dtype: Literal["uint8", "float32"]
    offset: float | tuple[float, ...]
    scale: float | tuple[float, ...]
    kind: str | None = None  # data.kind of what it was trained on: says how a person's own sample is made like those
    features: tuple[str, ...] | None = None  # of a table: names of the columns


class DenseNetwork(nn.Module):
    """Raw samples in, logits out. Scaling is the first step, so that a served model cannot forget it."""

    offset: Tensor
    scale: Tensor

    def __init__(self, cfg: ModelConfig, spec: InputSpec, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(spec.offset, dtype=torch.float32), persistent=False)
        self.register_buffer("scale", torch.tensor(spec.scale, dtype=torch.float32), persistent=False)
        self.pixels = spec.dtype == "uint8" and self.scale.ndim == 0 and not self.offset.any()
        self.divisor = float(self.scale) if self.pixels else 0.0
        self.cfg, self.units = cfg, cfg.units
        widths = (prod(spec.shape), *cfg.units)
        self.hidden = nn.Sequential(
            *(hidden_layer(cfg, inputs, units) for inputs, units in zip(widths, cfg.units, strict=False))
        )
        self.head = dense(cfg, widths[-1], num_classes)

    def forward(self, samples: Tensor) -> Tensor:
        """Logits, not probabilities: softmax lives in the loss (stable) and in `predict` (readable).

        Args:
            samples: (B, *spec.shape) of spec.dtype.
        """
        return self.head(self.hidden(self._scaled(samples.flatten(1))))  # type: ignore[no-any-return]  # (B, C)

    def _scaled(self, samples_BP: Tensor) -> Tensor:
        """float32, by the shortest way there is; all ways give the same bits."""
        if not self.pixels:
            return (samples_BP.float() - self.offset) / self.scale
        if not self.training:
            return samples_BP.float() / self.scale
        from pipeline.model import kernels  # not above: a network that only answers does without Numba, 0.15 s

        if not kernels.supports(samples_BP, dtype=torch.uint8):
            return samples_BP.float() / self.scale
        scaled_BP = torch.empty(samples_BP.shape, dtype=torch.float32)
        kernels.scale_pixels(samples_BP.numpy(), self.divisor, scaled_BP.numpy())
        return scaled_BP


def hidden_layer(cfg: ModelConfig, inputs: int, units: int) -> nn.Sequential:
    """Dense, normalization if any, activation, dropout if any."""
    steps: list[nn.Module] = [dense(cfg, inputs, units)]
    if cfg.normalization != "none":
        steps.append(NORMALIZATIONS[cfg.normalization](units))
    steps.append(ACTIVATIONS[cfg.activation]())
    if cfg.dropout > 0:
        steps.append(nn.Dropout(cfg.dropout))
    return nn.Sequential(*steps)


def dense(cfg: ModelConfig, inputs: int, units: int) -> nn.Linear:
    """One Dense layer with the chosen initialization; biases start at 0, as in Keras, but for "torch"."""
    layer = nn.Linear(inputs, units)
    if cfg.initialization != "torch":
        INITIALIZATIONS[cfg.initialization](layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


def num_weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def widths_of(units: Sequence[int]) -> str:
    """`512x256`, for names of runs and models; `linear` where there is no hidden layer."""
    return "x".join(map(str, units)) or "linear"
