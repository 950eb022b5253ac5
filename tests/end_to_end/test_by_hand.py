"""`python -m pipeline.train …` is an ordinary Hydra run that touches nothing of DVC's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from project_maker import Project

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")


def test_a_run_by_hand_writes_only_below_outputs(project: Project) -> None:
    """Also from a sub-directory: outputs/ and mlflow.db are at the root, git and DVC see no change."""
    before = len(project.all_runs())
    project.run(*TRAIN, "model.units=64", cwd=project.root / "conf")

    models = list(project.root.glob("outputs/train/*/models/model.json"))
    assert [json.loads(model.read_text())["architecture"]["units"] for model in models] == [[64]]
    assert len(project.all_runs()) == before + 1
    assert project.status == ""
    assert project.run("dvc", "status").text.strip().endswith("up to date.")
    strays = [p for p in project.root.rglob("mlruns*") if ".venv" not in p.parts]
    assert strays == []
    assert list(project.root.rglob("mlflow.db")) == [project.root / "mlflow.db"]


def test_a_multirun_writes_a_folder_and_a_run_for_each_job(project: Project) -> None:
    before = len(project.all_runs())
    project.run(*TRAIN, "-m", "model.units=16,32")

    found = sorted(project.root.glob("multirun/train/*/*/models/model.json"))
    assert [json.loads(file.read_text())["architecture"]["units"] for file in found] == [[16], [32]]
    assert len(project.all_runs()) == before + 2
    assert project.status == ""


def test_a_model_trained_by_hand_is_scored_in_its_own_run(project: Project) -> None:
    project.run(*TRAIN, "seed=3")
    (run_file,) = [f for f in project.root.glob("outputs/train/*/models/run.json") if _seed(f) == 3]
    project.run(sys.executable, "-m", "pipeline.evaluate", f"evaluate.model_folder={run_file.parent}")

    run = project.store.client.get_run(json.loads(run_file.read_text())["run_id"])
    (scores,) = project.root.glob("outputs/evaluate/*/metrics/evaluate.json")
    assert run.data.metrics["test/correct"] == json.loads(scores.read_text())["test/correct"]
    assert run.info.status == "FINISHED"


def _seed(run_file: Path) -> int:
    return int(json.loads((run_file.parent / "model.json").read_text())["training"]["seed"])


@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (["trainer.num_epoch=3"], 2, "Did you mean trainer.num_epochs"),
        (["+typo=1"], 2, "typo: there is no such key. There is: data,"),
        (["optimizer=adm"], 2, "Could not find 'optimizer/adm'"),
        (["data=mnist"], 2, "was made with data.name=mnist_5k (asked for: mnist)"),
        (["model.units=0"], 2, "greater than or equal to 1"),
    ],
)
def test_a_mistake_ends_with_its_code_and_leaves_nothing(
    project: Project, overrides: list[str], code: int, said: str
) -> None:
    done = project.run(*TRAIN, *overrides, expect=code)

    assert said in done.text
    assert "Traceback" not in done.text
    assert not (project.root / "outputs").exists()


def test_a_project_without_git_runs(project: Project, tmp_path: Path) -> None:
    """A zip of the project: `make repro` turns DVC's need of git off; here the same by hand."""
    from project_maker import copy_of_the_checkout

    bare = Project(copy_of_the_checkout(tmp_path / "zip"))
    bare.edit("conf/trainer/default.yaml", "num_epochs: 20", "num_epochs: 1")
    bare.run("dvc", "config", "--local", "core.no_scm", "true")
    done = bare.repro()

    assert done.ran == ["configure", "download", "preprocess", "train", "evaluate"]
    assert [run.data.tags["git.commit"] for run in bare.all_runs()] == ["none"]
