"""`hydra/sweeper=optuna` with real trainings: what is pruned, what is killed, what fails, and what is left of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import psutil
import pytest

from lanes import long
from pipeline.sweeps.search.storage import open_storage
from pipeline.tracking import Store
from pipeline.tracking.lookup import sweeps
from project_maker import Project
from training.ranks_makers import command_of, lives

pytestmark = pytest.mark.slow
SEARCH = (sys.executable, "-m", "pipeline.train", "-m", "hydra/sweeper=optuna", "hydra.launcher.n_jobs=2")
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
PRUNED = ("hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options.n_startup_trials=2", "trainer.num_epochs=4")


class Found:
    """What the newest sweep has left: its run, those of its jobs, its study. MLflow's runs outlive a test of this
    module, so each test searches something else.
    """

    def __init__(self, project: Project) -> None:
        store = Store(project.root)
        self.parent = sweeps(store)[0]
        self.folder = Path(self.parent.tags["sweep.folder"])
        self.jobs = sorted(store.children(self.parent.run_id), key=lambda row: int(row.tags["sweep.number"]))
        self.study = optuna.load_study(
            study_name=self.parent.tags["sweep.study"], storage=open_storage(self.parent.tags["sweep.storage"])
        )

    @property
    def states(self) -> Counter[str]:
        return Counter(trial.state.name for trial in self.study.trials)

    @property
    def statuses(self) -> Counter[str]:
        return Counter(row.status for row in self.jobs)


def trials_done(folder: Path) -> int:
    (journal,) = folder.glob("multirun/train/*/study.journal")
    study = optuna.load_study(study_name=None, storage=open_storage(str(journal)))  # the only one
    return sum(trial.state.name == "COMPLETE" for trial in study.trials)


@contextmanager
def going(project: Project, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A search that has done two trials and goes on."""
    with project.started(*SEARCH, *words) as sweep:
        deadline_s = time.monotonic() + 120
        while not list(project.root.glob("multirun/train/*/2/job.json")) or trials_done(project.root) < 2:
            assert time.monotonic() < deadline_s
            assert sweep.poll() is None, sweep.communicate()
            time.sleep(0.1)
        yield sweep


