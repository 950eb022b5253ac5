"""The two-layer network by hand, in NumPy: loss(softmax(dot(relu(dot(x, W1) + b1), W2) + b2)) and its gradients.

Shapes: B batch, P inputs of one sample, H hidden units, C classes. Any float type; results have that of the weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


def glorot_uniform(rng: np.random.Generator, num_inputs: int, num_hidden: int, num_classes: int) -> Weights:
    """float64, uniform in ± sqrt(6 / (inputs + outputs)) of each layer; biases are 0."""

    def uniform(inputs: int, outputs: int) -> Floats:
        limit = np.sqrt(6 / (inputs + outputs))
        return rng.uniform(-limit, limit, (inputs, outputs))

    return Weights(
        uniform(num_inputs, num_hidden), np.zeros(num_hidden), uniform(num_hidden, num_classes), np.zeros(num_classes)
    )


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
