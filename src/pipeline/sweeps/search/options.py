"""What `hydra/sweeper=optuna` is asked for, checked before anything starts."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import SweepConfig, TrainerConfig
from pipeline.runtime.stage_runner import check_record
from pipeline.sweeps.search.space import Space, parse_space
from pipeline.system.errors import ConfigError
from pipeline.system.startup import errors_alone
from pipeline.training import direction, objectives

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

DEFAULT_NUM_TRIALS = 20  # of a new search without n_trials
NUMBERS_ONLY = ("cmaes", "qmc")
RESUMABLE_SEED = ("grid", "qmc")  # the study knows their place in the sequence; others would begin anew
DECIDES_THE_OBJECTIVE = ("trainer.monitor", "data.validation_fraction")
MAX_PROBES = 64  # 0.1 s each


@dataclass(frozen=True)
class Search:
    """Where to look, how, how often, and for what."""

    space: Space
    goals: tuple[str, ...]
    num_seeds: int | None  # of each trial; None: it has one job, whose seed is not touched
    num_trials: int | None  # in all; None: as many as before, DEFAULT_NUM_TRIALS for a new search
    sampler: str
    sampler_options: Mapping[str, Any]
    pruner: str
    pruner_options: Mapping[str, Any]
    seed: int | None  # of the sampler
    storage: str | None
    num_jobs: int  # at once, where the launcher does not decide it
    max_failures_in_a_row: int
    fail_fast: bool

    @classmethod
    def read(cls, options: Mapping[str, Any], overrides: Sequence[str], base: Mapping[str, Any], loader: Any) -> Search:
        """From Hydra's part of the configuration, the overrides of the multirun, and what they leave fixed.

        Raises:
            ConfigError: the parts contradict each other.
        """
        given = [f"{key}={'null' if value is None else value}" for key, value in options["params"].items()]
        sweep, trainer = validate(SweepConfig, base["sweep"]), validate(TrainerConfig, base["trainer"])
        horizon = {"max_resource": trainer.num_epochs} if options["pruner"] == "hyperband" else {}
        search = cls(
            space=parse_space([*given, *overrides], loader),
            goals=objectives(sweep, trainer, (trainer.monitor,)),
            num_seeds=sweep.seeds,
            num_trials=options["n_trials"],
            sampler=options["sampler"],
            sampler_options=options["sampler_options"],
            pruner=options["pruner"],
            pruner_options={**horizon, **options["pruner_options"]},
            seed=options["seed"],
            storage=options["storage"],
            num_jobs=options["n_jobs"],
            max_failures_in_a_row=options["max_failures_in_a_row"],
            fail_fast=sweep.fail_fast,
        )
        search._check_objective(base["data"]["validation_fraction"])
        search._check_sampler()
        search._check_pruner()
        return search

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        return ["minimize" if direction(goal) == "min" else "maximize" for goal in self.goals]

    @property
    def jobs_per_trial(self) -> int:
        return self.num_seeds or 1

    @property
    def grid(self) -> dict[str, list[Any]]:
        """Empty for the other samplers."""
        return self.space.grid() if self.sampler == "grid" else {}

    @property
    def identity(self) -> list[Any]:
        """What its trials are a function of, without what the sweep's own overrides say."""
        how = [self.sampler, dict(self.sampler_options), self.pruner, dict(self.pruner_options), self.seed]
        return [sorted(self.space.texts.items()), list(self.goals), self.num_seeds, *how]

    def capped(self, num_trials: int) -> int:
        """A grid has an end."""
        return min(num_trials, prod(map(len, self.grid.values()))) if self.grid else num_trials

    def text(self) -> str:
        """For `sweep.dry_run`."""
        count = self.capped(self.num_trials or DEFAULT_NUM_TRIALS)
        goals = " and ".join(f"{goal} ({direction(goal)})" for goal in self.goals)
        seeds = f", {self.num_seeds} seeds each" if self.num_seeds else ""
        width = max(map(len, self.space.keys))
        lines = [f"  {key.lstrip('+'):<{width}}  {text}" for key, text in self.space.texts.items()]
        return "\n".join([
            f"{count} trials{seeds} for {goals}; none is started (sweep.dry_run)", *lines,
            f"sampler {self.sampler}{_options(self.sampler_options)}, seed {self.seed}",
            f"pruner {self.pruner}{_options(self.pruner_options)}",
        ])  # fmt: skip

    def probe(self, conf: Path) -> None:
        """Compose and check few configurations in which each choice and each end of a range is found.

        Raises:
            ConfigError: one of them cannot be; that trial would have failed later.
        """
        for number, values in enumerate(self.space.corners()):
            if number == MAX_PROBES:
                return
            overrides = self.space.overrides(values)
            try:
                check_record("train", parse(compose_yaml(conf, overrides)))
            except ConfigError as error:
                combination = " ".join(overrides[len(self.space.fixed) :])
                raise ConfigError(f"the search would come to {combination}, which cannot run: {error}") from None

    def _check_objective(self, validation_fraction: float) -> None:
        if not self.space.distributions:
            raise ConfigError(
                "hydra/sweeper=optuna has nothing to search: say where, as in 'optimizer.lr=interval(1e-4,1e-1)'"
            )
        if validation_fraction == 0:
            raise ConfigError(
                "a search needs a validation split, but data.validation_fraction=0: the training loss would choose "
                "what learns the training images by heart, and the test images must not choose. Give "
                "data.validation_fraction=0.1"
            )
        if not any(goal.startswith("val/") for goal in self.goals):
            raise ConfigError(
                f"sweep.objectives=[{','.join(self.goals)}]: a search wants at least one of val/loss, val/accuracy: "
                "the others do not say how good a model is on images that it has not seen"
            )
        if decides := [key for key in self.space.keys if key in DECIDES_THE_OBJECTIVE or key.startswith("sweep.")]:
            raise ConfigError(f"{decides[0]}: cannot be searched, because trials would have different objectives")
        if self.num_trials is not None and self.num_trials < 1:
            raise ConfigError(f"hydra.sweeper.n_trials={self.num_trials}: expected at least 1")
        if self.num_seeds and "seed" in self.space.keys:
            raise ConfigError(f"sweep.seeds={self.num_seeds} and seed=… say different things: give one of them")

    def _check_sampler(self) -> None:
        numbers = self.space.numbers()
        choices = [key for key in self.space.distributions if key not in numbers]
        if self.sampler in NUMBERS_ONLY and choices:
            raise ConfigError(
                f"hydra.sweeper.sampler={self.sampler} searches numbers, and {choices[0]}="
                f"{self.space.texts[choices[0]]} is a choice. Give an interval, or use tpe, random, grid or nsgaii"
            )
        if self.sampler == "cmaes" and len(numbers) < 2:
            raise ConfigError("hydra.sweeper.sampler=cmaes needs at least two numbers to search. Use tpe")
        if self.sampler == "cmaes" and len(self.goals) > 1:
            raise ConfigError("hydra.sweeper.sampler=cmaes knows one objective. Use nsgaii, tpe or random")
        build_sampler(self.sampler, self.sampler_options, self.seed, 0, self.grid)

    def _check_pruner(self) -> None:
        build_pruner(self.pruner, self.pruner_options)
        if self.pruner == "none":
            return
        problem = f"hydra.sweeper.pruner={self.pruner} compares trials while they run, "
        if len(self.goals) > 1:
            raise ConfigError(f"{problem}which is undefined for several objectives. Leave it none")
        if self.goals[0] not in ("val/loss", "val/accuracy"):
            raise ConfigError(f"{problem}and {self.goals[0]} is not known then. Leave it none")
        if self.jobs_per_trial > 1:
            raise ConfigError(f"{problem}but with sweep.seeds={self.num_seeds} a trial is a mean. Leave it none")


