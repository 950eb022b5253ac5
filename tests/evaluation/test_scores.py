"""Each number of a report, against the library that defines it or its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from pipeline.evaluation.scores import (
    NORMAL_95,
    brier,
    calibration,
    confused_pairs,
    confusion_counts,
    per_class,
    scores,
    wilson_interval,
    worst_errors,
)

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
NUM_CLASSES = 5


def predictions(count: int = 500, seed: int = 0) -> tuple[Floats, Labels]:
    """Log-probabilities (count, 5) that are right about two times in three, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, count)
    logits = rng.normal(size=(count, NUM_CLASSES)) + 1.8 * np.eye(NUM_CLASSES)[labels]
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), labels


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_calibration_error_equals_torchmetrics(num_bins: int) -> None:
    """The library's L1 norm over the same bins; it computes in float32."""
    log_probabilities, labels = predictions()
    found = calibration(np.exp(log_probabilities), labels, num_bins).ece

    library = multiclass_calibration_error(
        torch.from_numpy(np.exp(log_probabilities)), torch.from_numpy(labels), NUM_CLASSES, num_bins, norm="l1"
    )
    assert found == pytest.approx(float(library), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    """Two bins: |0.9 - 1/2| * 2/3 + |0.4 - 1| * 1/3."""
    probabilities = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4]])
    found = calibration(probabilities, np.array([0, 0, 2]), num_bins=2)

    assert found.counts.tolist() == [1, 2]
    assert found.ece == pytest.approx(0.4 * 2 / 3 + 0.6 / 3, rel=1e-12)


def test_a_perfect_and_sure_network_has_no_calibration_error() -> None:
    """Confidence 1.0 falls into the last bin, not behind it."""
    found = calibration(np.eye(3), np.arange(3), num_bins=10)

    assert found.counts.tolist() == [0] * 9 + [3]
    assert found.ece == 0.0


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    """Bins are open on the left and closed on the right: 0.5 of two classes is in (0, 0.5]."""
    assert calibration(np.array([[0.5, 0.5]]), np.array([0]), num_bins=2).counts.tolist() == [1, 0]


def test_an_empty_bin_has_no_mean() -> None:
    """NaN, not 0: a point at 0 would be drawn."""
    found = calibration(np.array([[0.9, 0.1]]), np.array([0]), num_bins=4)

    assert np.isnan(found.confidence).tolist() == [True, True, True, False]
    assert np.isnan(found.accuracy).tolist() == [True, True, True, False]


def test_logits_are_refused() -> None:
    """Rows that do not sum to 1 are no probabilities."""
    with pytest.raises(ValueError, match="were logits passed"):
        calibration(np.array([[2.0, -2.0]]), np.array([0]), 15)


def test_scores_of_logits_are_refused() -> None:
    """The stage takes log-probabilities; logits would give a loss that is none."""
    with pytest.raises(ValueError, match="were logits passed"):
        scores(np.array([[2.0, -2.0]]), np.array([0]), 15)


# ---------------------------------------------------------------- the interval


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (1, 1), (7, 10), (9_785, 10_000), (10_000, 10_000)])
def test_the_interval_is_wilsons(correct: int, count: int) -> None:
    """The closed formula with z = 1.959964, the 97.5th percentile of a normal distribution."""
    z, p = 1.959963984540054, correct / count
    center = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))

    assert wilson_interval(correct, count) == pytest.approx((center - half, center + half), abs=1e-12)


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_has_the_published_values(correct: int, count: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_is_scipys_to_the_last_bit() -> None:
    """For all shares of small counts, and 2,000 of counts up to a million."""
    rng = np.random.default_rng(0)
    counts = [(correct, count) for count in range(1, 40) for correct in range(count + 1)]
    counts += [(int(rng.integers(n + 1)), int(n)) for n in (10 ** rng.uniform(1, 6, 2000)).astype(int)]
    for correct, count in counts:
        found = binomtest(correct, count).proportion_ci(0.95, method="wilson")
        assert wilson_interval(correct, count) == (found.low, found.high), (correct, count)


def test_the_normal_quantile_is_scipys() -> None:
    assert float(ndtri(0.975)) == NORMAL_95


# ---------------------------------------------------------------- classes


def test_the_confusion_counts_are_sklearns() -> None:
    """Row the true class, column the predicted one."""
    log_probabilities, labels = predictions()
    predicted = log_probabilities.argmax(1)

    np.testing.assert_array_equal(confusion_counts(labels, predicted, 5), confusion_matrix(labels, predicted))


def test_a_class_that_never_occurs_has_its_row_and_column() -> None:
    """The matrix is as large as the model's classes."""
    found = confusion_counts(np.array([0, 1]), np.array([1, 1]), 3)

    assert found.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_the_table_of_classes_is_sklearns() -> None:
    """Precision, recall, F1 and support, to the six digits that are kept."""
    log_probabilities, labels = predictions()
    predicted = log_probabilities.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted)

    found = per_class(confusion_counts(labels, predicted, 5), list("abcde"))
    assert found["class"] == list("abcde")
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("samples", support)):
        assert found[name] == pytest.approx(expected.tolist(), abs=5e-7)


