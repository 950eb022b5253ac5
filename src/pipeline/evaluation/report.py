"""An evaluation: what one network does on one test set, and the files that say so.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import EvaluateSection
from pipeline.data.card import DataCard
from pipeline.data.processed import Split
from pipeline.evaluation import figures
from pipeline.evaluation.robustness import CURVE_COLUMNS, Curve, curve_rows, evenly_spread, measure_curves
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
from pipeline.model.dense import num_weights
from pipeline.model.portable import TrainedModel
from pipeline.system.files import write_json

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


# ---------------------------------------------------------------- the files: predictions, the tables of plots/, figures


def write_predictions(folder: Path, findings: Findings, card: DataCard, model: TrainedModel) -> None:
    """Enough to compare two models on the same images later, and to know that they are the same."""
    np.save(folder / "log_probabilities.npy", findings.log_probabilities)
    np.save(folder / "labels.npy", findings.labels)
    index = {
        "data": card.name,
        "classes": model.classes,
        "test_images_sha256": card.splits["test"]["images_sha256"],
        "test_labels_sha256": card.splits["test"]["labels_sha256"],
        "model_sha256": model.model_sha256,
    }
    write_json(folder / "index.json", index)


def plot_tables(findings: Findings) -> dict[str, tuple[list[str], Iterable[list[Any]]]]:
    """The files of plots/: header and rows."""
    classes, bins = findings.classes, findings.bins
    confusion = ([classes[a], classes[p]] for a, p in zip(findings.labels, findings.predicted, strict=True))
    calibration = (
        [f"{confidence:.6f}", f"{accuracy:.6f}", count]
        for confidence, accuracy, count in zip(bins.confidence, bins.accuracy, bins.counts, strict=True)
        if count
    )
    label_errors = (
        [index, true, suggested, f"{np.exp(findings.log_probabilities[index, findings.labels[index]]):.6f}"]
        for index, true, suggested, _ in findings.predictions(findings.suspects)
    )
    return {
        "confusion": (["actual", "predicted"], confusion),
        "calibration": (["confidence", "accuracy", "count"], calibration),
        "robustness": (CURVE_COLUMNS, curve_rows(findings.curves)),
        "label_errors": (["index", "label", "suggested", "probability_of_label"], label_errors),
    }


def write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def draw_figures(folder: Path, findings: Findings, model: TrainedModel, history: Path | None) -> None:
    """PNGs of what there is: learning curves of a history, images of pictures."""
    drawn = {
        "confusion_matrix": figures.confusion_matrix(findings.counts, findings.classes),
        "reliability": figures.reliability_diagram(findings.bins),
    }
    if history is not None:
        drawn["learning_curves"] = figures.learning_curves(_read_history(history), model.training["kept_epoch"])
    if findings.are_pictures:  # rows of a table are none
        worst = findings.predictions(findings.worst)
        drawn["worst_errors"] = figures.error_gallery(
            findings.images[findings.worst],
            findings.worst,
            [prediction.true for prediction in worst],
            [prediction.predicted for prediction in worst],
            [prediction.confidence for prediction in worst],
        )
        drawn["robustness"] = figures.robustness(findings.curves)
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")


def _read_history(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of plots/history.csv; an empty cell is NaN."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def model_facts(model: TrainedModel, card: DataCard) -> dict[str, str]:
    """The model and the data, for the page."""
    widths = " → ".join(map(str, [math.prod(model.input.shape), *model.network.units, len(model.classes)]))
    return {
        "network": f"Dense {widths}, {num_weights(model.network):,} weights",
        "kept": f"epoch {model.training['kept_epoch'] + 1}",
        "weights": f"sha256 {model.model_sha256[:12]}",
        "data": f"{card.name}, test set {card.splits['test']['images_sha256'][:12]}",
    }


def summary_lines(findings: Findings) -> dict[str, str]:
    """Name and text of each, for the terminal."""
    scores = findings.scores
    return {
        "95 % interval": f"{scores['test/accuracy_low']:.2%} to {scores['test/accuracy_high']:.2%}",
        "test loss": f"{scores['test/loss']:.4f} nats",
        "calibration error": f"{scores['test/ece']:.4f}",
        "label errors": f"{len(findings.suspects):,} suspected",
    }
