"""EpochMetrics is the mean over the samples, not over the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from pipeline.training.module import EpochMetrics

Batch = tuple[Tensor, Tensor]


def batches(sizes: tuple[int, ...] = (8, 8, 3), seed: int = 0) -> list[Batch]:
    """Logits (B, 5) and labels (B,), of unequal sizes."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 5, generator=generator) * 3, torch.randint(0, 5, (n,), generator=generator)) for n in sizes]


def measured(parts: list[Batch]) -> EpochMetrics:
    metrics = EpochMetrics()
    for logits, labels in parts:
        metrics.update(cross_entropy(logits, labels, reduction="sum"), logits, labels)
    return metrics


def reference(parts: list[Batch]) -> dict[str, float]:
    """NumPy in float64, over all samples at once."""
    logits = np.concatenate([logits.double().numpy() for logits, _ in parts])
    labels = np.concatenate([labels.numpy() for _, labels in parts])
    log_sums = np.log(np.exp(logits).sum(1))
    losses = log_sums - logits[np.arange(len(labels)), labels]
    return {"loss": losses.mean(), "accuracy": (logits.argmax(1) == labels).mean()}


def values(metrics: EpochMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.compute().items()}


def test_loss_and_accuracy_equal_numpy() -> None:
    """With a last batch of 3 after two of 8 the mean of the batches would be another number."""
    found, expected = values(measured(batches())), reference(batches())

    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert found["accuracy"] == expected["accuracy"]


def test_accuracy_equals_torchmetrics() -> None:
    """MulticlassAccuracy, micro-averaged, is the library's definition."""
    library = MulticlassAccuracy(5, average="micro")
    for logits, labels in batches():
        library.update(logits, labels)

    assert values(measured(batches()))["accuracy"] == pytest.approx(float(library.compute()), rel=1e-7)


def test_two_processes_give_what_one_gives() -> None:
    """Each state is reduced by a sum: added up over processes they are the whole epoch's."""
    parts = batches()
    first, second, merged = measured(parts[:1]), measured(parts[1:]), EpochMetrics()
    for name, reduce in merged._reductions.items():
        setattr(merged, name, reduce(torch.stack([getattr(first, name), getattr(second, name)])))

    merged._update_count = 2  # torchmetrics warns of a metric that was never updated
    assert values(merged) == pytest.approx(values(measured(parts)), rel=1e-12)


def test_a_reset_begins_anew() -> None:
    """The second epoch's values hold nothing of the first."""
    metrics = measured(batches(seed=1))
    metrics.reset()
    for logits, labels in batches(seed=2):
        metrics.update(cross_entropy(logits, labels, reduction="sum"), logits, labels)

    assert values(metrics) == values(measured(batches(seed=2)))


def test_a_million_samples_are_counted_exactly() -> None:
    """The count is an integer: float32 would stop at 16,777,216 and round long before."""
    metrics = EpochMetrics()
    logits, labels = torch.tensor([[1.0, 0.0]]).expand(2**22, 2), torch.zeros(2**22, dtype=torch.int64)
    for _ in range(5):
        metrics.update(torch.tensor([0.1 * 2**22], dtype=torch.float64), logits, labels)
    metrics.update(torch.tensor([0.1], dtype=torch.float64), logits[:1], labels[:1] + 1)

    assert (int(metrics.correct), int(metrics.count)) == (5 * 2**22, 5 * 2**22 + 1)
    assert values(metrics)["loss"] == pytest.approx(0.1, rel=1e-12)


def test_no_graph_is_kept() -> None:
    """A loss that requires a gradient is detached: an epoch would hold every step's activations otherwise."""
    metrics = EpochMetrics()
    metrics.update(torch.tensor(1.0, requires_grad=True), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))

    assert not metrics.loss_sum.requires_grad
