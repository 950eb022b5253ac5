"""Optimizers carry every number of the configuration; schedules have the values of their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from config.config_makers import train_config
from pipeline.config.schema import CosineConfig
from pipeline.model.optimizers import build_optimizer, build_scheduler, cosine_factor
from pipeline.model.rmsprop import KerasRMSprop
from pipeline.runtime.origin import optimizer_name

OPTIMIZERS: dict[str, tuple[dict[str, Any], type, dict[str, Any]]] = {
    "rmsprop": (
        {"_target_": "pipeline.model.rmsprop.KerasRMSprop", "lr": 0.2, "rho": 0.7, "eps": 1e-3},
        KerasRMSprop,
        {"lr": 0.2, "rho": 0.7, "eps": 1e-3},
    ),
    "sgd": (
        {"_target_": "torch.optim.SGD", "lr": 0.2, "momentum": 0.7, "nesterov": True, "weight_decay": 0.3},
        torch.optim.SGD,
        {"lr": 0.2, "momentum": 0.7, "nesterov": True, "weight_decay": 0.3, "dampening": 0},
    ),
    "adam": (
        {"_target_": "torch.optim.Adam", "lr": 0.2, "beta1": 0.5, "beta2": 0.6, "eps": 1e-3, "weight_decay": 0.3},
        torch.optim.Adam,
        {"lr": 0.2, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.3},
    ),
    "adamw": (
        {"_target_": "torch.optim.AdamW", "lr": 0.2, "beta1": 0.5, "beta2": 0.6, "eps": 1e-3, "weight_decay": 0.3},
        torch.optim.AdamW,
        {"lr": 0.2, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.3},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_number_arrives_in_the_optimizer(name: str) -> None:
    """No value of the configuration is left to torch's default."""
    values, kind, expected = OPTIMIZERS[name]
    cfg = train_config({"optimizer": values}).optimizer
    optimizer = build_optimizer(cfg, [torch.zeros(1, requires_grad=True)])

    assert type(optimizer) is kind
    assert {key: optimizer.param_groups[0][key] for key in expected} == expected
    assert optimizer_name(cfg.target) == name


# ---------------------------------------------------------------- schedules


def lr_of_each_step(scheduler: dict[str, Any], num_epochs: int, steps_per_epoch: int) -> list[list[float]]:
    """The lr that each optimizer step uses, an epoch a row, with optimizer.lr = 1."""
    cfg = train_config({"optimizer": OPTIMIZERS["sgd"][0] | {"lr": 1.0}, "scheduler": scheduler})
    optimizer = build_optimizer(cfg.optimizer, [torch.zeros(1, requires_grad=True)])
    built = build_scheduler(cfg.scheduler, optimizer, num_epochs * steps_per_epoch)
    used = []
    for _ in range(num_epochs):
        used.append([])
        for _ in range(steps_per_epoch):
            used[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if built and built[1] == "step":
                built[0].step()
        if built and built[1] == "epoch":
            built[0].step()
    return used


def test_constant_never_changes() -> None:
    """The book's lr."""
    assert lr_of_each_step({"name": "constant"}, 2, 2) == [[1.0, 1.0], [1.0, 1.0]]


def test_step_drops_every_n_epochs() -> None:
    """Factor 0.5 every 2 epochs, all steps of an epoch alike."""
    found = lr_of_each_step({"name": "step", "every_epochs": 2, "factor": 0.5}, 5, 2)

    assert found == [[1.0, 1.0], [1.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.25, 0.25]]


def test_cosine_warms_up_then_falls() -> None:
    """10 steps, 2 of them warm-up, down to 0.1: line, then 0.1 + 0.9 (1 + cos(pi t)) / 2."""
    found = lr_of_each_step({"name": "cosine", "warmup_fraction": 0.2, "final_lr_ratio": 0.1}, 2, 5)

    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * n / 8)) / 2 for n in range(8)]
    assert [lr for epoch in found for lr in epoch] == pytest.approx([0.5, 1.0, *falling], abs=1e-12)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.25), (3, 1.0), (4, 1.0), (12, 0.5), (20, 0.0), (25, 0.0)], ids=str)
def test_cosine_by_number(step: int, factor: float) -> None:
    """4 of 20 steps warm-up: a quarter at once, 1 at its end, half in the middle, 0 at the end and beyond."""
    cfg = CosineConfig(name="cosine", warmup_fraction=0.2, final_lr_ratio=0.0)

    assert cosine_factor(cfg, step, 20) == pytest.approx(factor, abs=1e-12)


def test_cosine_without_warmup_starts_at_the_top() -> None:
    """No step is lost to a warm-up of none."""
    cfg = CosineConfig(name="cosine", warmup_fraction=0.0, final_lr_ratio=0.0)

    assert cosine_factor(cfg, 0, 20) == 1.0


def test_cosine_of_a_single_step_is_defined() -> None:
    """A training of one step has no slope to divide by."""
    cfg = CosineConfig(name="cosine", warmup_fraction=0.9, final_lr_ratio=0.0)

    assert cosine_factor(cfg, 0, 1) == 1.0
