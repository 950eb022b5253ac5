"""Chunks of data that lies in memory or in a file larger than it: no worker processes, no Python per sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.schema import TrainConfig
from pipeline.data.processed import Split

CHUNK_BYTES = 2 * 2**20  # of samples gathered at once: some 20 batches of MNIST, and little enough for a CPU's cache
LARGE_BYTES = 256 * 2**20  # a file above this is read window by window, so that memory does not grow with it
WINDOW_BYTES = 64 * 2**20
BLOCK_BYTES = 48 * 2**10  # read in one go: long enough for a disk, short enough for a window of over 1,000
VALIDATION_BATCH = 2048  # samples; only memory and speed depend on it


class Chunk(NamedTuple):
    """The samples of several optimizer steps, gathered at once; a tuple that Lightning moves to the device."""

    samples: Tensor  # (N, ...), the steps' parts one after another
    labels: Tensor  # (N,) int64
    sizes: tuple[int, ...]  # samples of each step in this process; they sum to N
    global_sizes: tuple[int, ...]  # in all processes

    def steps(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """(samples, labels, global size) of each step."""
        parts = torch.split(self.samples, list(self.sizes)), torch.split(self.labels, list(self.sizes))
        return zip(*parts, self.global_sizes, strict=True)


@dataclass(frozen=True)
class BatchShard:
    """Which part of every batch the process of this rank gets."""

    rank: int = 0
    world_size: int = 1

    def of(self, size: int) -> slice:
        """Where it lies in a batch of so many samples. Shards differ by one sample at most, and follow one another."""
        return slice(size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size)


@dataclass
class EpochOrder:
    """The order in which an epoch visits the samples: a permutation that is a function of (seed, epoch) alone.

    With `window` the permutation is one that a large file can be read in: blocks of `block` neighbours are shuffled,
    and then the samples within each `window` of the result.
    """

    num_samples: int
    seed: int
    block: int = 1
    window: int | None = None
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before each epoch, on anything that a loader has as `sampler`."""
        self.epoch = epoch

    def indices(self) -> NDArray[np.int64]:
        """(N,) int64."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.window is None:
            return rng.permutation(self.num_samples)
        starts = rng.permutation(-(-self.num_samples // self.block)) * self.block
        order = (starts[:, None] + np.arange(self.block)).ravel()
        order = order[order < self.num_samples]
        for start in range(0, self.num_samples, self.window):
            rng.shuffle(order[start : start + self.window])
        return order


class ChunkLoader:
    """An iterable of chunks, which Lightning takes for a loader of batches.

    Args:
        samples: (N, ...) uint8 or float32, may be memory-mapped.
        labels: (N,) int64.
        batch_size: samples behind one optimizer step in all processes; an epoch's last step has what is left.
        seed: shuffles anew for each epoch; None: as they lie.
        shard: which part of each batch to yield.
        max_steps: of a chunk.
        first_chunk: where the first epoch begins, with those before it left out; the others have all.
    """

    def __init__(
        self,
        samples: NDArray[np.generic],
        labels: NDArray[np.int64],
        batch_size: int,
        seed: int | None,
        shard: BatchShard = BatchShard(),
        max_steps: int | None = None,
        first_chunk: int = 0,
    ) -> None:
        self.first_chunk = first_chunk
        self.samples, self.labels, self.batch_size, self.shard = samples, labels, batch_size, shard
        sample_bytes = max(1, samples[:1].nbytes)
        self.steps = max(1, CHUNK_BYTES // (sample_bytes * batch_size))
        if max_steps is not None:
            self.steps = min(self.steps, max_steps)
        self.chunk_size = self.steps * batch_size  # samples, in all processes
        self.window: int | None = None
        if isinstance(samples, np.memmap) and samples.nbytes > LARGE_BYTES:
            self.window = max(1, WINDOW_BYTES // (sample_bytes * self.chunk_size)) * self.chunk_size
        self.order: EpochOrder | None = None
        if seed is not None:
            self.order = EpochOrder(len(labels), seed, max(1, BLOCK_BYTES // sample_bytes), self.window)
            self.sampler = self.order  # under this name Lightning tells it the epoch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.chunk_size)

    def __iter__(self) -> Iterator[Chunk]:
        indices = self.order.indices() if self.order else np.arange(len(self.labels))
        window = self.window or len(indices)
        start, self.first_chunk = self.first_chunk * self.chunk_size, 0
        while start < len(indices):
            stop = start - start % window + window
            chosen = indices[start:stop]
            yield from self._chunks(chosen, *self._source(chosen))
            start = stop

    def _source(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """An array, and where in it the chosen samples are."""
        if self.window is None:
            return self.samples, chosen
        assert isinstance(self.samples, np.memmap)
        order = np.argsort(chosen)
        rows = np.empty_like(order)
        rows[order] = np.arange(len(order))
        return read_rows(self.samples, chosen[order]), rows

    def _chunks(
        self, chosen: NDArray[np.int64], samples: NDArray[np.generic], rows: NDArray[np.int64]
    ) -> Iterator[Chunk]:
        for start in range(0, len(chosen), self.chunk_size):
            stop = min(start + self.chunk_size, len(chosen))
            starts = range(start, stop, self.batch_size)
            global_sizes = tuple(min(self.batch_size, stop - first) for first in starts)
            parts = [self.shard.of(size) for size in global_sizes]
            places = np.concatenate([np.arange(s + p.start, s + p.stop) for s, p in zip(starts, parts, strict=True)])
            yield Chunk(
                torch.from_numpy(samples[rows[places]]),
                torch.from_numpy(self.labels[chosen[places]]),
                tuple(part.stop - part.start for part in parts),
                global_sizes,
            )


def read_rows(array: np.memmap[Any, Any], rows: NDArray[np.int64]) -> NDArray[np.generic]:
    """The rows of a mapped file, in ascending order, read instead of mapped.

    Mapped pages count as this process' memory: 2,000 random images of a 6 GB file made 3 GB resident, since the kernel
    maps large pieces at once.
    """
    values = np.empty((len(rows), *array.shape[1:]), array.dtype)
    buffer = values.reshape(-1).view(np.uint8).data
    row_bytes = values[:1].nbytes
    runs = np.flatnonzero(np.diff(rows) != 1) + 1
    path = str(array.filename)
    with open(path, "rb", buffering=0) as file:
        for first, last in zip([0, *runs.tolist()], [*runs.tolist(), len(rows)], strict=True):
            part = buffer[first * row_bytes : last * row_bytes]
            _read_into(file.fileno(), part, array.offset + int(rows[first]) * row_bytes, path)
    return values


def _read_into(descriptor: int, buffer: memoryview, offset: int, name: str) -> None:
    while buffer:
        count = os.preadv(descriptor, [buffer], offset)
        if not count:
            raise OSError(f"{name} ends early: it was cut while the training read it")
        buffer, offset = buffer[count:], offset + count


# ---------------------------------------------------------------- what Lightning asks for


class DataModule(pl.LightningDataModule):
    """Training in shuffled chunks of several steps, validation front to back; without validation there is no loader."""

    def __init__(self, train: Split, validation: Split | None, cfg: TrainConfig) -> None:
        super().__init__()
        self.train, self.validation, self.cfg = train, validation, cfg
        self.first_chunk = 0  # of the first epoch, where a training resumes within one

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last one may have fewer samples."""
        return -(-len(self.train.labels) // self.cfg.trainer.batch_size)

    def train_dataloader(self) -> ChunkLoader:
        images, labels, trainer = self.train.images, self.train.labels, self.cfg.trainer
        max_steps = 1 if trainer.strategy == "fsdp" else None  # see Classifier.automatic_optimization
        return ChunkLoader(
            images, labels, trainer.batch_size, self.cfg.seed, self._shard(), max_steps, self.first_chunk
        )

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The samples behind a step of an epoch, in all processes: places in data/processed/train."""
        order = self.train_dataloader().order
        assert order is not None
        order.set_epoch(epoch)
        size = self.cfg.trainer.batch_size
        return order.indices()[step * size : (step + 1) * size]

    def val_dataloader(self) -> ChunkLoader | list[ChunkLoader]:
        if self.validation is None:
            return []
        images, labels = self.validation.images, self.validation.labels
        return ChunkLoader(images, labels, VALIDATION_BATCH, None, self._shard(), max_steps=1)

    def _shard(self) -> BatchShard:
        assert self.trainer is not None
        return BatchShard(self.trainer.global_rank, self.trainer.world_size)


def data_module_of(trainer: pl.Trainer) -> DataModule:
    module: DataModule = trainer.datamodule  # type: ignore[attr-defined]
    return module
