"""One training, from arrays to weights: the only place that builds a Trainer."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, Strategy
from rich.console import Console

from pipeline.config.schema import KerasRMSpropConfig, TrainConfig, TrainerConfig
from pipeline.data.card import DataCard
from pipeline.data.processed import Split, load_split, split_exists
from pipeline.model import kernels
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.system.errors import ProcessLost
from pipeline.system.processes import Rank
from pipeline.system.signals import give_back
from pipeline.system.startup import errors_alone
from pipeline.training import direction
from pipeline.training.checkpoints import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    MidEpochCheckpoint,
    candidates,
    discard_damaged,
)
from pipeline.training.data_module import DataModule
from pipeline.training.devices import accelerator, threads_of, tuned_cpu
from pipeline.training.module import Classifier, OnEpoch, OnSteps, Values
from pipeline.training.progress import EpochProgress


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
    stop_requested: Callable[[], bool] = lambda: False,
) -> Fit:
    """Train `network` in place.

    With several devices this runs in a process of each; the weights are then in the network of rank 0.

    Args:
        work: holds checkpoints while the training runs; one that was interrupted resumes from there.
        on_epoch: called with (epoch, metrics) after each epoch, in the process of rank 0; True ends the training.
        on_steps: called with (metric name, [(step, value), …]) after each epoch, in the process of rank 0.
        stop_requested: asked before each chunk of training, on one device; once it is true the state is saved.

    Raises:
        Interrupted: a stop was requested.
    """
    progress = EpochProgress(console, cfg.tracking.progress)

    def print_epoch(epoch: int, values: Values) -> bool | None:
        progress.on_epoch(epoch, cfg.trainer.num_epochs, values)
        return on_epoch(epoch, values)

    module = Classifier(network, cfg, print_epoch, on_steps)
    data = DataModule(train, validation, cfg)
    discard_damaged(work, keeps_best=cfg.trainer.keep == "best")
    with tuned_cpu(max(1, threads_of(cfg.trainer) // cfg.trainer.devices)), _quiet_lightning():
        mid_epoch = MidEpochCheckpoint(work, cfg.tracking.save_every_s, stop_requested)
        trainer = build_trainer(cfg.trainer, work, [progress, mid_epoch])
        if isinstance(cfg.optimizer, KerasRMSpropConfig) and accelerator(cfg.trainer) == "cpu":
            kernels.load()  # 0.15 s that are none of the training's
        start_s = time.perf_counter()
        with explain_lost_process(cfg.trainer.devices * cfg.trainer.num_nodes):
            trainer.fit(module, datamodule=data, ckpt_path=next(candidates(work), None), weights_only=True)
        fit_s = time.perf_counter() - start_s
    kept_epoch = _restore_kept_epoch(network, cfg.trainer, module.history, work) if trainer.is_global_zero else 0
    epochs_here = [row for row in module.history if row["epoch"] >= module.first_epoch]
    skipped = module.first_chunk * data.train_dataloader().chunk_size
    return Fit(
        network=network.cpu().eval(),
        history=module.history,
        kept_epoch=kept_epoch,
        num_steps=trainer.global_step,
        first_epoch=module.first_epoch,
        fit_s=fit_s,
        samples_per_s=(len(epochs_here) * len(train.labels) - skipped) / fit_s,
        device=str(trainer.strategy.root_device),
    )


def fit_processed(
    processed: Path,
    work: Path,
    cfg: TrainConfig,
    console: Console,
    on_epoch: OnEpoch,
    on_steps: OnSteps,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Fit:
    """Train a new network on what preprocess left in `processed`."""
    card = DataCard.read(processed / "data_card.json")
    torch.manual_seed(cfg.seed)
    network = DenseNetwork(cfg.model, input_spec(card), len(card.classes))
    validation = load_split(processed, "validation") if split_exists(processed, "validation") else None
    train = load_split(processed, "train")
    return fit(network, train, validation, cfg, work, console, on_epoch, on_steps, stop_requested)


def input_spec(card: DataCard) -> InputSpec:
    values = card.scaling["offset"], card.scaling["scale"]
    offset, scale = (tuple(value) if isinstance(value, list) else value for value in values)
    features = None if card.features is None else tuple(card.features)
    return InputSpec(tuple(card.image_shape), card.dtype, offset, scale, card.kind, features)


def build_trainer(cfg: TrainerConfig, work: Path, callbacks: list[Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator=accelerator(cfg),
        strategy=strategy(cfg),
        devices=cfg.devices,
        num_nodes=cfg.num_nodes,
        plugins=[cluster_environment(Rank.of(os.environ)), AtomicCheckpointIO()],
        precision=cfg.precision,
        max_epochs=cfg.num_epochs,
        callbacks=[KeepSignalHandlers(), *callbacks, *checkpoint_callbacks(cfg, work), *early_stopping(cfg)],
        default_root_dir=work,
        logger=False,  # runs are tracked by pipeline.tracking, an epoch at a time
        enable_progress_bar=False,  # ours costs less and shows both metrics
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=True,
        sync_batchnorm=True,  # without effect on one device
        use_distributed_sampler=False,  # each process takes its part of each batch by itself
    )


def strategy(cfg: TrainerConfig) -> Strategy | str:
    if cfg.devices * cfg.num_nodes == 1:
        return "auto"
    if cfg.strategy == "fsdp":
        return FSDPStrategy(state_dict_type="full")
    return DDPStrategy(process_group_backend="nccl" if accelerator(cfg) == "gpu" else "gloo")


def checkpoint_callbacks(cfg: TrainerConfig, work: Path) -> Iterator[Callback]:
    """The last epoch's state, to resume from, and the best one's, to keep.

    Two callbacks: `save_last` of one callback writes last.ckpt only when the best one changes (Lightning 2.6).
    """
    yield ModelCheckpoint(
        work,
        LAST.removesuffix(".ckpt"),
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    if cfg.keep == "best":
        yield ModelCheckpoint(
            work, BEST.removesuffix(".ckpt"), monitor=cfg.monitor, mode=direction(cfg.monitor),
            save_weights_only=True, save_on_train_epoch_end=False, enable_version_counter=False,
        )  # fmt: skip


def early_stopping(cfg: TrainerConfig) -> Iterator[Callback]:
    if stop := cfg.early_stopping:
        yield StopEarly(
            cfg.monitor, mode=direction(cfg.monitor), patience=stop.patience_epochs, min_delta=stop.min_delta
        )


class StopEarly(EarlyStopping):
    """Lightning's, but a training that has stopped and is started again does not go on (Lightning 2.6 forgets)."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.stopped_epoch > 0


