"""The files of an evaluation: predictions, the tables of plots/, figures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.card import DataCard
from pipeline.evaluation import figures
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.robustness import CURVE_COLUMNS, curve_rows
from pipeline.model.dense import num_weights
from pipeline.model.portable import TrainedModel
from pipeline.system.files import write_json


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
