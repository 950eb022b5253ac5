"""What Lightning asks for batches: each process' part of the two splits that a training reads."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from pipeline.config.schema import TrainConfig
from pipeline.data.arrays import Split
from pipeline.training.batches import Batches, Share

VALIDATION_BATCH = 2048  # samples; only memory and speed depend on it


class Loaders(pl.LightningDataModule):
    """Training in shuffled chunks of several steps, validation front to back; without validation there is no loader."""

    def __init__(self, train: Split, validation: Split | None, cfg: TrainConfig) -> None:
        super().__init__()
        self.train, self.validation, self.cfg = train, validation, cfg
        self.first_chunk = 0  # of the first epoch, where a training goes on amid one

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last one may have fewer samples."""
        return -(-len(self.train.labels) // self.cfg.trainer.batch_size)

    def train_dataloader(self) -> Batches:
        images, labels, trainer = self.train.images, self.train.labels, self.cfg.trainer
        max_steps = 1 if trainer.strategy == "fsdp" else None  # see Classifier.automatic_optimization
        return Batches(images, labels, trainer.batch_size, self.cfg.seed, self._share(), max_steps, self.first_chunk)

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The samples behind a step of an epoch, in all processes: places in data/processed/train."""
        batches = self.train_dataloader()
        assert batches.order is not None
        batches.order.set_epoch(epoch)
        size = self.cfg.trainer.batch_size
        return batches.order.indices()[step * size : (step + 1) * size]

    def val_dataloader(self) -> Batches | list[Batches]:
        if self.validation is None:
            return []
        images, labels = self.validation.images, self.validation.labels
        return Batches(images, labels, VALIDATION_BATCH, None, self._share(), max_steps=1)

    def _share(self) -> Share:
        assert self.trainer is not None
        return Share(self.trainer.global_rank, self.trainer.world_size)
