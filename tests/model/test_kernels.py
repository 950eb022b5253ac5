"""The compiled loops give what the formulas give."""

from __future__ import annotations

import numpy as np
import pytest

from model.rmsprop_reference import EPS, LR, RHO
from pipeline.model import kernels


def test_bytes_are_divided_as_numpy_divides() -> None:
    """All 256 of them, bit for bit."""
    samples = np.arange(256, dtype=np.uint8).reshape(2, 128)
    found = np.empty((2, 128), np.float32)

    kernels.scale_pixels(samples, 255.0, found)

    np.testing.assert_array_equal(found, samples.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("count", [1, 7, 16, 100_003])
def test_a_step_is_the_correctly_rounded_one(count: int) -> None:
    """Each operation of the formula rounded once to float32, as NumPy does it, whatever the length."""
    rng = np.random.default_rng(count)
    w, g, v = (rng.normal(size=count).astype(np.float32) for _ in range(3))
    v = np.abs(v) * np.float32(1e-6)
    lr, rho, rest, eps = (np.float32(value) for value in (LR, RHO, 1 - RHO, EPS))
    expected_v = rho * v + rest * g * g
    expected_w = w + -lr * g / np.sqrt(expected_v + eps)

    kernels.rmsprop(w, g, v, LR, RHO, EPS)

    np.testing.assert_array_equal(v, expected_v)
    np.testing.assert_array_equal(w, expected_w)
