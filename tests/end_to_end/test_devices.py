"""Several devices, here processes on the CPU: under DVC, in a sweep, by torchrun, as srun starts them, and killed."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from lanes import long
from project_maker import Project
from tracking.tracking_makers import free_port
from training.ranks_makers import command_of, none_left

pytestmark = [pytest.mark.slow, pytest.mark.ddp]
TRAIN = (sys.executable, "-m", "pipeline.train")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
ON_TWO = (*TORCHRUN, "--standalone", "--nproc-per-node=2")
NOT_OURS = re.compile(r"gloo|lightning|rank|nccl|distributed|warn", re.IGNORECASE)


def history(file: Path) -> list[dict[str, float]]:
    with open(file, newline="", encoding="utf-8") as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def assert_same_history(found: Path, expected: Path) -> None:
    """Every metric of every epoch to 1e-5."""
    for row, reference in zip(history(found), history(expected), strict=True):
        assert row == pytest.approx(reference, abs=1e-5)


def epoch_lines(text: str) -> list[str]:
    return re.findall(r"^epoch +(\d+/\d+) ", text, flags=re.MULTILINE)


@pytest.fixture
def one_device(project: Project, tmp_path: Path) -> Path:
    """history.csv of the committed training, which had one device and two epochs."""
    kept = tmp_path / "history.csv"
    kept.write_bytes((project.root / "plots/history.csv").read_bytes())
    return kept


@contextmanager
def one_new_run(project: Project) -> Iterator[dict[str, Any]]:
    """After the block the store has one run more, and it is under `run`."""
    before = {run.info.run_id for run in project.all_runs()}
    found: dict[str, Any] = {}
    yield found
    (found["run"],) = [run for run in project.all_runs() if run.info.run_id not in before]


# ---------------------------------------------------------------- the same result, however it is started


def test_under_dvc_two_processes_are_one_training(project: Project, one_device: Path) -> None:
    """One run, each epoch's line once, nothing from Lightning or gloo, and the numbers of one device."""
    with one_new_run(project) as new:
        done = project.run("dvc", "exp", "run", "-S", "trainer=ddp_cpu")

    assert done.ran == ["configure", "train", "evaluate"]
    assert new["run"].info.status == "FINISHED"
    assert new["run"].data.metrics["test/count"] == 1000
    assert_same_history(project.root / "plots/history.csv", one_device)
    assert epoch_lines(done.text) == ["1/2", "2/2"]
    assert [line for line in done.text.splitlines() if NOT_OURS.search(line)] == []
    assert "??" not in project.status  # nothing is left that git does not know
    assert project.run("dvc", "status").text.strip().endswith("up to date.")


def test_a_sweep_starts_the_processes_of_each_of_its_trainings(project: Project) -> None:
    """With that training's settings, not with the sweep's: a seed gives the same on one device and on two.

    Seed 2 would not on every machine: there a unit's input is zero but for rounding (docs/devices.md).
    """
    before = len(project.all_runs())
    done = project.run(*TRAIN, "-m", "trainer=ddp_cpu,default", "seed=1,3", "model.units=512")

    (sweep,) = project.root.glob("multirun/train/*")
    assert sorted(job.name for job in sweep.iterdir() if job.is_dir()) == ["0", "1", "2", "3", "figures"]
    assert_same_history(sweep / "0/plots/history.csv", sweep / "2/plots/history.csv")
    assert_same_history(sweep / "1/plots/history.csv", sweep / "3/plots/history.csv")
    seeds = [json.loads((sweep / f"{job}/models/model.json").read_text())["training"]["seed"] for job in range(4)]
    assert seeds == [1, 3, 1, 3]
    assert history(sweep / "0/plots/history.csv") != history(sweep / "1/plots/history.csv")
    assert [run.info.status for run in project.all_runs()[:-before]] == ["FINISHED"] * 5  # the sweep's and the jobs'
    assert "4 of 4 jobs finished" in done.text
    kept = [json.loads((sweep / f"{job}/metrics/learning.json").read_text()) for job in range(4)]
    lines = re.findall(r"val/loss ([\d.]+)  val/accuracy ([\d.]+)  \d+ s", done.text)  # as they came to their ends
    assert sorted(lines) == sorted((f"{job['val/loss']:.4f}", f"{job['val/accuracy']:.4f}") for job in kept)
    assert 0 in {job["kept_epoch"] for job in kept}  # not the last one


def test_two_machines_by_torchrun_are_one_training(project: Project, one_device: Path) -> None:
    """Both on loopback here: one run, one output folder, each epoch's line once."""
    words = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}")
    training = ("-m", "pipeline.train", "trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2")
    texts = all_done(project, [(*TORCHRUN, *words, "--local-addr=127.0.0.1", *training)] * 2, [{}, {}])

    assert_one_finished_training(project, one_device, texts)


