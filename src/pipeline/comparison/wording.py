"""A comparison in words, for the terminal and the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from pipeline.comparison.sides import Side
from pipeline.comparison.statistics import MOST_SEEDS, Interval
from pipeline.comparison.verdict import Comparison


def headline(found: Comparison, a: str = "A", b: str = "B") -> str:
    size = f"{abs(found.difference) * 100:.2f} points"
    if found.verdict == "no difference seen":
        return f"No difference seen between {a} and {b} ({points(found.difference)} points, {p_words(found.p)})"
    return f"{b} is {found.verdict} than {a} by {size} ({p_words(found.p)})"


def points(fraction: float) -> str:
    """Of percent, with a sign."""
    return f"{fraction * 100:+.2f}" if round(fraction * 100, 2) else "0.00"


def p_words(p: float) -> str:
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def reach(interval: Interval) -> str:
    """`+1.23 points, 95 % interval +0.95 to +1.51, p = 0.02`."""
    bounds = f"95 % interval {points(interval.low)} to {points(interval.high)}"
    return f"{points(interval.difference)} points, {bounds}, {p_words(interval.p)} ({interval.test})"


def evidence(found: Comparison) -> Iterator[tuple[str, str]]:
    """(question, answer)."""
    yield "other test images", reach(found.images)
    if found.seeds:
        yield "other seeds", reach(found.seeds)
    if note := caveat(found):
        yield "but", note


def caveat(found: Comparison) -> str:
    """What the numbers do not say, and how to find out."""
    counts = len(found.a.members), len(found.b.members)
    if min(counts) == 1:
        if found.identical:
            return "both give the same probabilities for every image"
        if not found.settings and counts == (1, 1):
            return "the settings are the same; the two differ in the seed, the data or the code"
        return (
            "a side with one seed says which network is better, not which settings are: "
            "python -m pipeline.train -m … sweep.seeds=5"
        )
    if found.verdict == "no difference seen" and found.seeds and found.difference:
        needed = found.seeds.seeds_needed
        many = f"{needed:,}" if needed else f"more than {MOST_SEEDS:,}"
        return f"to see a difference of {abs(found.difference) * 100:.2f} points 4 times in 5: {many} seeds a side"
    return ""


def accuracy(side: Side) -> str:
    """`97.85 %` of one network, `97.85 % ± 0.06 (sd, n = 5)` of several."""
    found = side.accuracies
    mean = f"{statistics.mean(found):.2%}"
    return mean if len(found) == 1 else f"{mean} ± {statistics.stdev(found) * 100:.2f} (sd, n = {len(found)})"


def amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def some(indices: list[int], most: int = 8) -> str:
    shown = ", ".join(map(str, indices[:most]))
    return f"{shown}, …" if len(indices) > most else shown
