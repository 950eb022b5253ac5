"""`pipeline train …` is an ordinary Hydra run that touches nothing of DVC's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from project_maker import Project, copy_of_the_checkout, lend_environment

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")


def test_a_run_by_hand_writes_only_below_outputs(project: Project) -> None:
    """Also from a sub-directory: outputs/ and mlflow.db are at the root, git and DVC see no change."""
    before = len(project.all_runs())
    project.run(*TRAIN, "model.units=[512,256]", "model.dropout=0.2", cwd=project.root / "conf")

    models = list(project.root.glob("outputs/train/*/models/model.json"))
    assert [json.loads(model.read_text())["architecture"]["units"] for model in models] == [[512, 256]]
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
    assert len(project.all_runs()) == before + 3  # the sweep's own and its jobs'
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
        (["data=mnist"], 2, "add to your command: data=mnist_5k."),
        (["model.units=[256,", "128]"], 2, "'model.units=[256,' is no setting: expected KEY=VALUE or GROUP=NAME. In a"),
        (["sweep.seeds=3"], 2, "sweep.seeds=3: without -m this is no sweep. Add -m, or leave sweep.seeds=3 out"),
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


def test_a_model_is_not_scored_on_data_it_was_not_split_from(project: Project) -> None:
    """Another split's test images may be among those it learned from."""
    project.run(*TRAIN)
    (models,) = project.root.glob("outputs/train/*/models")
    project.run("dvc", "exp", "run", "preprocess", "-S", "data.split_seed=1")
    score = (sys.executable, "-m", "pipeline.evaluate", f"evaluate.model_folder={models}", "data.split_seed=1")
    done = project.run(*score, expect=1)

    assert "was trained on other data than data/processed now holds" in done.text


def test_a_missing_model_is_one_line(project: Project) -> None:
    done = project.run(sys.executable, "-m", "pipeline.evaluate", "evaluate.model_folder=nope", expect=1)
    assert done.text.strip().endswith("is missing: train a model first: `dvc repro train`")
    assert len(done.text.strip().splitlines()) == 1


def test_a_training_that_diverges_says_so(project: Project) -> None:
    """Exit code 1, one message, the run FAILED with the reason, no model."""
    done = project.run(*TRAIN, "optimizer=sgd", "optimizer.lr=1000000000.0", expect=1)

    assert "train: error: the training diverged: the loss is " in done.text
    assert "no epoch was finished" in done.text
    assert "Traceback" not in done.text
    newest = project.all_runs()[0]
    file = project.store.client.download_artifacts(newest.info.run_id, "failure/diverged.json", str(project.root))
    where = json.loads(Path(file).read_text())
    assert where["epoch"] == 0
    assert where["lr"] == 1e9
    assert len(where["samples"]) == 128
    assert f"in step {where['step']} " in done.text
    assert newest.info.status == "FAILED"
    assert "the training diverged" in newest.data.tags["exit.reason"]
    assert not list(project.root.glob("outputs/train/*/models"))


def test_a_device_that_is_not_there_is_one_line(project: Project) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the GPU")
    done = project.run(*TRAIN, "trainer=gpu", expect=2)
    assert done.text.strip().startswith("train: error: trainer.accelerator=gpu, but torch finds no CUDA GPU here.")


def test_own_data_that_changed_is_read_again(project: Project, tmp_path: Path) -> None:
    """Spoilt, repaired, then other content, what DVC saw forgotten: its run cache must not answer."""
    rows = [f"{n},{n * 2},{'ab'[n % 2]}" for n in range(40)]
    table, own = tmp_path / "own.csv", ("-S", "data=table", "-S", "data.label=k")
    table.write_text("\n".join(["x,y,k", *rows, "40,?,a"]) + "\n")
    run = ("dvc", "exp", "run", "preprocess")
    spoilt = project.run(*run, *own, "-S", f"data.path={table}", expect=None)
    table.write_text("\n".join(["x,y,k", *rows]) + "\n")
    repaired = project.run(*run, *own, "-S", f"data.path={table}")
    table.write_text("\n".join(["x,y,k", *rows, "40,80,a", "41,82,b"]) + "\n")
    (project.root / "data/own.json").unlink()
    done = project.run(*run, *own, "-S", f"data.path={table}")

    assert spoilt.returncode != 0
    assert "table.csv, row 42, column 'y': expected a number, found '?'" in spoilt.text
    assert repaired.ran == done.ran == ["configure", "download", "preprocess"]
    assert (project.root / "data/raw/table.csv").read_bytes() == table.read_bytes()


def test_a_project_without_git_runs(tmp_path: Path) -> None:
    """A zip of the project: `make repro` tells DVC to do without."""
    bare = Project(copy_of_the_checkout(tmp_path / "zip"))
    bare.edit("conf/trainer/default.yaml", "num_epochs: 20", "num_epochs: 1")
    lend_environment(bare)
    done = bare.run("make", "repro")

    assert set(done.ran) >= {"download", "preprocess", "train", "evaluate"}
    assert [run.data.tags["git.commit"] for run in bare.all_runs()] == ["none"]
