"""The same code, data, settings and seed give the same weights, byte for byte, however the training was started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lanes import long
from pipeline.runtime.recording import MODEL_TAG
from pipeline.system.files import sha256_of
from project_maker import Project

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")
WEIGHTS = "models/model.safetensors"


@pytest.fixture(scope="module")
def project(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Trained under DVC, with seed 0, and by hand with 1 and 2."""
    project = prepared.copy(tmp_path_factory.mktemp("same") / "work")
    project.run("dvc", "repro", "train")
    for seed in (1, 2):
        project.run(*TRAIN, f"seed={seed}")
    return project


def tagged(project: Project) -> dict[str, str]:
    """Digest of the weights by seed, as the runs have it."""
    trainings = [run for run in project.all_runs() if "seed" in run.data.params]
    return {run.data.params["seed"]: run.data.tags[MODEL_TAG] for run in trainings}


def test_each_run_has_the_digest_of_its_weights_as_a_tag(project: Project) -> None:
    by_hand = {sha256_of(weights) for weights in project.root.glob(f"outputs/**/{WEIGHTS}")}
    found = tagged(project)
    assert found["0"] == sha256_of(project.root / WEIGHTS)
    assert {found["1"], found["2"]} == by_hand
    assert len(set(found.values())) == 3  # the seed does matter


def test_by_hand_as_under_dvc(project: Project, prepared: Project, tmp_path: Path) -> None:
    """And on two threads, where other tests have one."""
    alone = prepared.copy(tmp_path / "work")
    alone.run(*TRAIN, "seed=0", OMP_NUM_THREADS="2")
    (weights,) = alone.root.glob(f"outputs/**/{WEIGHTS}")
    assert weights.read_bytes() == (project.root / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("launcher", "order"), [long("n_jobs=1", "0,1,2"), ("n_jobs=3", "2,1,0"), long("basic", "2,1,0")]
)
def test_in_a_sweep_whatever_the_order_of_jobs(
    project: Project, prepared: Project, tmp_path: Path, launcher: str, order: str
) -> None:
    word = "hydra/launcher=basic" if launcher == "basic" else f"hydra.launcher.{launcher}"
    swept = prepared.copy(tmp_path / "work")
    swept.run(*TRAIN, "-m", f"seed={order}", word)
    weights = {sha256_of(path) for path in swept.root.glob(f"multirun/**/{WEIGHTS}")}
    assert tagged(swept) == tagged(project)
    assert weights == set(tagged(project).values())
