"""Loss and accuracy of an epoch, from counts that stay tensors until the epoch's end.

Shapes: N samples of some steps, S steps, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


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
