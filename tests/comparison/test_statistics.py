"""Against published values, and against what any such test must do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from pipeline.comparison.statistics import (
    MAX_EXACT,
    SIGNIFICANT,
    holm_corrected,
    mcnemar,
    over_images,
    over_seeds,
    seeds_needed,
    tango_interval,
)


def test_tangos_interval_of_published_data() -> None:
    """Airway hyper-responsiveness of 21 children, in Fagerland, Lydersen, Laake, Statistics in Medicine 33, 2014."""
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(
    ("first", "second", "count"), [(0, 0, 100), (5, 0, 5), (3, 3, 10), (12, 140, 10_000), (1, 0, 1)]
)
def test_tangos_interval_holds_the_difference_and_turns_with_it(first: int, second: int, count: int) -> None:
    low, high = tango_interval(first, second, count)
    assert -1 <= low <= (first - second) / count <= high <= 1
    assert low < high
    assert tango_interval(second, first, count) == pytest.approx((-high, -low), abs=1e-9)


def test_tangos_interval_holds_the_truth_95_times_in_100() -> None:
    """Of 2,000 pairs of networks that err together; three standard errors of the count are 1.5 %."""
    rng = np.random.default_rng(0)
    truth, held = 0.08 - 0.03, 0
    for first, second, _ in rng.multinomial(200, [0.08, 0.03, 0.89], size=2000):
        low, high = tango_interval(int(first), int(second), 200)
        held += low <= truth <= high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_mcnemars_test() -> None:
    """The exact p-values of a fair coin."""
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar(7, 1) == mcnemar(1, 7)
    assert (mcnemar(0, 0), mcnemar(4, 4)) == (1.0, 1.0)


def test_mcnemars_test_is_the_binomial_one() -> None:
    """As scipy computes it, which is right to 2e-13; from MAX_EXACT on it is scipy's."""
    rng = np.random.default_rng(0)
    pairs = [(first, second) for first in range(25) for second in range(25) if first + second]
    pairs += [(int(first), int(second)) for first, second in rng.integers(0, 4000, (50, 2))]
    for first, second in pairs:
        assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-12, abs=1e-300)
    assert mcnemar(MAX_EXACT, 9800) == binomtest(MAX_EXACT, MAX_EXACT + 9800).pvalue


def test_two_networks_are_compared_by_the_samples_in_which_they_differ() -> None:
    a = np.zeros((1, 100), dtype=bool)
    b = a.copy()
    b[0, :8] = True
    found = over_images(a, b)
    assert (found.difference, found.p) == (0.08, mcnemar(0, 8))
    assert (found.low, found.high) == tango_interval(8, 0, 100)
    assert over_images(a, a).p == 1


def test_several_networks_are_compared_by_their_mean_answers() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 1000)) < 0.90, rng.random((5, 1000)) < 0.93
    found = over_images(a, b)
    gains = b.mean(0) - a.mean(0)
    reach = 1.96 * gains.std(ddof=1) / np.sqrt(1000)
    assert found.difference == pytest.approx(gains.mean())
    assert (found.low, found.high) == pytest.approx((gains.mean() - reach, gains.mean() + reach), rel=1e-3)
    assert over_images(a, a).p == 1


def test_the_same_seeds_are_paired() -> None:
    """A seed that is good for both is no evidence, in whatever order the seeds come."""
    a, b = [0.90, 0.93, 0.96], [0.911, 0.940, 0.972]
    paired = over_seeds(a, b, [0, 1, 2], [0, 1, 2])
    turned = over_seeds(a, b[::-1], [0, 1, 2], [2, 1, 0])
    others = over_seeds(a, b, [0, 1, 2], [3, 4, 5])
    assert (paired.paired, others.paired) == (True, False)
    assert turned.p == pytest.approx(paired.p)
    assert paired.p < SIGNIFICANT < others.p
    assert paired.difference == pytest.approx(0.011)
    assert paired.low < paired.difference < paired.high


def test_seeds_that_make_no_difference() -> None:
    same = over_seeds([0.9, 0.9], [0.9, 0.9], [0, 1], [0, 1])
    other = over_seeds([0.9, 0.9], [0.8, 0.8], [0, 1], [0, 1])
    assert (same.p, same.seeds_needed) == (1.0, None)
    assert (other.p, other.difference) == (0.0, pytest.approx(-0.1))


def test_one_seed_is_too_few() -> None:
    with pytest.raises(ValueError, match="two seeds or more"):
        over_seeds([0.9], [0.9, 0.91], [0], [0, 1])


@pytest.mark.parametrize(
    ("effect", "paired", "seeds"), [(0.5, False, 64), (0.8, False, 26), (0.5, True, 34), (1.0, True, 10)]
)
def test_the_seeds_needed_are_those_of_cohens_tables(effect: float, paired: bool, seeds: int) -> None:
    """Cohen, Statistical Power Analysis, 1988: 80 % at 5 %, two-sided."""
    assert seeds_needed(effect, paired) == seeds
    assert seeds_needed(-effect, paired) == seeds


def test_no_effect_and_a_tiny_one_need_too_many_seeds() -> None:
    assert seeds_needed(0, True) is None
    assert seeds_needed(0.01, True) is None
    assert seeds_needed(100, True) == 2


@pytest.mark.parametrize("effect", [5.0, 5.5, 6.0, 6.4, 7.0, 8.0, 9.0, 10.0])
def test_large_effects_need_as_many_seeds_as_the_power_says(effect: float) -> None:
    """The library gives NaN for some of these; two pairs show 10 sd in 73 % of all cases, three show 5 sd in 97 %."""
    assert seeds_needed(effect, True) == 3


def test_several_comparisons_are_corrected() -> None:
    """Holm: the smallest by three, the next by two; never smaller than one before."""
    assert holm_corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_the_correction_is_that_of_statsmodels() -> None:
    """To the last bit, with p-values that are equal and p-values near 1."""
    rng = np.random.default_rng(0)
    for count in (*range(1, 13), 300):
        values = [float(p) for p in rng.choice(rng.random(count) ** 2, count)]
        assert holm_corrected(values) == multipletests(values, method="holm")[1].tolist()
