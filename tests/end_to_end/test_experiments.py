"""`dvc exp run -S …` takes any Hydra override, and its results can be compared."""

from __future__ import annotations

import json

import pytest

from lanes import long
from pipeline.config.compose import compose_yaml
from project_maker import Project

pytestmark = pytest.mark.slow


def test_any_override_reaches_the_run_and_params_yaml_is_the_composition(project: Project) -> None:
    """A value, a group choice and an experiment; what DVC composes equals what we compose."""
    overrides = ["optimizer=adam", "optimizer.lr=0.01", "model.units=[32,16]"]
    done = project.run("dvc", "exp", "run", *(word for o in overrides for word in ("-S", o)))

    assert done.ran == ["configure", "train", "evaluate"]
    assert (project.root / "params.yaml").read_text() == compose_yaml(project.root / "conf", overrides)
    described = json.loads((project.root / "models/model.json").read_text())
    assert described["architecture"]["units"] == [32, 16]
    assert "optimizer.lr=0.01, in conf/ 0.001" in done.text
    params = json.loads(project.run("dvc", "params", "diff", "--json", "HEAD").text)
    assert params["params.yaml"]["optimizer.lr"]["new"] == 0.01
    metrics = json.loads(project.run("dvc", "metrics", "diff", "--json", "HEAD").text)
    assert set(metrics.get("diff", metrics)) >= {"metrics/evaluate.json", "metrics/learning.json"}
    shown = project.run("dvc", "exp", "show", "--csv").text
    assert "test/accuracy" in shown
    assert "torch.optim.Adam" in shown
    assert "index.html" in project.run("dvc", "plots", "diff", "HEAD").text


def test_an_experiment_file_is_chosen_by_its_name(project: Project) -> None:
    (project.root / "conf/experiment/tiny.yaml").write_text(
        "# @package _global_\n# A try.\n# Use:  dvc exp run -S experiment=tiny\ntrainer: {num_epochs: 1}\n"
    )
    project.run("dvc", "exp", "run", "-S", "experiment=tiny")

    assert json.loads((project.root / "metrics/train.json").read_text())["epochs"] == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.num_epoch=3", "Did you mean trainer.num_epochs"),
        long("+trainr.num_epochs=3", "trainr: there is no such key. Did you mean trainer"),
        long("optimizer.lr=fast", "optimizer.lr: input should be a valid number, found 'fast'"),
        ("optimizer._target_=os.system", "'os.system' is not on the list"),
        long("data.validation_fraction=0.0", "trainer.keep=best needs a validation split"),
        long("+model.size=3", "rename it"),
    ],
)
def test_a_mistake_stops_before_any_data_is_read(project: Project, override: str, said: str) -> None:
    """Under DVC as by hand; afterwards plain `dvc repro` goes back to what conf/ says."""
    done = project.run("dvc", "exp", "run", "-S", override, expect=255)

    assert said in done.text
    assert done.ran in ([], ["configure"])
    assert "Traceback" not in done.text
    assert project.repro().ran in ([], ["configure"])
    assert project.status == ""


def test_a_run_in_a_temporary_folder_lands_in_the_same_store(project: Project) -> None:
    """`dvc exp run --temp` works in .dvc/tmp, which is deleted; its run is in the project's mlflow.db."""
    before = project.all_runs()
    project.run("dvc", "exp", "run", "--temp", "-S", "seed=7")
    new = [run for run in project.all_runs() if run.info.run_id not in {old.info.run_id for old in before}]

    assert [run.data.params["seed"] for run in new] == ["7"]
    assert "test/accuracy" in new[0].data.metrics
    assert project.status == ""
