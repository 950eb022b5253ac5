"""A logged model gives the same answers in a fresh process, without pickle and without our code."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pipeline
from pipeline.tracking import Store
from pipeline.tracking.database import DATABASE
from tracking.tracking_makers import Serve, make_images

SCRIPT = Path(__file__).with_name("load_model.py")
REQUIREMENTS = ["mlflow==3.17.2", "torch==2.13.0"]
CLASSES = [f"digit {number}" for number in range(10)]


class Logged:
    """A store with one logged model, and the noise that logging it made."""

    def __init__(self, root: Path) -> None:
        torch.manual_seed(0)
        self.store, self.module, noise = Store(root), Serve().eval(), []
        self.store.experiment("mnist")
        handler = logging.Handler()
        handler.emit = lambda record: noise.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        logging.getLogger("mlflow").addHandler(handler)
        with self.store.run("mnist", "one") as run, warnings.catch_warnings(record=True, action="always") as warned:
            self.model_id = run.model(
                self.module, make_images(2), name="dense-16", requirements=REQUIREMENTS, classes=CLASSES,
                params={"model.units": [16]},
            )  # fmt: skip
            used = run.dataset("mnist-test", "0123.dir", "data/processed/test", "test")
            run.metrics({"test/accuracy": 0.5}, model_id=self.model_id, dataset=used)
        logging.getLogger().removeHandler(handler)
        logging.getLogger("mlflow").removeHandler(handler)
        self.run_id, self.noise = run.id, [*noise, *(str(warning.message) for warning in warned)]
        self.entry = self.store.client.get_logged_model(self.model_id)
        self.folder = Path(unquote(urlparse(self.entry.artifact_location).path))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Logged:
    root = tmp_path_factory.mktemp("model")
    (root / "mlflow_artifacts").mkdir()
    shutil.copy(empty_database, root / DATABASE)
    return Logged(root)


@pytest.fixture(scope="module")
def fresh(logged: Logged, start: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a process said that loaded the model far from the project."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    np.save(elsewhere / "images.npy", make_images(7))
    shutil.copy(SCRIPT, elsewhere)
    out, err = start(
        "-P", "load_model.py", logged.folder, "images.npy", cwd=elsewhere,
        PYTHONPATH="", MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
    ).communicate(timeout=60)  # fmt: skip
    assert out, err
    return json.loads(out)


@pytest.mark.parametrize("batch", [1, 7])
def test_a_fresh_process_without_pickle_gives_the_same_probabilities(logged: Logged, fresh: Any, batch: int) -> None:
    with torch.no_grad():
        expected = logged.module(torch.from_numpy(make_images(7)[:batch])).numpy()
    np.testing.assert_allclose(fresh[f"batch_{batch}"], expected, rtol=0, atol=1e-6)


def test_images_of_another_type_are_refused(fresh: Any) -> None:
    assert "float32" in fresh["refusal"]
    assert "uint8" in fresh["refusal"]


def test_the_labels_travel_with_the_model(fresh: Any) -> None:
    assert fresh["labels"] == CLASSES


def test_the_model_lists_exactly_the_requirements_given(logged: Logged) -> None:
    assert sorted((logged.folder / "requirements.txt").read_text().split()) == REQUIREMENTS


def test_the_model_belongs_to_its_run_and_carries_its_results(logged: Logged) -> None:
    assert (logged.entry.source_run_id, logged.entry.name) == (logged.run_id, "dense-16")
    assert logged.entry.status.value == "READY"
    assert logged.entry.params == {"model.units": "[16]"}
    metric = logged.entry.metrics[0]
    assert (metric.key, metric.value, metric.dataset_name) == ("test/accuracy", 0.5, "mnist-test")
    assert logged.store.client.get_run(logged.run_id).data.metrics == {"test/accuracy": 0.5}


def test_logging_a_model_is_quiet(logged: Logged) -> None:
    assert logged.noise == []


def test_a_model_that_cannot_be_exported_is_marked_failed(store: Store) -> None:
    class Branching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float() if float(images.sum()) > 0 else -images.float()  # depends on the values

    with store.run("mnist", "one") as run:
        with pytest.raises(Exception, match="data-dependent"):
            run.model(Branching().eval(), make_images(2), name="a/b", requirements=["torch"])
        found = store.client.search_logged_models([store.experiment("mnist")])
    assert [(model.name, model.status.value) for model in found] == [("a-b", "FAILED")]


@pytest.mark.parametrize(
    ("module", "rows", "message"),
    [
        (Serve().eval(), 1, "two or more"),
        (Serve().train(), 2, "call eval"),
        (Serve().to("meta").eval(), 2, "call cpu"),
    ],
)
def test_what_would_freeze_something_wrong_into_the_model_is_refused(
    store: Store, module: nn.Module, rows: int, message: str
) -> None:
    with store.run("mnist", "one") as run, pytest.raises(ValueError, match=message):
        run.model(module, make_images(rows), name="dense", requirements=["torch"])
    assert len(store.client.search_logged_models([store.experiment("mnist")])) == 0


def test_a_warning_after_a_model_was_logged_is_still_shown(tmp_path: Path) -> None:
    """mlflow.pytorch gives the root logger a handler and the level ERROR when it is imported first."""
    script = (
        "import logging\nfrom pipeline.system.fork_server import import_available\nimport_available('mlflow.pytorch')\n"
        "logging.getLogger('pipeline').warning('seen')\nprint(logging.getLogger().handlers)"
    )
    source = str(Path(pipeline.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("[]\n", "seen")
