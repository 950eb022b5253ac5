"""What a person sees while training: a live bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.training.data_module import data_module_of
from pipeline.training.module import Classifier

REFRESH_S = 0.1  # reading the running loss waits for the device, so it is not done at every step


class EpochProgress(pl.Callback):
    """Loss and accuracy while training. Costs one clock reading a step and ten refreshes a second."""

    def __init__(self, console: Console, live: bool) -> None:
        self.console, self.live = console, live and console.is_terminal
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._next_refresh_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        mid_epoch = pl_module.first_chunk > 0
        if mid_epoch or trainer.current_epoch:
            where = f"within epoch {trainer.current_epoch + 1}" if mid_epoch else f"after epoch {trainer.current_epoch}"
            self.console.print(f"going on {where} of an earlier start", highlight=False)
        if self.live:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                       TextColumn("{task.fields[now]}"))  # fmt: skip
            self._bar = Progress(*columns, console=self.console, transient=True, auto_refresh=False)
            self._bar.start()
        if mid_epoch:  # Lightning resumes without `on_train_epoch_start`
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            name = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._task = self._bar.add_task(name, total=float(data_module_of(trainer).steps_per_epoch), now="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now_s = time.monotonic()
        if self._bar and now_s >= self._next_refresh_s:
            self._next_refresh_s = now_s + REFRESH_S
            assert isinstance(pl_module, Classifier)
            running = pl_module.train_metrics
            loss, accuracy = float(running.loss_sum / running.count), float(running.correct / running.count)
            text = f"loss {loss:.4f}  accuracy {accuracy:.4f}"
            self._bar.update(self._task, completed=self._steps_done(trainer), now=text)
            self._bar.refresh()

    @staticmethod
    def _steps_done(trainer: pl.Trainer) -> int:
        return trainer.global_step - trainer.current_epoch * data_module_of(trainer).steps_per_epoch

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal its cursor back before the error is printed."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def on_epoch(self, epoch: int, num_epochs: int, values: dict[str, float]) -> None:
        """One line for a finished epoch."""
        named = "  ".join(f"{name} {values[name]:.4f}" for name in values if "/" in name)
        self.console.print(f"epoch {epoch + 1:>3}/{num_epochs}  {named}  {values['epoch_s']:.1f} s", highlight=False)
