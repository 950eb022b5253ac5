"""Gradient descent by hand: three rules for a step, and the path that they take over the loss of a tiny network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


class Rule(Protocol):
    """How weights change, given the gradient of the loss at each of them. Weights are changed in place."""

    def step(self, weights: Sequence[Array], gradients: Sequence[Array]) -> None: ...


@dataclass
class SGD:
    """w ← w - lr·g."""

    lr: float

    def step(self, weights: Sequence[Array], gradients: Sequence[Array]) -> None:
        for w, g in zip(weights, gradients, strict=True):
            w -= self.lr * g


@dataclass
class Momentum:
    """v ← momentum·v - lr·g;  w ← w + v: the step remembers those before it."""

    lr: float
    momentum: float
    _velocities: list[Array] = field(default_factory=list, repr=False)

    def step(self, weights: Sequence[Array], gradients: Sequence[Array]) -> None:
        self._velocities = self._velocities or [np.zeros_like(w) for w in weights]
        for w, g, v in zip(weights, gradients, self._velocities, strict=True):
            v *= self.momentum
            v -= self.lr * g
            w += v


@dataclass
class RMSprop:
    """v ← rho·v + (1 - rho)·g²;  w ← w - lr·g / sqrt(v + eps): as `pipeline.model.rmsprop` has it."""

    lr: float
    rho: float
    eps: float
    _squares: list[Array] = field(default_factory=list, repr=False)

    def step(self, weights: Sequence[Array], gradients: Sequence[Array]) -> None:
        self._squares = self._squares or [np.zeros_like(w) for w in weights]
        for w, g, v in zip(weights, gradients, self._squares, strict=True):
            v *= self.rho
            v += (1 - self.rho) * g * g
            w -= self.lr * g / np.sqrt(v + self.eps)


def path_of(rule: Rule, gradient: Callable[[Floats, int], Floats], start: Sequence[float], num_steps: int) -> Floats:
    """The points (num_steps + 1, N) that a descent visits.

    Args:
        gradient: of (point, step), so that each step can have a batch of its own.
    """
    point = np.array(start, dtype=np.float64)
    visited = [point.copy()]
    for step in range(num_steps):
        rule.step([point], [gradient(point, step)])
        visited.append(point.copy())
    return np.array(visited)


@dataclass(frozen=True)
class OneUnit:
    """The network relu(w·x + b), with two weights, and the mean squared error of what it says about samples."""

    x: Floats  # (N,)
    targets: Floats  # (N,)

    def loss(self, w: Floats, b: Floats) -> Floats:
        """For arrays of weights, of one shape: the loss of each pair."""
        said = np.maximum(w[..., None] * self.x + b[..., None], 0)
        loss: Floats = np.square(said - self.targets).mean(axis=-1)
        return loss

    def gradient(self, point: Floats, batch: slice | NDArray[np.int64] = slice(None)) -> Floats:
        """(dL/dw, dL/db) at point (w, b), from the samples of a batch alone."""
        x, targets = self.x[batch], self.targets[batch]
        z = point[0] * x + point[1]
        at_z = 2 * (np.maximum(z, 0) - targets) * (z > 0) / len(x)
        return np.array([at_z @ x, at_z.sum()])
