"""Whether a difference in accuracy is real: for other test images, and for other seeds.

Shapes: S seeds, N test samples. Accuracies and their differences are fractions; a difference is B's minus A's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.scores import NORMAL_95

LEVEL = 0.95
SIGNIFICANT = 1 - LEVEL
POWER = 0.8  # the chance to see a difference of the size that was measured
MAX_SEEDS = 1000  # more are said to be that many
MAX_EXACT = 10_000  # samples that only one got right; counting them takes 10 ms

Right = NDArray[np.bool_]  # (S, N): which samples each seed's network got right


@dataclass(frozen=True)
class Interval:
    """A difference with its 95 % interval and the p-value of none."""

    difference: float
    low: float
    high: float
    p: float
    test: str  # its name, for people


@dataclass(frozen=True)
class OverSeeds(Interval):
    """For other seeds, on these very test samples."""

    paired: bool  # both sides have the same seeds
    seeds_needed: int | None  # a side, to see this difference 4 times in 5; None: no difference, or over MAX_SEEDS


def over_images(right_a: Right, right_b: Right) -> Interval:
    """For other test samples, with these very networks.

    One network each: McNemar's exact test and Tango's interval. Several: the mean share of right answers of each
    sample, with the normal distribution over the samples.
    """
    if len(right_a) == len(right_b) == 1:
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        count = right_a.shape[1]
        low, high = tango_interval(only_b, only_a, count)
        return Interval((only_b - only_a) / count, low, high, mcnemar(only_a, only_b), "McNemar's exact test")
    gains_N = right_b.mean(0) - right_a.mean(0)
    difference, error = float(gains_N.mean()), float(gains_N.std(ddof=1) / math.sqrt(gains_N.size))
    if error == 0:
        return Interval(difference, difference, difference, 1.0 if difference == 0 else 0.0, "no sample differs")
    from scipy.special import ndtr  # 0.3 s

    reach, p = NORMAL_95 * error, float(2 * ndtr(-abs(difference) / error))
    return Interval(difference, difference - reach, difference + reach, p, "paired z-test over the samples")


def mcnemar(only_a: int, only_b: int) -> float:
    """p-value of as many samples that A alone got right as B alone did; exact, two-sided. Source: McNemar 1947.

    Counted in whole numbers, where scipy.stats.binomtest, which takes 0.5 s to import, is right to 2e-13.
    """
    fewer, count = min(only_a, only_b), only_a + only_b
    if 2 * fewer == count:
        return 1.0
    if count > MAX_EXACT:
        from scipy.stats import binomtest

        return float(binomtest(only_a, count, 0.5).pvalue)
    ways, tail = 1, 0  # to choose which samples A alone got right: of so many, and of so many or fewer
    for chosen in range(fewer + 1):
        tail += ways
        ways = ways * (count - chosen) // (chosen + 1)
    return float(2 * tail / 2**count)


def tango_interval(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """95 % interval of (only_first - only_second) / count, the difference of two paired shares.

    The score interval: unlike the usual one it keeps its level for few differences and has a width for none.
    Source: Tango, Statistics in Medicine 17, 1998.
    """
    measured = (only_first - only_second) / count

    def score(difference: float) -> float:
        """Standard errors between the measured and a true difference."""
        a = 2 * count
        b = -only_first - only_second + (2 * count - only_first + only_second) * difference
        c = -only_second * difference * (1 - difference)
        share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        error = math.sqrt(max(1e-300, count * (2 * share + difference * (1 - difference))))
        return (only_first - only_second - count * difference) / error

    low = _root(lambda at: score(at) - NORMAL_95, -1, measured)
    return low, _root(lambda at: score(at) + NORMAL_95, measured, 1)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where the function, which falls, is zero: halved until no number lies between."""
    inside = 1e-12  # at -1 and 1 no standard error is left
    low, high = max(low, -1 + inside), min(high, 1 - inside)
    if function(low) * function(high) > 0:  # the measured difference is -1 or 1 itself
        return round(low if abs(function(low)) < abs(function(high)) else high)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return middle


def over_seeds(a: Sequence[float], b: Sequence[float], seeds_a: Sequence[int], seeds_b: Sequence[int]) -> OverSeeds:
    """From the accuracy of each seed: a paired t-test where both have the same seeds, else Welch's.

    Raises:
        ValueError: fewer than two seeds on a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"expected two seeds or more on each side, found {len(a)} and {len(b)}")
    difference = float(np.mean(b) - np.mean(a))
    paired = sorted(seeds_a) == sorted(seeds_b) and len(set(seeds_a)) == len(seeds_a)
    name = "paired t-test over the seeds" if paired else "Welch's t-test over the seeds"
    if paired:
        of_a, of_b = dict(zip(seeds_a, a, strict=True)), dict(zip(seeds_b, b, strict=True))
        a, b = [of_a[seed] for seed in sorted(of_a)], [of_b[seed] for seed in sorted(of_b)]
        spread = float(np.std(np.subtract(b, a), ddof=1))
    else:
        spread = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    if spread < 1e-12:  # fractions of whole counts: what is left is rounding
        p = 1.0 if abs(difference) < 1e-12 else 0.0
        return OverSeeds(difference, difference, difference, p, "no seed makes a difference", paired, None)
    from scipy.stats import ttest_ind, ttest_rel  # 0.5 s

    test = ttest_rel(b, a) if paired else ttest_ind(b, a, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    needed = seeds_needed(difference / spread, paired)
    return OverSeeds(difference, float(low), float(high), float(test.pvalue), name, paired, needed)


def seeds_needed(effect: float, paired: bool) -> int | None:
    """Seeds a side at which a difference of so many standard deviations is seen 4 times in 5; None: over MAX_SEEDS."""
    from statsmodels.stats.power import TTestIndPower, TTestPower  # 1 s

    power = TTestPower() if paired else TTestIndPower()

    def chance(seeds: int) -> float:
        """Where the library's tails give NaN, as they do here and there above 5 sd, that of a little less."""
        values = (float(power.power(abs(effect) * share, seeds, SIGNIFICANT)) for share in np.linspace(1, 0.95, 101))
        return next((value for value in values if not math.isnan(value)), 1.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an effect beyond what the distribution is tabulated for: the chance is 1
        if effect == 0 or chance(MAX_SEEDS) < POWER:
            return None
        low, high = 1, MAX_SEEDS  # too few, enough
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if chance(middle) >= POWER else (middle, high)
    return high


def holm_corrected(p_values: Sequence[float]) -> list[float]:
    """For several comparisons at once. Source: Holm, Scandinavian Journal of Statistics 6, 1979."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        corrected[index] = least = max(least, min(1.0, p_values[index] * (len(p_values) - rank)))
    return corrected
