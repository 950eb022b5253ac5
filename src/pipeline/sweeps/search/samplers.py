"""Optuna's samplers and pruners by name, with their arguments checked."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.system.errors import ConfigError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SAMPLERS = ("tpe", "cmaes", "random", "grid", "qmc", "nsgaii")
PRUNERS = ("none", "median", "hyperband")
RESUMABLE_SEED = ("grid", "qmc")  # the study knows their place in the sequence; others would begin anew


def build_sampler(
    name: str, options: Mapping[str, Any], seed: int | None, num_asked: int, grid: Mapping[str, Sequence[Any]]
) -> BaseSampler:
    """The sampler, as it goes on after `num_asked` trials.

    Args:
        grid: the values of each key, where that is the sampler.

    Raises:
        ConfigError: it is not one of SAMPLERS, or knows no such option.
    """
    from optuna import samplers

    kinds: dict[str, Any] = {
        "tpe": samplers.TPESampler, "cmaes": samplers.CmaEsSampler, "random": samplers.RandomSampler,
        "grid": _grid_sampler, "qmc": samplers.QMCSampler, "nsgaii": samplers.NSGAIISampler,
    }  # fmt: skip
    own_seed = seed if seed is None or name in RESUMABLE_SEED else seed + num_asked
    given = {"seed": own_seed, **({"search_space": grid} if name == "grid" else {})}
    return _built("sampler", kinds, name, given, options)  # type: ignore[no-any-return]


def build_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """Raises ConfigError if it is not one of PRUNERS, or knows no such option."""
    from optuna import pruners

    kinds = {"none": pruners.NopPruner, "median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner}
    return _built("pruner", kinds, name, {}, options)  # type: ignore[no-any-return]


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna neither says what it does nor that a part of it is young: the choice was the user's."""
    from optuna.exceptions import ExperimentalWarning

    logging.getLogger("optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _grid_sampler(search_space: Mapping[str, Sequence[Any]], seed: int | None) -> BaseSampler:
    from optuna.samplers import GridSampler

    class Grid(GridSampler):
        """Without the end of the grid as an error: it may only be announced in `Study.optimize`."""

        def after_trial(self, *_: Any) -> None: ...

    return Grid(search_space, seed)


def _built(what: str, kinds: Mapping[str, Any], name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    if name not in kinds:
        raise ConfigError(f"hydra.sweeper.{what}={name} is not on the list: {', '.join(kinds)}")
    known = [key for key in inspect.signature(kinds[name]).parameters if key not in ("self", "search_space", "seed")]
    if unknown := [key for key in options if key not in known]:
        there_is = f"There is: {', '.join(known)}" if known else "It has none"
        raise ConfigError(f"hydra.sweeper.{what}_options.{unknown[0]}: {name} has no such option. {there_is}")
    try:
        with quiet():
            return kinds[name](**given, **options)
    except ImportError as error:
        raise ConfigError(f"hydra.sweeper.{what}={name} needs a package: pip install {error.name or name}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"hydra.sweeper.{what}_options: {name} refuses them: {error}") from error