def _restore_kept_epoch(network: DenseNetwork, cfg: TrainerConfig, history: list[Values], work: Path) -> int:
    """Give the network the weights that are to be kept; the epoch they come from."""
    if cfg.keep == "last" and cfg.strategy != "fsdp":
        return int(history[-1]["epoch"])
    kept = BEST if cfg.keep == "best" else LAST
    state = AtomicCheckpointIO().load_checkpoint(work / kept, map_location="cpu")
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)})
    return int(state["epoch"])


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's tips and remarks on hardware are not about this run; its errors are exceptions."""
    with errors_alone("pytorch_lightning", "lightning_fabric", "lightning.fabric"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torchmetrics")
        yield


# ---------------------------------------------------------------- several processes, as Lightning and torch see them


def cluster_environment(rank: Rank | None) -> ClusterEnvironment:
    """Chosen here, since Lightning would take any process in a SLURM job for one that srun started."""
    if rank is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if rank.by == "torchrun" else SLURMEnvironment(auto_requeue=False)


class KeepSignalHandlers(Callback):
    """Has signals handled as they are without Lightning.

    Lightning 2.6 answers SIGTERM with a broadcast of its own amid the training's: under torchrun all processes then
    wait for each other until they are killed, and the run stays RUNNING.
    """

    def __init__(self) -> None:
        self.handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            give_back(self.handlers)


@contextmanager
def explain_lost_process(world_size: int) -> Iterator[None]:
    """Raise ProcessLost instead of what torch says when one of `world_size` processes is gone."""
    try:
        yield
    except BaseException as error:
        if world_size > 1 and (lost := _lost_connection(error)):
            raise ProcessLost(
                f"another of the {world_size} processes of this training has ended, so this one cannot go on: "
                f"{_first_sentence(lost)}. The reason is what that process said, or what is said of it"
            ) from error
        raise


def _first_sentence(error: BaseException) -> str:
    """Without the place in torch's sources, and its advice."""
    return re.sub(r"^\[\S+\] ", "", str(error)).partition(". ")[0].strip(" .\n")


def _lost_connection(error: BaseException) -> BaseException | None:
    """The error of a connection that was closed, also where a signal came on top while it was on its way out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, torch.distributed.DistError) or (isinstance(seen, RuntimeError) and "gloo" in str(seen)):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
