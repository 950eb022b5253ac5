"""Stage 4: the test set, scored once; metrics, predictions kept for later comparison, figures.

Reads   data/processed/test/, models/, plots/history.csv
Writes  metrics/evaluate.json predictions/ plots/ reports/    see `evaluate`
"""

from __future__ import annotations

if __name__ == "__main__":  # settings are checked before torch and MLflow are imported
    from pipeline.cli import main as command_line

    command_line("evaluate")

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from pipeline.config.schema import EvaluateConfig, EvaluateSection
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.evaluation import report
from pipeline.evaluation.page import evaluation_page
from pipeline.model.portable import TrainedModel, load_model
from pipeline.registry.gate import register_candidate
from pipeline.runtime.origin import shown
from pipeline.runtime.places import Places
from pipeline.runtime.recording import evaluation_run, headline, model_id_of, print_summary, record_evaluation
from pipeline.system.errors import PipelineError
from pipeline.system.files import atomic_file, atomic_folder, sha256_of, write_json


def evaluate(processed: Path, models: Path, history: Path | None, out: Path, cfg: EvaluateSection) -> report.Findings:
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
    require_training_data(model, sha256_of(processed / "data_card.json"), card.name, models)
    findings = report.evaluate_model(model, test, cfg)
    with ExitStack() as all_or_none:
        new = all_or_none.enter_context
        report.write_predictions(new(atomic_folder(out / "predictions")), findings, card, model)
        for name, (header, rows) in report.plot_tables(findings).items():
            report.write_csv(new(atomic_file(out / f"plots/{name}.csv")), header, rows)
        report.draw_figures(folder := new(atomic_folder(out / "reports/figures")), findings, model, history)
        text = evaluation_page(findings, report.model_facts(model, card), folder, cfg.num_suspects)
        new(atomic_file(out / "reports/evaluation.html")).write_text(text, encoding="utf-8")
        write_json(new(atomic_file(out / "metrics/evaluate.json")), findings.scores)
    return findings


def require_training_data(model: TrainedModel, data_sha256: str, data_name: str, models: Path) -> None:
    """Refuse to score a model on data that was split otherwise: its test images may be among those it learned from."""
    if model.training["data_sha256"] != data_sha256:
        raise PipelineError(
            f"{models} was trained on other data than data/processed now holds ({data_name}): its digest is "
            f"{model.training['data_sha256'][:12]}, found {data_sha256[:12]}. Make its own test set with the settings "
            f"it was trained with: `dvc exp run -S …`; or a model for this data by `dvc repro`"
        )


def main(cfg: EvaluateConfig, places: Places) -> None:
    """Evaluate within the run that trained the model."""
    models = places.inputs / cfg.evaluate.model_folder
    history = models.parent / "plots/history.csv"
    with evaluation_run(cfg, places, models) as run:
        findings = evaluate(
            places.inputs / "data/processed", models, history if history.exists() else None, places.out, cfg.evaluate
        )
        record_evaluation(run, places, findings.scores, findings.per_class, places.out)
        lines = report.summary_lines(findings) | {"report": shown(places.out / "reports/evaluation.html", places.root)}
        if model_id := model_id_of(run):
            margin = cfg.tracking.champion_margin
            lines["registered"] = register_candidate(places.root, run, model_id, margin, may_promote=places.under_dvc)
        print_summary(Console(soft_wrap=True), headline(findings.scores), lines, cfg.tracking, run)