def test_a_class_without_samples_or_predictions_scores_zero() -> None:
    """No division by zero, no NaN; b is predicted and never true, c is neither."""
    found = per_class(confusion_counts(np.array([0, 0]), np.array([0, 1]), 3), ["a", "b", "c"])

    assert found == {
        "class": ["a", "b", "c"],
        "precision": [1.0, 0.0, 0.0],
        "recall": [0.5, 0.0, 0.0],
        "f1": [0.666667, 0.0, 0.0],
        "samples": [2, 0, 0],
    }


# ---------------------------------------------------------------- the worst errors


def test_the_most_confident_error_comes_first() -> None:
    """Right answers are left out, however sure."""
    probabilities = np.array([[0.99, 0.01], [0.6, 0.4], [0.1, 0.9], [0.7, 0.3]])

    assert worst_errors(np.log(probabilities), np.array([0, 1, 0, 1]), 10).tolist() == [2, 3, 1]


def test_equal_errors_come_in_the_order_of_the_samples() -> None:
    """1,000 errors of three confidences: a sort that is not stable mixes those that are equal."""
    confidence = np.random.default_rng(0).choice([0.7, 0.8, 0.9], 1000)
    log_probabilities = np.log(np.stack([confidence, 1 - confidence], axis=1))
    expected = sorted(range(1000), key=lambda n: (-confidence[n], n))

    assert worst_errors(log_probabilities, np.ones(1000, dtype=np.int64), 1000).tolist() == expected


@pytest.mark.parametrize(("num_errors", "expected"), [(1, [2]), (2, [2, 3]), (25, [2, 3, 1])], ids=str)
def test_no_more_errors_than_asked_for(num_errors: int, expected: list[int]) -> None:
    """Nor more than there are."""
    probabilities = np.array([[0.99, 0.01], [0.6, 0.4], [0.1, 0.9], [0.7, 0.3]])

    assert worst_errors(np.log(probabilities), np.array([0, 1, 0, 1]), num_errors).tolist() == expected


def test_without_errors_there_are_none() -> None:
    """An empty array of indices."""
    assert worst_errors(np.log(np.array([[0.9, 0.1]])), np.array([0]), 25).shape == (0,)


# ---------------------------------------------------------------- all together


def test_scores_are_those_of_the_libraries() -> None:
    """metrics/evaluate.json: accuracy and loss as sklearn computes them, over exactly 500 samples."""
    log_probabilities, labels = predictions()
    found = scores(log_probabilities, labels, 15)
    correct = accuracy_score(labels, log_probabilities.argmax(1), normalize=False)

    assert (found["test/correct"], found["test/count"]) == (correct, 500)
    assert found["test/accuracy"] == correct / 500
    assert found["test/loss"] == pytest.approx(log_loss(labels, np.exp(log_probabilities)), rel=1e-9)
    assert (found["test/accuracy_low"], found["test/accuracy_high"]) == wilson_interval(int(correct), 500)
    assert found["test/ece"] == calibration(np.exp(log_probabilities), labels, 15).ece


def test_the_brier_score_is_sklearns() -> None:
    log_probabilities, labels = predictions()
    library = brier_score_loss(labels, np.exp(log_probabilities), labels=range(NUM_CLASSES), scale_by_half=False)

    assert brier(log_probabilities, labels) == pytest.approx(library, rel=1e-12)


def test_the_most_confused_pair_comes_first() -> None:
    """Equal ones in the order of the classes; the share is that of the true class."""
    counts = np.array([[8, 2, 0], [3, 5, 2], [0, 0, 7]])
    found = confused_pairs(counts, ["a", "b", "c"], 3)

    assert [(pair.actual, pair.predicted, pair.count, pair.share) for pair in found] == [
        ("b", "a", 3, 0.3),
        ("a", "b", 2, 0.2),
        ("b", "c", 2, 0.2),
    ]
    assert confused_pairs(np.diag([3, 4]), ["a", "b"], 3) == []


def test_scores_are_plain_numbers() -> None:
    """JSON takes them; counts stay integers."""
    log_probabilities, labels = predictions()
    found = scores(log_probabilities.astype(np.float32), labels, 15)

    assert {name for name, value in found.items() if type(value) is int} == {"test/correct", "test/count"}
    assert {type(value) for value in found.values()} == {int, float}


def test_the_loss_of_float32_is_summed_in_float64() -> None:
    """A million equal terms have the mean of one."""
    log_probabilities = np.log(np.tile(np.float32([0.7, 0.3]), (1_000_000, 1)))
    found = scores(log_probabilities, np.zeros(1_000_000, dtype=np.int64), 15)

    assert found["test/loss"] == pytest.approx(-float(log_probabilities[0, 0]), rel=1e-12)
