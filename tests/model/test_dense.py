"""The network: its forward pass, where its weights start, and that scaling is inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from config.config_makers import train_config
from pipeline.model.dense import DenseNetwork, InputSpec, num_weights, widths_of

PIXELS = InputSpec((28, 28), "uint8", 0.0, 255.0)
TABLE = InputSpec((3,), "float32", (1.0, -2.0, 0.5), (2.0, 4.0, 0.25))
Floats = NDArray[np.float64]

ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "linear": lambda x: x,
}


def network(spec: InputSpec = PIXELS, num_classes: int = 10, seed: int = 0, **model: Any) -> DenseNetwork:
    torch.manual_seed(seed)
    return DenseNetwork(train_config({f"model.{key}": value for key, value in model.items()}).model, spec, num_classes)


def images(count: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def in_numpy(module: DenseNetwork, samples: Floats, activation: Callable[[Floats], Floats]) -> Floats:
    """Scaled samples (B, P) through the network's Dense layers, in float64."""
    *hidden, head = [
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in linear_layers(module)
    ]
    for weight, bias in hidden:
        samples = activation(samples @ weight.T + bias)
    return samples @ head[0].T + head[1]


# ---------------------------------------------------------------- forward


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("units", [[16], [16, 8]])
def test_logits_equal_numpy(units: list[int], activation: str) -> None:
    """Dense, activation, …, Dense, as a formula in float64."""
    model = network(units=units, activation=activation, initialization="torch").eval()  # biases other than 0
    with torch.no_grad():
        found = model(torch.from_numpy(images()))

    expected = in_numpy(model, images().reshape(6, 784) / 255, ACTIVATIONS[activation])
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_no_units_is_a_linear_model() -> None:
    """Without hidden layers the logits are one product, whatever the activation."""
    model = network(units=[], activation="relu", initialization="torch")
    with torch.no_grad():
        found = model(torch.from_numpy(images()))

    assert len(linear_layers(model)) == 1
    np.testing.assert_allclose(found.numpy(), in_numpy(model, images().reshape(6, 784) / 255, abs), atol=2e-6)


def test_pixels_are_scaled_inside() -> None:
    """uint8 images give the logits that the bare layers give for images divided by 255 beforehand."""
    model = network(units=[16]).eval()
    scaled = torch.from_numpy(images()).flatten(1).float() / 255
    with torch.no_grad():
        assert torch.equal(model(torch.from_numpy(images())), model.head(model.hidden(scaled)))


def test_each_feature_of_a_table_has_its_own_scale() -> None:
    """(x - offset) / scale, feature by feature."""
    model = network(TABLE, 2, units=[4], activation="tanh", initialization="torch").eval()
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with torch.no_grad():
        found = model(torch.from_numpy(rows))

    scaled = (rows.astype(np.float64) - TABLE.offset) / TABLE.scale
    np.testing.assert_allclose(found.numpy(), in_numpy(model, scaled, np.tanh), atol=1e-6)


