"""The loss of a whole network, looked at on a plane through the space of its weights.

Shapes: T snapshots, W all weights of the network, B samples, A and O points along the plane's two axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.numpy_network import Floats, Labels, Weights, cross_entropy, relu, softmax


@dataclass(frozen=True)
class Plane:
    """center + across · first axis + over · second axis, the axes of length 1 and at right angles."""

    center: Weights
    axes: tuple[Weights, Weights]
    share: float  # of the snapshots' squared distances from their mean that lies within the plane

    def coordinates(self, weights: Weights) -> NDArray[np.float64]:
        """(2,): the foot of the perpendicular from these weights."""
        away = [w - c for w, c in zip(weights, self.center, strict=True)]
        return np.array([sum(float((d * u).sum()) for d, u in zip(away, axis, strict=True)) for axis in self.axes])

    def losses(self, x_BP: Floats, labels_B: Labels, across: Floats, over: Floats) -> NDArray[np.float64]:
        """The loss (O, A) at each point of a grid.

        What the first layer gives is affine in the coordinates: its large product is computed three times, not A·O.
        """
        center, (u, v) = self.center, self.axes
        z, z_u, z_v = (x_BP @ weights.W1 + weights.b1 for weights in (center, u, v))
        found = np.empty((len(over), len(across)))
        for row, o in enumerate(over.tolist()):
            for column, a in enumerate(across.tolist()):
                hidden = relu(z + a * z_u + o * z_v)
                logits = hidden @ (center.W2 + a * u.W2 + o * v.W2) + (center.b2 + a * u.b2 + o * v.b2)
                found[row, column] = cross_entropy(softmax(logits), labels_B)
        return found


def principal_plane(snapshots: Sequence[Weights]) -> Plane:
    """The plane that comes nearest to all snapshots (principal component analysis); it goes through their mean."""
    flat_TW = np.stack([np.concatenate([array.ravel() for array in weights]) for weights in snapshots])
    mean_W = flat_TW.mean(axis=0)
    away_TW = flat_TW - mean_W
    sizes, directions = np.linalg.eigh((away_TW @ away_TW.T).astype(np.float64))  # T x T: W x W would not fit
    axes_2W = directions[:, [-1, -2]].T.astype(flat_TW.dtype) @ away_TW
    axes_2W /= np.sqrt(np.square(axes_2W).sum(axis=1, keepdims=True))
    shapes = [array.shape for array in snapshots[0]]
    ends = np.cumsum([array.size for array in snapshots[0]])[:-1]

    def unpacked(flat_W: Floats) -> Weights:
        return Weights(*(part.reshape(shape) for part, shape in zip(np.split(flat_W, ends), shapes, strict=True)))

    return Plane(unpacked(mean_W), (unpacked(axes_2W[0]), unpacked(axes_2W[1])), float(sizes[-2:].sum() / sizes.sum()))
