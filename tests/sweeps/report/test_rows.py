"""Which configuration is best, and whether that means anything."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from row_makers import ACCURACY, LOSS, WEIGHTS, row, seeds
from scipy.stats import ttest_ind

from pipeline.config.overrides import short_names
from pipeline.sweeps.report.rows import Row, as_number, p_value, ranked, swept, verdict

NAN = math.nan


def test_the_mean_ranks_and_not_the_luckiest_seed() -> None:
    """64 units have the best single job, 128 the better mean."""
    rows = [*seeds(0, 64, [0.99, 0.80, 0.81]), *seeds(3, 128, [0.90, 0.91, 0.92])]

    best, second = ranked(rows, [ACCURACY])

    assert best.values == {"model.units": "128"}
    assert max(second.scores) > max(best.scores)


def test_a_group_has_the_mean_and_spread_of_its_seeds() -> None:
    """As NumPy computes them, with n - 1."""
    scores = [0.91, 0.95, 0.93, 0.90]

    (group,) = ranked(seeds(0, 64, scores), [ACCURACY])

    assert group.n == 4
    assert group.mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert group.sd == pytest.approx(np.std(scores, ddof=1), rel=1e-12)


def test_one_seed_has_no_spread() -> None:
    """None, not 0 and not NaN."""
    (group,) = ranked(seeds(0, 64, [0.9]), [ACCURACY])

    assert group.sd is None


def test_a_minimum_is_searched_for_where_the_objective_says_so() -> None:
    """The lower loss first."""
    groups = ranked([row(0, {"lr": "0.1"}, loss=0.4), row(1, {"lr": "0.2"}, loss=0.3)], [LOSS])

    assert [group.rows[0].number for group in groups] == [1, 0]


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "PRUNED", "RUNNING", "WAITING"])
def test_only_a_finished_job_can_be_best(status: str) -> None:
    """A pruned or failed one may have written down a better value before its end."""
    rows = [row(0, {"lr": "0.1"}, 0.99, status=status), row(1, {"lr": "0.2"}, 0.5)]

    assert [group.rows[0].number for group in ranked(rows, [ACCURACY])] == [1]


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_a_value_that_is_not_finite_counts_for_nothing(value: float) -> None:
    """Also an infinite one in the right direction."""
    groups = ranked([row(0, {"lr": "1"}, value), row(1, {"lr": "2"}, 0.5)], [ACCURACY])

    assert [group.rows[0].number for group in groups] == [1]


def test_a_group_with_a_failed_seed_comes_after_the_whole_ones_and_is_marked() -> None:
    """The seed that failed may have been the bad one; n says what is missing."""
    rows = [*seeds(0, 64, [0.90, 0.90, 0.90]), *seeds(3, 128, [0.95, 0.95])]
    rows.append(row(5, {"model.units": 128, "seed": 2}, status="FAILED"))

    best, second = ranked(rows, [ACCURACY])

    assert (second.values["model.units"], second.n, second.num_seeds, second.complete) == ("128", 2, 3, False)
    assert best.complete


def test_jobs_of_one_number_are_not_one_configuration() -> None:
    """A sweep that goes on with more values counts anew; what was done keeps its number."""
    before = row(2, {"model.units": 128, "optimizer": "rmsprop"}, 0.97)
    new = replace(row(2, {"model.units": 64, "optimizer": "sgd"}, 0.80), run_id="another")

    assert [(group.n, group.mean) for group in ranked([before, new], [ACCURACY])] == [(1, 0.97), (1, 0.80)]


def test_without_a_swept_seed_each_job_is_for_itself() -> None:
    """Also one that repeats another, as samplers do."""
    groups = ranked([row(0, {"lr": "0.1"}, 0.8), row(1, {"lr": "0.1"}, 0.9)], [ACCURACY])

    assert [[r.number for r in group.rows] for group in groups] == [[1], [0]]


def test_equal_configurations_are_in_the_order_of_their_jobs() -> None:
    """Whatever the order of the rows."""
    rows = [row(number, {"lr": str(number)}, 0.9) for number in (2, 0, 1)]

    assert [group.rows[0].number for group in ranked(rows, [ACCURACY])] == [0, 1, 2]


def test_a_sweep_without_jobs_has_no_ranking() -> None:
    """An empty list, not an error."""
    assert ranked([], [ACCURACY]) == []


# ---------------------------------------------------------------- two objectives


def two(number: int, accuracy: float, weights: float) -> Row:
    return row(number, {"model.units": number}, accuracy, num_weights=weights)


def front(rows: list[Row]) -> list[int]:
    """Numbers of the jobs on it, best accuracy first."""
    return [group.rows[0].number for group in ranked(rows, [ACCURACY, WEIGHTS]) if group.on_front]


def test_the_front_has_what_nothing_beats_in_both() -> None:
    """Job 2 is beaten by 1, job 4 is equal to 0 in both; best accuracy first."""
    rows = [two(0, 0.90, 100), two(1, 0.95, 500), two(2, 0.94, 600), two(3, 0.80, 50), two(4, 0.90, 100)]

    assert front(rows) == [1, 0, 4, 3]


def test_the_front_leaves_out_a_job_without_a_second_value() -> None:
    """It neither is on the front nor pushes another off it."""
    assert front([two(0, 0.90, 100), row(1, {"model.units": 1}, 0.99), two(2, 0.99, NAN)]) == [0]


def test_the_front_comes_before_the_others() -> None:
    """Job 3 is on it and comes before job 2, which has the better accuracy."""
    rows = [two(0, 0.90, 100), two(1, 0.95, 500), two(2, 0.94, 600), two(3, 0.80, 50)]

    groups = ranked(rows, [ACCURACY, WEIGHTS])

    assert [(group.rows[0].number, group.on_front) for group in groups] == [(1, True), (0, True), (3, True), (2, False)]


# ---------------------------------------------------------------- is the best better?


def test_the_p_value_is_that_of_welch() -> None:
    """The library's own, from the samples."""
    one, other = [0.91, 0.95, 0.93, 0.90, 0.92], [0.90, 0.89, 0.91]

    best, second = ranked([*seeds(0, 64, one), *seeds(5, 128, other)], [ACCURACY])

    assert p_value(best, second) == pytest.approx(ttest_ind(one, other, equal_var=False).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            [0.90, 0.92, 0.94],
            [0.89, 0.91, 0.93],
            "The best cannot be told apart from the second (p = 0.57, n = 3 and 3).",
        ),
        ([0.95, 0.951, 0.952], [0.90, 0.91], "The best cannot be told apart from the second (p = 0.066, n = 3 and 2)."),
        ([0.95, 0.951, 0.952], [0.90, 0.901, 0.902], "The best is better than the second (p < 0.0001, n = 3 and 3)."),
        ([0.95], [0.90], "The two have one seed each, so the difference may be chance; sweep.seeds=5 would tell."),
        ([0.95, 0.94], [0.90], "Too few seeds to tell the best from the second (n = 2 and 1)."),
        ([0.95, 0.95], [0.9, 0.9], "No seed makes a difference in either, so chance cannot be judged (n = 2 and 2)."),
        ([0.95], [0.95], "The two are equal, the lower job number comes first (n = 1 and 1)."),
    ],
)
def test_the_verdict_claims_no_more_than_the_seeds_show(one: list[float], other: list[float], said: str) -> None:
    """Each case has its sentence."""
    best, second = ranked([*seeds(0, 64, one), *seeds(5, 128, other)], [ACCURACY])

    assert verdict(best, second) == said


# ---------------------------------------------------------------- keys and values


def test_the_seed_is_no_key() -> None:
    """The others are in the order of the command line."""
    assert swept([row(0, {"optimizer.lr": 1, "seed": 0, "model.units": 64})]) == ["optimizer.lr", "model.units"]


def test_a_key_is_short_where_that_is_clear() -> None:
    """Two that end alike keep their whole names."""
    names = short_names(["optimizer.lr", "scheduler.lr", "model.units"])

    assert list(names.values()) == ["optimizer.lr", "scheduler.lr", "units"]


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 0.001), ("64", 64), ("-0.5", -0.5), ("[64,32]", None), ("null", None), ("nan", None)]
)
def test_a_number_is_told_from_a_word(text: str, number: float | None) -> None:
    """As Hydra reads them; NaN and infinity have no place on an axis."""
    assert as_number(text) == number