def test_the_scale_is_not_among_the_weights() -> None:
    """It stands in model.json; weights that are loaded cannot change it."""
    assert set(network(units=[4]).state_dict()) == {"hidden.0.0.weight", "hidden.0.0.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_normalization_comes_before_the_activation(normalization: str) -> None:
    """With relu the hidden values of a batch are a normalized product cut at 0."""
    model = network(units=[16], normalization=normalization)
    x = torch.from_numpy(images())
    with torch.no_grad():
        found = model.hidden(x.flatten(1).float() / 255).double().numpy()

    layer = linear_layers(model)[0]
    product = (images().reshape(6, 784) / 255) @ layer.weight.detach().double().numpy().T
    axis = 0 if normalization == "batch" else 1
    mean, variance = product.mean(axis, keepdims=True), product.var(axis, keepdims=True)
    np.testing.assert_allclose(found, np.maximum((product - mean) / np.sqrt(variance + 1e-5), 0), atol=1e-4)


# ---------------------------------------------------------------- dropout


def test_dropout_acts_in_training_only() -> None:
    """In eval() two passes are equal and equal to those of a network without dropout; in train() they differ."""
    with_dropout, without = network(units=[64], dropout=0.5), network(units=[64])
    x = torch.from_numpy(images())
    with torch.no_grad():
        training = [with_dropout.train()(x) for _ in range(2)]
        evaluated = with_dropout.eval()(x)

        assert not torch.equal(*training)
        assert torch.equal(evaluated, without.eval()(x))


def test_dropout_sets_its_share_to_zero_and_scales_the_rest() -> None:
    """With dropout 0.25 a quarter of 40,000 hidden values is 0, the others grow by 4/3."""
    cfg = {"units": [40_000], "activation": "linear", "dropout": 0.25}
    x = torch.ones(1, 3)
    with torch.no_grad():
        before = network(TABLE, 2, **cfg).eval().hidden(x)
        after = network(TABLE, 2, **cfg).train().hidden(x)

    kept = after != 0
    assert 1 - kept.double().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(after[kept], before[kept] * 4 / 3)


# ---------------------------------------------------------------- where the weights start


@pytest.mark.parametrize(
    ("initialization", "limit"),
    [("glorot_uniform", math.sqrt(6 / (784 + 512))), ("he_uniform", math.sqrt(6 / 784))],
)
def test_uniform_weights_fill_their_interval(initialization: str, limit: float) -> None:
    """Glorot: sqrt(6 / (fan_in + fan_out)); He: sqrt(6 / fan_in). All inside, mean 0, sd limit / sqrt(3)."""
    weight = linear_layers(network(units=512, initialization=initialization))[0].weight.detach()

    assert 0.999 * limit < weight.abs().max().item() <= limit
    assert weight.mean().item() == pytest.approx(0, abs=limit / 200)
    assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize(
    ("initialization", "sd"), [("glorot_normal", math.sqrt(2 / (784 + 512))), ("he_normal", math.sqrt(2 / 784))]
)
def test_normal_weights_have_their_width(initialization: str, sd: float) -> None:
    """Glorot: sqrt(2 / (fan_in + fan_out)); He: sqrt(2 / fan_in). Tails beyond 3 sd are there."""
    weight = linear_layers(network(units=512, initialization=initialization))[0].weight.detach()

    assert weight.std().item() == pytest.approx(sd, rel=0.01)
    assert weight.abs().max().item() > 3 * sd


@pytest.mark.parametrize("initialization", ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal"])
def test_biases_start_at_zero(initialization: str) -> None:
    """As in Keras; torch's own would be random."""
    for layer in linear_layers(network(units=[16, 8], initialization=initialization)):
        assert not layer.bias.any()


def test_the_heads_weights_are_glorots_too() -> None:
    """Every layer has its own limit, the last one as well."""
    head = network(units=512).head.weight.detach()

    assert 0.99 * math.sqrt(6 / 522) < head.abs().max().item() <= math.sqrt(6 / 522)


def test_torchs_own_initialization_is_kept() -> None:
    """`torch` gives the weights and biases that nn.Linear draws."""
    torch.manual_seed(0)
    expected = nn.Linear(784, 4)
    found = linear_layers(network(units=[4], initialization="torch"))[0]

    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)


def test_the_seed_decides_the_weights() -> None:
    """The same seed twice, then another."""
    first, again, other = (network(units=[8], seed=seed).head.weight for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ---------------------------------------------------------------- what it is called


def test_the_books_network_has_407050_weights() -> None:
    """784 * 512 + 512 + 512 * 10 + 10."""
    assert num_weights(network(units=512)) == 407_050


@pytest.mark.parametrize(("units", "name"), [((512,), "512"), ((512, 256), "512x256"), ((), "linear")])
def test_widths_have_a_short_name(units: tuple[int, ...], name: str) -> None:
    """For names of runs and models."""
    assert widths_of(units) == name


def test_pixels_are_scaled_to_the_same_bits_in_training_and_after_it() -> None:
    """All 256 of them: a network that trains divides in a compiled loop, one that answers by torch."""
    every = np.arange(256, dtype=np.uint8).repeat(4)[:784].reshape(1, 28, 28)
    samples = torch.from_numpy(np.concatenate([every, 255 - every]))
    module = network(units=[])
    identity = nn.Identity()
    module.head = identity  # type: ignore[assignment]

    trained, answered = module.train()(samples), module.eval()(samples)
    assert torch.equal(trained, answered)
    np.testing.assert_array_equal(answered.numpy(), samples.flatten(1).numpy().astype(np.float32) / np.float32(255))
