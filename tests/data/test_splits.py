"""Shares of classes: every class gets its own, to the sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import apportion, holdout_mask
from pipeline.system.errors import DataContractError

COUNTS = st.lists(st.integers(20, 200), min_size=2, max_size=12)


def labels_of(counts: list[int], seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def names(counts: list[int]) -> tuple[str, ...]:
    return tuple(f"class {label}" for label in range(len(counts)))


@given(COUNTS, st.floats(0.05, 0.9), st.integers(0, 9))
def test_each_class_gives_its_share_to_within_one_and_the_total_is_exact(
    counts: list[int], fraction: float, seed: int
) -> None:
    labels = labels_of(counts)
    mask = holdout_mask(labels, names(counts), fraction, np.random.default_rng(seed), "validation")
    taken = np.bincount(labels[mask], minlength=len(counts))

    assert mask.sum() == round(fraction * len(labels))
    np.testing.assert_array_less(np.abs(taken - np.array(counts) * mask.sum() / len(labels)), 1)


@given(COUNTS, st.integers(0, 9))
def test_the_seed_alone_decides_whatever_ran_before(counts: list[int], seed: int) -> None:
    labels = labels_of(counts)
    first = holdout_mask(labels, names(counts), 0.3, np.random.default_rng(seed), "validation")
    np.random.default_rng(seed + 1).random(5)

    np.testing.assert_array_equal(
        holdout_mask(labels, names(counts), 0.3, np.random.default_rng(seed), "validation"), first
    )


def test_the_largest_remainders_get_what_is_left_over() -> None:
    """A tenth of 15, 14, 1 is 1.5, 1.4, 0.1: two whole ones, and the third goes to the largest remainder."""
    assert apportion(np.array([15, 14, 1]), 3).tolist() == [2, 1, 0]


def test_holdout_mask_samples_are_spread_over_the_class_not_its_first() -> None:
    labels = np.zeros(1000, dtype=np.int64)
    mask = holdout_mask(labels, ("only",), 0.1, np.random.default_rng(0), "validation")

    assert 300 < np.flatnonzero(mask).mean() < 700


@pytest.mark.parametrize(
    ("counts", "fraction", "message"),
    [
        ([50, 1], 0.9, "class 'class 1': expected samples left to train on after data.test_fraction=0.9"),
        ([50, 0], 0.1, "class 'class 1': expected samples left to train on"),
        ([2, 2], 0.1, "data.test_fraction=0.1 of 4 samples is not one sample"),
    ],
    ids=["nothing left", "nothing there", "nothing held out"],
)
def test_too_few_samples_are_explained(counts: list[int], fraction: float, message: str) -> None:
    with pytest.raises(DataContractError) as caught:
        holdout_mask(labels_of(counts), names(counts), fraction, np.random.default_rng(0), "test")

    assert message in str(caught.value)
