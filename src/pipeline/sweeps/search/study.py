"""A search from any start to its last trial: an Optuna study whose trials are jobs of a sweep.

A study may end at any instant and go on later. What was running then is FAIL, and its values are tried again first, in
the same folder, so that a training goes on from its checkpoint. Such trials do not count towards n_trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from optuna.trial import FrozenTrial, TrialState

from pipeline.sweeps.search.options import FIRST_NUM_TRIALS, Search
from pipeline.sweeps.search.pruning import PRUNED, PRUNER
from pipeline.sweeps.search.samplers import build_pruner, build_sampler, quiet
from pipeline.sweeps.search.storage import open_storage
from pipeline.system.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    import optuna

NUM_TRIALS = "num_trials"  # attribute of a study
Ready = TypeVar("Ready")


@dataclass(frozen=True)
class Result:
    """What became of a job."""

    values: tuple[float, ...] = ()  # of the objectives; none: it failed
    reason: str = ""


Prepare = Callable[[int, list[str]], Ready]  # (number, overrides) to a job; ConfigError if it cannot be
Run = Callable[[Iterator[Ready], int], Iterator[tuple[int, Result]]]  # jobs and how many to (number, result) of each


@dataclass
class Running:
    """A trial whose jobs have been given out, and later trials of the same values, which end as it does."""

    trial: FrozenTrial
    twins: list[FrozenTrial] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


class Study:
    """The study of one sweep. At most one process goes on with it at a time: the one that writes the sweep's run."""

    def __init__(self, search: Search, name: str, place: str) -> None:
        """Open the study, or make it.

        Args:
            place: of its storage.

        Raises:
            ConfigError: it was a study of something else.
            PipelineError: its storage cannot be opened.
        """
        self.search = search
        self.running: dict[int, Running] = {}  # by trial
        self._failures_in_a_row = 0
        self.trials = Trials(search, name, place)
        before = self.trials.study.user_attrs.get(NUM_TRIALS, FIRST_NUM_TRIALS)
        self.num_trials = search.capped(search.num_trials or before)

    def begin(self, owner: str) -> None:
        """Set right what an earlier start left behind.

        Args:
            owner: run id of the sweep. Nobody else writes that run now, so none of its trials is running.
        """
        self.owner = owner
        self.trials.study.set_user_attr(NUM_TRIALS, self.num_trials)
        self.trials.study.set_user_attr(PRUNER, [self.search.pruner, dict(self.search.pruner_options)])
        self._none_is_running()

    def retry_failed(self) -> None:
        """Try the values of failed trials again; they no longer count."""
        replaced = self.trials.replaced()
        for trial in self.trials.all(TrialState.FAIL):
            if trial.number not in replaced:
                self.trials.enqueue(trial)

    def run(self, prepare: Prepare[Ready], run: Run[Ready], fail_fast: bool) -> None:
        """Try until all trials are done. However this ends, no trial stays RUNNING.

        Raises:
            PipelineError: too many trials failed in a row, or one with fail_fast.
        """
        self.trials.prepare_sampler()
        left = (self.num_trials - self.trials.num_done) * self.search.jobs_per_trial
        if left <= 0:  # fewer are asked for than there are
            return
        try:
            for number, result in run(self._jobs(prepare, fail_fast), left):
                self._take(number, result, fail_fast)
        finally:
            self._none_is_running()

    def _none_is_running(self) -> None:
        """Trials of other sweeps are left alone: in a database, several machines may share a study."""
        for trial in self.trials.all(TrialState.RUNNING):
            if trial.user_attrs.get(OWNER, self.owner) == self.owner:
                self.trials.interrupted(trial)

    # ---------------------------------------------------------------- trials to jobs

    def _jobs(self, prepare: Prepare[Ready], fail_fast: bool) -> Iterator[Ready]:
        """Asks for a trial only when somebody wants a job, so that each knows every result so far."""
        while self.trials.num_done < self.num_trials:
            trial = self._ask()
            if trial is None:
                continue
            for number, words in self._work(trial):
                try:
                    job = prepare(number, words)
                except ConfigError as error:  # a combination that cannot be, of values that each can be
                    print(f"trial {trial.number} cannot run: {error}", flush=True)
                    self._take(number, Result(reason=str(error)), fail_fast)
                else:
                    yield job

    def _ask(self) -> FrozenTrial | None:
        """The next trial; None if its values were tried before, or are right now: that result is its own."""
        trial = self.trials.ask(self.owner)
        if same := self.trials.same(trial):
            self.trials.tell(trial, same.state, same.values)
            print(f"trial {trial.number} has the values of trial {same.number}, so it is not run", flush=True)
            return None
        for one in self.running.values():
            if one.trial.params == trial.params:
                one.twins.append(trial)
                return None
        self.running[trial.number] = Running(trial)
        return trial

    def _work(self, trial: FrozenTrial) -> Iterator[tuple[int, list[str]]]:
        """Number and overrides of each job. A trial that is tried again has the jobs that it had before."""
        # Reports cost a job the import of Optuna, so without a pruner it does not know where to.
        reports = [] if self.search.pruner != "none" else ["sweep.storage=null"]
        words = [*self.search.space.words(trial.params), f"sweep.trial={trial.number}", *reports]
        for seed in range(self.search.jobs_per_trial):
            number = trial.user_attrs[JOB] * self.search.jobs_per_trial + seed
            yield number, [*words, f"seed={seed}"] if self.search.num_seeds else words

    # ---------------------------------------------------------------- results to trials

    def _take(self, number: int, result: Result, fail_fast: bool) -> None:
        job = number // self.search.jobs_per_trial
        one = next(one for one in self.running.values() if one.trial.user_attrs[JOB] == job)
        one.results.append(result)
        if len(one.results) < self.search.jobs_per_trial:
            return
        reason = next((result.reason for result in one.results if not result.values), None)
        pruned = PRUNED in self.trials.one(one.trial.number).user_attrs
        for trial in (one.trial, *one.twins):
            if reason is not None:
                self.trials.attribute(trial, ERROR, reason[:1000])
                self.trials.tell(trial, TrialState.FAIL)
            elif pruned:
                self.trials.tell(trial, TrialState.PRUNED)
            else:
                means = map(fmean, zip(*(result.values for result in one.results), strict=True))
                self.trials.tell(trial, TrialState.COMPLETE, list(means))
        del self.running[one.trial.number]
        self._count_failures(one.trial, reason, fail_fast)

    def _count_failures(self, trial: FrozenTrial, reason: str | None, fail_fast: bool) -> None:
        self._failures_in_a_row = 0 if reason is None else self._failures_in_a_row + 1
        if reason is not None and fail_fast:
            raise PipelineError(f"trial {trial.number} failed: {reason}")
        if self._failures_in_a_row >= self.search.max_failures_in_a_row:
            said = f"{self._failures_in_a_row} trials failed in a row, so the search ends here, the last with: {reason}"
            print(f"{said}\nhydra.sweeper.max_failures_in_a_row allows more", flush=True)
            raise PipelineError(said)  # the sweep's own error, which counts all failures, may take its place


