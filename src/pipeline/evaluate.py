"""Stage 4: the test set, scored once; metrics, predictions kept for later comparison, figures.

Reads   data/processed/test/, models/, plots/history.csv
Writes  metrics/evaluate.json predictions/ plots/ reports/    see `evaluate`
"""

from __future__ import annotations

if __name__ == "__main__":  # settings are checked before torch and MLflow are imported
    from pipeline.cli import main as command_line

    command_line("evaluate")

import csv
import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pipeline.config.schema import EvaluateConfig, EvaluateSection
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.evaluation import figures
from pipeline.evaluation.findings import Findings, findings
from pipeline.evaluation.page import label_rows, page
from pipeline.evaluation.robustness import CURVE_COLUMNS, curve_rows
from pipeline.model.dense import num_weights
from pipeline.model.portable import TrainedModel, load_model
from pipeline.registry.gate import register_candidate
from pipeline.runtime.origin import shown
from pipeline.runtime.places import Places
from pipeline.runtime.recording import evaluation_run, headline, model_id_of, print_summary, record_evaluation
from pipeline.system.errors import PipelineError
from pipeline.system.files import atomic_file, atomic_folder, sha256_of, write_json


def evaluate(processed: Path, models: Path, history: Path | None, out: Path, cfg: EvaluateSection) -> Findings:
    """Score every test sample once with the model in `models`.

    Reads   processed/test, processed/data_card.json; models/model.{safetensors,json}; history (learning curves)
    Writes  out/metrics/evaluate.json       test/accuracy, test/correct, test/count, test/loss, …, robustness/…
            out/predictions/                log_probabilities.npy float32 (N, C), labels.npy int64 (N,), index.json
            out/plots/confusion.csv         actual,predicted: one row a sample
            out/plots/calibration.csv       confidence,accuracy,count: one row a filled bin
            out/plots/robustness.csv        change,unit,amount,accuracy,low,high,correct,count
            out/plots/label_errors.csv      index,label,suggested,probability_of_label
            out/reports/figures/*.png
            out/reports/evaluation.html     all of this on a page

    Raises:
        PipelineError: there is no model, or it was trained on other data. Nothing is written.
    """
    card, test, model = DataCard.read(processed / "data_card.json"), load_split(processed, "test"), load_model(models)
    require_same_data(model, sha256_of(processed / "data_card.json"), card.name, models)
    found = findings(model, test, cfg)
    with ExitStack() as all_or_none:
        new = all_or_none.enter_context
        _write_predictions(new(atomic_folder(out / "predictions")), found, card, model)
        for name, (header, rows) in _tables(found).items():
            _write_csv(new(atomic_file(out / f"plots/{name}.csv")), header, rows)
        _draw(folder := new(atomic_folder(out / "reports/figures")), found, model, history)
        text = page(found, facts(model, card), folder, cfg.num_suspects)
        new(atomic_file(out / "reports/evaluation.html")).write_text(text, encoding="utf-8")
        write_json(new(atomic_file(out / "metrics/evaluate.json")), found.scores)
    return found


def require_same_data(model: TrainedModel, data_sha256: str, data_name: str, models: Path) -> None:
    """Refuse to score a model on data that was split otherwise: its test images may be among those it learned from."""
    if model.training["data_sha256"] != data_sha256:
        raise PipelineError(
            f"{models} was trained on other data than data/processed now holds ({data_name}): its digest is "
            f"{model.training['data_sha256'][:12]}, found {data_sha256[:12]}. Make its own test set with the settings "
            f"it was trained with: `dvc exp run -S …`; or a model for this data by `dvc repro`"
        )


def _write_predictions(folder: Path, found: Findings, card: DataCard, model: TrainedModel) -> None:
    """Enough to compare two models on the same images later, and to know that they are the same."""
    np.save(folder / "log_probabilities.npy", found.log_probabilities)
    np.save(folder / "labels.npy", found.labels)
    index = {
        "data": card.name,
        "classes": model.classes,
        "test_images_sha256": card.splits["test"]["images_sha256"],
        "test_labels_sha256": card.splits["test"]["labels_sha256"],
        "model_sha256": model.model_sha256,
    }
    write_json(folder / "index.json", index)


def _tables(found: Findings) -> dict[str, tuple[list[str], Iterable[list[Any]]]]:
    """The files of plots/: header and rows."""
    classes, bins = found.classes, found.bins
    confusion = ([classes[a], classes[p]] for a, p in zip(found.labels, found.predicted, strict=True))
    calibration = (
        [f"{confidence:.6f}", f"{accuracy:.6f}", count]
        for confidence, accuracy, count in zip(bins.confidence, bins.accuracy, bins.counts, strict=True)
        if count
    )
    return {
        "confusion": (["actual", "predicted"], confusion),
        "calibration": (["confidence", "accuracy", "count"], calibration),
        "robustness": (CURVE_COLUMNS, curve_rows(found.curves)),
        "label_errors": (["index", "label", "suggested", "probability_of_label"], label_rows(found)),
    }


def _write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _draw(folder: Path, found: Findings, model: TrainedModel, history: Path | None) -> None:
    drawn = {
        "confusion_matrix": figures.confusion_matrix(found.counts, found.classes),
        "reliability": figures.reliability_diagram(found.bins),
    }
    if history is not None:
        drawn["learning_curves"] = figures.learning_curves(_read_history(history), model.training["kept_epoch"])
    if found.are_pictures:  # rows of a table are none
        drawn["worst_errors"] = figures.error_gallery(found.images[found.worst], *found.captions(found.worst))
        drawn["robustness"] = figures.robustness(found.curves)
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")


def _read_history(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of plots/history.csv; an empty cell is NaN."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def facts(model: TrainedModel, card: DataCard) -> dict[str, str]:
    """What was scored on what, for the page."""
    widths = " → ".join(map(str, [math.prod(model.input.shape), *model.network.units, len(model.classes)]))
    return {
        "network": f"Dense {widths}, {num_weights(model.network):,} weights",
        "kept": f"epoch {model.training['kept_epoch'] + 1}",
        "weights": f"sha256 {model.model_sha256[:12]}",
        "data": f"{card.name}, test set {card.splits['test']['images_sha256'][:12]}",
    }


def main(cfg: EvaluateConfig, places: Places) -> None:
    """Evaluate within the run that trained the model."""
    models = places.inputs / cfg.evaluate.model_folder
    history = models.parent / "plots/history.csv"
    with evaluation_run(cfg, places, models) as run:
        found = evaluate(
            places.inputs / "data/processed", models, history if history.exists() else None, places.out, cfg.evaluate
        )
        record_evaluation(run, places, found.scores, found.per_class, places.out)
        told = summary(found, places)
        if model_id := model_id_of(run):
            margin = cfg.tracking.champion_margin
            told["registered"] = register_candidate(places.root, run, model_id, margin, may_promote=places.under_dvc)
        print_summary(Console(soft_wrap=True), headline(found.scores), told, cfg.tracking, run)


def summary(found: Findings, places: Places) -> dict[str, str]:
    values = found.scores
    return {
        "95 % interval": f"{values['test/accuracy_low']:.2%} to {values['test/accuracy_high']:.2%}",
        "test loss": f"{values['test/loss']:.4f} nats",
        "calibration error": f"{values['test/ece']:.4f}",
        "label errors": f"{len(found.suspects):,} suspected",
        "report": shown(places.out / "reports/evaluation.html", places.root),
    }
