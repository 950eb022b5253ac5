"""The stage train as a function: what it writes, and that the numbers in the files are those of the model.

30 images of three classes, 3 of them for validation; what one training costs is a few milliseconds.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from config.config_makers import train_config
from data_makers import own_config, preprocess_config, tiny_set, tree, write_raw
from pipeline.config.schema import TrainConfig
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.download import download
from pipeline.model.portable import load_model
from pipeline.preprocess import preprocess
from pipeline.system.files import read_json, sha256_of
from pipeline.train import Training, train
from pipeline.training.fit import input_spec
from training.training_makers import SimulatedCrash

ORIGIN = {"data_sha256": "d", "config_sha256": "c", "code_sha256": "k"}
WITH_VALIDATION = {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/processed with 27 images to train on, 3 for validation, 9 for the test."""
    return make_processed(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without validation."""
    return make_processed(tmp_path_factory.mktemp("unsplit"), validation_fraction=0.0)


def make_processed(folder: Path, **changes: Any) -> Path:
    write_raw(folder / "raw", tiny_set())
    preprocess(folder / "raw", folder / "processed", preprocess_config(**changes))
    return folder / "processed"


def config(changes: Mapping[str, Any] | None = None) -> TrainConfig:
    small = {"model.units": [8], "trainer.num_epochs": 3, "trainer.batch_size": 8, "model.dropout": 0.2}
    return train_config(small | dict(changes or {}))


def run(
    processed: Path, out: Path, changes: Mapping[str, Any] | None = None, crash_in_epoch: int | None = None
) -> Training:
    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        if epoch == crash_in_epoch:
            raise SimulatedCrash

    return train(
        processed, out, out.parent / f"work of {out.name}", config(changes), ORIGIN,
        console=Console(file=io.StringIO()), on_epoch=on_epoch, on_steps=lambda name, points: None,
    )  # fmt: skip


def history(out: Path) -> list[dict[str, str]]:
    with open(out / "plots/history.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- what is written


def test_exactly_the_promised_files_are_written(processed: Path, tmp_path: Path) -> None:
    """The checkpoints stay until the run is recorded."""
    run(processed, tmp_path / "out")

    assert set(tree(tmp_path)) == {
        "out/models/model.safetensors",
        "out/models/model.json",
        "out/metrics/learning.json",
        "out/metrics/train.json",
        "out/plots/history.csv",
        "work of out/best.ckpt",
        "work of out/last-before.ckpt",
        "work of out/last.ckpt",
    }


def test_the_data_is_only_read(processed: Path, tmp_path: Path) -> None:
    """Not a byte of data/processed changes."""
    before = tree(processed)
    run(processed, tmp_path / "out")

    assert tree(processed) == before


def test_the_metrics_have_the_promised_keys(processed: Path, tmp_path: Path) -> None:
    """metrics/train.json is what other tools read; learning.json lacks what differs from run to run."""
    run(processed, tmp_path / "out")
    found, learned = (read_json(tmp_path / f"out/metrics/{name}.json") for name in ("train", "learning"))

    own = {"fit_s", "samples_per_s", "model_sha256"}
    assert set(found) == WITH_VALIDATION | {"kept_epoch", "epochs", "steps"} | own
    assert learned == {key: value for key, value in found.items() if key not in own}
    assert found["model_sha256"] == sha256_of(tmp_path / "out/models/model.safetensors")


def test_without_validation_its_metrics_are_absent(unsplit: Path, tmp_path: Path) -> None:
    """No key with null or NaN; the columns of the history are there, and empty, for the plots."""
    run(unsplit, tmp_path / "out", {"trainer.keep": "last"})

    assert set(read_json(tmp_path / "out/metrics/learning.json")) == {
        "train/loss", "train/accuracy", "kept_epoch", "epochs", "steps"
    }  # fmt: skip
    for row in history(tmp_path / "out"):
        assert (row["val/loss"], row["val/accuracy"]) == ("", "")
        assert float(row["train/loss"]) > 0


def test_epochs_and_steps_are_counted(processed: Path, tmp_path: Path) -> None:
    """3 epochs of 27 images in batches of 8: 4 steps each."""
    run(processed, tmp_path / "out")
    found = read_json(tmp_path / "out/metrics/train.json")

    assert (found["epochs"], found["steps"]) == (3, 12)
    assert found["samples_per_s"] == pytest.approx(3 * 27 / found["fit_s"], rel=0.05)


def test_the_history_has_a_row_an_epoch(processed: Path, tmp_path: Path) -> None:
    """With the columns that dvc.yaml plots, and every digit of the values."""
    done = run(processed, tmp_path / "out")
    rows = history(tmp_path / "out")

    assert list(rows[0]) == ["epoch", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == done.fit.history


def test_the_metrics_are_those_of_the_kept_epoch(processed: Path, tmp_path: Path) -> None:
    """Not of the last one."""
    done = run(processed, tmp_path / "out", {"trainer.num_epochs": 6, "optimizer.lr": 0.05})
    learned = read_json(tmp_path / "out/metrics/learning.json")
    row = history(tmp_path / "out")[learned["kept_epoch"]]

    assert learned["kept_epoch"] == done.fit.kept_epoch < 5
    assert {name: learned[name] for name in WITH_VALIDATION} == {name: float(row[name]) for name in WITH_VALIDATION}


# ---------------------------------------------------------------- the model


def test_the_written_model_has_the_recorded_validation_metrics(processed: Path, tmp_path: Path) -> None:
    """Loaded from its files and scored on the validation split."""
    run(processed, tmp_path / "out")
    learned = read_json(tmp_path / "out/metrics/learning.json")
    validation = load_split(processed, "validation")
    with torch.no_grad():
        logits = load_model(tmp_path / "out/models").network(torch.from_numpy(np.array(validation.images))).double()
    labels = torch.from_numpy(np.array(validation.labels))

    assert float((logits.argmax(1) == labels).double().mean()) == learned["val/accuracy"]
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(learned["val/loss"], rel=1e-6)


def test_the_model_says_where_it_comes_from(processed: Path, tmp_path: Path) -> None:
    """Classes, shape and scaling of the data; seed, epoch and the three digests."""
    done = run(processed, tmp_path / "out", {"seed": 5})
    model, card = load_model(tmp_path / "out/models"), DataCard.read(processed / "data_card.json")

    assert model.classes == card.classes
    assert (model.input.shape, model.input.dtype, model.input.scale) == ((5, 4), "uint8", 255.0)
    assert model.training == {"kept_epoch": done.fit.kept_epoch, "num_epochs": 3, "seed": 5, **ORIGIN}
    assert done.model_sha256 == sha256_of(tmp_path / "out/models/model.safetensors")


def test_a_table_is_scaled_by_feature(tmp_path: Path) -> None:
    """The card's list of means and deviations reaches the network."""
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yes' if a > 5 else 'no'}" for a, b in rng.normal((5, -100), (1, 20), (40, 2))]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,label", *rows, ""]))
    download(own_config(kind="table", path="table.csv"), tmp_path, tmp_path / "raw", mirror=None)
    changes = {"label": "label", "test_fraction": 0.2}
    card = preprocess(tmp_path / "raw", tmp_path / "processed", preprocess_config(**changes))
    run(tmp_path / "processed", tmp_path / "out")

    spec = load_model(tmp_path / "out/models").input
    assert spec == input_spec(card)
    assert (spec.shape, spec.dtype) == ((2,), "float32")
    train = load_split(tmp_path / "processed", "train").images
    np.testing.assert_allclose(spec.offset, train.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(spec.scale, train.std(0, dtype=np.float64), rtol=1e-6)


# ---------------------------------------------------------------- again


def test_the_same_training_has_the_same_bytes(processed: Path, tmp_path: Path) -> None:
    """All files but the one that holds times."""
    for name in ("a", "b"):
        run(processed, tmp_path / name)
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")

    del first["metrics/train.json"], second["metrics/train.json"]
    assert first == second


def test_another_seed_gives_another_model(processed: Path, tmp_path: Path) -> None:
    """seed reaches the weights."""
    first, second = (run(processed, tmp_path / str(seed), {"seed": seed}).model_sha256 for seed in (0, 1))

    assert first != second


def test_a_crash_leaves_nothing_but_checkpoints(processed: Path, tmp_path: Path) -> None:
    """No half output that a later stage could take for a whole one."""
    with pytest.raises(SimulatedCrash):
        run(processed, tmp_path / "out", crash_in_epoch=1)

    assert set(tree(tmp_path)) == {"work of out/last.ckpt", "work of out/best.ckpt"}


def test_after_a_crash_the_files_are_those_of_a_whole_training(processed: Path, tmp_path: Path) -> None:
    """Byte for byte, history included."""
    run(processed, tmp_path / "whole")
    with pytest.raises(SimulatedCrash):
        run(processed, tmp_path / "cut", crash_in_epoch=1)
    resumed = run(processed, tmp_path / "cut")
    whole, cut = tree(tmp_path / "whole"), tree(tmp_path / "cut")

    assert resumed.fit.first_epoch == 1
    del whole["metrics/train.json"], cut["metrics/train.json"]
    assert cut == whole


def test_json_holds_plain_numbers(processed: Path, tmp_path: Path) -> None:
    """Counts are integers in the file: 12 steps, not 12.0."""
    run(processed, tmp_path / "out")
    found = json.loads((tmp_path / "out/metrics/learning.json").read_text())

    assert {key for key, value in found.items() if type(value) is int} == {"kept_epoch", "epochs", "steps"}
