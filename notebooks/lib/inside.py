"""What a trained network with one hidden layer does with an image: its units, and what each pixel adds to an answer.

Shapes: N samples, P pixels, H hidden units, C classes. Pixels are scaled to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.dense import DenseNetwork

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Images = NDArray[np.uint8]


@torch.no_grad()
def activations(network: DenseNetwork, images: Images) -> Floats:
    """What the hidden units (N, H) say of raw images, after relu."""
    found: Floats = network.hidden(_inputs(network, images)).numpy()
    return found


@torch.no_grad()
def accuracies_without(network: DenseNetwork, images: Images, labels: Labels, silenced: Labels) -> Floats:
    """(C,) the share of each class's images, one or more, that are right while some hidden units are held at 0."""
    hidden_NH = network.hidden(_inputs(network, images))
    hidden_NH[:, torch.from_numpy(silenced)] = 0
    right_N = network.head(hidden_NH).argmax(1).numpy() == labels
    counts_C = np.bincount(labels, minlength=network.head.out_features)
    shares: Floats = np.bincount(labels, right_N, len(counts_C)) / counts_C
    return shares


@dataclass(frozen=True)
class Votes:
    """How far each unit moves each class's logit above the mean of all logits, on average over some images."""

    moves_CH: Floats  # in logits

    @property
    def speaks_for(self) -> Labels:
        """(H,) the class that a unit moves up most."""
        return np.asarray(self.moves_CH.argmax(axis=0))

    def speakers(self, label: int, most: int) -> Labels:
        """(≤ most,) the units that speak for a class, strongest first."""
        own = np.flatnonzero(self.speaks_for == label)
        return own[np.argsort(-self.moves_CH[label, own], kind="stable")][:most]


def votes(network: DenseNetwork, images: Images) -> Votes:
    """Head weight times mean activation; softmax sees only differences of logits, so their mean is taken off."""
    head_CH = network.head.weight.detach().numpy()
    return Votes((head_CH - head_CH.mean(axis=0)) * activations(network, images).mean(axis=0))


@dataclass(frozen=True)
class Shares:
    """A difference of two logits, told apart by pixels: difference = pixels.sum() + rest."""

    pixels: Floats  # (H, W) as the image
    rest: float  # from the biases
    difference: float


def pixel_shares(network: DenseNetwork, image: Images, one: int, other: int) -> Shares:
    """Gradient of logit `one` less logit `other` at each pixel, times the pixel.

    With relu the network is linear as far as the same units stay active, so this is no approximation: with the share
    of the biases it adds up to the difference.
    """
    x_P = _inputs(network, image[None]).requires_grad_()
    logits_C = network.head(network.hidden(x_P))[0]
    difference = logits_C[one] - logits_C[other]
    (gradient_P,) = torch.autograd.grad(difference, x_P)
    pixels: Floats = (gradient_P * x_P).detach().numpy().reshape(image.shape)
    whole = float(difference.detach())
    return Shares(pixels, whole - float(pixels.sum(dtype=np.float64)), whole)


def erased(image: Images, shares: Floats, count: int) -> Images:
    """A copy in which the `count` pixels with the largest shares are blank."""
    copy = image.copy()
    copy.reshape(-1)[np.argsort(-shares, axis=None, kind="stable")[:count]] = 0
    return copy


def nearest(of: NDArray[Any], among: NDArray[Any], count: int) -> Labels:
    """For each of (M, …) the indices (M, count) of the nearest (N, …), nearest first, by Euclidean distance."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (of, among))
    squares_MN = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)
    found: Labels = np.argsort(squares_MN, axis=1, kind="stable")[:, :count]
    return found


def _inputs(network: DenseNetwork, images: Images) -> torch.Tensor:
    """(N, P) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images)).flatten(1).float() / network.scale
