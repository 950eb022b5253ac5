"""Keras' RMSprop in NumPy, float64, with Keras' defaults, and gradients to try it on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LR, RHO, EPS = 1e-3, 0.9, 1e-7
NUM_STEPS = 200
Floats = NDArray[np.float64]


def gradients(shape: tuple[int, ...]) -> list[Floats]:
    """One array a step; each entry has its own size, from 1e-9 (nearly dead) to 1e2. Every tenth step: all zero."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-9, 2, shape)
    return [rng.normal(size=shape) * sizes * (step % 10 != 9) for step in range(NUM_STEPS)]


def rmsprop_step(weight: Floats, velocity: Floats, gradient: Floats) -> None:
    """Change weight and velocity in place: v ← rho·v + (1 - rho)·g²; w ← w - lr·g / sqrt(v + eps)."""
    velocity[...] = RHO * velocity + (1 - RHO) * gradient**2
    weight -= LR * gradient / np.sqrt(velocity + EPS)


def rmsprop(weight: Floats, steps: list[Floats]) -> Floats:
    """The weight after these gradients; the one given stays as it is."""
    weight, velocity = weight.copy(), np.zeros_like(weight)
    for gradient in steps:
        rmsprop_step(weight, velocity, gradient)
    return weight
