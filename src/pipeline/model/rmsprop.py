"""RMSprop as Keras computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class KerasRMSprop(Optimizer):
    """v ← rho·v + (1 - rho)·g²;  w ← w - lr·g / sqrt(v + eps).

    torch.optim.RMSprop divides by sqrt(v) + eps: with Keras' eps = 1e-7 the smallest divisor is then 1e-7 instead of
    sqrt(1e-7) = 3.2e-4, and weights of nearly dead pixels move up to 3,000 times further.

    Source: keras/src/optimizers/rmsprop.py (Keras 3), without momentum and centering.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, rho: float, eps: float) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        from pipeline.model import kernels  # not above: Numba comes with it, also for who only needs this class's name

        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            pairs = [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]
            if kernels.supports(*chain(*pairs)):
                for weight, gradient in pairs:
                    w, g, v = (tensor.detach().numpy() for tensor in (weight, gradient, self._velocity(weight)))
                    kernels.rmsprop(w, g, v, group["lr"], group["rho"], group["eps"])
            else:
                self._update(pairs, group["lr"], group["rho"], group["eps"])
        return loss

    def _update(self, pairs: list[tuple[Tensor, Tensor]], lr: float, rho: float, eps: float) -> None:
        """The same by torch, for all weights at once, as a GPU wants it. On a CPU 1 root of 150 is rounded wrong."""
        weights, gradients = [weight for weight, _ in pairs], [gradient for _, gradient in pairs]
        velocities = [self._velocity(weight) for weight in weights]
        torch._foreach_mul_(velocities, rho)
        torch._foreach_addcmul_(velocities, gradients, gradients, value=1 - rho)
        divisors = torch._foreach_add(velocities, eps)
        torch._foreach_sqrt_(divisors)
        torch._foreach_addcdiv_(weights, gradients, divisors, value=-lr)

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity
