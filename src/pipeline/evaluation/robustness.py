"""How accuracy falls when test images are turned, moved, stretched, slanted, bent or noisy.

The changes are those of `pipeline.data.geometry`, by which training images are expanded. One image gets the same
direction and the same noise at every strength, so that a curve shows the strength alone.

Shapes: N images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.geometry import ElasticNoise, Maps, rotation, scaling, shear, translation, warp
from pipeline.evaluation.scores import Labels, wilson_interval

Images = NDArray[np.uint8]
Predict = Callable[[Images], Labels]  # (N, H, W) or (N, H, W, 3) → (N,) classes
CURVE_COLUMNS = ["change", "unit", "amount", "accuracy", "low", "high", "correct", "count"]
SEED = 0  # of directions and noise
SIGMA = 1 / 7  # of the elastic deformation, in sides of the image: 4 px of 28


@dataclass(frozen=True)
class Curve:
    """Accuracy of the same images at several strengths of one change."""

    name: str
    unit: str
    amounts: tuple[float, ...]
    correct: tuple[int, ...]
    count: int
    unchanged: float  # the amount that leaves an image as it is

    @property
    def accuracies(self) -> list[float]:
        return [correct / self.count for correct in self.correct]

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """95 %, Wilson's."""
        return [wilson_interval(correct, self.count) for correct in self.correct]

    @property
    def mean(self) -> float:
        """Over all strengths: one number to compare networks by."""
        return float(np.mean(self.accuracies))


@dataclass(frozen=True)
class Change:
    """A way to change images, by how much, and the amount that leaves them as they are."""

    name: str
    unit: str
    amounts: tuple[float, ...]
    apply: Callable[[Images, float], Images]
    none: float = 0.0


def evenly_spread(num_images: int, most: int) -> Labels:
    """(≤ most,) indices, evenly spread: published test sets have easier and harder halves."""
    return np.unique(np.linspace(0, num_images - 1, min(num_images, most)).round().astype(np.int64))


def measure_curves(predict: Predict, images: Images, labels: Labels) -> Iterator[Curve]:
    """One for each change, in a fixed order.

    Args:
        images: (N, H, W) or (N, H, W, 3), uint8.
        labels: (N,)
    """

    def correct(changed: Images) -> int:
        return int((predict(changed) == labels).sum())

    unchanged = correct(images)
    for change in image_changes(images):
        counts = (
            unchanged if amount == change.none else correct(change.apply(images, amount)) for amount in change.amounts
        )
        yield Curve(change.name, change.unit, change.amounts, tuple(counts), len(images), change.none)


def image_changes(images: Images) -> list[Change]:
    """What is done to images of this size; pixels from outside get the shade that most of their borders have."""
    num, height, width = images.shape[:3]
    side, rng = min(height, width), np.random.default_rng(SEED)
    background = float(np.median(np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])))
    direction = rng.uniform(0, 2 * np.pi, num)
    grain = rng.standard_normal(images.shape, dtype=np.float32)
    elastic = ElasticNoise(rng, height, width, side * SIGMA)
    corners = rng.integers(elastic.side, size=(num, 2, 2))

    def moved(maps: Callable[[float], Maps]) -> Callable[[Images, float], Images]:
        return lambda pictures, amount: warp(pictures, maps(amount), fill=background)

    def noisy(pictures: Images, sd: float) -> Images:
        return np.clip(pictures + sd * grain + 0.5, 0, 255).astype(np.uint8)

    def bent(pictures: Images, percent: float) -> Images:
        return warp(pictures, rotation(0), elastic.fields(corners, percent / 100 * side), fill=background)

    def away(percent: float) -> Maps:
        return translation(percent / 100 * width * np.cos(direction), percent / 100 * height * np.sin(direction))

    return [
        Change("rotation", "degrees", (-60, -45, -30, -15, 0, 15, 30, 45, 60), moved(rotation)),
        Change("translation", "% of the side", (0, 4, 8, 12, 16, 20), moved(away)),
        Change("scale", "factor", (0.5, 0.6, 0.75, 0.9, 1, 1.1, 1.25, 1.5), moved(lambda f: scaling(f, f)), none=1),
        Change("shear", "factor", (-0.8, -0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8), moved(shear)),
        Change("noise", "sd, of 255", (0, 16, 32, 48, 64, 96, 128), noisy),
        Change("elastic", "% of the side", (0, 2, 4, 6, 8, 10), bent),
    ]


def curve_rows(curves: list[Curve]) -> list[list[Any]]:
    """One row a point, with CURVE_COLUMNS."""
    rows: list[list[Any]] = []
    for curve in curves:
        for amount, correct, (low, high) in zip(curve.amounts, curve.correct, curve.intervals, strict=True):
            shares = [f"{share:.6f}" for share in (correct / curve.count, low, high)]
            rows.append([curve.name, curve.unit, amount, *shares, correct, curve.count])
    return rows
