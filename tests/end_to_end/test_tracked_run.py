"""What one execution of the pipeline leaves in MLflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.tracking import DESCRIPTION_TAG
from project_maker import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def run(project: Project) -> Any:
    """The run that models/run.json names."""
    return project.store.client.get_run(json.loads((project.root / "models/run.json").read_text())["run_id"])


def test_train_and_evaluate_share_one_finished_run(project: Project, run: Any) -> None:
    assert run.info.status == "FINISHED"
    evaluated = json.loads((project.root / "metrics/evaluate.json").read_text())
    assert {name: run.data.metrics[name] for name in evaluated} == pytest.approx(evaluated)
    trained = json.loads((project.root / "metrics/train.json").read_text())
    assert run.data.metrics["fit_s"] == trained["fit_s"]


def test_epoch_metrics_have_the_epoch_as_step(project: Project, run: Any) -> None:
    history = project.store.client.get_metric_history(run.info.run_id, "val/loss")

    assert [point.step for point in history] == [0, 1]
    rows = (project.root / "plots/history.csv").read_text().splitlines()[1:]
    assert [point.value for point in history] == pytest.approx([float(row.split(",")[3]) for row in rows])
    steps = project.store.client.get_metric_history(run.info.run_id, "train/loss_step")
    assert [point.step for point in steps] == list(range(0, 58, 10))  # 29 batches an epoch, every 10th step


def test_the_run_says_what_it_was_made_of(project: Project, run: Any) -> None:
    """Settings, code, data and versions: enough to make it again."""
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]
    (processed,) = lock["preprocess"]["outs"]
    assert run.data.tags["dvc.data/processed"] == processed["md5"]
    datasets = {i.dataset.name: (i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs}
    assert datasets == {
        "mnist_5k-train": (processed["md5"], "train"),
        "mnist_5k-validation": (processed["md5"], "validation"),
        "mnist_5k-test": (processed["md5"], "test"),
    }
    assert run.data.tags["git.commit"] == project.git("rev-list", "--max-parents=0", "HEAD").strip()
    assert run.data.tags["seed"] == "0"
    assert run.data.tags["version.torch"].startswith("2.13.0")
    assert run.data.params["model.units"] == "128"
    assert run.data.params["optimizer.name"] == "rmsprop"


def test_the_run_holds_configuration_figures_predictions_and_model(project: Project, run: Any) -> None:
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    found = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}

    assert found >= {
        "config.yaml",
        "data/data_card.json",
        "evaluation/per_class.json",
        *(f"figures/{n}.png" for n in ("confusion_matrix", "learning_curves", "reliability", "worst_errors")),
        *(f"predictions/{n}" for n in ("index.json", "labels.npy", "log_probabilities.npy")),
    }
    assert yaml.safe_load((root / "config.yaml").read_text()) == yaml.safe_load(
        (project.root / "params.yaml").read_text()
    )
    model = project.store.client.get_logged_model(run.data.tags["model.id"])
    assert model.status == "READY"
    assert {metric.key for metric in model.metrics} >= {"test/accuracy", "test/loss"}


def test_the_logged_model_gives_the_kept_predictions(project: Project, run: Any, tmp_path: Path) -> None:
    """Raw uint8 images in, probabilities out; any number of them; in a process without our code or pickle."""
    model = project.store.client.get_logged_model(run.data.tags["model.id"])
    code = """
import mlflow.pyfunc, numpy as np, sys
model = mlflow.pyfunc.load_model(sys.argv[1])
images = np.load(sys.argv[2])
kept = np.exp(np.load(sys.argv[3]))
assert "pipeline" not in sys.modules
for count in (1, 7, 1000):
    assert np.allclose(model.predict(images[:count]), kept[:count], atol=1e-6), count
print("equal")
"""
    arguments = (
        model.artifact_location.removeprefix("file://"),
        str(project.root / "data/processed/test/images.npy"),
        str(project.root / "predictions/log_probabilities.npy"),
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        (sys.executable, "-c", code, *arguments),
        cwd=tmp_path, env=env | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "equal", done.stderr


def test_a_clean_commit_is_clean_while_dvc_works_on_it(project: Project) -> None:
    """DVC has removed committed metrics and plots when train starts; that is no change of the code."""
    project.run("dvc", "repro", "--force")
    run = project.store.client.get_run(json.loads((project.root / "models/run.json").read_text())["run_id"])

    assert run.data.tags["git.dirty"] == "false"
    assert run.data.tags["git.commit"] == project.git("rev-parse", "HEAD").strip()
    assert not Path(run.info.artifact_uri.removeprefix("file://"), "code").exists()


def test_a_dirty_tree_is_kept_as_a_patch_of_the_code_alone(project: Project) -> None:
    project.edit("src/pipeline/train.py", '"""Stage 3', '"""The stage 3')
    project.repro()
    run = project.store.client.get_run(json.loads((project.root / "models/run.json").read_text())["run_id"])

    assert run.data.tags["git.dirty"] == "true"
    patch = Path(run.info.artifact_uri.removeprefix("file://"), "code/uncommitted.patch").read_text()
    assert re.findall(r"^diff --git a/(\S+)", patch, re.MULTILINE) == ["src/pipeline/train.py"]
    assert '+"""The stage 3' in patch


