"""Inside a trained network: sums that must come out, and units that must count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.network import (
    accuracies_without,
    activations,
    erased,
    nearest,
    pixel_shares,
    votes,
)
from pipeline.config.schema import ModelConfig
from pipeline.model.dense import DenseNetwork, InputSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 6), dtype=np.uint8)
NOBODY = np.array([], dtype=np.int64)


@pytest.fixture
def network() -> DenseNetwork:
    """Twelve hidden units, three classes; biases that are not 0, so that an error in them shows."""
    torch.manual_seed(0)
    cfg = ModelConfig(
        name="dense", units=(12,), activation="relu", initialization="torch", normalization="none", dropout=0.0
    )
    return DenseNetwork(cfg, InputSpec((6, 6), "uint8", 0.0, 255.0), num_classes=3)


def logits(network: DenseNetwork, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


def test_the_head_reads_the_activations(network: DenseNetwork) -> None:
    hidden = activations(network, IMAGES)
    head = network.head

    assert hidden.shape == (20, 12)
    assert (hidden == 0).any()
    assert (hidden >= 0).all()
    expected = hidden @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(expected, logits(network, IMAGES), atol=1e-6)


def test_pixel_shares_add_up_to_the_difference_of_the_logits(network: DenseNetwork) -> None:
    for image in IMAGES:
        found = pixel_shares(network, image, 2, 0)
        at = logits(network, image[None])[0]

        assert found.difference == pytest.approx(at[2] - at[0], abs=1e-5)
        assert found.pixels.sum() + found.rest == pytest.approx(found.difference, abs=1e-5)


def test_the_share_of_a_pixel_is_what_it_adds_as_long_as_the_units_stay_active(network: DenseNetwork) -> None:
    """Half a percent less ink everywhere takes half a percent of all shares; checked in float64."""
    network.double()
    image = IMAGES[3]
    found = pixel_shares(network.float(), image, 1, 2)
    x = torch.from_numpy(image).flatten()[None].double() / 255
    with torch.no_grad():
        whole, less = (network.double().head(network.hidden(x * part))[0] for part in (1, 0.995))
    network.float()

    lost = float((whole[1] - whole[2]) - (less[1] - less[2]))
    assert lost == pytest.approx(0.005 * found.pixels.sum(), rel=1e-3)


def test_a_blank_pixel_has_no_share(network: DenseNetwork) -> None:
    image = IMAGES[0].copy()
    image[2, 3] = 0
    assert pixel_shares(network, image, 0, 1).pixels[2, 3] == 0


def test_the_pixels_with_the_largest_shares_are_erased() -> None:
    image = np.full((2, 3), 9, dtype=np.uint8)
    shares = np.array([[0.1, -5.0, 0.3], [0.2, 0.0, 7.0]])

    np.testing.assert_array_equal(erased(image, shares, 2), [[9, 9, 0], [9, 9, 0]])
    assert (image == 9).all()


def test_a_unit_speaks_for_the_class_whose_logit_it_raises_most(network: DenseNetwork) -> None:
    found = votes(network, IMAGES)
    mean = activations(network, IMAGES).mean(axis=0)
    head = network.head.weight.detach().numpy()

    np.testing.assert_allclose(found.moves_CH.sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.moves_CH[0] - found.moves_CH[1], (head[0] - head[1]) * mean, atol=1e-6)
    every = np.concatenate([found.speakers(label, 12) for label in range(3)])
    assert sorted(every) == list(range(12))
    strongest = found.speakers(1, 2)
    assert found.moves_CH[1, strongest[0]] >= found.moves_CH[1, strongest[1]]


def test_without_units_means_their_activations_are_0(network: DenseNetwork) -> None:
    """Against a network whose weights from those units to the head are 0."""
    labels = logits(network, IMAGES).argmax(1)
    labels[:3] = (0, 1, 2)
    silenced = np.array([0, 4, 7])
    everything = accuracies_without(network, IMAGES, labels, NOBODY)
    found = accuracies_without(network, IMAGES, labels, silenced)

    np.testing.assert_allclose(everything, shares_right(network, labels))
    with torch.no_grad():
        network.head.weight[:, silenced] = 0
    np.testing.assert_allclose(found, shares_right(network, labels))


def shares_right(network: DenseNetwork, labels: np.ndarray) -> list[float]:
    right = logits(network, IMAGES).argmax(1) == labels
    return [right[labels == label].mean() for label in range(3)]


def test_the_nearest_come_first() -> None:
    among = np.array([[[0, 0]], [[10, 0]], [[3, 4]]], dtype=np.uint8)
    of = np.array([[[9, 0]], [[0, 1]]], dtype=np.uint8)

    np.testing.assert_array_equal(nearest(of, among, count=2), [[1, 2], [0, 2]])
