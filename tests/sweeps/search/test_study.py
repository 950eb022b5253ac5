"""A search that may end at any instant: what its study knows, what is tried again, what is refused.

Jobs are played here by a function; tests/end_to_end/test_optuna.py has real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from config.config_makers import settings
from pipeline.config.check import validate
from pipeline.config.overrides import values_of
from pipeline.config.schema import SweepConfig, TrainConfig
from pipeline.sweeps.search.options import Search
from pipeline.sweeps.search.storage import (
    IN_ENVIRONMENT,
    open_storage,
    place_of,
    refuse_password,
    shown_place,
    storage_for_jobs,
)
from pipeline.sweeps.search.study import Pruning, Result, StudyRunner
from pipeline.sweeps.sweep import StudyLocation
from pipeline.system.errors import ConfigError, PipelineError

OPTIONS: dict[str, Any] = {
    "n_trials": 6, "sampler": "tpe", "sampler_options": {}, "pruner": "none", "pruner_options": {}, "seed": 0,
    "storage": None, "n_jobs": 1, "max_failures_in_a_row": 3, "params": {},
}  # fmt: skip
WORDS = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.units=int(interval(16,64))")
Play = Callable[[dict[str, str]], Result]
Loss = Result((0.5,))


def search(*words: str, changes: dict[str, Any] | None = None, **options: Any) -> Search:
    return Search.read(OPTIONS | options, words or WORDS, settings(changes), loader=None)


def opened(folder: Path, what: Search, owner: str = "sweep") -> StudyRunner:
    study = StudyRunner(what, "name", str(folder / "study.journal"))
    study.begin(owner)
    return study


def lr_of(values: dict[str, str]) -> Result:
    return Result((float(values["optimizer.lr"]),))


def go(study: StudyRunner, play: Play = lr_of, at_once: int = 1) -> list[tuple[int, dict[str, str]]]:
    """Run it with jobs that end in the order in which they began. Returns number and overrides of each."""
    started: list[tuple[int, dict[str, str]]] = []

    def run(jobs: Iterator[tuple[int, dict[str, str]]], num_jobs: int) -> Iterator[tuple[int, Result]]:
        running: list[tuple[int, dict[str, str]]] = []
        while True:
            new = list(islice(jobs, at_once - len(running)))
            started.extend(new)
            running += new
            if not running:
                return
            number, values = running.pop(0)
            yield number, play(values)

    study.run(lambda number, words: (number, values_of(words)), run)
    return started


def states(study: StudyRunner) -> list[str]:
    return [trial.state.name for trial in study.study.trials]


# ---------------------------------------------------------------- from the first trial to the last


def test_a_search_ends_after_n_trials(tmp_path: Path) -> None:
    study = opened(tmp_path, search())
    started = go(study, at_once=2)

    assert [number for number, _ in started] == list(range(6))
    assert states(study) == ["COMPLETE"] * 6
    assert study.study.best_value == min(float(values["optimizer.lr"]) for _, values in started)


def test_a_job_gets_fixed_words_values_and_its_trial(tmp_path: Path) -> None:
    """Floats to the last bit; without a pruner it reports to nobody."""
    study = opened(tmp_path, search(*WORDS, "trainer.num_epochs=2", n_trials=1))
    ((_, values),) = go(study)
    (trial,) = study.study.trials

    assert float(values.pop("optimizer.lr")) == trial.params["optimizer.lr"]
    assert int(values.pop("model.units")) == trial.params["model.units"]
    assert values == {"trainer.num_epochs": "2", "sweep.trial": "0", "sweep.storage": "null"}


def test_the_next_trial_is_asked_for_when_a_slot_is_free(tmp_path: Path) -> None:
    """With two slots at most two trials run, so each knows all results but one."""
    study = opened(tmp_path, search())

    def play(values: dict[str, str]) -> Result:
        running.append(states(study).count("RUNNING"))
        return Loss

    running: list[int] = []
    go(study, play, at_once=2)

    assert max(running) == 2


def test_going_on_with_more_trials(tmp_path: Path) -> None:
    """New values, not the first ones once more; without a number as many as before."""
    first = go(opened(tmp_path, search(n_trials=2)))
    assert go(opened(tmp_path, search(n_trials=2))) == []
    more = go(opened(tmp_path, search(n_trials=5)))

    assert [number for number, _ in more] == [2, 3, 4]
    assert len({values["optimizer.lr"] for _, values in first + more}) == 5
    assert opened(tmp_path, search(n_trials=None)).num_trials == 5


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "qmc", "nsgaii", "grid"])
def test_every_sampler_goes_on_where_it_was(sampler: str, tmp_path: Path) -> None:
    words = ["optimizer.lr=range(0.1,0.4,0.1)", "model.units=range(16,49,16)"] if sampler == "grid" else WORDS
    go(opened(tmp_path, search(*words, n_trials=3, sampler=sampler)))
    study = opened(tmp_path, search(*words, n_trials=7, sampler=sampler))
    go(study, at_once=2)

    assert states(study) == ["COMPLETE"] * 7
    assert len({tuple(trial.params.values()) for trial in study.study.trials}) == 7


def test_the_same_seed_draws_the_same_trials(tmp_path: Path) -> None:
    one, same, other = (
        go(opened(tmp_path / name, search(seed=seed))) for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )

    assert one == same
    assert one != other


def test_a_grid_has_an_end(tmp_path: Path) -> None:
    """n_trials above it means all of it, each point once, also in two starts."""
    words = ("optimizer.lr=1e-3,1e-2", "model.units=16,32,64")
    go(opened(tmp_path, search(*words, sampler="grid", n_trials=4)))
    study = opened(tmp_path, search(*words, sampler="grid", n_trials=100))
    go(study)

    assert states(study) == ["COMPLETE"] * 6
    assert len({tuple(trial.params.values()) for trial in study.study.trials}) == 6


@pytest.mark.parametrize("at_once", [1, 3])
def test_equal_values_are_trained_once(at_once: int, tmp_path: Path) -> None:
    """A training is a function of its settings: a trial takes the result of an equal one, also while that runs."""
    study = opened(tmp_path, search("model.units=16,32", n_trials=8))
    started = go(study, lambda values: Result((float(values["model.units"]),)), at_once)

    assert sorted(values["model.units"] for _, values in started) == ["16", "32"]
    assert all(trial.value == float(trial.params["model.units"]) for trial in study.study.trials)
    assert states(study) == ["COMPLETE"] * 8


def test_two_objectives(tmp_path: Path) -> None:
    what = search(changes={"sweep.objectives": ["val/accuracy", "num_weights"]}, sampler="nsgaii")
    study = opened(tmp_path, what)
    go(study, lambda values: Result((0.9, float(values["model.units"]))))

    assert [one.name for one in study.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    (best,) = study.study.best_trials
    assert best.values[1] == min(trial.params["model.units"] for trial in study.study.trials)


# ---------------------------------------------------------------- failures


def test_a_failed_trial_has_its_reason_and_counts(tmp_path: Path) -> None:
    study = opened(tmp_path, search(n_trials=4))
    results = iter([Loss, Result(reason="diverged"), Loss, Loss])
    go(study, lambda _: next(results))

    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.study.trials[1].user_attrs["error"] == "diverged"
    assert study.num_done == 4


def test_retrying_failed_trials_tries_their_values_in_their_jobs(tmp_path: Path) -> None:
    study = opened(tmp_path, search(n_trials=3))
    results = iter([Loss, Result(reason="disk full"), Loss])
    before = go(study, lambda _: next(results))
    study = opened(tmp_path, search(n_trials=3))
    study.retry_failed()
    ((number, values),) = go(study)

    assert number == 1
    assert values | {"sweep.trial": "1"} == before[1][1]
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    study.retry_failed()
    assert go(study) == []  # it has not failed again


def test_too_many_failures_in_a_row_end_the_search(tmp_path: Path) -> None:
    study = opened(tmp_path, search())
    results = iter([Loss, Result(reason="a"), Loss, Result(reason="b"), Result(reason="c"), Result(reason="d")])
    with pytest.raises(PipelineError, match="3 trials failed in a row, so the search ends here, the last with: d"):
        go(study, lambda _: next(results))

    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "FAIL", "FAIL"]


def test_with_fail_fast_the_first_failure_ends_it(tmp_path: Path) -> None:
    """What was running is tried again later."""
    study = opened(tmp_path, search(changes={"sweep.fail_fast": True}))
    with pytest.raises(PipelineError, match="trial 0 failed: no"):
        go(study, lambda _: Result(reason="no"), at_once=2)

    assert states(study) == ["FAIL", "FAIL", "WAITING"]
    assert study.num_done == 1


def test_an_impossible_combination_is_a_failed_trial(tmp_path: Path) -> None:
    """Each value can be, the two together cannot: the others go on."""
    study = opened(tmp_path, search(n_trials=5, max_failures_in_a_row=9))

    def prepare(number: int, words: Sequence[str]) -> tuple[int, dict[str, str]]:
        if number == 2:
            raise ConfigError("these two do not go together")
        return number, values_of(words)

    def run(jobs: Iterator[tuple[int, dict[str, str]]], num_jobs: int) -> Iterator[tuple[int, Result]]:
        for number, values in jobs:
            yield number, lr_of(values)

    study.run(prepare, run)

    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


# ---------------------------------------------------------------- cut short


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "qmc", "cmaes"])
def test_what_was_interrupted_is_tried_again_first(sampler: str, tmp_path: Path) -> None:
    """In the same jobs, on top of the trials that count."""
    study = opened(tmp_path, search(sampler=sampler))
    results = iter([Loss, Loss])

    def play(values: dict[str, str]) -> Result:
        if result := next(results, None):
            return result
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(study, play, at_once=2)
    first = dict(enumerate(trial.params for trial in study.study.trials))
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL", "FAIL", "WAITING", "WAITING"]

    study = opened(tmp_path, search(sampler=sampler))
    started = go(study, at_once=2)
    assert [number for number, _ in started] == [2, 3, 6, 7]
    assert [study.study.trials[n].params for n in (4, 5)] == [first[2], first[3]]
    assert states(study).count("COMPLETE") == 6


def test_an_interrupted_grid_is_still_whole(tmp_path: Path) -> None:
    what = search("optimizer.lr=1e-3,1e-2", "model.units=16,32,64", sampler="grid", n_trials=None)
    study = opened(tmp_path, what)

    def play(values: dict[str, str]) -> Result:
        if states(study).count("COMPLETE") < 3:
            return Loss
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(study, play, at_once=2)
    study = opened(tmp_path, what)
    go(study)

    done = [trial for trial in study.study.trials if trial.state == TrialState.COMPLETE]
    assert len(done) == len({tuple(trial.params.values()) for trial in done}) == 6


def test_a_killed_search_goes_on(tmp_path: Path) -> None:
    """SIGKILL: nobody told the study that its trials ended, and nobody released its lock."""

    def killed() -> None:
        study = opened(tmp_path, search())
        go(study, lambda _: Loss if states(study).count("COMPLETE") < 2 else os.kill(os.getpid(), signal.SIGKILL), 2)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    study = opened(tmp_path, search())
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL", "FAIL", "WAITING", "WAITING"]
    assert [number for number, _ in go(study)] == [2, 3, 6, 7]


def test_another_sweeps_trials_are_left_alone(tmp_path: Path) -> None:
    """A study in a database may have several machines at work."""
    study = opened(tmp_path, search(), owner="there")
    study.ask()
    here = opened(tmp_path, search(), owner="here")

    assert states(here) == ["RUNNING"]
    assert len(go(here)) == 5


# ---------------------------------------------------------------- seeds


def test_a_trial_over_seeds_is_their_mean(tmp_path: Path) -> None:
    """One job a seed, with a number and a folder of its own; a failed seed fails the trial."""
    study = opened(tmp_path, search(changes={"sweep.seeds": 3}, n_trials=2))
    results = iter([Result((0.1,)), Result((0.2,)), Result((0.6,)), Loss, Result(reason="killed"), Loss])
    started = go(study, lambda _: next(results), at_once=2)

    assert [(number, values["seed"]) for number, values in started] == [(n, str(n % 3)) for n in range(6)]
    assert study.study.trials[0].value == pytest.approx(0.3)
    assert states(study) == ["COMPLETE", "FAIL"]


def test_an_interrupted_trial_over_seeds_has_its_jobs_again(tmp_path: Path) -> None:
    what = search(changes={"sweep.seeds": 2}, n_trials=2)
    study = opened(tmp_path, what)
    results = iter([Loss, Loss, Loss])

    def play(values: dict[str, str]) -> Result:
        if result := next(results, None):
            return result
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(study, play)

    assert [number for number, _ in go(opened(tmp_path, what))] == [2, 3]


# ---------------------------------------------------------------- pruning


def pruning(folder: Path, values: dict[str, str]) -> Pruning:
    """What a job of the search sees."""
    changes: dict[str, Any] = {"sweep.study": "name", "sweep.trial": int(values["sweep.trial"])}
    changes["sweep.storage"] = str(folder / "study.journal")
    record = settings(changes | {"trainer.num_epochs": 4})
    return Pruning.of(validate(TrainConfig, {key: record[key] for key in TrainConfig.model_fields}))


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_ends_the_worse_ones(pruner: str, tmp_path: Path) -> None:
    """Never after the last epoch. The trial is PRUNED, with the values of its epochs."""
    options = {"n_startup_trials": 2} if pruner == "median" else {"max_resource": 4, "reduction_factor": 2}
    study = opened(tmp_path, search(pruner=pruner, pruner_options=options, n_trials=8))
    losses = iter([0.5, 0.4, 0.9, 0.3, 0.8, 0.7, 0.6, 0.2])

    def play(values: dict[str, str]) -> Result:
        job, loss = pruning(tmp_path, values), next(losses)
        for epoch in range(4):
            if job.should_prune(epoch, {"val/loss": loss - epoch / 100}):
                assert epoch < 3
                break
        return Result((loss,))

    go(study, play)

    pruned = [trial for trial in study.study.trials if trial.state == TrialState.PRUNED]
    assert 0 < len(pruned) < 8
    assert all(trial.user_attrs["pruned"] == max(trial.intermediate_values) for trial in pruned)
    assert study.study.best_value == 0.2


def test_a_pruned_trial_that_was_killed_is_not_tried_again(tmp_path: Path) -> None:
    study = opened(tmp_path, search(pruner="median", n_trials=1))
    study.ask()
    pruning(tmp_path, {"sweep.trial": "0"}).trial.set_user_attr("pruned", 1)
    study = opened(tmp_path, search(pruner="median", n_trials=1))

    assert states(study) == ["PRUNED"]
    assert go(study) == []


def test_a_trial_that_is_tried_again_has_its_reports(tmp_path: Path) -> None:
    """A training that goes on from its checkpoint may report its last epoch once more: without a warning."""
    what = search(pruner="median", n_trials=1)
    trial = opened(tmp_path, what).ask()
    pruning(tmp_path, {"sweep.trial": str(trial.number)}).should_prune(0, {"val/loss": 0.5})
    again = opened(tmp_path, what).ask()
    assert (again.number, again.params, again.intermediate_values) == (1, trial.params, {0: 0.5})

    job = pruning(tmp_path, {"sweep.trial": "1"})
    for epoch, loss in enumerate((0.5, 0.4)):
        assert not job.should_prune(epoch, {"val/loss": loss})
    assert opened(tmp_path, what, owner="other").study.trials[1].intermediate_values == {0: 0.5, 1: 0.4}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "changes", "options", "said"),
    [
        (["seed=1"], {}, {}, "has nothing to search"),
        (["optimizer.lr=interval(0,1)"], {}, {"sampler": "grid"}, "an interval has too many"),
        (["optimizer.lr=interval(0,1)"], {}, {"sampler": "cmaes"}, "at least two numbers"),
        ([*WORDS, "optimizer=adam,sgd"], {}, {"sampler": "cmaes"}, "cmaes searches numbers, and optimizer=adam,sgd"),
        (["optimizer=adam,sgd"], {}, {"sampler": "qmc"}, "qmc searches numbers"),
        (WORDS, {}, {"sampler": "bayes"}, "sampler=bayes is not on the list: tpe, cmaes, random, grid, qmc, nsgaii"),
        (WORDS, {}, {"pruner": "asha"}, "pruner=asha is not on the list: none, median, hyperband"),
        (WORDS, {}, {"sampler_options": {"magic": 1}}, "sampler_options.magic: tpe has no such option. There is: "),
        (WORDS, {}, {"sampler": "random", "sampler_options": {"n": 1}}, "random has no such option. It has none"),
        (WORDS, {}, {"sampler": "nsgaii", "sampler_options": {"population_size": 1}}, "nsgaii refuses them"),
        (WORDS, {}, {"n_trials": 0}, "n_trials=0: expected at least 1"),
        (WORDS, {"data.validation_fraction": 0.0}, {}, "a search needs a validation split"),
        (WORDS, {"sweep.objectives": ["test/accuracy"]}, {}, "test images that choose no longer judge"),
        (WORDS, {"sweep.objectives": ["fit_s"]}, {}, "at least one of val/loss, val/accuracy"),
        (["trainer.monitor=val/loss,val/accuracy"], {}, {}, "trials would have different objectives"),
        (WORDS, {"sweep.objectives": ["val/loss", "fit_s"]}, {"sampler": "cmaes"}, "cmaes knows one objective"),
        (WORDS, {"sweep.objectives": ["val/loss", "fit_s"]}, {"pruner": "median"}, "undefined for several objectives"),
        (WORDS, {"sweep.seeds": 2}, {"pruner": "median"}, "with sweep.seeds=2 a trial is a mean"),
        ([*WORDS, "seed=1,2"], {"sweep.seeds": 2}, {}, "say different things"),
    ],
)
def test_a_search_that_cannot_be_is_one_message(
    words: list[str], changes: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        search(*words, changes=changes, **options)


def test_a_study_does_not_go_on_with_something_else(tmp_path: Path) -> None:
    """Another interval is fine."""
    go(opened(tmp_path, search("optimizer.lr=interval(0,1)", "model.units=16,32", n_trials=2)))
    opened(tmp_path, search("optimizer.lr=interval(0,2)", "model.units=16,32"))
    with pytest.raises(ConfigError, match=r"model.units=16,64: study name was begun with other values"):
        opened(tmp_path, search("optimizer.lr=interval(0,1)", "model.units=16,64"))
    with pytest.raises(ConfigError, match=r"sweep.objectives: study name was begun with other ones"):
        opened(tmp_path, search(*WORDS, changes={"sweep.objectives": ["val/accuracy"]}))


def test_params_of_the_configuration_are_replaced_by_typed_ones() -> None:
    found = search("model.units=1,2", params={"model.units": "16,32", "optimizer.lr": "interval(0,1)", "seed": 3})

    assert found.space.texts == {"model.units": "1,2", "optimizer.lr": "interval(0,1)"}
    assert found.space.fixed == ("seed=3",)


def test_a_dry_run_says_what_would_be_searched() -> None:
    assert search(pruner="hyperband", n_trials=9).text() == (
        "9 trials for val/loss (min); none is started (sweep.dry_run)\n"
        "  optimizer.lr  tag(log,interval(1e-4,1e-1))\n"
        "  model.units   int(interval(16,64))\n"
        "sampler tpe, seed 0\n"
        "pruner hyperband (max_resource=20)"
    )


# ---------------------------------------------------------------- where a study is


def test_a_study_lies_in_its_sweeps_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a storage is given, or the environment names one."""
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert place_of(None, tmp_path / "multirun", tmp_path) == str(tmp_path / "multirun/study.journal")
    assert place_of("studies/mine.journal", tmp_path / "multirun", tmp_path) == str(tmp_path / "studies/mine.journal")
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://host/db")
    assert place_of(None, tmp_path, tmp_path) == "postgresql://host/db"
    assert place_of("sqlite:///own.db", tmp_path, tmp_path) == "sqlite:///own.db"


