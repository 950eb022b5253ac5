"""Images that are changed more and more: what each change does, and that the curve is that of the images."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.robustness import Change, Curve, curve_rows, evenly_spread, image_changes, measure_curves
from pipeline.evaluation.scores import wilson_interval

SIDE = 16


def bars(num: int = 6, channels: tuple[int, ...] = ()) -> np.ndarray:
    """A bright upright bar in the middle of a dark image."""
    images = np.full((num, SIDE, SIDE, *channels), 10, dtype=np.uint8)
    images[:, 3:13, 7:9] = 240
    return images


def named(images: np.ndarray, name: str) -> Change:
    (found,) = [change for change in image_changes(images) if change.name == name]
    return found


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
@pytest.mark.parametrize("name", ["rotation", "translation", "scale", "shear", "noise", "elastic"])
def test_nothing_is_changed_by_the_amount_of_none(name: str, channels: tuple[int, ...]) -> None:
    """And something by every other; type and shape stay, and what comes in from outside is the background."""
    images = bars(channels=channels)
    change = named(images, name)
    assert change.none in change.amounts
    for amount in change.amounts:
        found = change.apply(images, amount)
        assert (found.dtype, found.shape) == (images.dtype, images.shape)
        assert np.array_equal(found, images) == (amount == change.none), amount
        if name != "noise":
            assert found.min() >= 9, amount


def test_a_rotation_by_its_degrees() -> None:
    """A quarter turn lays the bar down: the change is the one of `pipeline.data.geometry`."""
    images = bars()
    np.testing.assert_array_equal(named(images, "rotation").apply(images, 90), np.rot90(images, axes=(1, 2)))


def test_noise_has_the_sd_that_it_says() -> None:
    grey = np.full((40, SIDE, SIDE), 128, dtype=np.uint8)
    found = named(grey, "noise").apply(grey, 16).astype(float)
    assert found.std() == pytest.approx(16, rel=0.05)
    assert found.mean() == pytest.approx(128, abs=1)


def test_every_image_is_moved_as_far_in_a_direction_of_its_own() -> None:
    dots = np.zeros((50, 41, 41), dtype=np.uint8)
    dots[:, 20, 20] = 255
    moved = named(dots, "translation").apply(dots, 20).astype(float)
    weights = moved / moved.sum((1, 2), keepdims=True)
    x, y = (weights.sum(1) * np.arange(41)).sum(1) - 20, (weights.sum(2) * np.arange(41)).sum(1) - 20
    np.testing.assert_allclose(np.hypot(x, y), 0.2 * 41, atol=0.5)
    assert len(np.unique(np.arctan2(y, x).round(1))) > 20


def test_a_curve_counts_the_right_answers() -> None:
    """Of a network that says 1 where the bar stands upright; unchanged images are asked once."""
    asked: list[int] = []
    images, labels = bars(), np.array([1, 1, 1, 1, 0, 0])

    def predict(pictures: np.ndarray) -> np.ndarray:
        asked.append(len(pictures))
        return (pictures[:, 3, 7] > 200).astype(np.int64)

    found = {curve.name: curve for curve in measure_curves(predict, images, labels)}
    rotation = found["rotation"]
    assert list(found) == ["rotation", "translation", "scale", "shear", "noise", "elastic"]
    assert rotation.correct == tuple(4 if amount == 0 else 2 for amount in rotation.amounts)
    assert rotation.mean == pytest.approx((4 + 2 * 8) / 9 / 6)
    assert rotation.intervals[0] == wilson_interval(2, 6)
    assert len(asked) == 1 + sum(len(curve.amounts) - 1 for curve in found.values())


def test_the_same_images_have_the_same_curves() -> None:
    def predict(pictures: np.ndarray) -> np.ndarray:
        return pictures.sum((1, 2)).astype(np.int64) % 2

    images, labels = bars(), np.zeros(6, dtype=np.int64)
    assert list(measure_curves(predict, images, labels)) == list(measure_curves(predict, images, labels))


@pytest.mark.parametrize(("num", "most", "expected"), [(1, 5, [0]), (5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8])])
def test_images_are_chosen_evenly(num: int, most: int, expected: list[int]) -> None:
    assert evenly_spread(num, most).tolist() == expected


def test_a_row_is_a_point() -> None:
    curve = Curve("rotation", "degrees", (0, 15), (3, 2), 4, 0)
    low, high = wilson_interval(3, 4)
    assert curve_rows([curve])[0] == ["rotation", "degrees", 0, "0.750000", f"{low:.6f}", f"{high:.6f}", 3, 4]
