"""Batches of data that lies in memory or is memory-mapped: no worker processes, no Python per sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class EpochOrder:
    """The order in which an epoch visits the samples: a permutation that is a function of (seed, epoch) alone."""

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples, self.seed, self.epoch = num_samples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before each epoch, on anything that a loader has as `sampler`."""
        self.epoch = epoch

    def indices(self) -> NDArray[np.int64]:
        """(N,) int64."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.num_samples)


class Batches:
    """An iterable of (samples, labels) that Lightning takes as a loader.

    Args:
        samples: (N, ...) uint8 or float32, may be memory-mapped; a batch is gathered by one indexing operation.
        labels: (N,) int64.
        batch_size: samples in a batch; the last one has what is left.
        order: shuffled anew for each epoch; None: as they lie.
    """

    def __init__(
        self, samples: NDArray[np.generic], labels: NDArray[np.int64], batch_size: int, order: EpochOrder | None
    ) -> None:
        self.samples, self.labels, self.batch_size, self.order = samples, labels, batch_size, order
        if order is not None:
            self.sampler = order  # under this name Lightning tells it the epoch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        indices = self.order.indices() if self.order else None
        for start in range(0, len(self.labels), self.batch_size):
            part = slice(start, start + self.batch_size)
            chosen = indices[part] if indices is not None else part
            # np.array copies what a slice of a memory map only points to; an index array has copied already
            samples = self.samples[chosen] if indices is not None else np.array(self.samples[chosen])
            labels = self.labels[chosen] if indices is not None else np.array(self.labels[chosen])
            yield torch.from_numpy(samples), torch.from_numpy(labels)
