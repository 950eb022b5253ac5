"""Sweeps whose jobs SLURM runs: a real one, of one node with two CPUs, without accounting."""

from __future__ import annotations

import csv
import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from pipeline.tracking import RunRow
from pipeline.tracking.lookup import sweeps
from project_maker import Done, Project
from slurm_maker import cancel_all, one_node, said

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
SWEEP = (sys.executable, "-m", "pipeline.train", "-m", "hydra/launcher=submitit_slurm")
ON_TWO = ("hydra.launcher.tasks_per_node=2", "trainer=ddp_cpu")
ENDLESS = "trainer.num_epochs=100000"
# What submitit asks where SLURM keeps accounts, here answered from what the controller remembers of the last minutes.
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
exec squeue --states=all --array --noheader --format='%i|%T|%N'
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with one_node(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def slurm(cluster: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment that leads to it; its queue is empty again after the test."""
    yield cluster
    cancel_all(cluster)


def family(project: Project) -> tuple[RunRow, list[RunRow]]:
    """The sweep of this test, whose folder alone is there, and its jobs, by their numbers."""
    (folder,) = project.root.glob("multirun/train/*")
    (parent,) = (row for row in sweeps(project.store) if row.tags.get("sweep.folder") == str(folder))
    return parent, sorted(project.store.children(parent.run_id), key=lambda job: int(job.tags["sweep.number"]))


def statuses(jobs: list[RunRow]) -> dict[str, str]:
    return {job.name: job.status for job in jobs}


def steps_of(project: Project, job: RunRow) -> list[int]:
    return [point.step for point in project.store.client.get_metric_history(job.run_id, "val/loss")]


def queued(slurm: dict[str, str], which: str = "%i") -> list[str]:
    return said(slurm, "squeue", "--noheader", "--array", "--sort=i", f"--format={which}").split()


def history(file: Path) -> list[dict[str, float]]:
    with open(file, newline="", encoding="utf-8") as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def amid_epochs(project: Project, *jobs: str) -> None:
    """Wait until each of these jobs (`*_0` is an array's first) has trained two epochs."""
    deadline_s = time.monotonic() + 90
    left = list(jobs)
    while left:
        logs = [log.read_text() for log in project.root.glob(f"multirun/train/*/.submitit/{left[0]}/*_0_log.out")]
        if any(re.search(r"^epoch +2/", log, flags=re.MULTILINE) for log in logs):
            left.pop(0)
            continue
        assert time.monotonic() < deadline_s, logs
        time.sleep(0.1)


def ended(process: Popen[str], within_s: float) -> Done:
    out, err = process.communicate(timeout=within_s)
    return Done(process.returncode, out + err)


def process_of(slurm: dict[str, str], job: str) -> psutil.Process:
    """The Python process of a job with one task."""
    (number,) = said(slurm, "squeue", "--noheader", f"--jobs={job}", "--format=%A").split()
    own = {"SLURM_JOB_ID": number, **slurm}.items()
    for process in psutil.process_iter():
        try:
            if own <= process.environ().items() and "submitit.core._submit" in process.cmdline()[:5]:
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"job {job} has no process")


# ---------------------------------------------------------------- what a sweep is


def test_a_sweep_on_slurm_is_a_parent_with_its_children(project: Project, slurm: dict[str, str]) -> None:
    """As under any launcher: names that say what differs, tags, a summary; and nothing that git does not know."""
    project.run(*SWEEP, "model.units=16,32", **slurm)

    parent, jobs = family(project)
    assert (parent.name, parent.status) == ("sweep model.units", "FINISHED")
    assert statuses(jobs) == {"units=16": "FINISHED", "units=32": "FINISHED"}
    assert [json.loads(job.tags["sweep.words"]) for job in jobs] == [["model.units=16"], ["model.units=32"]]
    assert [job.params["model.units"] for job in jobs] == ["16", "32"]
    assert (parent.metrics["sweep/finished"], parent.metrics["best/val_loss"]) == (2, jobs[1].metrics["kept_val_loss"])
    assert parent.tags["sweep.best_run_id"] == jobs[1].run_id
    (sweep,) = project.root.glob("multirun/train/*")
    assert (sweep / "summary.csv").read_text().count("FINISHED") == 2
    deadline_s = time.monotonic() + 30
    while queued(slurm):  # SLURM says for a moment that a job completes
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    assert project.status == ""


@pytest.mark.long
def test_slurm_starts_the_processes_of_each_training(project: Project, slurm: dict[str, str]) -> None:
    """Two tasks are one training: one run, one folder, and the numbers of one device to 1e-5."""
    one_device = history(project.root / "plots/history.csv")
    project.run(*SWEEP, *ON_TWO, "seed=0,1", **slurm)

    parent, jobs = family(project)
    assert (parent.status, statuses(jobs)) == ("FINISHED", {"seed=0": "FINISHED", "seed=1": "FINISHED"})
    (sweep,) = project.root.glob("multirun/train/*")
    for row, reference in zip(history(sweep / "0/plots/history.csv"), one_device, strict=True):
        assert row == pytest.approx(reference, abs=1e-5)
    assert history(sweep / "1/plots/history.csv")[0] != pytest.approx(one_device[0], abs=1e-3)
    assert sorted(folder.name for folder in sweep.iterdir() if folder.name.isdigit()) == ["0", "1"]
    assert [log.read_text().count("epoch") for log in sweep.glob(".submitit/*/*_1_log.out")] == [0, 0]
    assert not (project.root / "outputs").exists()


def test_srun_starts_the_processes_of_one_training(project: Project, slurm: dict[str, str]) -> None:
    """Without a sweep: one run, each epoch's line once, and the numbers of one device to 1e-5."""
    one_device = history(project.root / "plots/history.csv")
    before = len(project.all_runs())
    srun = ("srun", "--ntasks=2", "--ntasks-per-node=2")
    done = project.run(*srun, sys.executable, "-m", "pipeline.train", "trainer=ddp_cpu", **slurm)

    assert re.findall(r"^epoch +(\d+/\d+) ", done.text, flags=re.MULTILINE) == ["1/2", "2/2"]
    assert [run.info.status for run in project.all_runs()[: -before or None]] == ["FINISHED"]
    (outputs,) = project.root.glob("outputs/train/*")
    for row, reference in zip(history(outputs / "plots/history.csv"), one_device, strict=True):
        assert row == pytest.approx(reference, abs=1e-5)


# ---------------------------------------------------------------- how jobs end


@pytest.mark.long
def test_a_failed_job_costs_only_itself_and_is_not_run_again(project: Project, slurm: dict[str, str]) -> None:
    """The second start of the same command runs nothing and says the same."""
    words = (*SWEEP, "optimizer.lr=1e-3,1e30")
    found = []
    for _ in range(2):
        done = project.run(*words, **slurm, expect=1)
        parent, jobs = family(project)
        assert (
            "train: error: 1 of 2 jobs failed, the first (lr=1e+30) with: Diverged: the training diverged" in done.text
        )
        assert statuses(jobs) == {"lr=0.001": "FINISHED", "lr=1e+30": "FAILED"}
        assert (parent.status, parent.tags["exit.reason"][:21]) == ("FAILED", "PipelineError: 1 of 2")
        found.append([(parent.run_id, None), *((job.run_id, job.end_ms) for job in jobs)])
    assert found[0] == found[1]


@pytest.mark.long
def test_a_cancelled_job_goes_on_with_the_same_command(project: Project, slurm: dict[str, str]) -> None:
    """scancel ends both of its tasks (KILLED), and the sweep hears of it. Then it goes on in its own run."""
    words = (*SWEEP, *ON_TWO, "trainer.num_epochs=24")
    with project.started(*words, **slurm) as process:
        amid_epochs(project, "*")
        said(slurm, "scancel", *queued(slurm))
        done = ended(process, within_s=60)
    parent, (before,) = family(project)
    assert done.returncode == 1
    assert "train: error: a job was ended by SIGTERM" in done.text
    assert (parent.status, before.status, before.tags["exit.reason"]) == ("FAILED", "KILLED", "SIGTERM")

    project.run(*words, **slurm)
    again, (after,) = family(project)
    assert (again.run_id, after.run_id) == (parent.run_id, before.run_id)
    assert (again.status, after.status) == ("FINISHED", "FINISHED")
    assert steps_of(project, after) == list(range(24))


@pytest.mark.long
def test_a_job_that_slurm_puts_back_goes_on_by_itself(project: Project, slurm: dict[str, str]) -> None:
    """As when it is preempted: the sweep waits for it, and all is in one run."""
    with project.started(*SWEEP, "model.units=16", "trainer.num_epochs=60", **slurm) as process:
        amid_epochs(project, "*")
        (number,) = queued(slurm)
        said(slurm, "scancel", "--signal=USR2", number)
        while queued(slurm, "%T") != ["PENDING"]:
            time.sleep(0.2)
        said(slurm, "scontrol", "update", f"JobId={number}", "StartTime=now")  # it would wait two minutes
        done = ended(process, within_s=120)

    parent, (job,) = family(project)
    assert (done.returncode, parent.status, job.status) == (0, "FINISHED", "FINISHED")
    assert "exit.reason" not in job.tags
    (log,) = project.root.glob("multirun/train/*/.submitit/*/*_0_log.out")
    assert log.read_text().count("of an earlier start") == 1
    assert steps_of(project, job) == list(range(60))


@pytest.mark.long
def test_a_killed_job_costs_only_itself(project: Project, slurm: dict[str, str], tmp_path: Path) -> None:
    """SLURM's accounts tell submitit, which gives up all of its jobs; the sweep waits for the others all the same."""
    (tmp_path / "sacct").write_text(SACCT)
    (tmp_path / "sacct").chmod(0o755)
    path = f"{tmp_path}:{project.environment()['PATH']}"
    words = (*SWEEP, "model.units=16,32", "trainer.num_epochs=300")
    with project.started(*words, **slurm, PATH=path) as process:
        amid_epochs(project, "*_0")
        process_of(slurm, queued(slurm)[0]).kill()
        done = ended(process, within_s=120)

    parent, jobs = family(project)
    assert (done.returncode, parent.status) == (1, "FAILED")
    assert statuses(jobs) == {"units=16": "KILLED", "units=32": "FINISHED"}
    assert jobs[0].tags["exit.reason"].startswith("the process died")


# ---------------------------------------------------------------- how the sweep ends


@pytest.mark.long
def test_ctrl_c_cancels_the_jobs(project: Project, slurm: dict[str, str]) -> None:
    """Those that run end as KILLED, the one that waits never starts."""
    with project.started(*SWEEP, "model.units=16,32,64", ENDLESS, **slurm) as process:
        amid_epochs(project, "*_0", "*_1")
        assert queued(slurm, "%T") == ["RUNNING", "RUNNING", "PENDING"]
        process.send_signal(signal.SIGINT)
        done = ended(process, within_s=40)

    parent, jobs = family(project)
    assert (done.returncode, parent.status) == (130, "KILLED")
    assert statuses(jobs) == {"units=16": "KILLED", "units=32": "KILLED"}
    assert queued(slurm) == []


@pytest.mark.long
def test_jobs_of_a_killed_sweep_are_not_started_twice(project: Project, slurm: dict[str, str]) -> None:
    """They go on without it; until the queue is empty the same command says so and starts nothing."""
    words = (*SWEEP, "model.units=16,32", ENDLESS)
    with project.started(*words, **slurm) as process:
        amid_epochs(project, "*_0", "*_1")
        process.kill()
        process.communicate()
    left = queued(slurm)
    done = project.run(*words, **slurm, expect=1)

    (name,) = set(queued(slurm, "%j"))
    assert "train: error: 2 jobs of an earlier start of this sweep are in SLURM's queue" in done.text
    assert f"scancel --name={name}" in done.text
    assert (len(left), queued(slurm)) == (2, left)
    said(slurm, "scancel", f"--name={name}")
    while queued(slurm):
        time.sleep(0.2)
    assert statuses(family(project)[1]) == {"units=16": "KILLED", "units=32": "KILLED"}
