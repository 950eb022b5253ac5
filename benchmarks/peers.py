"""The book's training as others write it, in processes of their own with nothing of ours imported. Script of fit.py.

Arguments: which one, the folder of arrays that preprocess made, the number of epochs. Prints the seconds of the
training loop alone, after a warm-up of some steps.

products           the matrix products of a step and nothing else: what no framework can go below
loop               a loop by hand over slices of scaled tensors, torch's RMSprop, neither shuffled nor measured
lightning          Lightning over such slices, without logging, bar and checkpoints
lightning_usual    Lightning as its guide shows it: Dataset, DataLoader, bar, logged metrics, a checkpoint an epoch
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

BATCH = 128
WARM_UP = 50 * BATCH  # images


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))


def rmsprop(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)


def slices(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def products(images: Tensor, labels: Tensor, num_epochs: int) -> None:
    hidden, head = torch.randn(512, 784) * 0.03, torch.randn(10, 512) * 0.05
    for _ in range(num_epochs):
        for batch, _ in slices(images, labels):
            gradient = torch.randn(len(batch), 10)
            activation = batch @ hidden.t()
            activation @ head.t()
            gradient.t() @ activation
            (gradient @ head).t() @ batch


def loop(images: Tensor, labels: Tensor, num_epochs: int) -> None:
    net = network()
    optimizer = rmsprop(net)
    for _ in range(num_epochs):
        for batch, right in slices(images, labels):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch), right).backward()
            optimizer.step()


class Plain(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return rmsprop(self.net)


class Usual(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(10, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("loss", loss, prog_bar=True)
        self.log("accuracy", self.accuracy, prog_bar=True, on_step=False, on_epoch=True)
        return loss


class Slices:
    """Lightning takes a list for several loaders."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.batches = slices(images, labels)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


def lightning(images: Tensor, labels: Tensor, num_epochs: int) -> None:
    trainer = pl.Trainer(
        max_epochs=num_epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Plain(), Slices(images, labels))


def lightning_usual(images: Tensor, labels: Tensor, num_epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(max_epochs=num_epochs, default_root_dir=folder)
        loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True)
        trainer.fit(Usual(), loader)


SUBJECTS: dict[str, Callable[[Tensor, Tensor, int], None]] = {
    subject.__name__: subject for subject in (products, loop, lightning, lightning_usual)
}


def main() -> None:
    name, processed, num_epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    images = torch.from_numpy(np.load(processed / "train/images.npy")).flatten(1).float() / 255
    labels = torch.from_numpy(np.load(processed / "train/labels.npy"))
    SUBJECTS[name](images[:WARM_UP], labels[:WARM_UP], 1)
    start_s = time.perf_counter()
    SUBJECTS[name](images, labels, num_epochs)
    print(f"\nseconds {time.perf_counter() - start_s}")


if __name__ == "__main__":
    main()
