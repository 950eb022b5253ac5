"""Wrong labels that were put in are found, and right ones are left alone."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.report import suspects


def sure_predictions(labels: np.ndarray, num_classes: int = 4, seed: int = 0) -> np.ndarray:
    """Log-probabilities of a network that is right, and mostly sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), num_classes)) + 6 * np.eye(num_classes)[labels]
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def test_wrong_labels_are_found() -> None:
    """Nine of ten that were put in (of the tenth the network is not sure), the least probable first; no others."""
    true = np.random.default_rng(1).integers(0, 4, 400)
    given, wrong = true.copy(), np.arange(0, 400, 40)
    given[wrong] = (true[wrong] + 1) % 4
    predictions = sure_predictions(true)
    found = suspects(predictions, given)

    assert set(wrong) - set(found) == {240}
    assert set(found) < set(wrong)
    assert (np.diff(predictions[found, given[found]]) >= 0).all()
    assert found.dtype == np.int64


def test_right_labels_are_not_suspect() -> None:
    labels = np.random.default_rng(1).integers(0, 4, 400)
    assert len(suspects(sure_predictions(labels), labels)) <= 2


def test_one_class_has_no_suspects() -> None:
    """There is no other that a sample could belong to."""
    labels = np.zeros(5, dtype=np.int64)
    assert suspects(sure_predictions(labels), labels).tolist() == []


def test_a_class_without_samples_is_no_hindrance() -> None:
    labels = np.array([0, 0, 0, 2, 2, 2])
    assert suspects(sure_predictions(labels), labels).tolist() == []
