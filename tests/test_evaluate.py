"""The stage evaluate as a function: every test sample once, the files it promises, or nothing at all."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from config.config_makers import train_config, whole_config
from data_makers import cycling_labels, noise, own_config, preprocess_config, tiny_set, tree, write_raw
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.download import download
from pipeline.evaluate import evaluate
from pipeline.model.dense import DenseNetwork
from pipeline.model.portable import PREDICT_BATCH, load_model, save_model
from pipeline.preprocess import preprocess
from pipeline.system.errors import PipelineError
from pipeline.system.files import read_json, sha256_of
from pipeline.training.fit import input_spec

HISTORY = "epoch,train/loss,train/accuracy,val/loss,val/accuracy,lr\n0,1.0,0.5,{val},0.001\n1,0.9,0.6,{val},0.001\n"
FILES = {
    "metrics/evaluate.json",
    "predictions/index.json",
    "predictions/labels.npy",
    "predictions/log_probabilities.npy",
    "plots/confusion.csv",
    "plots/calibration.csv",
    "reports/figures/confusion_matrix.png",
    "reports/figures/reliability.png",
    "plots/label_errors.csv",
    "plots/robustness.csv",
    "reports/evaluation.html",
    "reports/figures/robustness.png",
    "reports/figures/worst_errors.png",
}
CFG = whole_config().evaluate


def make(folder: Path, num_test: int = 9, **changes: Any) -> tuple[Path, Path]:
    """data/processed with this many test images, and an untrained model for it."""
    write_raw(folder / "raw", tiny_set(num_test=num_test))
    preprocess(folder / "raw", folder / "processed", preprocess_config(**changes))
    return folder / "processed", make_model(folder / "models", folder / "processed/data_card.json")


def make_model(models: Path, card_file: Path) -> Path:
    card = DataCard.read(card_file)
    cfg, spec = train_config({"model.units": [8], "model.initialization": "torch"}).model, input_spec(card)
    torch.manual_seed(0)
    network = DenseNetwork(cfg, spec, len(card.classes))
    save_model(models, network, cfg, spec, list(card.classes), {"kept_epoch": 1, "data_sha256": sha256_of(card_file)})
    return models


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def out(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation without a history wrote; only to be read."""
    folder = tmp_path_factory.mktemp("out")
    evaluate(*made, None, folder, CFG)
    return folder


def reference(processed: Path, models: Path) -> np.ndarray:
    """(N, C) float64 log-probabilities, each sample scored alone."""
    network, images = load_model(models).network.double(), load_split(processed, "test").images
    found = []
    with torch.no_grad():
        for image in images:
            pixels = torch.from_numpy(np.array(image, dtype=np.float64)).flatten()[None] / 255
            found.append(torch.log_softmax(network.head(network.hidden(pixels)), dim=1)[0].numpy())
    return np.array(found)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- what is written


def test_exactly_the_promised_files_are_written(out: Path) -> None:
    """Without a history there are no learning curves."""
    assert set(tree(out)) == FILES


@pytest.mark.parametrize("validation", ["1.1,0.4", ","], ids=["with validation", "without validation"])
def test_a_history_is_drawn(validation: str, made: tuple[Path, Path], tmp_path: Path) -> None:
    """Also where the columns of validation are empty."""
    (tmp_path / "history.csv").write_text(HISTORY.format(val=validation))
    evaluate(*made, tmp_path / "history.csv", tmp_path / "out", CFG)

    assert set(tree(tmp_path / "out")) == FILES | {"reports/figures/learning_curves.png"}


def test_the_metrics_have_the_promised_keys(made: tuple[Path, Path], tmp_path: Path) -> None:
    """metrics/evaluate.json is what other tools read; what is returned is what is written, and the table of classes."""
    found = evaluate(*made, None, tmp_path, CFG)
    written = read_json(tmp_path / "metrics/evaluate.json")

    keys = ("accuracy", "correct", "count", "loss", "accuracy_low", "accuracy_high", "ece", "brier")
    changes = ("rotation", "translation", "scale", "shear", "noise", "elastic")
    assert list(written) == [f"test/{key}" for key in keys] + [f"robustness/{name}" for name in changes]
    assert written == found.scores
    assert (found.per_class["class"], found.per_class["samples"]) == (["0", "1", "2"], [3, 3, 3])


def test_the_same_evaluation_has_the_same_bytes(made: tuple[Path, Path], out: Path, tmp_path: Path) -> None:
    """Pictures included, over an older result too; data and model are only read."""
    before = [tree(folder) for folder in made]
    for _ in range(2):
        evaluate(*made, None, tmp_path, CFG)

    assert tree(tmp_path) == tree(out)
    assert [tree(folder) for folder in made] == before


