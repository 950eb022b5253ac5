"""Pictures of networks: what is drawn is what was given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from figure_bytes import png
from matplotlib.figure import Figure

from lib import network as pictures
from lib.network import Votes

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 8), dtype=np.uint8)
START, NOW = RNG.normal(0, 0.05, (2, 9, 8, 8))
MOVES = np.abs(RNG.normal(0.05, 0.01, (3, 9))) + 0.2 * np.eye(3)[:, np.arange(9) % 3]  # three units for each class
CLASSES = ["a", "b", "c"]


def mistake(image: int, said: int, without: int) -> pictures.Mistake:
    return pictures.Mistake(
        index=100 + image, image=IMAGES[image], label=0, probabilities=0.1 + 0.7 * np.eye(3)[said],
        shares=RNG.normal(size=(8, 8)), without=IMAGES[image] // 2, said_without=without,
        neighbours=[(IMAGES[4], 0), (IMAGES[5], said)],
    )  # fmt: skip


MISTAKES = [mistake(0, said=1, without=0), mistake(1, said=2, without=2)]


def test_what_was_learned_is_the_difference() -> None:
    axes = pictures.weights_learned(START, NOW, units=(2, 5)).axes

    np.testing.assert_array_equal(axes[1].images[0].get_array(), START[5])
    np.testing.assert_array_equal(axes[5].images[0].get_array(), NOW[5] - START[5])
    assert axes[0].get_title() == "unit 2"


def test_speakers_stand_under_their_class_strongest_on_top() -> None:
    votes = Votes(MOVES)
    axes = pictures.speakers(NOW, votes, CLASSES, each=2).axes
    first, second = votes.speakers(1, 2)

    assert axes[1].get_title() == "for “b”"
    assert axes[1].get_xlabel() == f"{first}: +{MOVES[1, first]:.2f}"
    np.testing.assert_array_equal(axes[4].images[0].get_array(), NOW[second])


def test_what_is_lost_is_written_with_its_sign() -> None:
    lost = np.array([[40.0, 0.2, -3.0], [0.0, 25.0, 0.0], [1.0, 0.0, 60.0]])
    axes = pictures.who_speaks_for_what(Votes(MOVES), CLASSES, lost, count=3).axes
    written = {text.get_position(): text.get_text() for text in axes[1].texts}

    assert [written[column, 0] for column in range(3)] == ["-40", "0", "3"]


def test_an_autopsy_says_what_is_true_said_and_said_then() -> None:
    axes = pictures.autopsies(MISTAKES, CLASSES, num_erased=10).axes

    titles = [one.get_title() for one in axes[:7]]
    assert titles == ["is a", "said b (80%)", "for b, against a", "10 px less: a", "", "near: a", "near: b"]
    assert [bar.get_height() for bar in axes[1].patches] == pytest.approx([0.1, 0.8, 0.1])


EVERY: dict[str, Callable[[], Figure]] = {
    "weights": lambda: pictures.weights_learned(START, NOW, units=(0, 1, 2)),
    "speakers": lambda: pictures.speakers(NOW, Votes(MOVES), CLASSES, each=2),
    "votes": lambda: pictures.who_speaks_for_what(Votes(MOVES), CLASSES, 50 * np.eye(3), count=3),
    "rows": lambda: pictures.rows_of_images({"a": [(IMAGES[0], "x")], "b": [(IMAGES[1], "y"), (IMAGES[2], "z")]}),
    "autopsies": lambda: pictures.autopsies(MISTAKES, CLASSES, num_erased=10),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_the_same_picture_has_the_same_bytes(make: Callable[[], Figure]) -> None:
    assert png(make()) == png(make())
