"""The axes of a sweep's figures: where a swept value lies, on a linear, a logarithmic or a named scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.sweeps.rows import as_number
from pipeline.sweeps.wording import value_text

MAX_TICKS = 6  # at the values themselves; more distinct numbers get round ticks
MAX_CATEGORIES = 12  # with a name each
MAX_NAME = 17  # characters of a category


@dataclass(frozen=True)
class Scale:
    """Where a value lies on its axis."""

    kind: Literal["linear", "log", "category"]
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()  # matplotlib's own if empty

    @classmethod
    def of(cls, texts: Sequence[str], log: bool = False) -> Scale:
        """Of values as typed: numeric if all of them are numbers, else by category, numbers first."""
        named = {as_number(text): value_text(text) for text in texts}
        if None not in named:
            return cls.of_numbers([number for number in named if number is not None], log)._named(named)
        ordered = sorted(set(texts), key=lambda text: (as_number(text) is None, as_number(text) or 0, text))
        return cls("category", -0.5, len(ordered) - 0.5, tuple(enumerate(ordered)))

    @classmethod
    def of_numbers(cls, numbers: Sequence[float], log: bool = False) -> Scale:
        """With a margin. Logarithmic if told so, for a geometric series such as 32, 64, 128, and for two decades.

        Even samples of 0..1 also span two decades, so half of the numbers must crowd at the low end.
        """
        low, high = min(numbers), max(numbers)
        crowded = median_low(set(numbers)) < high / 4
        if low > 0 and (log or (high / low >= 100 and crowded) or _geometric(numbers)):
            factor = (high / low) ** 0.04 if high > low else 1.5
            return cls("log", low / factor, high * factor)
        margin = (high - low) * 0.04 or abs(low) * 0.05 or 0.5
        return cls("linear", low - margin, high + margin)

    def place(self, text: str) -> float:
        """In the coordinates of the axis."""
        return float([name for _, name in self.ticks].index(text) if self.kind == "category" else text)

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        if self.kind == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def draw(self, axes: Axes, letter: Literal["x", "y"]) -> None:
        axis = axes.xaxis if letter == "x" else axes.yaxis
        axes.set(**{f"{letter}scale": "log" if self.kind == "log" else "linear"})
        axes.set(**{f"{letter}lim": (self.low, self.high)})
        if self.ticks:
            shown = self.ticks[:: -(-len(self.ticks) // MAX_CATEGORIES)]
            axis.set_ticks([place for place, _ in shown], [cut(name) for _, name in shown])
            axis.set_ticks([], minor=True)
        elif self.kind == "linear":
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(lambda value, _: f"{value:.6g}")  # an offset would stand between two axes
        elif self.high / self.low < 100:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:.6g}")
            axis.set_ticks([], minor=True)

    def _named(self, names: dict[float | None, str]) -> Scale:
        """With ticks at the values, if they are few and not too close."""
        ticks = sorted((number, name) for number, name in names.items() if number is not None)
        shares = [self.share(number) for number, _ in ticks]
        clear = all(b - a > 0.1 for a, b in pairwise(shares))
        return replace(self, ticks=tuple(ticks)) if clear and len(ticks) <= MAX_TICKS else self


def _geometric(numbers: Sequence[float]) -> bool:
    """At least three, each about the same multiple of the one before: 1e-3, 3e-3, 1e-2 are, 10, 20, 30 are not."""
    ordered = np.unique(numbers)
    if len(ordered) < 3:
        return False
    ratios = ordered[1:] / ordered[:-1]
    return bool(ratios.min() > 1.9 and ratios.max() / ratios.min() < 1.15)


def cut(name: str) -> str:
    """A name, shortened in the middle: names that begin alike differ at their ends."""
    half = (MAX_NAME - 1) // 2
    return name if len(name) <= MAX_NAME else f"{name[:half]}…{name[-half:]}"
