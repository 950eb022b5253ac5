"""A plane through the weights of a network."""

from __future__ import annotations

import numpy as np
from weight_makers import drawn

from lib.by_hand import Weights, cross_entropy, principal_plane, probabilities

RNG = np.random.default_rng(0)
CENTER, FIRST, SECOND = (drawn(RNG, 9, 6, 3) for _ in range(3))
PLACES = RNG.normal(size=(7, 2)) * [3, 1]


def at(a: float, b: float) -> Weights:
    return Weights(*(c + a * u + b * v for c, u, v in zip(CENTER, FIRST, SECOND, strict=True)))


def test_weights_of_one_plane_are_found_again() -> None:
    """The plane holds all of their distance; coordinates and axes rebuild each of them."""
    snapshots = [at(*place) for place in PLACES]
    plane = principal_plane(snapshots)

    assert plane.share > 1 - 1e-12
    for weights in snapshots:
        a, b = plane.coordinates(weights)
        for found, u, v, expected in zip(plane.center, *plane.axes, weights, strict=True):
            np.testing.assert_allclose(found + a * u + b * v, expected, atol=1e-12)


def test_the_axes_have_length_1_and_right_angles() -> None:
    u, v = principal_plane([at(*place) for place in PLACES]).axes
    products = [[sum(float((x * y).sum()) for x, y in zip(one, two, strict=True)) for one in (u, v)] for two in (u, v)]
    np.testing.assert_allclose(products, np.eye(2), atol=1e-12)


def test_losses_are_those_of_the_weights_at_each_point() -> None:
    """Rows go along the second axis."""
    plane = principal_plane([at(*place) for place in PLACES])
    x, labels = RNG.random((30, 9)), RNG.integers(0, 3, 30)
    across, over = np.array([-1.0, 0.5]), np.array([-0.3, 0.2, 0.9])
    found = plane.losses(x, labels, across, over)

    assert found.shape == (3, 2)
    for (row, column), loss in np.ndenumerate(found):
        a, b = across[column], over[row]
        weights = Weights(*(c + a * u + b * v for c, u, v in zip(plane.center, *plane.axes, strict=True)))
        np.testing.assert_allclose(loss, cross_entropy(probabilities(x, weights), labels), rtol=1e-12)
