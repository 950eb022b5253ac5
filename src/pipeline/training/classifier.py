"""The LightningModule: what one step is, what is measured, what an epoch leaves behind."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.config.schema import TrainConfig
from pipeline.errors import PipelineError
from pipeline.model.dense import DenseNetwork
from pipeline.model.optimizers import build_optimizer, build_scheduler, scheduler_settings
from pipeline.training.metrics import EpochMetrics

Values = dict[str, float]
Batch = tuple[Tensor, Tensor]
OnEpoch = Callable[[int, Values], None]
OnSteps = Callable[[str, list[tuple[int, float]]], None]


class Classifier(pl.LightningModule):
    """Softmax cross-entropy on a Dense network.

    Metrics stay tensors within an epoch: nothing waits for the device, nothing is logged per step. At an epoch's end
    `on_epoch(epoch, values)` gets the epoch's metrics and `on_steps(name, [(step, value), …])` every n-th step's loss.
    """

    def __init__(self, network: DenseNetwork, cfg: TrainConfig, on_epoch: OnEpoch, on_steps: OnSteps) -> None:
        super().__init__()
        self.network = network
        self.cfg = cfg
        self.on_epoch, self.on_steps = on_epoch, on_steps
        self.loss = nn.CrossEntropyLoss(label_smoothing=cfg.loss.label_smoothing)
        self.train_metrics, self.val_metrics = EpochMetrics(), EpochMetrics()
        self.history: list[Values] = []  # one row an epoch, all epochs since the first, resumed or not
        self.first_epoch = 0  # where this process began; above 0 for a training that went on
        self._lr = 0.0  # of the newest step: after an epoch the schedule has already set the next one's
        self._step_losses: list[tuple[int, Tensor]] = []
        self._epoch_start_s = 0.0

    def forward(self, samples: Tensor) -> Tensor:
        return self.network(samples)  # type: ignore[no-any-return]

    def on_train_epoch_start(self) -> None:
        # Dropout's noise, like the order of the batches, is a function of (seed, epoch): a resumed run repeats it.
        torch.manual_seed(self.cfg.seed * 1_000_003 + self.current_epoch)
        self.train_metrics.reset()
        self._epoch_start_s = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        samples, labels = batch
        logits = self(samples)
        loss: Tensor = self.loss(logits, labels)
        self.train_metrics.update(loss, logits, labels)
        if self.global_step % self.cfg.tracking.step_metrics_every == 0:
            self._step_losses.append((self.global_step, loss.detach()))
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._lr = optimizer.param_groups[0]["lr"]

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        samples, labels = batch
        logits = self(samples)
        self.val_metrics.update(nn.functional.cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value.float() for name, value in self.val_metrics.compute().items()})

    def on_train_epoch_end(self) -> None:
        """Runs after the epoch's validation, so both are known."""
        values = {f"train/{name}": float(value) for name, value in self.train_metrics.compute().items()}
        if self.trainer.val_dataloaders:
            values |= {f"val/{name}": float(value) for name, value in self.val_metrics.compute().items()}
        values["lr"] = self._lr
        self._require_finite(values)
        self.history.append({"epoch": self.current_epoch, **values})
        epoch_s = time.perf_counter() - self._epoch_start_s
        self.on_steps("train/loss_step", [(step, float(loss)) for step, loss in self._step_losses])
        self._step_losses.clear()
        self.on_epoch(self.current_epoch, values | {"epoch_s": epoch_s})

    def _require_finite(self, values: Values) -> None:
        if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
            raise PipelineError(
                f"the training diverged: {', '.join(wrong)} is no finite number in epoch {self.current_epoch + 1} (lr "
                f"{self._lr:g}). Use a smaller optimizer.lr, or trainer.gradient_clip_norm=1.0"
            )

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.cfg.optimizer, self.network.parameters())
        num_steps = int(self.trainer.estimated_stepping_batches)
        built = build_scheduler(self.cfg.scheduler, optimizer, num_steps)
        return {"optimizer": optimizer, "lr_scheduler": scheduler_settings(built)} if built else optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])
        self.first_epoch = len(self.history)
