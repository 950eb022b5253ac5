"""KerasRMSprop is keras.optimizers.RMSprop, and conf/ has its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from config.config_makers import composed
from keras_peer import keras_says, needs_keras
from model.rmsprop_reference import EPS, LR, RHO, gradients
from pipeline.config.schema import KerasRMSpropConfig
from pipeline.model.rmsprop import KerasRMSprop

pytestmark = needs_keras
SHAPE = (40, 50)
# Measured: 1.9e-8 at most; both are within 1.4e-7 of float64. torch's RMSprop is off by 0.05.
ATOL = 1e-7


def start() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(scale=0.05, size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    folder = tmp_path_factory.mktemp("keras")
    steps = np.stack(gradients(SHAPE)).astype(np.float32)
    return keras_says(Path(__file__).with_name("keras_rmsprop.py"), folder, weight=start(), gradients=steps)


def test_weights_equal_keras_at_each_of_200_steps(keras: dict[str, NDArray[Any]]) -> None:
    """To the rounding of float32: gradients from 1e-9 to 1e2, every tenth step without any."""
    weight = torch.from_numpy(start()).requires_grad_()
    optimizer = KerasRMSprop([weight], LR, RHO, EPS)
    for gradient, expected in zip(gradients(SHAPE), keras["trace"], strict=True):
        weight.grad = torch.from_numpy(gradient).float()
        optimizer.step()

        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=0, atol=ATOL)


def test_conf_has_keras_defaults(keras: dict[str, NDArray[Any]]) -> None:
    """What `compile(optimizer="rmsprop")` means in the book; Keras keeps its lr in float32."""
    cfg = composed("experiment=book").optimizer

    assert isinstance(cfg, KerasRMSpropConfig)
    assert [cfg.lr, cfg.rho, cfg.eps, 0.0] == pytest.approx(keras["defaults"], rel=1e-7)
