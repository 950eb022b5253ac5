"""Loops over arrays on the CPU that torch would pass over several times, compiled by Numba when they are first called.

One thread is enough: both are done before a second one is awake. Shapes: any, contiguous.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def supports(*tensors: torch.Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the loops below can take these tensors; torch must do what they cannot, on a GPU for one."""
    return not torch.compiler.is_compiling() and all(
        tensor.device.type == "cpu" and tensor.dtype == dtype and tensor.is_contiguous() for tensor in tensors
    )


@njit(cache=True, error_model="numpy")
def rmsprop(weights: Floats, gradients: Floats, velocities: Floats, lr: float, rho: float, eps: float) -> None:
    """One step of KerasRMSprop in place: v ← rho·v + (1 - rho)·g²;  w ← w - lr·g / sqrt(v + eps)."""
    minus_lr, decay, rest, floor = np.float32(-lr), np.float32(rho), np.float32(1 - rho), np.float32(eps)
    w, g, v = weights.reshape(-1), gradients.reshape(-1), velocities.reshape(-1)
    for i in range(w.size):
        v[i] = decay * v[i] + rest * g[i] * g[i]
        w[i] += minus_lr * g[i] / np.sqrt(v[i] + floor)


@njit(cache=True, error_model="numpy")
def scale_pixels(samples: NDArray[np.uint8], scale: float, out: Floats) -> None:
    """out ← samples / scale."""
    flat, target, divisor = samples.reshape(-1), out.reshape(-1), np.float32(scale)
    for i in range(flat.size):
        target[i] = np.float32(flat[i]) / divisor


def load() -> None:
    """Have them compiled, or read from Numba's cache, for flat images and one or two axes of weights: 0.3 s.

    Before a clock starts, or in a process that is forked afterwards, so that its forks need not do it.
    """
    for weights in (np.zeros((1, 1), np.float32), np.zeros(1, np.float32)):
        rmsprop(weights, weights.copy(), weights.copy(), 0.0, 0.0, 1.0)
    scale_pixels(np.zeros((1, 1), np.uint8), 1.0, np.zeros((1, 1), np.float32))
