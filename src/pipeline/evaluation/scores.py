"""What a set of predictions is worth.

Shapes: N samples, C classes, K bins of confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

NORMAL_95 = 1.959963984540054  # standard deviations about the mean that hold 95 %; scipy.special.ndtri(0.975)


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy in K equal-width bins over (0, 1]; an empty bin has NaN for both means."""

    edges: Floats  # (K + 1,)
    counts: Labels  # (K,)
    confidence: Floats  # (K,) mean confidence of a bin's predictions
    accuracy: Floats  # (K,) share of them that are right

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |confidence - accuracy|, weighted by counts; a fraction in [0, 1].

        Source: Naeini, Cooper, Hauskrecht, AAAI 2015.
        """
        filled = self.counts > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float((gaps * self.counts[filled]).sum() / self.counts.sum())


def calibration(probabilities_NC: NDArray[np.floating], labels_N: Labels, num_bins: int) -> Calibration:
    """Bin each prediction by the probability of its predicted class.

    Raises:
        ValueError: a value is negative or a row does not sum to 1 (the usual cause: logits were passed).
    """
    if probabilities_NC.min() < 0 or not np.allclose(probabilities_NC.sum(1), 1, atol=1e-4):
        raise ValueError("probabilities must not be negative and each row sum to 1 within 1e-4; were logits passed?")
    confidence_N = probabilities_NC.max(1).astype(np.float64)
    right_N = probabilities_NC.argmax(1) == labels_N
    edges = np.linspace(0, 1, num_bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(bin_N, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bin_N, confidence_N, num_bins) / counts
        accuracy = np.bincount(bin_N, right_N, num_bins) / counts
    return Calibration(edges, counts.astype(np.int64), mean_confidence, accuracy)


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % interval for an accuracy; near 0 and 1 the normal one would leave [0, 1]. Source: Wilson, JASA 1927.

    The operations are those of scipy.stats.binomtest, in its order, so the bits are too: importing it takes 0.5 s.
    """
    share, z = correct / count, NORMAL_95
    twice = 2 * (count + z**2)
    middle = (2 * count * share + z**2) / twice
    reach = z / twice * math.sqrt(4 * count * share * (1 - share) + z**2)
    return (middle - reach if correct else 0.0), (middle + reach if correct < count else 1.0)


def confusion_counts(labels_N: Labels, predicted_N: Labels, num_classes: int) -> Labels:
    """(C, C) int64: row the true class, column the predicted one."""
    flat = np.bincount(labels_N * num_classes + predicted_N, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def scores(log_probabilities_NC: NDArray[np.floating], labels_N: Labels, num_calibration_bins: int) -> dict[str, float]:
    """The numbers of metrics/evaluate.json, over exactly N samples.

    `test/loss` is the mean negative log-likelihood in nats, without label smoothing.
    """
    count = len(labels_N)
    correct = int((log_probabilities_NC.argmax(1) == labels_N).sum())
    low, high = wilson_interval(correct, count)
    bins = calibration(np.exp(log_probabilities_NC), labels_N, num_calibration_bins)
    return {
        "test/accuracy": correct / count,
        "test/correct": correct,
        "test/count": count,
        "test/loss": float(-log_probabilities_NC[np.arange(count), labels_N].mean(dtype=np.float64)),
        "test/accuracy_low": low,
        "test/accuracy_high": high,
        "test/ece": bins.ece,
        "test/brier": brier(log_probabilities_NC, labels_N),
    }


def brier(log_probabilities_NC: NDArray[np.floating], labels_N: Labels) -> float:
    """Mean squared distance of the probabilities from 1 for the true class and 0 for the others; in [0, 2].

    Source: Brier, Monthly Weather Review 1950.
    """
    distances_NC = np.exp(log_probabilities_NC.astype(np.float64))
    distances_NC[np.arange(len(labels_N)), labels_N] -= 1
    return float(np.square(distances_NC).sum(1).mean())


@dataclass(frozen=True)
class Confusion:
    """Samples of one class that were taken for another."""

    actual: str
    predicted: str
    count: int
    share: float  # of the samples of the actual class


def confused_pairs(counts_CC: Labels, classes: list[str], most: int) -> list[Confusion]:
    """(≤ most) pairs with the most errors; ties in the order of the classes."""
    errors_CC = np.where(np.eye(len(classes), dtype=bool), 0, counts_CC)
    order = np.argsort(-errors_CC, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, errors_CC.shape), strict=True)
    return [
        Confusion(
            classes[row], classes[column], int(errors_CC[row, column]), errors_CC[row, column] / counts_CC[row].sum()
        )
        for row, column in pairs
        if errors_CC[row, column]
    ]


def per_class(counts_CC: Labels, classes: list[str]) -> dict[str, list[float] | list[int] | list[str]]:
    """Columns of a table, one row a class: precision, recall, F1 (0 where undefined) and the number of samples."""
    right_C = np.diag(counts_CC).astype(np.float64)
    true_C, predicted_C = counts_CC.sum(1), counts_CC.sum(0)
    precision_C = right_C / np.maximum(predicted_C, 1)
    recall_C = right_C / np.maximum(true_C, 1)
    both_C = precision_C + recall_C
    f1_C = np.divide(2 * precision_C * recall_C, both_C, out=np.zeros_like(both_C), where=both_C > 0)
    return {
        "class": classes,
        "precision": precision_C.round(6).tolist(),
        "recall": recall_C.round(6).tolist(),
        "f1": f1_C.round(6).tolist(),
        "samples": true_C.tolist(),
    }


def worst_errors(log_probabilities_NC: NDArray[np.floating], labels_N: Labels, num_errors: int) -> Labels:
    """(≤ num_errors,) indices of the wrong predictions, most confident first; ties in the order of the indices."""
    predicted_N = log_probabilities_NC.argmax(1)
    wrong = np.flatnonzero(predicted_N != labels_N)
    confidence = log_probabilities_NC[wrong, predicted_N[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:num_errors].astype(np.int64)
