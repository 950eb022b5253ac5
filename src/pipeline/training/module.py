"""The LightningModule: what a step is, what is measured, what an epoch leaves behind.

Shapes: B samples of one step in this process, N of a chunk, S steps of a chunk, C classes, P processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from pipeline.config.schema import TrainConfig
from pipeline.model.dense import DenseNetwork
from pipeline.model.optimizers import build_optimizer, build_scheduler
from pipeline.system.errors import Diverged
from pipeline.training.checkpoints import rewind_to_chunk
from pipeline.training.data_module import Chunk, data_module_of

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

Values = dict[str, float]
OnEpoch = Callable[[int, Values], bool | None]  # True: this epoch was the last one
OnSteps = Callable[[str, list[tuple[int, float]]], None]


class EpochState(TypedDict):
    """What the metrics of an epoch are made of so far, in all processes, for a checkpoint within it."""

    chunk: int  # that comes next
    metrics: Tensor  # (P, 3): totals of EpochMetrics
    logged_steps: list[int]
    logged_losses: Tensor  # (P, number of logged steps)


class Classifier(pl.LightningModule):
    """Softmax cross-entropy on a Dense network.

    What Lightning calls a batch is a chunk of several optimizer steps, so that its loop costs next to nothing beside
    steps of a millisecond (Keras' steps_per_execution). `global_step` counts optimizer steps all the same, and
    callbacks and checkpoints see the epochs they would see otherwise. Metrics stay tensors within an epoch: nothing
    waits for the device, nothing is logged per step. At an epoch's end `on_epoch(epoch, values)` gets the epoch's
    metrics and `on_steps(name, [(step, value), …])` every n-th step's loss, in the process of rank 0. What `on_epoch`
    answers there ends the training in all processes.
    """

    def __init__(self, network: DenseNetwork, cfg: TrainConfig, on_epoch: OnEpoch, on_steps: OnSteps) -> None:
        super().__init__()
        self.network = network
        self._weights = list(network.parameters())
        self.cfg = cfg
        self.on_epoch, self.on_steps = on_epoch, on_steps
        # FSDP gathers the weights once for each forward pass of the whole module, so it gets one step at a time.
        self.automatic_optimization = cfg.trainer.strategy == "fsdp"
        self.loss = nn.CrossEntropyLoss(label_smoothing=cfg.loss.label_smoothing)
        self.train_metrics, self.val_metrics = EpochMetrics(), EpochMetrics()
        self.history: list[Values] = []  # one row an epoch, all epochs since the first, resumed or not
        self.first_epoch = 0  # where this process began; above 0 for a training that was resumed
        self.first_chunk = 0  # of that epoch
        self._mid_epoch: EpochState | None = None  # of that epoch, if it is resumed within it
        self._lr = 0.0  # of the newest step: after an epoch the schedule has already set the next one's
        self._logged_steps: list[int] = []
        self._logged_losses = torch.empty(0)
        self._epoch_start_s = 0.0
        self._schedule: LRScheduler | None = None
        self._schedule_interval = ""

    def forward(self, samples: Tensor) -> Tensor:
        return self.network(samples)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self.cfg.optimizer, self.network.parameters())
        num_steps = data_module_of(self.trainer).steps_per_epoch * self.cfg.trainer.num_epochs
        built = build_scheduler(self.cfg.scheduler, optimizer, num_steps)
        if built is None:
            return optimizer
        schedule, interval = built
        if self.automatic_optimization:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}
        self._schedule, self._schedule_interval = schedule, interval
        return [optimizer], [schedule]  # Lightning saves and restores it; `_optimize` advances it

    # ---------------------------------------------------------------- steps

    def on_train_start(self) -> None:
        strategy, precision = self.trainer.strategy, self.cfg.trainer.precision
        self._single_device = isinstance(strategy, SingleDeviceStrategy) and precision != "16-mixed"
        self._step_progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress  # global_step
        if self._mid_epoch is not None:  # Lightning resumes without `on_train_epoch_start`
            self.on_train_epoch_start()
            self._restore_epoch(self._mid_epoch)

    def training_step(self, chunk: Chunk, batch_idx: int) -> Tensor | None:
        self._seed_noise(batch_idx)
        first_step = self.global_step
        losses: list[Tensor] = []
        logits: list[Tensor] = []
        for samples_B, labels_B, global_size in chunk.steps():
            logits_BC = self(samples_B)
            loss = self._loss(logits_BC, labels_B, global_size)
            losses.append(loss.detach())
            logits.append(logits_BC.detach())
            if not self.automatic_optimization:
                self._optimize(loss)
        losses_S = torch.stack(losses)
        self._require_finite_losses(losses_S, first_step)
        self._measure(chunk, first_step, losses_S, torch.cat(logits))
        return loss if self.automatic_optimization else None

    def _seed_noise(self, chunk_index: int) -> None:
        """Dropout's noise is a function of the place in the training, as the order is: a resumed one repeats it."""
        place = [self.cfg.seed, self.current_epoch, chunk_index, self.trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def _loss(self, logits_BC: Tensor, labels_B: Tensor, global_size: int) -> Tensor:
        """What this process adds to a step: its mean over the processes is the mean over all of the step's samples."""
        world_size = self.trainer.world_size
        if world_size == 1:
            return self.loss(logits_BC, labels_B)  # type: ignore[no-any-return]
        if not len(labels_B):  # fewer samples are left than there are processes
            return logits_BC.sum() * 0.0
        return self.loss(logits_BC, labels_B) * (len(labels_B) * world_size / global_size)  # type: ignore[no-any-return]

    def _optimize(self, loss: Tensor) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        for weight in self._weights:
            weight.grad = None
        if self._single_device:  # the same without Lightning's hooks, none of which does anything here: 0.1 ms a step
            torch.autograd.backward(loss)
            self.on_before_optimizer_step(optimizer.optimizer)
            self._step_progress.increment_ready()
            optimizer.optimizer.step()
            self._step_progress.increment_completed()
        else:
            self.manual_backward(loss)
            optimizer.step()
        if self._schedule and self._schedule_interval == "step":
            self._schedule.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._lr = optimizer.param_groups[0]["lr"]
        norm = self.cfg.trainer.gradient_clip_norm
        if norm is None:
            return
        if self.cfg.trainer.strategy == "fsdp":
            cast(Any, self.trainer.strategy.model).clip_grad_norm_(norm)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), norm)

    def _measure(self, chunk: Chunk, first_step: int, losses_S: Tensor, logits_NC: Tensor) -> None:
        sizes_S = torch.tensor(chunk.global_sizes, dtype=torch.float64, device=losses_S.device)
        self.train_metrics.update(losses_S.double() * sizes_S / self.trainer.world_size, logits_NC, chunk.labels)
        every = self.cfg.tracking.step_metrics_every
        for step in range(first_step + -first_step % every, first_step + len(losses_S), every):
            self._logged_losses[len(self._logged_steps)] = losses_S[step - first_step]
            self._logged_steps.append(step)

    # ---------------------------------------------------------------- epochs

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()
        # In one place, not in many small ones that stay behind: those kept the memory of whole steps from being reused.
        room = 1 + data_module_of(self.trainer).steps_per_epoch // self.cfg.tracking.step_metrics_every
        self._logged_steps, self._logged_losses = [], torch.empty(room, device=self.device)
        self._epoch_start_s = time.perf_counter()

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()

    def validation_step(self, chunk: Chunk, batch_idx: int) -> None:
        if len(chunk.labels):
            logits_NC = self(chunk.samples)
            mean_loss = nn.functional.cross_entropy(logits_NC, chunk.labels)
            self.val_metrics.update(mean_loss.double() * len(chunk.labels), logits_NC, chunk.labels)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value.float() for name, value in self.val_metrics.compute().items()})

    def on_train_epoch_end(self) -> None:
        """Runs after the epoch's validation, so both are known."""
        values = {f"train/{name}": float(value) for name, value in self.train_metrics.compute().items()}
        if self.trainer.val_dataloaders:
            values |= {f"val/{name}": float(value) for name, value in self.val_metrics.compute().items()}
        values["lr"] = self._lr
        if self._schedule and self._schedule_interval == "epoch":
            self._schedule.step()
        self._require_finite(values)
        self.history.append({"epoch": self.current_epoch, **values})
        epoch_s = time.perf_counter() - self._epoch_start_s
        step_losses = self._reduced_step_losses()
        stop = False
        if self.trainer.is_global_zero:
            self.on_steps("train/loss_step", step_losses)
            stop = bool(self.on_epoch(self.current_epoch, values | {"epoch_s": epoch_s}))
        if self.trainer.world_size > 1:
            stop = self.trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:  # else what another callback has decided stays
            self.trainer.should_stop = True

    def _reduced_step_losses(self) -> list[tuple[int, float]]:
        """The logged steps' mean losses over all processes; the only copy to the CPU in an epoch beside its metrics."""
        losses_S = self.trainer.strategy.reduce(self._logged_losses[: len(self._logged_steps)], reduce_op="mean")
        return list(zip(self._logged_steps, losses_S.tolist(), strict=True))

    # ---------------------------------------------------------------- divergence

    def _require_finite_losses(self, losses_S: Tensor, first_step: int) -> None:
        """Looked at once a chunk, as it waits for the device."""
        finite_S = torch.isfinite(losses_S)
        if not bool(finite_S.all()):
            place = int(finite_S.int().argmin())
            raise self._diverged(f"the loss is {float(losses_S[place])}", first_step + place)

    def _require_finite(self, values: Values) -> None:
        """At an epoch's end, before its state is saved."""
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if not wrong and not bool(torch.stack([torch.isfinite(weight).all() for weight in self._weights]).all()):
            wrong = ["a weight"]
        if wrong:
            raise self._diverged(f"{', '.join(wrong)} is no finite number", self.global_step - 1)

    def _diverged(self, what: str, step: int) -> Diverged:
        data = data_module_of(self.trainer)
        samples = data.batch(self.current_epoch, step - self.current_epoch * data.steps_per_epoch).tolist()
        some = ", ".join(map(str, samples[:5])) + (f" and {len(samples) - 5} more" if len(samples) > 5 else "")
        saved = f"the state after epoch {len(self.history)} is saved" if self.history else "no epoch was finished"
        return Diverged(
            f"the training diverged: {what} in step {step} (epoch {self.current_epoch + 1}, lr {self._lr:g}), whose "
            f"batch was the training samples {some}; {saved}. Use a smaller optimizer.lr, or "
            "trainer.gradient_clip_norm=1.0",
            {"step": step, "epoch": self.current_epoch, "lr": self._lr, "samples": samples},
        )

    # ---------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        chunks = self.trainer.fit_loop.epoch_loop.batch_progress.current
        if chunks.ready > chunks.completed:  # within an epoch, before a chunk
            checkpoint["loops"] = rewind_to_chunk(checkpoint["loops"])
            checkpoint["mid_epoch"] = self._epoch_state(chunks.completed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])
        self.first_epoch = len(self.history)
        self._mid_epoch = checkpoint.get("mid_epoch")
        if self._mid_epoch is not None:
            self.first_chunk = data_module_of(self.trainer).first_chunk = self._mid_epoch["chunk"]

    def _epoch_state(self, chunk: int) -> EpochState:
        metrics = self._gathered(self.train_metrics.totals())
        losses = self._gathered(self._logged_losses[: len(self._logged_steps)])
        return EpochState(chunk=chunk, metrics=metrics, logged_steps=self._logged_steps, logged_losses=losses)

    def _gathered(self, values_N: Tensor) -> Tensor:
        """(P, N), on the CPU."""
        return self.trainer.strategy.all_gather(values_N).reshape(self.trainer.world_size, len(values_N)).cpu()

    def _restore_epoch(self, state: EpochState) -> None:
        rank = self.trainer.global_rank
        self.train_metrics.restore(state["metrics"][rank])
        self._logged_steps = list(state["logged_steps"])
        losses = state["logged_losses"][rank].to(self.device)
        self._logged_losses = torch.cat([losses, self._logged_losses])  # room enough, however many are logged now
        self._mid_epoch = None


