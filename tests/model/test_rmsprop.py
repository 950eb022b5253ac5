"""KerasRMSprop is Keras' formula, and goes on from its state."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from model.rmsprop_reference import EPS, LR, RHO, Floats, gradients, rmsprop
from pipeline.model.rmsprop import KerasRMSprop


def stepped(optimizer: torch.optim.Optimizer, weight: torch.Tensor, steps: list[Floats]) -> torch.Tensor:
    for gradient in steps:
        weight.grad = torch.from_numpy(gradient).to(weight.dtype)
        optimizer.step()
    return weight.detach()


def start(dtype: torch.dtype, shape: tuple[int, ...] = (7, 5)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=shape)).to(dtype).requires_grad_()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_200_steps_equal_numpy_in_float64(dtype: torch.dtype, tolerance: float) -> None:
    """To 1e-12 with float64 weights; with float32 to the rounding of 200 steps."""
    weight, steps = start(dtype), gradients((7, 5))
    expected = rmsprop(weight.detach().double().numpy(), steps)

    found = stepped(KerasRMSprop([weight], LR, RHO, EPS), weight, steps)

    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=tolerance)


def test_it_is_not_torchs_rmsprop() -> None:
    """With the same numbers torch moves weights of tiny gradients much further: its eps is outside the root."""
    steps = [np.full((1,), 1e-6)] * 10
    ours, theirs = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    stepped(KerasRMSprop([ours], LR, RHO, EPS), ours, steps)
    stepped(torch.optim.RMSprop([theirs], lr=LR, alpha=RHO, eps=EPS), theirs, steps)

    np.testing.assert_allclose(ours.numpy(), rmsprop(np.zeros(1), steps), rtol=1e-12)
    assert theirs.item() / ours.item() > 300


def test_the_first_step_by_hand() -> None:
    """v = 0.1 * 4; w = 1 - 0.001 * 2 / sqrt(0.4 + 1e-7)."""
    weight = torch.ones(1, dtype=torch.float64)

    stepped(KerasRMSprop([weight], LR, RHO, EPS), weight, [np.array([2.0])])

    assert weight.item() == pytest.approx(1 - 0.002 / math.sqrt(0.4 + 1e-7), abs=1e-15)


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    """state_dict after 50 steps, loaded into a new optimizer, gives the weights of 100 steps without a break."""
    steps = gradients((7, 5))[:100]
    whole = start(torch.float32)
    stepped(KerasRMSprop([whole], LR, RHO, EPS), whole, steps)

    half = start(torch.float32)
    before = KerasRMSprop([half], LR, RHO, EPS)
    stepped(before, half, steps[:50])
    resumed = half.detach().clone().requires_grad_()
    after = KerasRMSprop([resumed], 99.0, 0.5, 1.0)  # the state brings the numbers with it
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    stepped(after, resumed, steps[50:])

    assert torch.equal(resumed, whole)


def test_several_weights_are_stepped_each_on_its_own() -> None:
    """Two tensors in one optimizer end where they end in two."""
    first, second = start(torch.float64, (3,)), start(torch.float64, (2, 2))
    optimizer = KerasRMSprop([first, second], LR, RHO, EPS)
    for one, two in zip(gradients((3,)), gradients((2, 2)), strict=True):
        first.grad, second.grad = torch.from_numpy(one), torch.from_numpy(two)
        optimizer.step()

    for weight in (first, second):
        alone = start(torch.float64, tuple(weight.shape))
        assert torch.equal(weight, stepped(KerasRMSprop([alone], LR, RHO, EPS), alone, gradients(tuple(weight.shape))))


def test_a_weight_without_gradient_stays() -> None:
    """As in torch, a parameter that the loss does not touch is left alone."""
    used, unused = torch.ones(1), torch.ones(1)
    used.grad = torch.ones(1)

    KerasRMSprop([used, unused], LR, RHO, EPS).step()

    assert used.item() != 1.0
    assert unused.item() == 1.0


def test_a_changed_lr_holds_from_the_next_step() -> None:
    """Schedules write to the parameter group; with lr 0 nothing moves."""
    weight = torch.ones(1)
    optimizer = KerasRMSprop([weight], LR, RHO, EPS)
    optimizer.param_groups[0]["lr"] = 0.0

    assert stepped(optimizer, weight, [np.ones(1)]).item() == 1.0
