"""From the configuration to an optimizer and a schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from pipeline.config.schema import (
    AdamConfig,
    ConstantConfig,
    CosineConfig,
    KerasRMSpropConfig,
    OptimizerConfig,
    SchedulerConfig,
    SGDConfig,
)
from pipeline.model.rmsprop import KerasRMSprop


def build_optimizer(cfg: OptimizerConfig, weights: Iterable[Tensor]) -> Optimizer:
    match cfg:
        case KerasRMSpropConfig():
            return KerasRMSprop(weights, lr=cfg.lr, rho=cfg.rho, eps=cfg.eps)
        case SGDConfig():
            return torch.optim.SGD(weights, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.nesterov,
                                   weight_decay=cfg.weight_decay)  # fmt: skip
        case AdamConfig():
            kind = torch.optim.Adam if cfg.target == "torch.optim.Adam" else torch.optim.AdamW
            return kind(weights, lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), eps=cfg.eps, weight_decay=cfg.weight_decay)


def build_scheduler(
    cfg: SchedulerConfig, optimizer: Optimizer, num_steps: int
) -> tuple[LRScheduler, Literal["step", "epoch"]] | None:
    """The schedule and how often it is advanced; None for a constant lr.

    Args:
        num_steps: optimizer steps of the whole training.
    """
    if isinstance(cfg, ConstantConfig):
        return None
    if isinstance(cfg, CosineConfig):
        return LambdaLR(optimizer, lambda step: cosine_factor(cfg, step, num_steps)), "step"
    return StepLR(optimizer, step_size=cfg.every_epochs, gamma=cfg.factor), "epoch"


def cosine_factor(cfg: CosineConfig, step: int, num_steps: int) -> float:
    """What the lr is multiplied by at a step in 0..num_steps: up to 1 in a line, then down to final_lr_ratio."""
    warmup = round(cfg.warmup_fraction * num_steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, num_steps - warmup)
    return cfg.final_lr_ratio + (1 - cfg.final_lr_ratio) * (1 + math.cos(math.pi * min(1.0, done))) / 2