# ---------------------------------------------------------------- loss and accuracy of an epoch


class EpochMetrics(Metric):
    """Mean loss per sample and share of right answers, over exactly the samples seen since `reset`.

    Sums and counts are reduced over processes, so any number of devices gives the same values.
    """

    full_state_update = False
    loss_sum: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss_sums_S: Tensor, logits_NC: Tensor, labels_N: Tensor) -> None:
        """Add some steps at once, given the sum of each one's losses."""
        self.loss_sum += loss_sums_S.detach().double().sum()
        self.correct += (logits_NC.argmax(1) == labels_N).sum()
        self.count += len(labels_N)

    def totals(self) -> Tensor:
        """(3,) float64: what this process has counted since `reset`."""
        return torch.stack([self.loss_sum, self.correct.double(), self.count.double()])

    def restore(self, totals_3: Tensor) -> None:
        """Go on counting from what `totals` gave."""
        self.loss_sum += totals_3[0].to(self.loss_sum)
        self.correct += totals_3[1].to(self.correct)
        self.count += totals_3[2].to(self.count)

    def compute(self) -> dict[str, Tensor]:
        """`loss` and `accuracy`, both over `count` samples."""
        return {"loss": self.loss_sum / self.count, "accuracy": self.correct.double() / self.count}
