"""Change X, and exactly these stages run: plain `dvc repro` on the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lanes import long
from project_maker import Project, make_project

pytestmark = pytest.mark.slow

RMSPROP, TRAINER, DATA = "conf/optimizer/rmsprop.yaml", "conf/trainer/default.yaml", "conf/data/base.yaml"
FUTURE = "from __future__ import annotations"
CONFIGURE = ["configure"]
TRAIN = ["configure", "train", "evaluate"]
CHANGES = {
    "nothing": ([], []),
    "the README": ([("README.md", "# ", "# Our ")], []),
    "a comment in a config file": ([(RMSPROP, "# step size", "# size of a step")], CONFIGURE),
    "the optimizer's lr": ([(RMSPROP, "lr: 1.0e-3", "lr: 2.0e-3")], TRAIN),
    "the choice of a group": ([("conf/config.yaml", "optimizer: rmsprop", "optimizer: adam")], TRAIN),
    "a file of a group that is not chosen": ([("conf/optimizer/adam.yaml", "lr: 1.0e-3", "lr: 5.0e-3")], CONFIGURE),
    "the seed": ([("conf/config.yaml", "seed: 0", "seed: 1")], TRAIN),
    "the share of validation": (
        [(DATA, "validation_fraction: 0.1", "validation_fraction: 0.2")],
        ["configure", "preprocess", "train", "evaluate"],
    ),
    "how the model is scored": (
        [("conf/evaluate/default.yaml", "num_calibration_bins: 15", "num_calibration_bins: 10")],
        ["configure", "evaluate"],
    ),
    "where runs are filed": ([("conf/tracking/local.yaml", "run_name: null", "run_name: mine")], CONFIGURE),
    "the code of evaluate": ([("src/pipeline/evaluate.py", FUTURE, f"{FUTURE}  # edited")], ["evaluate"]),
    "the code of train": ([("src/pipeline/train.py", FUTURE, f"{FUTURE}  # edited")], ["train", "evaluate"]),
    "the code of the console and the store": (
        [("src/pipeline/runtime/stage_runner.py", '"""How a stage', '"""The way a stage')],
        [],
    ),
}


LIKE_ANOTHER = ("the choice of a group", "the seed")  # to DVC an edit of params.yaml as that of the lr


@pytest.mark.parametrize("change", [long(change) if change in LIKE_ANOTHER else change for change in CHANGES])
def test_a_change_runs_exactly_the_stages_it_concerns(project: Project, change: str) -> None:
    edits, expected = CHANGES[change]
    for file, old, new in edits:
        project.edit(file, old, new)

    assert project.repro().ran == expected


def test_a_setting_put_back_brings_the_old_result_without_training(project: Project) -> None:
    """There and back again: the second change is answered by DVC's run cache."""
    project.edit(RMSPROP, "lr: 1.0e-3", "lr: 3.0e-3")
    project.repro()
    project.edit(RMSPROP, "lr: 3.0e-3", "lr: 1.0e-3")
    back = project.repro()

    assert back.ran == ["configure"]  # what persists is not cached; it costs half a second
    assert "Stage 'train' is cached" in back.text
    assert project.status == ""


def test_the_same_commit_elsewhere_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    """A fresh clone with an empty cache runs everything and leaves `git status` clean: all outputs are equal."""
    project.git("clone", "--quiet", str(project.root), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    done = clone.repro()

    assert done.ran == ["download", "preprocess", "train", "evaluate"]
    assert clone.status == ""


def test_a_project_that_never_ran_runs_the_first_time(tmp_path: Path) -> None:
    """No lock file, no params.yaml, no commit: as after `git init` in a copy."""
    project = make_project(tmp_path / "new")
    for name in ("dvc.lock", "params.yaml"):
        (project.root / name).unlink()

    assert project.repro().ran == ["configure", "download", "preprocess", "train", "evaluate"]
