"""A sweep as the well-known template of Lightning and Hydra runs it, to compare with. Script of sweep.py.

Hydra's own launcher trains one job after the other in one process; DataLoader, torchmetrics, checkpoint, early stopping
and progress bar as there; no logger, which is its default. Same network, grid, data, epochs and batches as ours.

Use:  python benchmarks/template.py -m units=32,64 lr=1e-3,3e-3 processed=FOLDER num_epochs=5 hydra.sweep.dir=FOLDER
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

ConfigStore.instance().store("template", {"units": 64, "lr": 1e-3, "processed": "???", "num_epochs": 5, "seed": 0})


class Digits(pl.LightningDataModule):
    def __init__(self, processed: Path) -> None:
        super().__init__()
        self.processed = processed

    def setup(self, stage: str) -> None:
        self.train_set, self.validation_set = (self.read(name) for name in ("train", "validation"))

    def read(self, name: str) -> TensorDataset:
        images = torch.from_numpy(np.load(self.processed / name / "images.npy")).float() / 255
        return TensorDataset(images.flatten(1), torch.from_numpy(np.load(self.processed / name / "labels.npy")))

    def train_dataloader(self) -> Any:
        return DataLoader(self.train_set, batch_size=128, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.validation_set, batch_size=128)


class Network(pl.LightningModule):
    def __init__(self, units: int, lr: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(784, units), nn.ReLU(), nn.Linear(units, 10))
        self.lr, self.criterion = lr, nn.CrossEntropyLoss()
        self.accuracies = nn.ModuleDict({name: MulticlassAccuracy(10) for name in ("fit", "val")})
        self.losses = nn.ModuleDict({name: MeanMetric() for name in ("fit", "val")})
        self.best = MaxMetric()

    def measured(self, batch: tuple[Tensor, Tensor], name: str) -> Tensor:
        samples, labels = batch
        logits = self.net(samples)
        loss: Tensor = self.criterion(logits, labels)
        self.losses[name](loss)
        self.accuracies[name](logits.argmax(1), labels)
        self.log(f"{name}/loss", self.losses[name], on_step=False, on_epoch=True, prog_bar=True)
        self.log(f"{name}/acc", self.accuracies[name], on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.measured(batch, "fit")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.measured(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self.best(self.accuracies["val"].compute())
        self.log("val/acc_best", self.best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.RMSprop(self.parameters(), lr=self.lr, alpha=0.9, eps=1e-7)


@hydra.main(version_base="1.3", config_path=None, config_name="template")
def main(cfg: Any) -> float:
    pl.seed_everything(cfg.seed, workers=True)
    folder = HydraConfig.get().runtime.output_dir
    trainer = pl.Trainer(
        max_epochs=cfg.num_epochs, accelerator="cpu", devices=1, logger=False, default_root_dir=folder,
        callbacks=[
            ModelCheckpoint(f"{folder}/checkpoints", monitor="val/acc", mode="max", save_last=True),
            EarlyStopping(monitor="val/acc", patience=100, mode="max"),
            RichProgressBar(),
        ],
    )  # fmt: skip
    trainer.fit(Network(cfg.units, cfg.lr), datamodule=Digits(Path(cfg.processed)))
    return float(trainer.callback_metrics["val/acc_best"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
