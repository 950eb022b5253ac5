"""SIGKILL at any instant: the same command again goes on, in the same run, and ends byte for byte as if nothing was."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lanes import number
from project_maker import Project

pytestmark = pytest.mark.slow
NUM_KILLS, NUM_EPOCHS = number(15, 24), 6
SCRIPT = Path(__file__).with_name("killed_stage.py")


@dataclass(frozen=True)
class Killed:
    """A training that was killed again and again, and its like that was not."""

    project: Project
    whole: Project
    exit_codes: list[int]
    log: str

    def run(self, project: Project) -> Any:
        (run,) = project.all_runs()
        return run

    def points(self, project: Project) -> dict[str, list[tuple[int, float]]]:
        """Of each metric, without those that are times."""
        client, run = project.store.client, self.run(project)
        names = [name for name in run.data.metrics if not name.endswith("_s")]
        return {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in names
        }


@pytest.fixture(scope="module")
def killed(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Saved before each step, so that many kills come amid the writing of a checkpoint."""
    made = tmp_path_factory.mktemp("killed")
    projects = [prepared.copy(made / name) for name in ("killed", "whole")]
    for project in projects:
        project.edit("conf/trainer/default.yaml", "num_epochs: 2", f"num_epochs: {NUM_EPOCHS}")
        project.edit("conf/tracking/local.yaml", "save_every_s: 30", "save_every_s: 0")
        project.edit("conf/model/dense.yaml", "dropout: 0.0", "dropout: 0.2")
        project.run("dvc", "repro", "preprocess")
    cut, whole = projects
    done = cut.run(sys.executable, str(SCRIPT), "train", "1", str(NUM_KILLS))
    whole.run(sys.executable, str(SCRIPT), "train", "1", "0")
    return Killed(cut, whole, json.loads(done.text.splitlines()[-1]), (cut.root / "stage.log").read_text())


def test_the_training_was_killed_and_went_on(killed: Killed) -> None:
    """Those of the last kills that came too late are none."""
    *kills, last = killed.exit_codes
    assert (set(kills), last) == ({-signal.SIGKILL}, 0), killed.log
    assert len(kills) >= NUM_KILLS - 4
    assert killed.log.count("going on within epoch") > NUM_KILLS // 5
    assert "Traceback" not in killed.log


@pytest.mark.parametrize("file", ["models/model.safetensors", "models/model.json", "plots/history.csv"])
def test_what_it_wrote_is_byte_for_byte_that_of_one_never_killed(killed: Killed, file: str) -> None:
    assert (killed.project.root / file).read_bytes() == (killed.whole.root / file).read_bytes()


def test_it_is_one_run_with_each_point_once(killed: Killed) -> None:
    run = killed.run(killed.project)
    assert run.info.status == "FINISHED"
    assert killed.points(killed.project) == killed.points(killed.whole)
    assert run.data.params == killed.run(killed.whole).data.params
    assert len(run.inputs.dataset_inputs) == 2
    assert len(run.outputs.model_outputs) == 1


def test_nothing_of_it_is_left_behind(killed: Killed) -> None:
    """Neither checkpoints nor half-written files."""
    left = [path for path in (killed.project.root / ".pipeline").rglob("*") if path.is_file()]
    assert [path for path in left if path.suffix in {".ckpt", ".new", ".tmp"}] == []
