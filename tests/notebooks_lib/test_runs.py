"""Runs read back and drawn: the points that were recorded, the intervals that were found."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from figure_bytes import png
from matplotlib.figure import Figure

from lib import runs as pictures
from pipeline.tracking import Store
from pipeline.tracking.database import DATABASE


@dataclass(frozen=True)
class Found:
    """A difference as `pipeline.comparison` gives it."""

    difference: float
    low: float
    high: float


def a_curve(*values: float) -> pictures.Curve:
    return pictures.Curve(np.arange(len(values)), np.array(values))


def learning(shift: float) -> pictures.Learning:
    batches = a_curve(*(np.geomspace(2.4, 0.2, 20) + shift))
    return pictures.Learning(batches, a_curve(1.0 + shift, 0.5, 0.6), num_steps=20, kept=1)


RANGES = {
    "b": {"images": Found(-0.01, -0.02, 0.001), "seeds": Found(-0.01, -0.03, 0.01)},
    "c": {"images": Found(-0.05, -0.06, -0.04), "seeds": Found(-0.05, -0.08, -0.02)},
}


def needed(effect: float) -> int | None:
    count = math.ceil(8 / effect**2 + 2)
    return count if count <= 1000 else None


def test_a_curve_has_every_recorded_point_in_the_order_of_its_steps(tmp_path: Path, empty_database: Path) -> None:
    """More points than MLflow hands out at once; a step that was done again counts once, with its newest value."""
    (tmp_path / "mlflow_artifacts").mkdir()
    shutil.copy(empty_database, tmp_path / DATABASE)
    store = Store(tmp_path)
    with store.run("e", "one") as run:
        run.metric_points(("loss", 1 / (step + 1), step) for step in range(1200))
    store.client.log_metric(run.id, "loss", 7.0, step=3, timestamp=2**42)
    found = pictures.curve(store, run.id, "loss")

    np.testing.assert_array_equal(found.steps, np.arange(1200))
    expected = 1 / (np.arange(1200) + 1)
    expected[3] = 7
    np.testing.assert_array_equal(found.values, expected)


def test_losses_stand_at_their_epochs_and_the_kept_one_is_ringed() -> None:
    """A validation after epoch 1 of 3 is at 1; a batch halfway through the steps at 1.5."""
    axes = pictures.learning({"a": [learning(0.0)]}, columns=1).axes[0]
    batches, epochs, kept = axes.get_lines()

    assert batches.get_xdata()[10] == pytest.approx(1.5)
    np.testing.assert_array_equal(epochs.get_xdata(), [1, 2, 3])
    assert (kept.get_xdata()[0], kept.get_ydata()[0]) == (2, 0.5)


def test_intervals_are_drawn_in_points_the_first_comparison_on_top() -> None:
    axes = pictures.intervals(RANGES, ["no difference seen", "worse"], xlabel="points").axes[0]
    bars = [line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_linewidth() > 3]

    assert [tuple(np.round(bar.get_xdata(), 6)) for bar in bars] == [(-2, 0.1), (-3, 1), (-6, -4), (-8, -2)]
    heights = [bar.get_ydata()[0] for bar in bars]
    assert heights == sorted(heights, reverse=True)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b", "c"]
    assert [text.get_text() for text in axes.texts] == ["no difference seen", "worse"]


def test_seeds_stand_under_one_another_with_their_mean() -> None:
    lines = pictures.seeds_side_by_side({"a": [0.9, 0.92], "b": [0.94, 0.95]}).axes[0].get_lines()

    np.testing.assert_allclose(lines[1].get_ydata(), [92, 95])
    np.testing.assert_allclose(lines[-1].get_ydata(), [91, 94.5])


def test_marks_say_how_many_seeds_a_comparison_needs() -> None:
    axes = pictures.seeds_to_see(needed, (1, 2), {"b": (-1.0, 1.0)}).axes[0]

    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["b: 1.00 points, sd 1.00: 10 seeds"]
    mark = axes.get_lines()[-1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (1.0, 10)


EVERY: dict[str, Callable[[], Figure]] = {
    "learning": lambda: pictures.learning({name: [learning(0.0), learning(0.1)] for name in "abc"}, columns=2),
    "seeds": lambda: pictures.seeds_side_by_side({"a": [0.9, 0.92], "b": [0.94, 0.95]}),
    "intervals": lambda: pictures.intervals(RANGES, ["no difference seen", "worse"], xlabel="points"),
    "to see": lambda: pictures.seeds_to_see(needed, (0.5, 1, 2), {"b": (-1.0, 1.0), "c": (0.001, 1.0)}),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_the_same_picture_has_the_same_bytes(make: Callable[[], Figure]) -> None:
    assert png(make()) == png(make())
