"""A search from any start to its last trial: an Optuna study, by ask and tell, whose trials are jobs of a sweep.

A study may end at any instant and go on later. What was running then is FAIL, and its values are tried again first, in
the same folder, so that a training goes on from its checkpoint. Such trials do not count towards n_trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from optuna.trial import FrozenTrial, TrialState

from pipeline.config.schema import TrainConfig
from pipeline.sweeps.search.options import DEFAULT_NUM_TRIALS, Search, build_pruner, build_sampler, quiet
from pipeline.sweeps.search.storage import open_storage
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.training import objectives

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

NUM_TRIALS, PRUNER = "num_trials", "pruner"  # attributes of a study; the second has the pruner's name and options
# Attributes of a trial: the sweep's run, its job's number, the trial whose values it tries again, why it failed,
# whether it was interrupted, and the epoch after which it was pruned.
OWNER, JOB, RETRIED, ERROR, INTERRUPTED, PRUNED = "owner", "job", "again", "error", "interrupted", "pruned"


@dataclass(frozen=True)
class Result:
    """What became of a job."""

    values: tuple[float, ...] = ()  # of the objectives; none: it failed
    reason: str = ""


Job = TypeVar("Job")
MakeJob = Callable[[int, list[str]], Job]  # from number and overrides; ConfigError if it cannot be
Launch = Callable[[Iterator[Job], int], Iterator[tuple[int, Result]]]  # jobs and how many to (number, result) of each


class StudyRunner:
    """Runs the trials of one sweep. At most one process does at a time: the one that writes the sweep's run."""

    def __init__(self, search: Search, name: str, place: str) -> None:
        """Open the study, or make it.

        Args:
            place: of its storage.

        Raises:
            ConfigError: it was a study of something else.
            PipelineError: its storage cannot be opened.
        """
        self.search = search
        with quiet():
            self._storage = open_storage(place)
            self.study = _open_study(search, name, self._storage)
        self.num_trials = search.capped(search.num_trials or self.study.user_attrs.get(NUM_TRIALS, DEFAULT_NUM_TRIALS))
        self._running: dict[int, tuple[FrozenTrial, list[Result]]] = {}  # by the trial's job: its results so far
        self._failures_in_a_row = 0

    @property
    def num_done(self) -> int:
        """Trials that count: not those that wait, nor those that are tried again."""
        retried = self._retried()
        return sum(trial.number not in retried for trial in self._trials() if trial.state != TrialState.WAITING)

    def begin(self, owner: str) -> None:
        """Set right what an earlier start left behind.

        Args:
            owner: run id of the sweep. Nobody else writes that run now, so none of its trials is running.
        """
        self.owner = owner
        self.study.set_user_attr(NUM_TRIALS, self.num_trials)
        self.study.set_user_attr(PRUNER, [self.search.pruner, dict(self.search.pruner_options)])
        self._end_running()

    def retry_failed(self) -> None:
        """Try the values of failed trials again; they no longer count."""
        retried = self._retried()
        for trial in self._trials(TrialState.FAIL):
            if trial.number not in retried:
                self._enqueue_again(trial)

    def run(self, make_job: MakeJob[Job], launch: Launch[Job]) -> None:
        """Ask for trials and tell their results until all are done. However this ends, no trial stays RUNNING.

        Raises:
            PipelineError: too many trials failed in a row, or one with fail_fast.
        """
        search = self.search
        self.study.pruner = build_pruner(search.pruner, search.pruner_options)
        self.study.sampler = build_sampler(
            search.sampler, search.sampler_options, search.seed, len(self._trials()), search.grid
        )
        num_jobs = (self.num_trials - self.num_done) * search.jobs_per_trial
        if num_jobs <= 0:  # fewer are wanted than there are
            return
        try:
            for number, result in launch(self._jobs(make_job), num_jobs):
                self._tell_result(number, result)
        finally:
            self._end_running()

    # ---------------------------------------------------------------- ask

    def _jobs(self, make_job: MakeJob[Job]) -> Iterator[Job]:
        """Asks for a trial only when somebody wants a job, so that each knows every result so far."""
        while self.num_done < self.num_trials:
            trial = self.ask()
            if self._has_equal(trial):
                continue
            self._running[trial.user_attrs[JOB]] = trial, []
            for number, overrides in self._overrides_of_jobs(trial):
                try:
                    job = make_job(number, overrides)
                except ConfigError as error:  # a combination that cannot be, of values that each can be
                    print(f"trial {trial.number} cannot run: {error}", flush=True)
                    self._tell_result(number, Result(reason=str(error)))
                else:
                    yield job

    def ask(self) -> FrozenTrial:
        """The next trial. One that is tried again keeps its job's number, and what it has reported."""
        with quiet():
            trial = self.study.ask(dict(self.search.space.distributions))
        earlier = self._trials()[trial.user_attrs.get(RETRIED, trial.number)]
        trial.set_user_attr(OWNER, self.owner)
        trial.set_user_attr(JOB, earlier.user_attrs.get(JOB, earlier.number))
        for epoch, value in earlier.intermediate_values.items():
            trial.report(value, epoch)
        return self._trials()[trial.number]

    def _has_equal(self, trial: FrozenTrial) -> bool:
        """Whether its values were tried before, or are right now: that result is its own."""
        for other in self._trials(TrialState.COMPLETE, TrialState.PRUNED):
            if other.params == trial.params:
                self._tell(trial, other.state, other.values)
                print(f"trial {trial.number} has the values of trial {other.number}, so it is not run", flush=True)
                return True
        return any(other.params == trial.params for other, _ in self._running.values())

    def _overrides_of_jobs(self, trial: FrozenTrial) -> Iterator[tuple[int, list[str]]]:
        """Number and overrides of each job. A trial that is tried again has the jobs that it had before."""
        # Reports cost a job the import of Optuna, so without a pruner it does not know where to.
        unreported = [] if self.search.pruner != "none" else ["sweep.storage=null"]
        overrides = [*self.search.space.overrides(trial.params), f"sweep.trial={trial.number}", *unreported]
        for seed in range(self.search.jobs_per_trial):
            number = trial.user_attrs[JOB] * self.search.jobs_per_trial + seed
            yield number, [*overrides, f"seed={seed}"] if self.search.num_seeds else overrides

    # ---------------------------------------------------------------- tell

    def _tell_result(self, number: int, result: Result) -> None:
        """Of a job; its trial ends with the last one, and with it all running trials of the same values."""
        job = number // self.search.jobs_per_trial
        trial, results = self._running[job]
        results.append(result)
        if len(results) < self.search.jobs_per_trial:
            return
        reason = next((result.reason for result in results if not result.values), None)
        means: list[float] = []
        if reason is not None:
            state = TrialState.FAIL
        elif PRUNED in self._trials()[trial.number].user_attrs:
            state = TrialState.PRUNED
        else:
            state = TrialState.COMPLETE
            means = list(map(fmean, zip(*(result.values for result in results), strict=True)))
        for equal in self._trials(TrialState.RUNNING):
            if equal.params == trial.params and equal.user_attrs.get(OWNER) == self.owner:
                if reason is not None:
                    self._set_attribute(equal, ERROR, reason[:1000])
                self._tell(equal, state, means)
        del self._running[job]
        self._count_failures(trial, reason)

    def _tell(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None = None) -> None:
        with quiet():
            self.study.tell(trial.number, values if state == TrialState.COMPLETE else None, state)

    def _count_failures(self, trial: FrozenTrial, reason: str | None) -> None:
        self._failures_in_a_row = 0 if reason is None else self._failures_in_a_row + 1
        if reason is not None and self.search.fail_fast:
            raise PipelineError(f"trial {trial.number} failed: {reason}")
        if self._failures_in_a_row >= self.search.max_failures_in_a_row:
            message = (
                f"{self._failures_in_a_row} trials failed in a row, so the search ends here, the last with: {reason}"
            )
            print(f"{message}\nhydra.sweeper.max_failures_in_a_row allows more", flush=True)
            raise PipelineError(message)  # the sweep's own error, which counts all failures, may take its place

    # ---------------------------------------------------------------- interrupted and failed trials

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """By number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _retried(self) -> set[int]:
        """The trials whose values are, or need not be, tried again."""
        trials = self._trials()
        retried = {trial.user_attrs[RETRIED] for trial in trials if RETRIED in trial.user_attrs}
        return retried | {trial.number for trial in trials if INTERRUPTED in trial.user_attrs}

    def _end_running(self) -> None:
        """What runs in no process any more is tried again, unless it was pruned.

        Trials of other sweeps are left alone: in a database, several machines may share a study.
        """
        for trial in self._trials(TrialState.RUNNING):
            if trial.user_attrs.get(OWNER, self.owner) != self.owner:
                continue
            if PRUNED in trial.user_attrs:
                self._tell(trial, TrialState.PRUNED)
                continue
            whole = trial.params.keys() == self.search.space.distributions.keys()
            if whole and trial.number not in self._retried():
                self._enqueue_again(trial)
            self._set_attribute(trial, INTERRUPTED, True)
            self._tell(trial, TrialState.FAIL)

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        self.study.enqueue_trial(trial.params, user_attrs={RETRIED: trial.number})

    def _set_attribute(self, trial: FrozenTrial, key: str, value: object) -> None:
        """Of a trial that has not ended."""
        _load_trial(self.study, self._storage, trial.number).set_user_attr(key, value)


def _open_study(search: Search, name: str, storage: BaseStorage) -> optuna.Study:
    """Raises ConfigError if it was a study of something else."""
    import optuna
    from optuna.distributions import check_distribution_compatibility

    study = optuna.create_study(study_name=name, storage=storage, directions=search.directions, load_if_exists=True)
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


def _load_trial(study: optuna.Study, storage: BaseStorage, number: int) -> optuna.Trial:
    """A trial that was asked for elsewhere, to report to it."""
    import optuna

    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


# ---------------------------------------------------------------- a job's side of a search


@dataclass
class Pruning:
    """The trial that a training is, and whether the study's pruner has ended it."""

    trial: optuna.Trial
    objective: str
    num_epochs: int
    pruned: bool = False

    @classmethod
    def of(cls, cfg: TrainConfig) -> Pruning:
        from optuna import load_study

        assert cfg.sweep.study is not None
        assert cfg.sweep.storage is not None
        assert cfg.sweep.trial is not None
        with quiet():
            storage = open_storage(cfg.sweep.storage)
            study = load_study(study_name=cfg.sweep.study, storage=storage)
            study.pruner = build_pruner(*study.user_attrs[PRUNER])
        (objective,) = objectives(cfg.sweep, cfg.trainer, (cfg.trainer.monitor,))
        return cls(_load_trial(study, storage, cfg.sweep.trial), objective, cfg.trainer.num_epochs)

    def should_prune(self, epoch: int, values: Mapping[str, float]) -> bool:
        """Report the epoch: whether the training ends after it. Never after the last one: there is nothing to save."""
        with warnings.catch_warnings():  # of an epoch that was reported before the training was interrupted
            warnings.filterwarnings("ignore", "The reported value is ignored")
            self.trial.report(values[self.objective], epoch)
        if epoch + 1 < self.num_epochs:
            self.pruned = self.trial.should_prune()
        if self.pruned:
            self.trial.set_user_attr(PRUNED, epoch)
        return self.pruned
