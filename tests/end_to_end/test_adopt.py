"""`pipeline adopt`: the best of a sweep becomes the pipeline's, byte for byte, or nothing changes."""

from __future__ import annotations

import json
import re
import sys

import pytest

from pipeline.tracking import MODEL_TAG, RunRow
from pipeline.tracking.lookup import sweeps
from project_maker import Project

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")
ADOPT = (sys.executable, "-m", "pipeline", "adopt")


def parent_of(project: Project) -> RunRow:
    return sweeps(project.store)[0]


def test_the_best_of_a_sweep_is_the_pipelines_byte_for_byte(project: Project) -> None:
    """Groups, values and seeds; the job that is repeated is the first seed's of the best mean, not the luckiest.

    With batch normalization other threads give other last digits, so the pipeline gets as many as the jobs had.
    """
    project.run(
        *TRAIN, "-m", "model.units=8,64", "optimizer=rmsprop,adam", "sweep.seeds=2", "model.normalization=batch"
    )
    parent = parent_of(project)
    summary = json.loads(next(project.root.glob("multirun/train/*/summary.json")).read_text())
    done = project.run(*ADOPT, parent.tags["sweep.id"], "--name", "winner")

    job = project.store.row(parent.tags["sweep.best_run_id"])
    assert done.ran == ["configure", "train", "evaluate"]
    assert job.params["seed"] == "0"
    assert job.run_id in summary["best"]["run_ids"]
    assert "the same model, byte for byte" in done.text
    model = json.loads((project.root / "models/model.json").read_text())
    assert model["sha256"]["model.safetensors"] == job.tags["model.sha256"]
    learned = json.loads((project.root / "metrics/learning.json").read_text())
    assert {name: learned[name] for name in ("val/loss", "val/accuracy", "train/loss")} == {
        "val/loss": job.metrics["kept_val_loss"],
        "val/accuracy": job.metrics["kept_val_accuracy"],
        "train/loss": job.metrics["kept_train_loss"],
    }
    assert "  - experiment: winner" in (project.root / "conf/config.yaml").read_text()
    assert project.repro().ran == []


def test_what_cannot_be_adopted_changes_nothing(project: Project) -> None:
    """An unknown id, a name that is no file's, a job with other weights, and a sweep whose code is no longer there."""
    project.run(*TRAIN, "-m", "model.units=8,16")
    job = parent_of(project).tags["sweep.best_run_id"]
    before = {name: (project.root / name).read_bytes() for name in ("models/run.json", "models/model.safetensors")}
    project.store.client.set_tag(job, MODEL_TAG, "0" * 64)

    unknown = project.run(*ADOPT, "nonsense", expect=2)
    name = project.run(*ADOPT, job[:12], "--name", "../escape", expect=2)
    other = project.run(*ADOPT, job[:12], expect=1)
    assert project.status == ""
    assert {name: (project.root / name).read_bytes() for name in before} == before
    assert project.run("dvc", "status").text.strip().endswith("up to date.")
    project.edit("src/pipeline/model/dense.py", "Raw samples in", "Raw  samples in")
    project.git("add", "src")
    changed = project.run(*ADOPT, job[:12], expect=1)

    assert unknown.text.startswith("adopt: error: nonsense: nothing is called so. Expected a run")
    assert "letters, digits" in name.text
    assert other.ran == ["configure", "train"]
    assert re.search(
        r"gave another model \(\w{12}\) than the job had \(0{12}\): the same versions and processor", other.text
    )
    assert "this has changed: the code of the training" in changed.text
    assert project.status == "M  src/pipeline/model/dense.py\n"


def test_files_alone_are_written_without_repro(project: Project) -> None:
    project.run(*TRAIN, "-m", "optimizer.lr=1e-3,3e-3")
    parent = parent_of(project)
    done = project.run(*ADOPT, parent.name, "--no-repro", PIPELINE_WARM="0")

    assert done.ran == []
    assert project.status.splitlines() == [
        " M conf/config.yaml",
        f"?? conf/experiment/sweep-{parent.tags['sweep.id']}.yaml",
    ]


def test_a_sweep_on_top_of_what_was_adopted_can_be_adopted(project: Project) -> None:
    """The new experiment builds on the one that conf/config.yaml named when the sweep ran."""
    project.run(*TRAIN, "-m", "model.units=8,16")
    first = parent_of(project).tags["sweep.id"]
    project.run(*ADOPT, first, "--name", "first", "--no-repro")
    project.run(*TRAIN, "-m", "optimizer.lr=1e-3,3e-3")
    parent = parent_of(project)
    project.run(*ADOPT, parent.tags["sweep.id"], "--name", "second", "--no-repro")
    wrong_name = project.run(*ADOPT, first, "--name", "second", "--no-repro", expect=2)

    composed = project.run(*TRAIN, "--cfg", "job").text
    job = project.store.row(parent.tags["sweep.best_run_id"])
    assert f"units: {job.params['model.units'].strip('[]')}" in composed
    assert f"lr: {float(job.params['optimizer.lr'])}" in composed
    assert "conf/experiment/second.yaml is there already, and not from this sweep" in wrong_name.text


def test_a_job_without_a_model_cannot_be_adopted(project: Project) -> None:
    """Said at once, not after a training."""
    project.run(*TRAIN, "-m", "optimizer=sgd", "optimizer.lr=0.1,1e38", expect=1)
    (failed,) = [row for row in project.store.children(parent_of(project).run_id) if row.status == "FAILED"]
    done = project.run(*ADOPT, failed.run_id[:12], expect=2)

    assert f"run {failed.run_id} is FAILED and left no model" in done.text
    assert project.status == ""
