"""The rules of a step, against torch's and Keras', and the network with two weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.by_hand import SGD, Momentum, OneUnit, RMSprop, Rule, path_of
from model.rmsprop_reference import EPS, LR, RHO, Floats, gradients, rmsprop

START = np.random.default_rng(3).normal(size=(4, 3))
UNIT = OneUnit(np.linspace(0.1, 3, 20), np.linspace(0, 2, 20) ** 2)


def after(rule: Rule, steps: list[Floats]) -> Floats:
    weight = START.copy()
    for gradient in steps:
        rule.step([weight], [gradient])
    return weight


@pytest.mark.parametrize(("rule", "momentum"), [(SGD(1e-2), 0.0), (Momentum(1e-2, 0.9), 0.9)])
def test_sgd_and_momentum_are_torchs(rule: Rule, momentum: float) -> None:
    weight = torch.tensor(START, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1e-2, momentum=momentum)
    steps = gradients(START.shape)
    for gradient in steps:
        weight.grad = torch.tensor(gradient)
        optimizer.step()

    np.testing.assert_allclose(after(rule, steps), weight.detach().numpy(), rtol=1e-12)


def test_rmsprop_is_keras() -> None:
    """As the reference that Keras itself is compared with."""
    steps = gradients(START.shape)
    np.testing.assert_allclose(after(RMSprop(LR, RHO, EPS), steps), rmsprop(START, steps), rtol=1e-12)


def test_a_path_begins_at_its_start_and_has_all_steps() -> None:
    """Down w² by a quarter of its slope, the weight is halved each time."""
    path = path_of(SGD(0.25), lambda point, step: 2 * point, [8.0, -4.0], num_steps=3)
    np.testing.assert_array_equal(path, [[8, -4], [4, -2], [2, -1], [1, -0.5]])


def test_each_step_of_a_path_is_told_its_number() -> None:
    path = path_of(SGD(1.0), lambda point, step: np.array([step], dtype=float), [0.0], num_steps=3)
    np.testing.assert_array_equal(path[:, 0], [0, 0, -1, -3])


@pytest.mark.parametrize("point", [(1.0, 0.5), (-0.4, 0.7), (2.0, -1.5)])
def test_the_units_gradient_is_the_slope_of_its_loss(point: tuple[float, float]) -> None:
    """Against central differences, where some samples are on either side of relu's edge."""
    at, step = np.array(point), 1e-6
    slopes = [(UNIT.loss(*(at + d)) - UNIT.loss(*(at - d))) / (2 * step) for d in step * np.eye(2)]
    np.testing.assert_allclose(UNIT.gradient(at), slopes, rtol=1e-6)


def test_a_batch_gives_the_gradient_of_its_samples_alone() -> None:
    batch = np.array([3, 11, 17])
    few = OneUnit(UNIT.x[batch], UNIT.targets[batch])
    np.testing.assert_array_equal(UNIT.gradient(np.array([1.0, 0.2]), batch), few.gradient(np.array([1.0, 0.2])))


def test_a_dead_unit_has_no_gradient() -> None:
    np.testing.assert_array_equal(UNIT.gradient(np.array([-1.0, -1.0])), [0, 0])
