"""`pipeline compare`: runs, sweeps, revisions and the workspace on the same test images."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.tracking import Store
from pipeline.tracking.lookup import sweeps
from project_maker import Project

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")
COMPARE = (sys.executable, "-m", "pipeline", "compare")


def sweep_id(project: Project) -> str:
    """Of the newest one."""
    return sweeps(project.store)[0].tags["sweep.id"]


def comparisons_of(store: Store, run_id: str) -> list[str]:
    return sorted(path.name for path in (store.artifacts(run_id) / "comparisons").glob("*/*"))


def test_two_sweeps(project: Project) -> None:
    """Their seeds are paired; what is better is said with intervals, kept with both, and git sees nothing."""
    few = ("trainer.num_epochs=2", "sweep.seeds=3")
    project.run(*TRAIN, "-m", "model.units=2", *few)
    small = sweep_id(project)
    project.run(*TRAIN, "-m", "model.units=128,4", *few)
    large = sweep_id(project)
    done = project.run(*COMPARE, small, large)
    (found,) = json.loads(project.run(*COMPARE, small, large, "--format", "json").text)

    assert found["verdict"] == "b is better"
    assert (found["a"]["seeds"], found["b"]["seeds"]) == (["0", "1", "2"], ["0", "1", "2"])
    assert found["over_seeds"]["paired"] is True
    assert 0 < found["over_images"]["low"] < found["difference"] < found["over_images"]["high"]
    assert found["settings"] == [{"name": "model.units", "a": "2", "b": "128"}]
    assert f"B is better than A by {found['difference'] * 100:.2f} points" in done.text
    assert "its best (units=128)" in done.text
    for parent in sweeps(project.store)[:2]:
        assert set(comparisons_of(project.store, parent.run_id)) == {"comparison.html", "comparison.json"}
    assert project.status == ""
    assert "Data and pipelines are up to date" in project.run("dvc", "status").text


def test_two_seeds_of_the_same_settings_are_no_difference(project: Project) -> None:
    """Also by their names; the baseline can be the pipeline's own run, which has kept its predictions."""
    project.run(*TRAIN, "seed=4", "tracking.run_name=other")
    found = json.loads(project.run(*COMPARE, "workspace", "HEAD", "other", "--format", "json").text)

    assert [comparison["verdict"] for comparison in found] == ["no difference seen"] * 2
    same, other = found
    assert (same["difference"], same["p"], same["right_in_a_only"], same["settings"]) == (0, 1, [], [])
    assert same["a"]["run_ids"] == same["b"]["run_ids"]
    assert other["settings"] == []
    assert other["b"]["seeds"] == ["4"]


def test_a_revision_is_compared_by_the_predictions_it_kept_also_when_other_data_is_here(project: Project) -> None:
    """The validation split takes more: the test images are the same, so the two can be compared."""
    project.run("dvc", "exp", "run", "-S", "data.validation_fraction=0.3", "-S", "model.units=[16]")
    (found,) = json.loads(project.run(*COMPARE, "main", "workspace", "--format", "json").text)
    names = {setting["name"] for setting in found["settings"]}
    assert {"model.units", "data.validation_fraction"} <= names


def test_a_revision_that_no_run_is_of_is_scored_now(project: Project, tmp_path: Path) -> None:
    """As in a fresh clone that has pulled the model: its settings are those of the revision's params.yaml."""
    clone = project.copy(tmp_path / "clone")
    for left in clone.root.glob("mlflow*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    clone.run(*TRAIN, "seed=1", "tracking.run_name=other")
    same, other = json.loads(clone.run(*COMPARE, "main", "workspace", "other", "--format", "json").text)
    assert (same["a"]["run_ids"], same["difference"]) == ([None], 0)
    assert other["settings"] == []  # read from params.yaml on one side, from MLflow on the other


def test_what_was_scored_on_other_test_images_is_refused(project: Project) -> None:
    """Said by what each was scored on; nothing is written."""
    table = project.root.parent / "flowers.csv"
    table.write_text("x,y,kind\n" + "".join(f"{i % 7},{i % 5},{'ab'[i % 2]}\n" for i in range(200)))
    project.run("dvc", "exp", "run", "-S", "data=table", "-S", f"data.path={table}", "-S", "data.label=kind")
    done = project.run(*COMPARE, "main", "workspace", expect=1)

    assert done.text.startswith("compare: error: main and workspace were scored on different test data: main on 1,000")
    assert len(done.text.splitlines()) == 1
    assert not (project.root / "outputs/compare").exists()


def test_names_that_mean_nothing(project: Project) -> None:
    nothing = project.run(*COMPARE, "workspace", "nonsense", expect=2)
    one = project.run(*COMPARE, "workspace", expect=2)
    option = project.run(*COMPARE, "workspace", "--", "--upload-pack=x", expect=2)

    assert nothing.text.startswith("compare: error: nonsense: nothing is called so. Expected workspace, a revision")
    assert "give two to 26 things to compare, found 1" in one.text
    assert "nothing is called so" in option.text
    for done in (nothing, option):
        assert len(done.text.splitlines()) == 1
