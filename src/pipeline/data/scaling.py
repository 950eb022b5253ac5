"""How a network's input is made of the stored values: (x - offset) / scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data.card import Scaling
from pipeline.data.source import CHUNK_BYTES, Array


def scaling_of(images: Path) -> Scaling:
    """Pixels go to 0..1; features of a table to mean 0 and sd 1 over the training rows.

    images: train/images.npy. uint8 counts as pixels if it is an image, or a table whose largest value is 255.
    A feature that never changes gets scale 1 and becomes 0.
    """
    train = np.load(images, mmap_mode="r", allow_pickle=False)
    chunk_len = max(1, CHUNK_BYTES // (8 * int(np.prod(train.shape[1:]))))
    chunks = [train[start : start + chunk_len] for start in range(0, len(train), chunk_len)]  # maps, not copies
    if train.dtype == np.uint8 and (train.ndim > 2 or max(chunk.max() for chunk in chunks) == 255):
        return Scaling(offset=0.0, scale=255.0)
    return _standardising(chunks, len(train))


def _standardising(chunks: list[Array], count: int) -> Scaling:
    """Mean and population sd of each feature, in float64 and two passes.

    Nine digits are kept, more than float32 holds: sums differ in the last bits from one CPU to another.
    """
    mean = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks) / count
    variance = sum(np.square(chunk - mean).sum(axis=0) for chunk in chunks) / count
    low, high = (extreme([extreme(chunk, axis=0) for chunk in chunks], axis=0) for extreme in (np.min, np.max))
    scale = np.where(low == high, 1.0, np.sqrt(variance))
    offset = np.where(low == high, low, mean)
    return Scaling(offset=_nine_digits(offset), scale=_nine_digits(scale))


def _nine_digits(values: Array) -> list[float]:
    return [float(f"{value:.9g}") for value in values]
