"""The network by hand, against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from weight_makers import drawn

from lib.by_hand import (
    Floats,
    Weights,
    cross_entropy,
    loss_and_gradients,
    probabilities,
    softmax,
)


def samples(count: int) -> tuple[Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.random((count, 12)), rng.integers(0, 4, count)


def some_weights() -> Weights:
    return drawn(np.random.default_rng(1), 12, 7, 4)


@pytest.mark.parametrize("count", [1, 33])
def test_loss_and_gradients_are_those_of_autograd(count: int) -> None:
    """Every weight of both layers, to the rounding of float64."""
    x, labels = samples(count)
    weights = some_weights()
    W1, b1, W2, b2 = leaves = [torch.tensor(array, requires_grad=True) for array in weights]
    logits = torch.relu(torch.tensor(x) @ W1 + b1) @ W2 + b2
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    expected.backward()
    loss, gradients = loss_and_gradients(x, labels, weights)

    assert loss == pytest.approx(expected.item(), rel=1e-14)
    for name, mine, leaf in zip(Weights._fields, gradients, leaves, strict=True):
        np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=0, atol=1e-15, err_msg=name)


def test_probabilities_sum_to_one_and_give_the_loss() -> None:
    x, labels = samples(20)
    said = probabilities(x, some_weights())

    np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-14)
    assert cross_entropy(said, labels) == loss_and_gradients(x, labels, some_weights())[0]


def test_softmax_of_large_logits_is_finite() -> None:
    """exp(1000) is not."""
    np.testing.assert_array_equal(softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])), [[1, 0], [0.5, 0.5]])


def test_the_weights_type_is_kept() -> None:
    """float32 in, float32 out: a sum in float64 would be twice as slow."""
    x, labels = samples(5)
    weights = Weights(*(array.astype(np.float32) for array in some_weights()))
    _, gradients = loss_and_gradients(x.astype(np.float32), labels, weights)

    assert {array.dtype.name for array in gradients} == {"float32"}
