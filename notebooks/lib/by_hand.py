"""The two-layer network, and gradient descent, by hand in NumPy.

The network is loss(softmax(dot(relu(dot(x, W1) + b1), W2) + b2)).
Shapes: B batch, P inputs of one sample, H hidden units, C classes, W all weights of the network, T snapshots of them,
A and O points along the two axes of a plane. Any float type; results have that of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


class Weights(NamedTuple):
    """The weights of both layers, or the gradient of the loss at each of them."""

    W1: Floats  # (P, H)
    b1: Floats  # (H,)
    W2: Floats  # (H, C)
    b2: Floats  # (C,)


def relu(z: Floats) -> Floats:
    return np.maximum(z, 0)


def softmax(logits_BC: Floats) -> Floats:
    """Each row's largest logit is taken off first: exp cannot overflow, and the result is the same."""
    powers = np.exp(logits_BC - logits_BC.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def probabilities(x_BP: Floats, weights: Weights) -> Floats:
    """(B, C), rows sum to 1."""
    hidden_BH = relu(x_BP @ weights.W1 + weights.b1)
    return softmax(hidden_BH @ weights.W2 + weights.b2)


def cross_entropy(probabilities_BC: Floats, labels_B: Labels) -> float:
    """Mean of -log of the probability given to the true class, in nats."""
    return float(-np.log(probabilities_BC[np.arange(len(labels_B)), labels_B]).mean())


def loss_and_gradients(x_BP: Floats, labels_B: Labels, weights: Weights) -> tuple[float, Weights]:
    """Forward, then backward by the chain rule, from the loss to the first layer."""
    z_BH = x_BP @ weights.W1 + weights.b1
    hidden_BH = relu(z_BH)
    p_BC = softmax(hidden_BH @ weights.W2 + weights.b2)

    at_logits_BC = p_BC.copy()  # softmax and cross-entropy together: probability minus 1 at the true class
    at_logits_BC[np.arange(len(labels_B)), labels_B] -= 1
    at_logits_BC /= len(labels_B)
    at_z_BH = (at_logits_BC @ weights.W2.T) * (z_BH > 0)
    gradients = Weights(
        W1=x_BP.T @ at_z_BH, b1=at_z_BH.sum(axis=0), W2=hidden_BH.T @ at_logits_BC, b2=at_logits_BC.sum(axis=0)
    )
    return cross_entropy(p_BC, labels_B), gradients


# ---------------------------------------------------------------- descent


class Rule(Protocol):
    """How weights change, given the gradient of the loss at each of them. Weights are changed in place."""

    def step(self, weights: Sequence[Floats], gradients: Sequence[Floats]) -> None: ...


@dataclass
class SGD:
    """w ← w - lr·g."""

    lr: float

    def step(self, weights: Sequence[Floats], gradients: Sequence[Floats]) -> None:
        for w, g in zip(weights, gradients, strict=True):
            w -= self.lr * g


@dataclass
class Momentum:
    """v ← momentum·v - lr·g;  w ← w + v: the step remembers those before it."""

    lr: float
    momentum: float
    _velocities: list[Floats] = field(default_factory=list, repr=False)

    def step(self, weights: Sequence[Floats], gradients: Sequence[Floats]) -> None:
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
    _squares: list[Floats] = field(default_factory=list, repr=False)

    def step(self, weights: Sequence[Floats], gradients: Sequence[Floats]) -> None:
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


# ---------------------------------------------------------------- the loss on a plane through the space of weights


@dataclass(frozen=True)
class Plane:
    """center + across · first axis + over · second axis, the axes of length 1 and at right angles."""

    center: Weights
    axes: tuple[Weights, Weights]
    share: float  # of the snapshots' squared distances from their mean that lies within the plane

    def coordinates(self, weights: Weights) -> NDArray[np.float64]:
        """(2,): the foot of the perpendicular from these weights."""
        away = [w - c for w, c in zip(weights, self.center, strict=True)]
        return np.array([sum(float((d * u).sum()) for d, u in zip(away, axis, strict=True)) for axis in self.axes])

    def losses(self, x_BP: Floats, labels_B: Labels, across: Floats, over: Floats) -> NDArray[np.float64]:
        """The loss (O, A) at each point of a grid.

        What the first layer gives is affine in the coordinates: its large product is computed three times, not A·O.
        """
        center, (u, v) = self.center, self.axes
        z, z_u, z_v = (x_BP @ weights.W1 + weights.b1 for weights in (center, u, v))
        found = np.empty((len(over), len(across)))
        for row, o in enumerate(over.tolist()):
            for column, a in enumerate(across.tolist()):
                hidden = relu(z + a * z_u + o * z_v)
                logits = hidden @ (center.W2 + a * u.W2 + o * v.W2) + (center.b2 + a * u.b2 + o * v.b2)
                found[row, column] = cross_entropy(softmax(logits), labels_B)
        return found


def principal_plane(snapshots: Sequence[Weights]) -> Plane:
    """The plane that comes nearest to all snapshots (principal component analysis); it goes through their mean."""
    flat_TW = np.stack([np.concatenate([array.ravel() for array in weights]) for weights in snapshots])
    mean_W = flat_TW.mean(axis=0)
    away_TW = flat_TW - mean_W
    sizes, directions = np.linalg.eigh((away_TW @ away_TW.T).astype(np.float64))  # T x T: W x W would not fit
    axes_2W = directions[:, [-1, -2]].T.astype(flat_TW.dtype) @ away_TW
    axes_2W /= np.sqrt(np.square(axes_2W).sum(axis=1, keepdims=True))
    shapes = [array.shape for array in snapshots[0]]
    ends = np.cumsum([array.size for array in snapshots[0]])[:-1]

    def unpacked(flat_W: Floats) -> Weights:
        return Weights(*(part.reshape(shape) for part, shape in zip(np.split(flat_W, ends), shapes, strict=True)))

    return Plane(unpacked(mean_W), (unpacked(axes_2W[0]), unpacked(axes_2W[1])), float(sizes[-2:].sum() / sizes.sum()))
