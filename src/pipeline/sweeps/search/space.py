"""Hydra's syntax for what to sweep, as Optuna's distributions, and sampled values as Hydra's overrides.

optimizer.lr=tag(log,interval(1e-4,1e-1))    a float, uniform in its logarithm
trainer.batch_size=int(interval(16,256))     an integer, both ends included
model.units=range(64,257,64)                 64, 128, 192 or 256
optimizer=rmsprop,adam                       one of these: values, lists, a group's choices; choice(…), glob(…)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.system.errors import ConfigError

MAX_GRID = 100_000  # values of one key; more were not meant


@dataclass(frozen=True)
class Space:
    """What is tried, and what is the same in all trials."""

    distributions: Mapping[str, BaseDistribution]  # by key, as typed: with a + in front if there was one
    fixed: tuple[str, ...]  # overrides that are no sweeps
    texts: Mapping[str, str]  # key -> its values as typed

    @property
    def keys(self) -> list[str]:
        return [key.lstrip("+") for key in self.distributions]

    @property
    def log_keys(self) -> list[str]:
        """Those drawn evenly on a logarithmic scale."""
        return [key.lstrip("+") for key, one in self.distributions.items() if getattr(one, "log", False)]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial."""
        return [*self.fixed, *(f"{key}={hydra_text(value)}" for key, value in values.items())]

    def grid(self) -> dict[str, list[Any]]:
        """The values of each key.

        Raises:
            ConfigError: there are infinitely many of one.
        """
        return {key: self._values(key) for key in self.distributions}

    def numbers(self) -> list[str]:
        """The keys whose values have an order."""
        return [key for key, one in self.distributions.items() if not isinstance(one, CategoricalDistribution)]

    def corners(self) -> Iterator[dict[str, Any]]:
        """Few combinations in which each choice and each end of a range is found at least once."""
        ends = {key: _ends(one) for key, one in self.distributions.items()}
        first = {key: values[0] for key, values in ends.items()}
        yield first
        for key, values in ends.items():
            yield from ({**first, key: value} for value in values[1:])

    def _values(self, key: str) -> list[Any]:
        match self.distributions[key]:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case IntDistribution(low=low, high=high, step=step) if "interval" not in self.texts[key]:
                return list(range(low, high + 1, step))
            case FloatDistribution(low=low, high=high, step=step) if step:
                return [low + n * step for n in range(round((high - low) / step) + 1)]
        raise ConfigError(
            f"{key}={self.texts[key]}: the grid sampler tries every value, and an interval has too many. Give values "
            "(1e-3,1e-2) or a range(start,stop,step), or use hydra.sweeper.sampler=tpe"
        )


def parse_space(overrides: Sequence[str], loader: Any) -> Space:
    """From the overrides of a multirun; a later one of a key replaces an earlier one.

    Args:
        loader: Hydra's of configurations, for glob(…).

    Raises:
        ConfigError: a sweep that means nothing to a search.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    last = {override.get_key_element(): override for override in parsed if not override.is_hydra_override()}
    swept = {key: override for key, override in last.items() if override.is_sweep_override()}
    texts = {key: str(override.input_line).partition("=")[2] for key, override in swept.items()}
    return Space(
        distributions={key: _distribution(key, texts[key], override) for key, override in swept.items()},
        fixed=tuple(str(override.input_line) for key, override in last.items() if key not in swept),
        texts=texts,
    )


def hydra_text(value: Any) -> str:
    """A value as Hydra reads it back, exactly. Texts are in Hydra's syntax already."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _distribution(key: str, text: str, override: Any) -> BaseDistribution:
    from hydra.core.override_parser.types import Transformer

    sweep = override.value()
    tags = set(getattr(sweep, "tags", ()))
    if unknown := tags - {"log"}:
        raise ConfigError(f"{key}={text}: the tag {sorted(unknown)[0]!r} means nothing here; there is: log")
    try:
        if override.is_interval_sweep():
            kind: Any = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
            return kind(sweep.start, sweep.end, log="log" in tags)  # type: ignore[no-any-return]
        if override.is_range_sweep():
            return _stepped(list(islice(sweep.range(), MAX_GRID + 1)), abs(sweep.step), log="log" in tags)
        if tags:
            raise ValueError("choices have no order, so a scale means nothing to them")
        return CategoricalDistribution(list(map(hydra_text, override.sweep_iterator(Transformer.encode))))
    except ValueError as error:
        raise ConfigError(f"{key}={text}: {error}") from None


def _stepped(values: Sequence[float], step: float, log: bool) -> BaseDistribution:
    if not values:
        raise ValueError("the range is empty")
    if len(values) > MAX_GRID:
        raise ValueError(f"the range has more than {MAX_GRID:,} values")
    if all(isinstance(value, int) for value in values):
        return IntDistribution(int(min(values)), int(max(values)), step=int(step), log=log)
    if log:
        raise ValueError("a range of floats has no logarithmic scale: use tag(log,interval(low,high))")
    return FloatDistribution(min(values), max(values), step=step)


def _ends(distribution: BaseDistribution) -> list[Any]:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return list(choices)
        case IntDistribution(low=low, high=high) | FloatDistribution(low=low, high=high):
            return [low] if low == high else [low, high]
    raise AssertionError(distribution)