# ---------------------------------------------------------------- every sample once


@pytest.mark.parametrize("num_test", [1, PREDICT_BATCH - 1, PREDICT_BATCH, PREDICT_BATCH + 1])
def test_every_test_sample_is_scored_exactly_once(num_test: int, tmp_path: Path) -> None:
    """Around the size of a batch, and in the order in which they lie: row n is the answer to image n alone."""
    processed, models = make(tmp_path, num_test)
    found = evaluate(processed, models, None, tmp_path / "out", CFG).scores
    expected, labels = reference(processed, models), load_split(processed, "test").labels
    predictions = np.load(tmp_path / "out/predictions/log_probabilities.npy")

    np.testing.assert_allclose(predictions, expected, atol=2e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "out/predictions/labels.npy"), labels)
    correct = int((expected.argmax(1) == labels).sum())
    assert (found["test/count"], found["test/correct"]) == (num_test, correct)
    assert found["test/accuracy"] == correct / num_test
    assert found["test/loss"] == pytest.approx(-expected[np.arange(num_test), labels].mean(), abs=2e-6)


def test_predictions_are_float32_log_probabilities(out: Path) -> None:
    """(N, C), each row's exponentials sum to 1; labels are int64."""
    predictions, labels = (np.load(out / f"predictions/{name}.npy") for name in ("log_probabilities", "labels"))

    assert (predictions.dtype, predictions.shape, labels.dtype) == (np.float32, (9, 3), np.int64)
    np.testing.assert_allclose(np.exp(predictions).sum(1), 1, atol=1e-6)


def test_the_predictions_say_what_they_are_about(made: tuple[Path, Path], out: Path) -> None:
    """Digests of the test images, the labels and the model, so that two models can be compared safely."""
    processed, models = made
    card, model = DataCard.read(processed / "data_card.json"), load_model(models)

    assert read_json(out / "predictions/index.json") == {
        "data": "tiny",
        "classes": card.classes,
        "test_images_sha256": card.splits["test"]["images_sha256"],
        "test_labels_sha256": card.splits["test"]["labels_sha256"],
        "model_sha256": model.model_sha256,
    }


# ---------------------------------------------------------------- tables for DVC's plots


def test_the_confusion_table_has_a_row_a_sample(made: tuple[Path, Path], out: Path) -> None:
    """Names of classes, in the order of the test set."""
    processed, models = made
    classes, labels = load_model(models).classes, load_split(processed, "test").labels
    predicted = reference(processed, models).argmax(1)

    assert read_csv(out / "plots/confusion.csv") == [
        {"actual": classes[label], "predicted": classes[guess]} for label, guess in zip(labels, predicted, strict=True)
    ]


def test_the_calibration_table_has_the_filled_bins(tmp_path: Path) -> None:
    """Their counts add up to the test set, and their gaps to the calibration error."""
    processed, models = make(tmp_path, 200)
    found = evaluate(processed, models, None, tmp_path / "out", CFG).scores
    rows = [
        {key: float(value) for key, value in row.items()} for row in read_csv(tmp_path / "out/plots/calibration.csv")
    ]

    assert sum(row["count"] for row in rows) == 200
    assert all(row["count"] > 0 for row in rows)
    gaps = sum(abs(row["confidence"] - row["accuracy"]) * row["count"] for row in rows)
    assert gaps / 200 == pytest.approx(found["test/ece"], abs=1e-6)


def test_the_curves_begin_where_the_accuracy_is(tmp_path: Path) -> None:
    """All test images are changed where there are no more than asked for."""
    processed, models = make(tmp_path, 40)
    found = evaluate(processed, models, None, tmp_path / "out", CFG)
    rows = read_csv(tmp_path / "out/plots/robustness.csv")
    unchanged = [row for row in rows if float(row["amount"]) == (1 if row["change"] == "scale" else 0)]

    assert {row["change"] for row in unchanged} == {curve.name for curve in found.curves}
    assert {int(row["correct"]) for row in unchanged} == {found.scores["test/correct"]}
    assert {int(row["count"]) for row in rows} == {40}


def test_suspected_labels_are_rows_of_the_test_set(tmp_path: Path) -> None:
    """With the label that they have and the one that fits better."""
    processed, models = make(tmp_path, 200)
    found = evaluate(processed, models, None, tmp_path / "out", CFG)
    rows = read_csv(tmp_path / "out/plots/label_errors.csv")
    labels, predictions = load_split(processed, "test").labels, reference(processed, models)

    assert [int(row["index"]) for row in rows] == found.suspects.tolist()
    assert rows  # an untrained network doubts much
    for row in rows:
        index = int(row["index"])
        assert found.classes[labels[index]] == row["label"] != row["suggested"]
        assert row["suggested"] == found.classes[predictions[index].argmax()]
        assert float(row["probability_of_label"]) == pytest.approx(np.exp(predictions[index, labels[index]]), abs=1e-5)


