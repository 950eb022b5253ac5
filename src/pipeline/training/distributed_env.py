"""Several processes as Lightning and torch see them: who started them, who handles signals, when one is lost."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch.distributed
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback

from pipeline.system.errors import ProcessLost
from pipeline.system.processes import Rank
from pipeline.system.signals import give_back


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
