"""Weights of small networks."""

from __future__ import annotations

import numpy as np

from lib.by_hand import Weights


def drawn(rng: np.random.Generator, num_inputs: int, num_hidden: int, num_classes: int) -> Weights:
    """float64; biases are not 0, so that an error in them shows."""
    shapes = (num_inputs, num_hidden), (num_hidden,), (num_hidden, num_classes), (num_classes,)
    return Weights(*(rng.normal(0, 0.3, shape) for shape in shapes))