def test_the_page_is_one_file(out: Path) -> None:
    """It asks for nothing from outside, and says what the metrics say."""
    page = (out / "reports/evaluation.html").read_text(encoding="utf-8")
    found = read_json(out / "metrics/evaluate.json")

    assert re.findall(r"""(?:src|href)=['"](?!data:)""", page) == []
    assert "http" not in page
    assert f"Test accuracy {found['test/accuracy']:.2%}" in page
    for heading in (
        "Classes",
        "Calibration",
        "Most confident mistakes",
        "Labels that are probably wrong",
        "Robustness",
    ):
        assert f"<h2>{heading}</h2>" in page


def test_names_of_classes_are_no_markup(tmp_path: Path) -> None:
    processed, models = make(tmp_path, classes=["<b>x", "a&b", "'q'"])
    evaluate(processed, models, None, tmp_path / "out", CFG)
    page = (tmp_path / "out/reports/evaluation.html").read_text(encoding="utf-8")

    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page


def test_rows_of_a_table_are_no_pictures(tmp_path: Path) -> None:
    """Everything but the gallery and the curves is made; the page lists rows."""
    rows = [f"{n}.5,{n % 7},{n % 2}" for n in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,label", *rows, ""]))
    download(own_config(kind="table", path="table.csv"), tmp_path, tmp_path / "raw", mirror=None)
    changes = {"label": "label", "test_fraction": 0.2}
    preprocess(tmp_path / "raw", tmp_path / "processed", preprocess_config(**changes))
    models = make_model(tmp_path / "models", tmp_path / "processed/data_card.json")
    found = evaluate(tmp_path / "processed", models, None, tmp_path / "out", CFG)

    assert found.scores["test/count"] == 8
    assert set(tree(tmp_path / "out")) == FILES - {
        "reports/figures/robustness.png",
        "reports/figures/worst_errors.png",
    }
    page = (tmp_path / "out/reports/evaluation.html").read_text()
    assert "data:image/png" in page  # the confusion matrix
    assert "<figure>" not in page
    assert "Robustness" not in page


# ---------------------------------------------------------------- refusals


def test_a_model_of_other_classes_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    """The same number of classes under other names is another task; nothing is written."""
    processed, _ = make(tmp_path, classes=["cat", "dog", "emu"])

    with pytest.raises(PipelineError, match="was trained on other data than data/processed now holds"):
        evaluate(processed, made[1], None, tmp_path / "out", CFG)
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_shape_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    """20 pixels are 20 pixels, but 4 x 5 are not 5 x 4."""
    arrays = {role: noise(len(values), 4, 5) if "images" in role else values for role, values in tiny_set().items()}
    write_raw(tmp_path / "raw", arrays)
    preprocess(tmp_path / "raw", tmp_path / "processed", preprocess_config())

    with pytest.raises(PipelineError, match="a model for this data by `dvc repro`"):
        evaluate(tmp_path / "processed", made[1], None, tmp_path / "out", CFG)
    assert not (tmp_path / "out").exists()


def test_a_model_with_fewer_classes_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A fourth class in the data has no logit; an older result stays as it was."""
    arrays = tiny_set() | {"train_labels": cycling_labels(30, 4), "test_labels": cycling_labels(9, 4)}
    write_raw(tmp_path / "raw", arrays)
    preprocess(tmp_path / "raw", tmp_path / "processed", preprocess_config())
    evaluate(*made, None, tmp_path / "out", CFG)
    before = tree(tmp_path / "out")

    with pytest.raises(PipelineError, match="was trained on other data"):
        evaluate(tmp_path / "processed", made[1], None, tmp_path / "out", CFG)
    assert tree(tmp_path / "out") == before


def test_a_model_of_another_split_of_the_same_data_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    """What is test data here may be what it learned from."""
    processed, _ = make(tmp_path, validation_fraction=0.4)

    with pytest.raises(PipelineError, match="was trained on other data"):
        evaluate(processed, made[1], None, tmp_path / "out", CFG)


def test_a_missing_model_is_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    """With the command that trains one."""
    with pytest.raises(PipelineError, match=r"model\.json is missing: train a model first: `dvc repro train`"):
        evaluate(made[0], tmp_path / "models", None, tmp_path / "out", CFG)
    assert not (tmp_path / "out").exists()
