"""The trials of a search, as its study has them on disk: what each is, which count, which are to be tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import ConfigError
from pipeline.sweeps.prune import PRUNED
from pipeline.sweeps.search import Search
from pipeline.sweeps.storage import open_storage
from pipeline.sweeps.strategies import build_pruner, build_sampler, quiet

if TYPE_CHECKING:
    import optuna

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