# ---------------------------------------------------------------- the trials of a search, as its study has them on disk


# Attributes of a trial: the sweep's run, its job's number, which trial's values it tries again, what became of it.
OWNER, JOB, AGAIN, INTERRUPTED, ERROR = "owner", "job", "again", "interrupted", "error"


class Trials:
    """An Optuna study as a search sees it."""

    def __init__(self, search: Search, name: str, place: str) -> None:
        self.search = search
        self.study = _opened(search, name, place)
        self._storage = self.study._storage

    @property
    def num_done(self) -> int:
        """Trials that count: not those that wait, nor those that are tried again."""
        replaced = self.replaced()
        return sum(trial.number not in replaced for trial in self.all() if trial.state != TrialState.WAITING)

    def all(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def one(self, number: int) -> FrozenTrial:
        storage = self._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))

    def same(self, trial: FrozenTrial) -> FrozenTrial | None:
        """An earlier trial of the same values: it would end the same."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        return next((one for one in self.all(*states) if one.params == trial.params), None)

    def replaced(self) -> set[int]:
        """The trials whose values are, or need not be, tried again."""
        trials = self.all()
        again = {trial.user_attrs[AGAIN] for trial in trials if AGAIN in trial.user_attrs}
        return again | {trial.number for trial in trials if INTERRUPTED in trial.user_attrs}

    def prepare_sampler(self) -> None:
        """A new one that goes on after the trials so far."""
        search, asked = self.search, len(self.all())
        self.study.sampler = build_sampler(search.sampler, search.sampler_options, search.seed, asked, search.grid)
        self.study.pruner = build_pruner(search.pruner, search.pruner_options)

    def ask(self, owner: str) -> FrozenTrial:
        """The next trial. One that is tried again keeps its job's number, and what it has reported."""
        with quiet():
            number = self.study.ask(dict(self.search.space.distributions)).number
        trial = self.one(number)
        before = self.one(again) if (again := trial.user_attrs.get(AGAIN)) is not None else None
        self.attribute(trial, OWNER, owner)
        self.attribute(trial, JOB, before.user_attrs.get(JOB, before.number) if before else number)
        for step, value in (before.intermediate_values if before else {}).items():
            self._storage.set_trial_intermediate_value(trial._trial_id, step, value)
        return self.one(number)

    def tell(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None = None) -> None:
        with quiet():
            self.study.tell(trial.number, values if state == TrialState.COMPLETE else None, state)

    def interrupted(self, trial: FrozenTrial) -> None:
        """Its process is gone: to be tried again, unless it had been given up already."""
        if PRUNED in trial.user_attrs:
            self.tell(trial, TrialState.PRUNED)
            return
        whole = trial.params.keys() == self.search.space.distributions.keys()
        if whole and trial.number not in self.replaced():
            self.enqueue(trial)
        self.attribute(trial, INTERRUPTED, True)
        self.tell(trial, TrialState.FAIL)

    def enqueue(self, trial: FrozenTrial) -> None:
        self.study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})

    def attribute(self, trial: FrozenTrial, key: str, value: object) -> None:
        """Of a trial that has not ended."""
        self._storage.set_trial_user_attr(trial._trial_id, key, value)


def _opened(search: Search, name: str, place: str) -> optuna.Study:
    """Raises ConfigError if it was a study of something else."""
    import optuna
    from optuna.distributions import check_distribution_compatibility

    with quiet():
        study = optuna.create_study(
            study_name=name, storage=open_storage(place), directions=search.directions, load_if_exists=True
        )
    if [one.name.lower() for one in study.directions] != search.directions:
        raise ConfigError(f"sweep.objectives: study {name} was begun with other ones. Start another: sweep.again=true")
    for trial in study.get_trials(deepcopy=False):
        for key, before in trial.distributions.items():
            try:
                check_distribution_compatibility(before, search.space.distributions.get(key, before))
            except ValueError as error:
                raise ConfigError(
                    f"{key}={search.space.texts[key]}: study {name} was begun with other values ({error}). A study may "
                    "go on with another interval, not with other choices. Start another: sweep.again=true"
                ) from None
    return study
