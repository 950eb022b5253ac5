"""The crumpled sheets and the networks that unfold and tell them apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import nn

from lib import sheets


def test_the_crumpled_sheets_do_not_touch() -> None:
    """As the notebook has them: the ball is of radius 1 at most, and no point is near the other sheet."""
    ball = sheets.crumpled(sheets.flat_sheets(50), seed=1)
    nearest = cKDTree(ball[0].reshape(-1, 3)).query(ball[1].reshape(-1, 3))[0]

    assert np.square(ball).sum(axis=-1).max() < 1
    assert nearest.min() > 0.04


def test_crumpling_is_smooth() -> None:
    """Twice as many points halve the way between neighbours: nothing is torn."""
    coarse, fine = (sheets.crumpled(sheets.flat_sheets(side), seed=1) for side in (40, 79))
    ways = [np.sqrt(np.square(np.diff(points, axis=1)).sum(axis=-1)).max() for points in (coarse, fine)]
    assert ways[1] == pytest.approx(ways[0] / 2, rel=0.1)


def test_a_network_can_start_as_the_identity() -> None:
    """However deep, and exactly: weights of 0 and 1 round nothing."""
    torch.manual_seed(0)
    network = sheets.dense_network([3, 20, 30, 16, 3], activation=nn.ReLU)
    sheets.start_as_identity(network)
    points = torch.randn(50, 3)
    assert torch.equal(network(points), points)


def test_unfolding_begins_with_the_ball_and_separates_the_sheets() -> None:
    """The same seed gives the same frames."""
    flat = sheets.flat_sheets(12)
    ball = sheets.crumpled(flat, seed=1)
    one, two = (sheets.unfold(flat / 2, ball, widths=[64, 64], num_steps=150, num_frames=5, seed=0) for _ in range(2))

    assert one.steps == [0, 9, 38, 84, 150]
    np.testing.assert_allclose(one.frames[0], ball, atol=1e-6)
    assert one.separated[0] < 0.8 < 0.9 < one.separated[-1]
    assert all(np.array_equal(*pair) for pair in zip(one.frames, two.frames, strict=True))


def test_only_with_relu_a_network_tells_spirals_apart() -> None:
    points, labels = sheets.spirals(400, seed=0)
    found = {}
    for activation in (nn.Identity, nn.ReLU):
        network = sheets.classify(points, labels, widths=[32, 32], activation=activation, num_steps=400, seed=0)
        found[activation] = (sheets.predicted(network, points) == labels).mean()

    assert found[nn.Identity] < 0.75
    assert found[nn.ReLU] > 0.98