def of_the_project(project: Project) -> list[psutil.Process]:
    """Processes that run in it, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = process.cwd() == str(project.root) and "pipeline" in " ".join(command_of(process))
        except psutil.Error:
            continue
        if inside and lives(process):
            found.append(process)
    return found


def assert_no_process_left(project: Project) -> None:
    deadline_s = time.monotonic() + 25
    while left := of_the_project(project):
        assert time.monotonic() < deadline_s, [command_of(process) for process in left]
        time.sleep(0.1)


# ---------------------------------------------------------------- pruning


def test_pruned_trials_end_early_and_say_so(project: Project) -> None:
    """FINISHED with a tag, no model in MLflow, PRUNED in study and table; the others are whole."""
    done = project.run(*SEARCH, "optimizer.lr=tag(log,interval(1e-5,3e-1))", *PRUNED, "hydra.sweeper.n_trials=8")
    found = Found(project)

    assert found.states.total() == len(found.jobs) == 8
    pruned = [row for row in found.jobs if "sweep.pruned" in row.tags]
    assert 0 < len(pruned) == found.states["PRUNED"] < 6
    assert found.statuses == {"FINISHED": 8}
    assert f"not ranked: {len(pruned)} pruned" in done.text
    assert done.text.count("s  pruned\n") == len(pruned)
    for row in found.jobs:
        trial = found.study.trials[int(row.tags["sweep.number"])]
        expected = int(row.tags["sweep.pruned"]) + 1 if row in pruned else 4
        assert len(trial.intermediate_values) == row.metrics["epochs"] == expected
        assert "kept_val_loss" not in row.metrics or row not in pruned
    best = Store(project.root).rows(f"attributes.run_id = '{found.parent.tags['sweep.best_run_id']}'")[0]
    assert found.study.best_value == pytest.approx(best.metrics["kept_val_loss"], abs=1e-12)


@pytest.mark.long
def test_a_label_is_short_and_its_override_exact(project: Project) -> None:
    project.run(*SEARCH, LR, "hydra.sweeper.n_trials=1", "trainer.num_epochs=1", "hydra.sweeper.seed=3")
    found = Found(project)

    (job,), (trial,) = found.jobs, found.study.trials
    assert job.name == f"lr={trial.params['optimizer.lr']:.4g}"
    assert float(job.params["optimizer.lr"]) == trial.params["optimizer.lr"]
    assert f"optimizer.lr={trial.params['optimizer.lr']!r}" in job.tags["sweep.words"]


@pytest.mark.long
@pytest.mark.ddp
def test_trials_on_two_devices_are_pruned_together(project: Project) -> None:
    """Both processes stop after the same epoch; one run a trial."""
    words = ("trainer=ddp_cpu", "hydra.launcher.n_jobs=1", "hydra.sweeper.seed=1")
    project.run(*SEARCH, "optimizer.lr=tag(log,interval(1e-5,3e-1))", *PRUNED, *words, "hydra.sweeper.n_trials=5")
    found = Found(project)

    assert found.statuses == {"FINISHED": 5}
    assert found.states["PRUNED"] > 0
    assert found.states["COMPLETE"] + found.states["PRUNED"] == 5
    assert_no_process_left(project)


# ---------------------------------------------------------------- cut short


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, long(signal.SIGINT), long(signal.SIGTERM)], ids=lambda one: one.name
)
def test_a_search_that_was_ended_goes_on(number: signal.Signals, project: Project) -> None:
    """No process and no run is left over; then n_trials in all, and each trial has one run."""
    words = (LR, "trainer.num_epochs=40", f"hydra.sweeper.seed={number}")  # another search for each signal
    with going(project, *words, "hydra.sweeper.n_trials=5") as sweep:
        sweep.send_signal(number)
        code = sweep.wait(60)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert_no_process_left(project)
    done = project.run(*SEARCH, *words)  # as many trials as before
    found = Found(project)

    assert "going on with sweep" in done.text
    assert re.search(r"[23] of 5 trials are done", done.text)
    interrupted = [trial for trial in found.study.trials if "interrupted" in trial.user_attrs]
    again = [trial for trial in found.study.trials if "again" in trial.user_attrs]
    assert 1 <= len(interrupted) <= 2
    drawn = [trial.params for trial in interrupted if trial.params]  # one may have been asked for and not yet drawn
    assert [trial.params for trial in again] == drawn
    assert again[0].number == interrupted[-1].number + 1  # before any new one
    assert found.states == {"COMPLETE": 5, "FAIL": len(interrupted)}
    assert found.statuses == {"FINISHED": 5}
    assert found.parent.status == "FINISHED"
    assert sorted(float(row.params["optimizer.lr"]) for row in found.jobs) == sorted(
        trial.params["optimizer.lr"] for trial in found.study.trials if trial.state.name == "COMPLETE"
    )


def test_a_larger_number_goes_on(project: Project) -> None:
    """With the trials that are missing, in the same sweep."""
    words = (LR, "trainer.num_epochs=1")
    project.run(*SEARCH, *words, "hydra.sweeper.n_trials=2")
    before = Found(project)
    done = project.run(*SEARCH, *words, "hydra.sweeper.n_trials=3")
    found = Found(project)

    assert "2 of 3 trials are done" in done.text
    assert found.parent.run_id == before.parent.run_id
    assert found.states == {"COMPLETE": 3}
    assert len(found.jobs) == 3


def test_a_failed_trial_costs_itself(project: Project) -> None:
    """One of the choices diverges; the sweep says so at its end, and goes on with it on request."""
    words = ("optimizer=sgd", "optimizer.lr=0.1,1e9,0.01", "trainer.num_epochs=1", "hydra.sweeper.sampler=grid")
    done = project.run(*SEARCH, *words, expect=1)
    found = Found(project)

    assert "1 of 3 jobs failed" in done.text
    assert found.states == {"COMPLETE": 2, "FAIL": 1}
    assert found.statuses == {"FINISHED": 2, "FAILED": 1}
    (failed,) = [trial for trial in found.study.trials if trial.state.name == "FAIL"]
    assert "the training diverged" in failed.user_attrs["error"]
    project.run(*SEARCH, *words, "sweep.retry_failed=true", expect=1)
    assert Found(project).states == {"COMPLETE": 2, "FAIL": 2}
    assert len(Found(project).jobs) == 3


# ---------------------------------------------------------------- ways to search


@pytest.mark.parametrize("sampler", [long("cmaes"), "grid"])  # the others: tests/sweeps/search/test_study.py
def test_a_sampler_searches(sampler: str, project: Project) -> None:
    space = ("optimizer.lr=1e-3,1e-2", "model.units=16,32") if sampler == "grid" else (LR, "model.units=range(8,33)")
    project.run(*SEARCH, *space, f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=4", "trainer.num_epochs=1")

    assert Found(project).states == {"COMPLETE": 4}
    assert Found(project).statuses == {"FINISHED": 4}


def test_two_objectives_have_a_front(project: Project) -> None:
    words = ("sweep.objectives=[val/accuracy,num_weights]", "hydra.sweeper.sampler=nsgaii", "trainer.num_epochs=1")
    done = project.run(*SEARCH, "model.units=int(interval(4,64))", *words, "hydra.sweeper.n_trials=4")
    found = Found(project)

    assert "On the Pareto front of val/accuracy and num_weights" in done.text
    for row in found.jobs:
        values = found.study.trials[int(row.tags["sweep.number"])].values
        assert values == [row.metrics["kept_val_accuracy"], row.metrics["num_weights"]]


def test_choices_of_a_group_and_seeds(project: Project) -> None:
    """A trial's value is the mean over its seeds, each of which is a job."""
    words = ("optimizer=rmsprop,adam", "sweep.seeds=2", "trainer.num_epochs=1", "hydra.sweeper.n_trials=2")
    project.run(*SEARCH, *words, "hydra.sweeper.sampler=grid")
    found = Found(project)

    assert [row.tags["sweep.number"] for row in found.jobs] == ["0", "1", "2", "3"]
    assert [row.params["seed"] for row in found.jobs] == ["0", "1", "0", "1"]
    for trial in found.study.trials:
        both = found.jobs[2 * trial.number : 2 * trial.number + 2]
        assert {row.params["optimizer.name"].lower() for row in both} == {trial.params["optimizer"]}
        assert trial.value == pytest.approx(sum(row.metrics["kept_val_loss"] for row in both) / 2, abs=1e-9)


