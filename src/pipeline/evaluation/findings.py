"""What one network does on one test set: everything that the stage evaluate writes down.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import EvaluateSection
from pipeline.data.processed import Split
from pipeline.evaluation.robustness import Curve, evenly_spread, measure_curves
from pipeline.evaluation.scores import (
    Calibration,
    Confusion,
    Labels,
    calibration,
    confused_pairs,
    confusion_counts,
    per_class,
    scores,
    worst_errors,
)
from pipeline.model.portable import TrainedModel

MAX_PAIRS = 10


class ScoredSample(NamedTuple):
    """A test sample and what it was taken for."""

    sample: int  # its index
    true: str
    predicted: str
    confidence: float  # the probability of the predicted class


@dataclass(frozen=True)
class Findings:
    """Indices are those of data/processed/test."""

    classes: list[str]
    images: NDArray[Any]  # (N, H, W), (N, H, W, 3) or, for a table, (N, features)
    labels: Labels  # (N,)
    log_probabilities: NDArray[np.float32]  # (N, C)
    scores: dict[str, float]
    counts: Labels  # (C, C): row the true class, column the predicted one
    bins: Calibration
    per_class: dict[str, Any]  # columns: class, precision, recall, f1, samples
    pairs: list[Confusion]
    worst: Labels  # the most confident mistakes
    suspects: Labels  # samples whose label is probably another
    curves: list[Curve]  # none for a table: its rows cannot be turned

    @property
    def are_pictures(self) -> bool:
        return self.images.ndim > 2

    @property
    def predicted(self) -> Labels:
        """(N,)"""
        predicted: Labels = self.log_probabilities.argmax(1)
        return predicted

    def predictions(self, indices: Labels) -> list[ScoredSample]:
        """What some of the samples were taken for."""
        predicted = self.log_probabilities[indices].argmax(1)
        confidence = np.exp(self.log_probabilities[indices, predicted])
        return [
            ScoredSample(int(index), self.classes[int(self.labels[index])], self.classes[int(best)], float(sure))
            for index, best, sure in zip(indices, predicted, confidence, strict=True)
        ]


def evaluate_model(model: TrainedModel, test: Split, cfg: EvaluateSection) -> Findings:
    """Every test sample is scored once; those that are changed for the curves count for nothing else."""
    log_probabilities, labels = model.predict_log_proba(test.images), np.asarray(test.labels)
    counts = confusion_counts(labels, log_probabilities.argmax(1), len(model.classes))
    changed = list(_curves(model, test, cfg)) if test.images.ndim > 2 else []
    return Findings(
        classes=model.classes,
        images=test.images,
        labels=labels,
        log_probabilities=log_probabilities,
        scores=scores(log_probabilities, labels, cfg.num_calibration_bins)
        | {f"robustness/{curve.name}": curve.mean for curve in changed},
        counts=counts,
        bins=calibration(np.exp(log_probabilities), labels, cfg.num_calibration_bins),
        per_class=per_class(counts, model.classes),
        pairs=confused_pairs(counts, model.classes, MAX_PAIRS),
        worst=worst_errors(log_probabilities, labels, cfg.num_worst_errors),
        suspects=suspects(log_probabilities, labels),
        curves=changed,
    )


def _curves(model: TrainedModel, test: Split, cfg: EvaluateSection) -> list[Curve]:
    indices = evenly_spread(len(test.images), cfg.num_robustness_images)

    def predict(images: NDArray[np.uint8]) -> Labels:
        predicted: Labels = model.predict_log_proba(images).argmax(1)
        return predicted

    return list(measure_curves(predict, np.array(test.images[indices]), np.asarray(test.labels)[indices]))


# ---------------------------------------------------------------- labels that are probably wrong


def suspects(log_probabilities_NC: NDArray[np.floating], labels_N: Labels) -> Labels:
    """Indices of the samples whose label is probably another, the least probable label first.

    Confident learning: a sample is suspect if it belongs to another class than its label says with a probability at
    or above the mean that samples of that class have. The network must not have been trained on these samples.
    """
    if len(np.unique(labels_N)) < 2:
        return np.empty(0, dtype=np.int64)
    from cleanlab.filter import find_label_issues  # 2 s, for this alone

    probabilities = np.exp(log_probabilities_NC.astype(np.float64))
    indices = find_label_issues(
        labels_N, probabilities / probabilities.sum(1, keepdims=True),
        filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1,
    )  # fmt: skip
    return np.asarray(indices, dtype=np.int64)
