"""One training, from arrays to weights: the only place that builds a Trainer."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from rich.console import Console

from pipeline.config.schema import TrainConfig, TrainerConfig
from pipeline.data.arrays import Split
from pipeline.errors import ConfigError
from pipeline.model.dense import DenseNetwork
from pipeline.training.batches import Batches, EpochOrder
from pipeline.training.classifier import Classifier, OnEpoch, OnSteps, Values
from pipeline.training.progress import EpochProgress

VALIDATION_BATCH = 2048  # samples; only memory and speed depend on it
LAST, BEST = "last", "best"


@dataclass(frozen=True)
class Fit:
    """What a training leaves behind."""

    network: DenseNetwork
    history: list[Values]  # one row an epoch
    kept_epoch: int  # 0-based; whose weights the network has
    num_steps: int  # optimizer steps, all epochs
    first_epoch: int  # 0, or where a resumed training went on
    fit_s: float  # wall seconds of this process, validation and checkpoints included
    samples_per_s: float
    device: str  # cpu or cuda:0


def fit(
    network: DenseNetwork,
    train: Split,
    validation: Split | None,
    cfg: TrainConfig,
    work: Path,
    console: Console,
    on_epoch: OnEpoch,
    on_steps: OnSteps,
) -> Fit:
    """Train `network` in place.

    Args:
        work: holds checkpoints while the training goes; a training that was cut short goes on from there.
        on_epoch: called with (epoch, metrics) after each epoch.
        on_steps: called with (metric name, [(step, value), …]) after each epoch.
    """
    progress = EpochProgress(console, cfg.tracking.progress)

    def epoch_done(epoch: int, values: Values) -> None:
        progress.on_epoch(epoch, cfg.trainer.num_epochs, values)
        on_epoch(epoch, values)

    module = Classifier(network, cfg, epoch_done, on_steps)
    loader = Batches(train.images, train.labels, cfg.trainer.batch_size, EpochOrder(len(train.labels), cfg.seed))
    val_loader = Batches(validation.images, validation.labels, VALIDATION_BATCH, None) if validation else None
    checkpoint = work / f"{LAST}.ckpt"
    with _threads(cfg.trainer.num_threads), _quiet_lightning():
        trainer = build_trainer(cfg.trainer, work, [progress])
        start_s = time.perf_counter()
        trainer.fit(
            module, loader, val_loader, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True
        )
        fit_s = time.perf_counter() - start_s
    kept_epoch = _keep(network, cfg.trainer, module.history, work)
    epochs_here = [row for row in module.history if row["epoch"] >= module.first_epoch]
    return Fit(
        network=network.cpu().eval(),
        history=module.history,
        kept_epoch=kept_epoch,
        num_steps=trainer.global_step,
        first_epoch=module.first_epoch,
        fit_s=fit_s,
        samples_per_s=len(epochs_here) * len(train.labels) / fit_s,
        device=str(trainer.strategy.root_device),
    )


def accelerator(cfg: TrainerConfig) -> str:
    """`auto` is a CUDA GPU if there is one, else the CPU: the metrics' float64 sums exist on no other device."""
    if cfg.accelerator != "auto":
        return cfg.accelerator
    return "gpu" if torch.cuda.is_available() else "cpu"


def require_device(cfg: TrainerConfig) -> None:
    """Raise ConfigError if the device that is asked for is not there, or cannot compute in the precision asked for."""
    if cfg.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.accelerator=gpu, but torch finds no CUDA GPU here. Use trainer.accelerator=auto or cpu, "
            "or install a CUDA build of torch"
        )
    if cfg.precision == "16-mixed" and accelerator(cfg) == "cpu":
        raise ConfigError("trainer.precision=16-mixed needs a GPU; on the CPU use 32-true or bf16-mixed")


def build_trainer(cfg: TrainerConfig, work: Path, callbacks: list[Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator=accelerator(cfg),
        devices=1,
        precision=cfg.precision,
        max_epochs=cfg.num_epochs,
        callbacks=[*callbacks, *checkpoints(cfg, work), *early_stopping(cfg)],
        gradient_clip_val=cfg.gradient_clip_norm,
        default_root_dir=work,
        logger=False,  # runs are tracked by pipeline.tracking, an epoch at a time
        enable_progress_bar=False,  # ours costs less and shows both metrics
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=True,
        use_distributed_sampler=False,
    )


def checkpoints(cfg: TrainerConfig, work: Path) -> Iterator[Callback]:
    """The last epoch's state, to go on from, and the best one's, to keep.

    Two callbacks: `save_last` of one callback writes last.ckpt only when the best one changes (Lightning 2.6).
    """
    yield ModelCheckpoint(
        work, LAST, save_top_k=1, every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    if cfg.keep == "best":
        yield ModelCheckpoint(
            work, BEST, monitor=cfg.monitor, mode=better(cfg.monitor), enable_version_counter=False,
            save_weights_only=True, save_on_train_epoch_end=False,
        )  # fmt: skip


def early_stopping(cfg: TrainerConfig) -> Iterator[Callback]:
    if stop := cfg.early_stopping:
        yield StopEarly(cfg.monitor, mode=better(cfg.monitor), patience=stop.patience_epochs, min_delta=stop.min_delta)


class StopEarly(EarlyStopping):
    """Lightning's, but a training that has stopped and is started again does not go on (Lightning 2.6 forgets)."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.stopped_epoch > 0


def better(metric: str) -> Any:
    """`min` for a loss, `max` for an accuracy."""
    return "min" if metric.endswith("loss") else "max"


def _keep(network: DenseNetwork, cfg: TrainerConfig, history: list[Values], work: Path) -> int:
    """Give the network the weights that are to be kept; the epoch they come from."""
    if cfg.keep == "last":
        return int(history[-1]["epoch"])
    state = torch.load(work / f"{BEST}.ckpt", map_location="cpu", weights_only=True)
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)})
    return int(state["epoch"])


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(num_threads, os.cpu_count() or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's tips and remarks on hardware are not about this run; its errors are exceptions."""
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torchmetrics")
        try:
            yield
        finally:
            logger.setLevel(before)
