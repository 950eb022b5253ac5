"""The test set, scored once: metrics, predictions kept for later comparison, figures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from pipeline.config.schema import EvaluateConfig, EvaluateSection
from pipeline.data.arrays import Split, load_split
from pipeline.data.card import DataCard
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import atomic_file, atomic_folder, sha256_of, write_json
from pipeline.model.portable import Portable, load_model
from pipeline.places import Places
from pipeline.recording import evaluation_run, headline, print_summary, record_evaluation, shown
from pipeline.reports import figures
from pipeline.reports.scores import Calibration, calibration, confusion_counts, per_class, scores, worst_errors
from pipeline.stage import run_stage

BATCH = 2048  # samples; only memory and speed depend on it


@dataclass(frozen=True)
class Evaluation:
    """What was found; the files are written."""

    scores: dict[str, float]
    per_class: dict[str, Any]  # columns: class, precision, recall, f1, samples
    model: Portable


def evaluate(processed: Path, models: Path, history: Path | None, out: Path, cfg: EvaluateSection) -> Evaluation:
    """Score every test sample once with the model in `models`.

    Reads   processed/test, processed/data_card.json; models/model.{safetensors,json}; history (learning curves)
    Writes  out/metrics/evaluate.json       test/accuracy, test/correct, test/count, test/loss, …
            out/predictions/                log_probabilities.npy float32 (N, C), labels.npy int64 (N,), index.json
            out/plots/confusion.csv         actual,predicted: one row a sample
            out/plots/calibration.csv       confidence,accuracy,count: one row a filled bin
            out/reports/figures/*.png

    Raises:
        PipelineError: there is no model, or it was trained on other data. Nothing is written.
    """
    card, test, model = DataCard.read(processed / "data_card.json"), load_split(processed, "test"), load_model(models)
    require_same_data(model, sha256_of(processed / "data_card.json"), card.name, models)
    log_probabilities = predict_log_probabilities(model, test.images)
    found = scores(log_probabilities, test.labels, cfg.num_calibration_bins)
    counts = confusion_counts(test.labels, log_probabilities.argmax(1), len(model.classes))

    _write_predictions(out / "predictions", log_probabilities, test, card, model)
    bins = calibration(np.exp(log_probabilities), test.labels, cfg.num_calibration_bins)
    _write_plots(out / "plots", log_probabilities, test, model.classes, bins)
    with atomic_folder(out / "reports/figures") as folder:
        _draw(folder, log_probabilities, test, counts, bins, model, history, cfg)
    write_json(out / "metrics/evaluate.json", found)
    return Evaluation(found, per_class(counts, model.classes), model)


def require_same_data(model: Portable, data_sha256: str, data_name: str, models: Path) -> None:
    """Refuse to score a model on data that was split otherwise: its test images may be among those it learned from."""
    if model.training["data_sha256"] != data_sha256:
        raise PipelineError(
            f"{models} was trained on other data than data/processed now holds ({data_name}): its digest is "
            f"{model.training['data_sha256'][:12]}, found {data_sha256[:12]}. Make its own test set with the settings "
            f"it was trained with: `dvc exp run -S …`; or a model for this data by `dvc repro`"
        )


def predict_log_probabilities(model: Portable, samples: NDArray[Any]) -> NDArray[np.float32]:
    """(N, ...) raw samples → (N, C) float32, natural logarithms of the classes' probabilities."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH):
            logits = model.network(torch.from_numpy(np.array(samples[start : start + BATCH])))
            parts.append(torch.log_softmax(logits, dim=1).numpy())
    return np.concatenate(parts)


def _write_predictions(
    folder: Path, log_probabilities: NDArray[np.float32], test: Split, card: DataCard, model: Portable
) -> None:
    """Enough to compare two models on the same images later, and to know that they are the same."""
    with atomic_folder(folder) as new:
        np.save(new / "log_probabilities.npy", log_probabilities)
        np.save(new / "labels.npy", np.asarray(test.labels))
        index = {
            "data": card.name,
            "classes": model.classes,
            "test_images_sha256": card.splits["test"]["images_sha256"],
            "test_labels_sha256": card.splits["test"]["labels_sha256"],
            "model_sha256": model.model_sha256,
        }
        write_json(new / "index.json", index)


def _write_plots(
    folder: Path, log_probabilities: NDArray[np.float32], test: Split, classes: list[str], bins: Calibration
) -> None:
    pairs = zip(test.labels, log_probabilities.argmax(1), strict=True)
    _write_csv(folder / "confusion.csv", ["actual", "predicted"], [[classes[a], classes[p]] for a, p in pairs])
    rows = [
        [f"{confidence:.6f}", f"{accuracy:.6f}", count]
        for confidence, accuracy, count in zip(bins.confidence, bins.accuracy, bins.counts, strict=True)
        if count
    ]
    _write_csv(folder / "calibration.csv", ["confidence", "accuracy", "count"], rows)


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with atomic_file(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _draw(
    folder: Path,
    log_probabilities: NDArray[np.float32],
    test: Split,
    counts: NDArray[np.int64],
    bins: Calibration,
    model: Portable,
    history: Path | None,
    cfg: EvaluateSection,
) -> None:
    figures.save(figures.confusion_matrix(counts, model.classes), folder / "confusion_matrix.png")
    figures.save(figures.reliability_diagram(bins), folder / "reliability.png")
    if history is not None:
        table = _read_history(history)
        figures.save(figures.learning_curves(table, model.training["kept_epoch"]), folder / "learning_curves.png")
    if test.images.ndim > 2:  # rows of a table are no pictures
        figures.save(_gallery(log_probabilities, test, model.classes, cfg), folder / "worst_errors.png")


def _read_history(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of plots/history.csv; an empty cell is NaN."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def _gallery(log_probabilities: NDArray[np.float32], test: Split, classes: list[str], cfg: EvaluateSection) -> Any:
    worst = worst_errors(log_probabilities, test.labels, cfg.num_worst_errors)
    predicted = log_probabilities[worst].argmax(1)
    return figures.error_gallery(
        test.images[worst],
        worst,
        [classes[label] for label in test.labels[worst]],
        [classes[label] for label in predicted],
        np.exp(log_probabilities[worst].max(1)).tolist(),
    )


def evaluate_tracked(cfg: EvaluateConfig, places: Places) -> None:
    """Evaluate within the run that trained the model."""
    if places.under_dvc and cfg.evaluate.model_folder != "models":
        raise ConfigError(
            f"evaluate.model_folder={cfg.evaluate.model_folder}: DVC watches models/ alone and would not see that one "
            "change. Score another model by hand: python -m pipeline.evaluate evaluate.model_folder=…"
        )
    models = places.inputs / cfg.evaluate.model_folder
    history = models.parent / "plots/history.csv"
    with evaluation_run(cfg, places, models) as run:
        found = evaluate(
            places.inputs / "data/processed", models, history if history.exists() else None, places.out, cfg.evaluate
        )
        record_evaluation(run, places, found.scores, found.per_class, places.out)
        print_summary(Console(soft_wrap=True), headline(found.scores), summary(found, places), cfg.tracking, run)


def summary(found: Evaluation, places: Places) -> dict[str, str]:
    values = found.scores
    return {
        "95 % interval": f"{values['test/accuracy_low']:.2%} to {values['test/accuracy_high']:.2%}",
        "test loss": f"{values['test/loss']:.4f} nats",
        "calibration error": f"{values['test/ece']:.4f}",
        "figures": shown(places.out / "reports/figures", places.root),
    }


def main() -> None:
    """`dvc repro evaluate`, or by hand `python -m pipeline.evaluate evaluate.model_folder=outputs/train/…/models`."""
    run_stage("evaluate", EvaluateConfig, evaluate_tracked)


if __name__ == "__main__":
    main()