def _options(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{key}={value}' for key, value in options.items())})" if options else ""


# ---------------------------------------------------------------- Optuna's samplers and pruners by name


def build_sampler(
    name: str, options: Mapping[str, Any], seed: int | None, num_trials: int, grid: Mapping[str, Sequence[Any]]
) -> BaseSampler:
    """The sampler, as it goes on after `num_trials` trials.

    Args:
        grid: the values of each key, where that is the sampler.

    Raises:
        ConfigError: there is no such sampler, or it has no such option.
    """
    from optuna import samplers

    kinds: dict[str, Any] = {
        "tpe": samplers.TPESampler, "cmaes": samplers.CmaEsSampler, "random": samplers.RandomSampler,
        "grid": _grid_sampler, "qmc": samplers.QMCSampler, "nsgaii": samplers.NSGAIISampler,
    }  # fmt: skip
    next_seed = seed if seed is None or name in RESUMABLE_SEED else seed + num_trials
    given = {"seed": next_seed, **({"search_space": grid} if name == "grid" else {})}
    return _build("sampler", kinds, name, given, options)  # type: ignore[no-any-return]


def build_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """Raises ConfigError if there is no such pruner, or it has no such option."""
    from optuna import pruners

    kinds = {"none": pruners.NopPruner, "median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner}
    return _build("pruner", kinds, name, {}, options)  # type: ignore[no-any-return]


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna neither logs what it does nor warns that a part of it is young: the choice was the user's."""
    from optuna.exceptions import ExperimentalWarning

    with errors_alone("optuna"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _grid_sampler(search_space: Mapping[str, Sequence[Any]], seed: int | None) -> BaseSampler:
    from optuna.samplers import GridSampler

    class Grid(GridSampler):
        """Without the end of the grid as an error: it may only be announced in `Study.optimize`."""

        def after_trial(self, *_: Any) -> None: ...

    return Grid(search_space, seed)


def _build(what: str, kinds: Mapping[str, Any], name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    if name not in kinds:
        raise ConfigError(f"hydra.sweeper.{what}={name} is not on the list: {', '.join(kinds)}")
    allowed = [key for key in inspect.signature(kinds[name]).parameters if key not in ("self", "search_space", "seed")]
    if unknown := [key for key in options if key not in allowed]:
        there_is = f"There is: {', '.join(allowed)}" if allowed else "It has none"
        raise ConfigError(f"hydra.sweeper.{what}_options.{unknown[0]}: {name} has no such option. {there_is}")
    try:
        with quiet():
            return kinds[name](**given, **options)
    except ImportError as error:
        raise ConfigError(f"hydra.sweeper.{what}={name} needs a package: pip install {error.name or name}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"hydra.sweeper.{what}_options: {name} refuses them: {error}") from error
