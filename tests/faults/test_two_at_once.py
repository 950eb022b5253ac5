"""Two commands in one project at the same time: refused with what to do, or each for itself; never mixed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.system.files import read_json, sha256_of
from pipeline.tracking import MODEL_TAG
from project_maker import Project

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")
NUM_EPOCHS = 6
EPOCH_DONE = "    run.metrics(values, step=epoch)\n"
HALTS = f"""\
    if epoch == 3 and os.environ.get("HALT"):
        os.kill(os.getpid(), {signal.SIGSTOP:d})
"""


@pytest.fixture(scope="module")
def long_project(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Prepared for a training that halts itself in its fourth epoch if it is told to."""
    project = prepared.copy(tmp_path_factory.mktemp("long") / "work")
    project.edit("conf/model/dense.yaml", "units: 128", "units: 16")
    project.edit("conf/trainer/default.yaml", "num_epochs: 2", f"num_epochs: {NUM_EPOCHS}")
    project.edit("src/pipeline/train.py", EPOCH_DONE, EPOCH_DONE + HALTS)
    project.run("dvc", "repro", "preprocess")
    return project


@pytest.fixture
def project(long_project: Project, tmp_path: Path) -> Project:
    return long_project.copy(tmp_path / "work")


def wait(until: Callable[[], Any], seconds: float = 60) -> None:
    end_s = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end_s, "it did not come to that"
        time.sleep(0.02)


@contextmanager
def halted(started: subprocess.Popen[str]) -> Iterator[psutil.Process]:
    """The process that trains, once it has halted itself amid its work; afterwards it goes on."""
    found: list[psutil.Process] = []

    def has_halted() -> bool:
        family = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
        with suppress(psutil.NoSuchProcess):
            found.extend(one for one in family if one.status() == psutil.STATUS_STOPPED)
        return bool(found)

    wait(has_halted)
    try:
        yield found[0]
    finally:
        found[0].resume()


def assert_one_whole_training(project: Project) -> None:
    (run,) = project.all_runs()
    client, run_id = project.store.client, run.info.run_id
    losses = [point.step for point in client.get_metric_history(run_id, "val/loss")]
    rows = (project.root / "plots/history.csv").read_text().splitlines()[1:]
    assert run.info.status == "FINISHED"
    assert losses == list(range(NUM_EPOCHS))
    assert [int(row.partition(",")[0]) for row in rows] == list(range(NUM_EPOCHS))
    assert len(run.outputs.model_outputs) == 1


# ---------------------------------------------------------------- under DVC


def test_a_second_dvc_repro_is_refused_and_does_no_harm(project: Project) -> None:
    """While the first one trains; afterwards it finds all done."""
    with project.started("dvc", "repro", "train", HALT="1") as first:
        with halted(first):
            second = project.run("dvc", "repro", "train", expect=None)
        out, err = first.communicate(timeout=120)

    assert first.returncode == 0, out + err
    assert second.returncode != 0
    assert "busy" in second.text or "lock" in second.text, second.text
    assert "Traceback" not in second.text
    assert second.ran == []
    assert_one_whole_training(project)
    assert project.run("dvc", "repro", "train").ran == []


def test_two_dvc_repro_started_at_once_train_once(project: Project) -> None:
    """One of them may be refused; both together leave one training, whole."""
    with project.started("dvc", "repro", "train") as first, project.started("dvc", "repro", "train") as second:
        said = [process.communicate(timeout=200) for process in (first, second)]

    assert 0 in (first.returncode, second.returncode), said
    assert "Traceback" not in "".join(map("".join, said))
    assert_one_whole_training(project)
    assert "up to date" in project.run("dvc", "status", "train").text


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_training_whose_dvc_was_killed_ends_and_the_next_dvc_goes_on(project: Project) -> None:
    """Debian's /bin/sh stays between dvc and a stage whose command does not say `exec`."""
    with project.started("dvc", "repro", "train", HALT="1", SHELL="/bin/sh") as dvc:
        with halted(dvc) as stage:
            os.kill(dvc.pid, signal.SIGKILL)
            dvc.wait()  # the kernel has told the stage by then
        wait(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    (run,) = project.all_runs()
    assert run.info.status == "KILLED"
    assert run.data.tags["exit.reason"] == "SIGTERM"
    again = project.run("dvc", "repro", "train")

    assert "going on" in again.text
    assert_one_whole_training(project)


def test_a_training_that_outlived_its_dvc_is_not_joined_by_another(project: Project) -> None:
    """A shell that stands between the two keeps the stage from hearing of the end of dvc."""
    project.edit(
        "dvc.yaml",
        "exec env PYTHONPATH=src python -m pipeline train",
        "env PYTHONPATH=src python -m pipeline train; true",
    )
    with project.started("dvc", "repro", "train", HALT="1") as dvc:
        with halted(dvc) as stage:
            os.kill(dvc.pid, signal.SIGKILL)
            dvc.wait()
            refused = project.run(*TRAIN, expect=1, DVC_STAGE="train")
        stage.wait(120)
    project.edit("dvc.yaml", "pipeline train; true", "pipeline train")

    assert re.fullmatch(r"train: error: the stage train .* is still running in this folder .*\n", refused.text)
    assert_one_whole_training(project)
    assert [run.info.status for run in project.all_runs()] == ["FINISHED"]


# ---------------------------------------------------------------- by hand


def test_two_trainings_started_in_the_same_second_are_two(project: Project) -> None:
    """Folders and runs of their own; each run has the model of its own folder."""
    words = (*TRAIN, "trainer.num_epochs=3")
    with project.started(*words, "seed=1") as first, project.started(*words, "seed=2") as second:
        said = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    folders = sorted(project.root.glob("outputs/train/*"))
    runs = {run.data.params["seed"]: run for run in project.all_runs()}

    assert len(folders) == 2
    assert sorted(runs) == ["1", "2"]
    for folder in folders:
        seed = re.findall(r"seed=(\d)", (folder / ".hydra/overrides.yaml").read_text())[0]
        assert (folder / "models/run.json").read_text().count(runs[seed].info.run_id) == 1
        assert (runs[seed].info.status, len(runs[seed].outputs.model_outputs)) == ("FINISHED", 1)
        points = project.store.client.get_metric_history(runs[seed].info.run_id, "val/loss")
        assert [point.step for point in points] == [0, 1, 2]
        assert runs[seed].data.tags[MODEL_TAG] == sha256_of(folder / "models/model.safetensors")
        assert read_json(folder / "models/model.json")["training"]["seed"] == int(seed)
    assert len({run.data.tags[MODEL_TAG] for run in runs.values()}) == 2


def test_two_trainings_in_one_folder_are_not_mixed(project: Project) -> None:
    """A person named it in both commands: the later one is refused."""
    words = (*TRAIN, "hydra.run.dir=outputs/same")
    with project.started(*words, HALT="1") as first:
        with halted(first):
            second = project.run(*words, expect=1)
        out, err = first.communicate(timeout=120)

    assert first.returncode == 0, out + err
    assert "Traceback" not in second.text
    assert re.search(r"^train: error: another process is writing to \S+/outputs/same\. Wait for it, or", second.text)
    (run,) = project.all_runs()
    points = project.store.client.get_metric_history(run.info.run_id, "val/loss")
    assert run.info.status == "FINISHED"
    assert [point.step for point in points] == list(range(NUM_EPOCHS))