@pytest.mark.long
def test_two_processes_of_srun_are_one_training(project: Project, one_device: Path) -> None:
    """SLURM is simulated by the variables that srun sets."""
    srun = {
        "SLURM_JOB_ID": "4321", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    tasks = [srun | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in (0, 1)]
    texts = all_done(project, [(*TRAIN, "trainer=ddp_cpu")] * 2, tasks)

    assert_one_finished_training(project, one_device, texts)
    assert texts[1] == ""


def all_done(project: Project, commands: list[tuple[str, ...]], environments: list[dict[str, str]]) -> list[str]:
    """Run the commands at the same time; what each one printed."""
    with one_new_run(project), ExitStack() as stack:
        running = [
            stack.enter_context(project.started(*command, **environment))
            for command, environment in zip(commands, environments, strict=True)
        ]
        texts = ["".join(process.communicate(timeout=120)) for process in running]
    assert [process.returncode for process in running] == [0, 0], texts
    return texts


def assert_one_finished_training(project: Project, one_device: Path, texts: list[str]) -> None:
    assert project.all_runs()[0].info.status == "FINISHED"
    (outputs,) = project.root.glob("outputs/train/*")
    assert_same_history(outputs / "plots/history.csv", one_device)
    assert epoch_lines("\n".join(texts)) == ["1/2", "2/2"]
    assert project.status == ""


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("pipeline.train", "trainer=ddp_cpu", "trainer.devices=4"),
            "train: error: torchrun started 2 processes, but trainer.devices=4 on trainer.num_nodes=1 is 4.",
        ),
        long(("pipeline.train", "-m", "seed=0,1"), "train: error: torchrun starts the processes of one training."),
        long(("pipeline.evaluate",), "evaluate: error: torchrun started 2 processes, but this stage is one process"),
    ],
    ids=["number", "sweep", "evaluate"],
)
def test_a_mistake_under_torchrun_is_told_once(project: Project, words: tuple[str, ...], said: str) -> None:
    """No run is made. torchrun adds a report of its own, and has its own exit code."""
    before = len(project.all_runs())
    done = project.run(*ON_TWO, "-m", *words, expect=1)

    assert done.text.count(said) == 1
    assert done.text.count(" error: ") == 1
    assert len(project.all_runs()) == before


# ---------------------------------------------------------------- endings


LOADING = "train: loading torch, Lightning and MLflow\n"


@contextmanager
def amid_training(project: Project, *command: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A training that would go on for hours, after its second epoch, and the two processes that compute.

    After the block it has ended within 20 s, and no process of it is left.
    """
    words = (*command, "trainer=ddp_cpu", "trainer.num_epochs=100000")
    with none_left() as watched, project.started(*words) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("epoch   2/"):
            assert line, process.communicate()
        watched += psutil.Process(process.pid).children(recursive=True)
        computing = [child for child in watched if "pipeline.train" in " ".join(command_of(child))]
        assert len(computing) == 2
        yield process, sorted(computing, key=lambda child: child.pid)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    start_s = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - start_s < 20
    return process.returncode, said


def test_a_killed_process_fails_the_run(project: Project) -> None:
    """One line, exit code 1, and the reason in MLflow."""
    with one_new_run(project) as new, amid_training(project, *TRAIN) as (process, computing):
        computing[1].kill()
        code, said = ended(process)

    reason = "process 1 of 2 was killed by SIGKILL; the others were ended"
    assert (code, said) == (1, f"{LOADING}train: error: {reason}\n")
    assert new["run"].info.status == "FAILED"
    assert reason in new["run"].data.tags["exit.reason"]


@pytest.mark.long
def test_a_killed_process_of_torchrun_fails_the_run(project: Project) -> None:
    """The first process loses its connection, and torchrun sends it a SIGTERM on top: FAILED all the same."""
    with one_new_run(project) as new, amid_training(project, *ON_TWO, "-m", "pipeline.train") as (process, computing):
        computing[1].kill()
        code, said = ended(process)

    assert code == 1
    assert said.count("train: error: another of the 2 processes of this training has ended") == 1
    assert new["run"].info.status == "FAILED"
    assert "another of the 2 processes" in new["run"].data.tags["exit.reason"]


def test_an_interrupted_training_is_killed(project: Project) -> None:
    """Ctrl-C reaches the main process alone, which ends those that it started."""
    with one_new_run(project) as new, amid_training(project, *TRAIN) as (process, _):
        process.send_signal(signal.SIGINT)
        code, said = ended(process)

    anew = "train: interrupted; by hand the same command starts anew, under DVC it goes on\n"
    assert (code, said) == (130, f"{LOADING}{anew}")
    assert (new["run"].info.status, new["run"].data.tags["exit.reason"]) == ("KILLED", "SIGINT")


@pytest.mark.long
def test_an_interrupted_torchrun_is_killed(project: Project) -> None:
    """All processes get the signal; the first one marks its run before the others are gone."""
    with one_new_run(project) as new, amid_training(project, *ON_TWO, "-m", "pipeline.train") as (process, _):
        process.terminate()
        _, said = ended(process)

    assert said.count("train: interrupted") == 1
    assert (new["run"].info.status, new["run"].data.tags["exit.reason"]) == ("KILLED", "SIGTERM")


def test_a_killed_torchrun_leaves_no_process(project: Project) -> None:
    """The first process sees that it lost its parent, and ends as if it had been told to."""
    with one_new_run(project) as new, amid_training(project, *ON_TWO, "-m", "pipeline.train") as (process, computing):
        process.kill()
        gone, alive = psutil.wait_procs(computing, timeout=20)
        assert alive == []

    assert len(gone) == 2
    assert new["run"].info.status == "KILLED"