@pytest.mark.long
def test_another_launcher_gets_batches(project: Project) -> None:
    """Hydra's own, in this process, with pruning; done trials are not run again."""
    words = (*SEARCH[:-1], "hydra/launcher=basic", "optimizer.lr=tag(log,interval(1e-5,3e-1))", *PRUNED)
    project.run(*words, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=5", "hydra.sweeper.seed=7")
    found = Found(project)

    assert found.states["COMPLETE"] + found.states["PRUNED"] == 5
    assert found.states["PRUNED"] > 0
    assert found.statuses == {"FINISHED": 5}


def test_a_database_keeps_the_study(project: Project, tmp_path: Path) -> None:
    """By the environment, so that a password would be written nowhere."""
    words = (LR, *PRUNED[:2], "trainer.num_epochs=2", "hydra.sweeper.n_trials=3")
    environment = {"OPTUNA_STORAGE": f"sqlite:///{tmp_path}/own.db"}
    project.run(*SEARCH, *words, **environment)
    found = Found(project)

    assert found.parent.tags["sweep.storage"] == environment["OPTUNA_STORAGE"]
    assert found.states.total() == 3
    assert not list(project.root.glob("multirun/train/*/study.journal"))
    lost = project.run(*SEARCH, *words, expect=2)
    assert "the study of this sweep is in sqlite:///" in lost.text


def test_the_space_may_stand_in_the_configuration(project: Project) -> None:
    experiment = project.root / "conf/experiment/search.yaml"
    experiment.write_text(
        "# @package _global_\n"
        "defaults: [{override /hydra/sweeper: optuna}]\n"
        "hydra: {sweeper: {n_trials: 3, params: {optimizer.lr: 'interval(1e-3,1e-2)', model.units: '16,32'}}}\n"
        "trainer: {num_epochs: 1}\n"
    )
    project.run(sys.executable, "-m", "pipeline.train", "-m", "experiment=search")
    found = Found(project)

    assert found.states == {"COMPLETE": 3}
    assert all(row.name.startswith("lr=0.00") and "units=" in row.name for row in found.jobs)


# ---------------------------------------------------------------- nothing is started


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([LR, "hydra.sweeper.sampler=grid"], 2, "the grid sampler tries every value"),
        (["model.activation=relu,thanh"], 2, "the search would come to model.activation=thanh, which cannot run"),
        ([LR, "hydra.sweeper.storage=postgresql://me:secret@host/db"], 2, "holds a password"),
        ([LR, "sweep.dry_run=true"], 0, "20 trials for val/loss (min); none is started"),
    ],
)
def test_a_search_that_cannot_be_starts_nothing(words: list[str], code: int, said: str, project: Project) -> None:
    before = len(project.all_runs())
    done = project.run(*SEARCH, *words, expect=code)

    assert said in done.text
    assert "Traceback" not in done.text
    assert len(project.all_runs()) == before
    assert not (project.root / "multirun").exists()
