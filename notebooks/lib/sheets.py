"""Two sheets of paper crumpled into one ball, and a Dense network that unfolds them.

Shapes: S side of a sheet in points, N points of both sheets (2 S²), F frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Points = NDArray[np.float64]
HALF_GAP = 0.3  # half the way between the flat sheets, which are 2 wide
NUM_FOLDS, FOLD_DEPTH = 10, 0.5


def flat_sheets(side: int) -> Points:
    """Two squares one above the other, (2, S, S, 3): x and y in -1..1."""
    along = np.linspace(-1, 1, side)
    x, y = np.meshgrid(along, along, indexing="ij")
    return np.stack([np.stack([x, y, np.full_like(x, z)], axis=-1) for z in (-HALF_GAP, HALF_GAP)])


def crumpled(points: Points, seed: int) -> Points:
    """Points (..., 3) moved by waves, one after another, each across its own direction, then drawn together to a ball.

    No two points meet: each wave can be undone, and so can the rest. The sheets come near each other and never touch.
    """
    rng = np.random.default_rng(seed)
    moved = points
    for _ in range(NUM_FOLDS):
        along = _unit(rng.normal(size=3))
        across = _unit(np.cross(along, rng.normal(size=3)))
        phase = rng.uniform(2, 3.5) * (moved @ along) + rng.uniform(0, 2 * np.pi)
        moved = moved + FOLD_DEPTH * np.sin(phase)[..., None] * across
    moved = moved - moved.reshape(-1, 3).mean(axis=0)
    sizes, directions = np.linalg.eigh(np.cov(moved.reshape(-1, 3).T))
    round_ = moved @ (directions / np.sqrt(sizes)) @ directions.T  # as far in every direction
    ball: Points = round_ / np.sqrt(4 + np.square(round_).sum(axis=-1, keepdims=True))
    return ball


def _unit(vector: Points) -> Points:
    unit: Points = vector / np.sqrt(np.square(vector).sum())
    return unit


def spirals(num_points: int, seed: int) -> tuple[Points, NDArray[np.int64]]:
    """The same in the plane: two lines rolled into each other. Points (N, 2), the labels 0 and 1 by turns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_points) % 2
    turned = rng.uniform(0.15, 1, num_points) * 2.2 * np.pi
    angle = turned + np.pi * labels
    points = (turned / (2.2 * np.pi))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points + rng.normal(0, 0.02, points.shape), labels


def dense_network(widths: list[int], *, activation: type[nn.Module]) -> nn.Sequential:
    """Dense layers, with the activation between them and not after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def start_as_identity(network: nn.Sequential) -> None:
    """Weights that let points (N, 3) through unmoved, as relu(p) - relu(-p) = p; the other units start at random.

    A training then begins with the ball itself, and shows how it is unfolded.
    """
    first, *middle, last = (layer for layer in network if isinstance(layer, nn.Linear))
    both_signs = torch.cat([torch.eye(3), -torch.eye(3)])
    nn.init.normal_(first.weight)
    nn.init.uniform_(first.bias, -1, 1)
    first.weight[:6], first.bias[:6] = both_signs, 0
    for layer in middle:
        nn.init.zeros_(layer.bias)
        layer.weight[:6] = 0
        layer.weight[:6, :6] = torch.eye(6)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    last.weight[:, :6] = both_signs.T


@dataclass(frozen=True)
class Unfolding:
    """What the network makes of the crumpled sheets, as its training goes."""

    steps: list[int]  # (F,)
    frames: list[Points]  # F times (2, S, S, 3)
    separated: list[float]  # (F,) share of the points on their sheet's side of the plane z = 0


def unfold(flat: Points, ball: Points, *, widths: list[int], num_steps: int, num_frames: int, seed: int) -> Unfolding:
    """Train a Dense network by Adam to move each point of the ball to its place on the flat sheets.

    Args:
        flat, ball: (2, S, S, 3); flat in the units of ball.
        widths: of the hidden layers.
        num_frames: kept, more of them at the beginning.
    """
    torch.manual_seed(seed)
    network = dense_network([3, *widths, 3], activation=nn.ReLU)
    start_as_identity(network)
    x, targets = (torch.tensor(points.reshape(-1, 3), dtype=torch.float32) for points in (ball, flat))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    kept = sorted({round(num_steps * share**2) for share in np.linspace(0, 1, num_frames)})
    frames: list[Points] = []
    for step in range(num_steps + 1):
        if step in kept:
            with torch.no_grad():
                frames.append(network(x).double().numpy().reshape(flat.shape))
        batch = torch.randint(len(x), (512,))
        loss = nn.functional.mse_loss(network(x[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    above = flat[..., 2] > 0
    return Unfolding(kept, frames, [float(((frame[..., 2] > 0) == above).mean()) for frame in frames])


def classify(
    points: Points,
    labels: NDArray[np.int64],
    *,
    widths: list[int],
    activation: type[nn.Module],
    num_steps: int,
    seed: int,
) -> nn.Sequential:
    """Train a Dense network by Adam on points (N, D) and their labels alone; it gives a logit for each class."""
    torch.manual_seed(seed)
    network = dense_network([points.shape[1], *widths, int(labels.max()) + 1], activation=activation)
    x, y = torch.tensor(points, dtype=torch.float32), torch.tensor(labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(num_steps):
        batch = torch.randint(len(x), (256,))
        loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network


@torch.no_grad()
def predicted(network: nn.Sequential, points: Points) -> NDArray[np.int64]:
    """The class (N,) of points (N, D)."""
    found: NDArray[np.int64] = network(torch.tensor(points, dtype=torch.float32)).argmax(dim=1).numpy()
    return found
