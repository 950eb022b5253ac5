"""`experiment=book` is Keras' run: the same loss at each of 200 steps, and the same weights after them.

Keras is one of two references; the other is written by hand in NumPy, float64, and needs nothing installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keras_peer import keras_says, needs_keras
from pipeline.data.processed import Split
from pipeline.training.data_module import EpochOrder
from training.book_steps import (
    BATCH,
    NUM_STEPS,
    Steps,
    Weights,
    book_config,
    glorot_uniform,
    steps_by_hand,
    steps_of_fit,
)

SCRIPT = Path(__file__).with_name("keras_steps.py")
# The first losses, 2.3, lie 2.4e-7 apart in float32: this is four such steps. Measured, largest of all 200: 2.4e-7 to
# Keras, 2.2e-7 to float64 (Keras to float64: 1.4e-7). With eps outside the root, as torch has it: 0.05.
LOSS_ATOL = 1e-6
# Measured, largest of 407,050: 1.2e-7 to Keras, 1.8e-7 to float64 (Keras to float64: 1.7e-7). As torch has it: 0.09.
WEIGHT_ATOL = 1e-6


@dataclass(frozen=True)
class Compared:
    """The same 200 steps, computed by us and by a reference."""

    ours: Steps
    reference: Steps


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    start = glorot_uniform()
    digits, reference = steps_by_hand(start)
    return Compared(steps_of_fit(start, digits, tmp_path_factory.mktemp("fit")), reference)


@pytest.fixture(scope="module")
def by_keras(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Keras starts twice: for its initial weights, which decide the batches, and for the steps."""
    nothing = Split(np.empty((0, 28, 28), np.uint8), np.empty(0, np.int64))  # type: ignore[arg-type]
    start = weights_in(keras_on(nothing, 0, tmp_path_factory.mktemp("keras")), "start")
    digits, _ = steps_by_hand(start)
    found = keras_on(digits, NUM_STEPS, tmp_path_factory.mktemp("keras"))
    assert all(np.array_equal(*pair) for pair in zip(start, weights_in(found, "start"), strict=True))
    reference = Steps(found["losses"], weights_in(found, "end"))
    return Compared(steps_of_fit(start, digits, tmp_path_factory.mktemp("fit")), reference)


def keras_on(digits: Split, num_steps: int, folder: Path) -> dict[str, NDArray[Any]]:
    """Keras on the batches that our `fit` makes of these digits."""
    order = EpochOrder(len(digits.labels), book_config().seed).indices()
    images = digits.images[order].reshape(num_steps, BATCH, 28, 28)
    return keras_says(SCRIPT, folder, images=images, labels=digits.labels[order].reshape(num_steps, BATCH))


def weights_in(arrays: dict[str, NDArray[Any]], when: str) -> Weights:
    return [arrays[f"{when}{number}"] for number in range(4)]


def assert_same_losses(found: Compared) -> None:
    np.testing.assert_allclose(found.ours.losses_S, found.reference.losses_S, rtol=0, atol=LOSS_ATOL)


def assert_same_weights(found: Compared) -> None:
    for ours, reference in zip(found.ours.weights, found.reference.weights, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=WEIGHT_ATOL)


def test_each_loss_equals_numpy_in_float64(by_hand: Compared) -> None:
    """From Glorot's weights; the promise where Keras is not installed."""
    assert_same_losses(by_hand)


def test_the_weights_equal_numpy_in_float64(by_hand: Compared) -> None:
    assert_same_weights(by_hand)


@pytest.mark.slow
@needs_keras
def test_each_loss_equals_keras(by_keras: Compared) -> None:
    """On the JAX backend, from Keras' initial weights, with its softmax in the model instead of in the loss."""
    assert_same_losses(by_keras)


@pytest.mark.slow
@needs_keras
def test_the_weights_equal_keras(by_keras: Compared) -> None:
    assert_same_weights(by_keras)