def test_scores_go_to_the_run_with_these_settings_though_another_has_equal_weights(project: Project) -> None:
    """`trainer.monitor` changes nothing where the last epoch is the best by both; model.json tells the runs apart."""
    first = json.loads((project.root / "models/run.json").read_text())
    project.edit("conf/trainer/default.yaml", "monitor: val/loss", "monitor: val/accuracy")
    project.repro()
    second = json.loads((project.root / "models/run.json").read_text())
    assert second["model.sha256"] == first["model.sha256"]  # else this test shows nothing
    project.edit("conf/trainer/default.yaml", "monitor: val/accuracy", "monitor: val/loss")
    project.edit("conf/evaluate/default.yaml", "num_calibration_bins: 15", "num_calibration_bins: 6")
    done = project.repro()

    (run_id,) = re.findall(r"run +([0-9a-f]{32}) in experiment", done.text)
    run = project.store.client.get_run(run_id)
    assert run.data.params["trainer.monitor"] == "val/loss"
    assert json.loads(run.data.tags["param_drift"]) == {"evaluate.num_calibration_bins": ["15", "6"]}


def test_a_restored_training_is_scored_in_a_run_that_trained_it(project: Project) -> None:
    """train comes from DVC's cache and evaluate runs: run.json names another model's run, and is not believed."""
    digest = json.loads((project.root / "models/run.json").read_text())["model.sha256"]
    project.edit("conf/optimizer/rmsprop.yaml", "lr: 1.0e-3", "lr: 4.0e-3")
    project.repro()
    project.edit("conf/optimizer/rmsprop.yaml", "lr: 4.0e-3", "lr: 1.0e-3")
    project.edit("conf/evaluate/default.yaml", "num_calibration_bins: 15", "num_calibration_bins: 7")
    done = project.repro()

    assert done.ran == ["configure", "evaluate"]
    assert json.loads((project.root / "models/run.json").read_text())["model.sha256"] != digest
    (run_id,) = re.findall(r"run +([0-9a-f]{32}) in experiment", done.text)
    assert project.store.client.get_run(run_id).data.tags["model.sha256"] == digest


def test_a_run_deleted_from_the_store_does_not_stop_evaluate(project: Project) -> None:
    """Its scores go into a new run, and the terminal says so."""
    digest = json.loads((project.root / "models/run.json").read_text())["model.json.sha256"]
    of_this_model = f"tags.`{DESCRIPTION_TAG}` = '{digest}'"
    deleted = [row.run_id for row in project.store.rows(of_this_model)]  # there may be one by hand, too
    for run_id in deleted:
        project.store.client.delete_run(run_id)
    project.edit("conf/evaluate/default.yaml", "num_calibration_bins: 15", "num_calibration_bins: 8")
    done = project.repro()
    (made,) = project.store.rows(of_this_model)
    for run_id in deleted:
        project.store.client.restore_run(run_id)

    assert done.ran == ["configure", "evaluate"]
    assert "no run in mlflow.db trained this model" in done.text
    assert "test/accuracy" in made.metrics


def test_a_training_cut_short_goes_on_in_its_run_and_ends_with_the_same_weights(project: Project) -> None:
    """SIGTERM amid training, then `dvc repro`: one run, KILLED then FINISHED, bytes as if nothing had happened."""
    project.edit("conf/trainer/default.yaml", "num_epochs: 2", "num_epochs: 30")
    project.edit("conf/model/dense.yaml", "dropout: 0.0", "dropout: 0.2")
    before = {run.info.run_id for run in project.all_runs()}
    _interrupt_after_an_epoch(project)
    (cut,) = [run for run in project.all_runs() if run.info.run_id not in before]
    assert cut.info.status == "KILLED"
    resumed = project.repro()
    weights = (project.root / "models/model.safetensors").read_bytes()

    assert "going on after epoch" in resumed.text
    again = project.store.client.get_run(cut.info.run_id)
    assert again.info.status == "FINISHED"
    for metric in ("train/loss", "epoch_s"):
        steps = [point.step for point in project.store.client.get_metric_history(cut.info.run_id, metric)]
        assert sorted(steps) == list(range(30)), metric
    project.run(sys.executable, "-m", "pipeline.train")
    (whole,) = project.root.glob("outputs/train/*/models/model.safetensors")
    assert whole.read_bytes() == weights


def _interrupt_after_an_epoch(project: Project) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_", "MLFLOW_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "PYTHONPATH": str(project.root / "src")}
    dvc = subprocess.Popen(("dvc", "repro"), cwd=project.root, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(project.root.glob(".pipeline/checkpoints/*/last.ckpt")):
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        assert dvc.poll() is None, "dvc ended before the first checkpoint"
        time.sleep(0.02)
    subprocess.run(("pkill", "-TERM", "-f", "-P", str(dvc.pid), "pipeline.train"), check=True)
    assert dvc.wait(60) == 255