@pytest.mark.parametrize("place", ["mlflow.db", "sqlite:///mlflow.db", "sqlite:////{root}/mlflow.db"])
def test_mlflows_database_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is MLflow's database"):
        place_of(place.format(root=tmp_path), tmp_path / "multirun", tmp_path)


def test_a_password_is_neither_typed_nor_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches a job through the environment alone."""
    url = "postgresql://me:secret@host:5432/db"
    monkeypatch.setenv("OPTUNA_STORAGE", "")
    with pytest.raises(ConfigError, match=r"postgresql://me:\*\*\*@host:5432/db holds a password"):
        refuse_password(url)
    refuse_password("${oc.env:URL}")
    study = StudyLocation.of(url, {}, "name", Path("folder"), Path())

    assert study.tags == {"sweep.study": "name", "sweep.storage": "postgresql://me:***@host:5432/db"}
    assert study.overrides() == ["sweep.study='name'", f"sweep.storage='{IN_ENVIRONMENT}'"]
    assert os.environ["OPTUNA_STORAGE"] == url
    assert storage_for_jobs("sqlite:///own.db") == shown_place("sqlite:///own.db") == "sqlite:///own.db"


def test_a_sweep_does_not_lose_its_study(tmp_path: Path) -> None:
    """Going on without the storage that it began with would begin another study."""
    with pytest.raises(ConfigError, match="the study of this sweep is in postgresql://host/db"):
        StudyLocation.of(None, {"sweep.storage": "postgresql://host/db"}, "name", tmp_path, tmp_path)


def test_a_storage_that_cannot_be_opened_is_one_message() -> None:
    with pytest.raises(PipelineError, match=r"storage nosuch://me:\*\*\*@host/db cannot be opened") as caught:
        open_storage("nosuch://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_half_a_line_at_the_end_of_a_journal_costs_that_line(tmp_path: Path) -> None:
    """As a full disk or a power cut leaves it. The next entry would be appended to it, and never be read."""
    go(opened(tmp_path, search(n_trials=1)))
    with open(tmp_path / "study.journal", "a") as journal:
        journal.write('{"op_code":5,"worker')
    study = opened(tmp_path, search(n_trials=3))
    go(study)

    assert states(study) == states(opened(tmp_path, search(n_trials=3))) == ["COMPLETE"] * 3


def test_a_database_is_a_storage_too(tmp_path: Path) -> None:
    study = StudyRunner(search(n_trials=2), "name", f"sqlite:///{tmp_path}/own.db")
    study.begin("sweep")
    go(study)

    assert states(study) == ["COMPLETE", "COMPLETE"]


def test_sweep_settings_know_no_default() -> None:
    """What a search sets for its jobs is null without one."""
    sweep = validate(SweepConfig, settings()["sweep"])
    assert (sweep.study, sweep.storage, sweep.trial) == (None, None, None)
