"""Geometry on batches of images, against SciPy in float64 and against what is known without computing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from data_makers import noise
from pipeline.data.geometry import (
    ElasticNoise,
    Maps,
    compose,
    elastic_fields,
    inverse,
    pixel_centers,
    rotation,
    scaling,
    shear,
    transform,
    translation,
    warp,
)

IDENTITY = translation(0, 0)
LETTER = np.zeros((1, 7, 7), dtype=np.uint8)  # an F: no turn and no mirror leaves it as it is
LETTER[0, 1:6, 2] = LETTER[0, 1, 2:5] = LETTER[0, 3, 2:4] = 200


def random_maps(count: int, seed: int = 0) -> Maps:
    """Turned, slanted, stretched and moved, by much."""
    rng = np.random.default_rng(seed)
    turn, slant, wide, tall, right, up = rng.uniform(-1, 1, (6, count))
    stretch = scaling(np.exp(wide / 2), np.exp(tall / 2))
    return compose(translation(4 * right, 4 * up), rotation(180 * turn), shear(slant), stretch)


def smooth(count: int, height: int, width: int) -> NDArray[np.float32]:
    """Blurred noise, 0..255: what bilinear interpolation can follow."""
    return ndimage.gaussian_filter(noise(count, height, width).astype(np.float32), (0, 2, 2))


def warped_by_scipy(image: NDArray[Any], back: NDArray[np.float64], field: NDArray[Any], fill: float) -> NDArray[Any]:
    """One image (H, W) in float64: each pixel asks `back` (2, 3) and the field (2, H, W) for its place."""
    height, width = image.shape
    rows, columns = np.mgrid[:height, :width]
    x, y = columns - (width - 1) / 2, (height - 1) / 2 - rows
    from_x = back[0, 0] * x + back[0, 1] * y + back[0, 2] + field[0]
    from_y = back[1, 0] * x + back[1, 1] * y + back[1, 2] + field[1]
    at = np.stack([(height - 1) / 2 - from_y, from_x + (width - 1) / 2])
    return ndimage.map_coordinates(image.astype(np.float64), at, order=1, mode="grid-constant", cval=fill)


# ---------------------------------------------------------------- pictures, against a reference


@pytest.mark.parametrize("shape", [(28, 28), (9, 16), (1, 5), (90, 201)])
def test_warp_is_scipys_bilinear_interpolation(shape: tuple[int, int]) -> None:
    """Any map, any field, any size; float32 here, float64 there. Steep noise: 255 a pixel."""
    images = noise(20, *shape).astype(np.float32)
    maps = random_maps(20)
    fields = np.random.default_rng(1).normal(0, 3, (20, 2, *shape)).astype(np.float32)
    found = warp(images, maps, fields, fill=40.0)

    for image, back, field, result in zip(images, inverse(maps), fields, found, strict=True):
        np.testing.assert_allclose(result, warped_by_scipy(image, back, field, fill=40.0), atol=0.02)


def test_warp_is_scipys_affine_transform() -> None:
    """SciPy has rows before columns, y down and the corner as origin; the picture is the same."""
    images = smooth(1, 28, 28)
    maps = random_maps(1)
    (a, b, t_x), (c, d, t_y) = inverse(maps)[0]
    matrix = np.array([[d, -c], [-b, a]])
    middle = np.array([13.5, 13.5])
    offset = middle - matrix @ middle + np.array([-t_y, t_x])

    expected = ndimage.affine_transform(images[0].astype(np.float64), matrix, offset, order=1, mode="grid-constant")
    np.testing.assert_allclose(warp(images, maps)[0], expected, atol=1e-3)


def test_uint8_is_rounded() -> None:
    """Half up; never cut off, never beyond 0..255."""
    images = noise(200, 28, 28)
    found = warp(images, random_maps(200), fill=255)
    exact = warp(images.astype(np.float32), random_maps(200), fill=255)

    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.floor(exact + 0.5))
    np.testing.assert_array_equal(warp(np.full((1, 2, 2), 255, np.uint8), rotation(17), fill=255), 255)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    """(10 + 20) / 2 = 15, and 20 beside a fill of 0 is 10."""
    images = np.array([[[10, 20, 20]]], dtype=np.uint8)

    assert warp(images, translation(-0.5, 0)).tolist() == [[[15, 20, 10]]]


def test_channels_are_warped_alike() -> None:
    """(B, H, W, 3) is three times (B, H, W)."""
    images = noise(6 * 3, 12, 10).reshape(6, 3, 12, 10)
    maps, fields = random_maps(6), elastic_fields(np.random.default_rng(0), 6, 12, 10, 2.0, 3.0)
    found = warp(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), maps, fields, fill=7)

    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], warp(images[:, channel], maps, fields, fill=7))


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Alone, or anywhere among a thousand: the same bytes."""
    images, maps = noise(1000, 28, 28), random_maps(1000)
    fields = elastic_fields(np.random.default_rng(0), 1000, 28, 28, 1.0, 4.0)
    together = warp(images, maps, fields)

    for index in (0, 41, 42, 999):
        one = slice(index, index + 1)
        np.testing.assert_array_equal(warp(images[one], maps[one], fields[one]), together[one])


def test_one_map_serves_all_images() -> None:
    images = noise(5, 9, 9)

    np.testing.assert_array_equal(warp(images, rotation(30)), warp(images, rotation(np.full(5, 30.0))))


# ---------------------------------------------------------------- pictures, known without computing


@pytest.mark.parametrize("degrees", [0, 360, -720])
def test_a_whole_turn_changes_nothing(degrees: float) -> None:
    images = noise(50, 28, 28)

    np.testing.assert_array_equal(warp(images, rotation(degrees)), images)


@pytest.mark.parametrize("side", [27, 28])
def test_a_quarter_turn_is_numpys_and_four_are_none(side: int) -> None:
    """np.rot90 turns counter-clockwise too; around a pixel or between four."""
    images = noise(50, side, side)
    once = warp(images, rotation(90))
    four = images
    for _ in range(4):
        four = warp(four, rotation(90))

    np.testing.assert_array_equal(once, np.rot90(images, axes=(1, 2)))
    np.testing.assert_array_equal(four, images)


@settings(deadline=None)
@given(right=st.integers(-12, 12), up=st.integers(-12, 12), fill=st.integers(0, 255))
def test_a_translation_by_whole_pixels_is_a_shift(right: int, up: int, fill: int) -> None:
    """What leaves is gone, what enters is `fill`."""
    images = noise(3, 9, 8)
    expected = np.full_like(images, fill)
    for row in range(9):
        for column in range(8):
            if 0 <= row + up < 9 and 0 <= column - right < 8:
                expected[:, row, column] = images[:, row + up, column - right]

    np.testing.assert_array_equal(warp(images, translation(right, up), fill=fill), expected)


def test_directions() -> None:
    """Right is right, up is up, a positive angle counter-clockwise, a positive shear takes the top to the right."""
    drawn = {
        name: ["".join("#" if pixel > 100 else "." for pixel in row) for row in warp(LETTER, maps)[0]]
        for name, maps in {
            "as it is": IDENTITY,
            "right and up": translation(2, 1),
            "turned": rotation(90),
            "slanted": shear(1),
            "mirrored": scaling(-1, 1),
        }.items()
    }

    assert drawn == {
        "as it is":     [".......", "..###..", "..#....", "..##...", "..#....", "..#....", "......."],
        "right and up": ["....###", "....#..", "....##.", "....#..", "....#..", ".......", "......."],
        "turned":       [".......", ".......", ".#.....", ".#.#...", ".#####.", ".......", "......."],
        "slanted":      [".......", "....###", "...#...", "..##...", ".#.....", "#......", "......."],
        "mirrored":     [".......", "..###..", "....#..", "...##..", "....#..", "....#..", "......."],
    }  # fmt: skip


def test_one_warp_by_a_product_is_two_warps() -> None:
    """Interpolated once or twice a smooth figure is the same but for some blur; the other order is another picture."""
    figure = np.zeros((1, 64, 64), dtype=np.float32)
    figure[0, 20:40, 25:36] = 255
    figure = ndimage.gaussian_filter(figure, (0, 3, 3))
    turn, move = rotation(25), compose(translation(5, -3), scaling(1.2, 0.9))
    twice = warp(warp(figure, turn), move)

    assert np.abs(warp(figure, compose(move, turn)) - twice).max() < 3
    assert np.abs(warp(figure, compose(turn, move)) - twice).max() > 50


@pytest.mark.parametrize(("wide", "tall"), [(2.0, 1.0), (0.5, 0.5), (1.5, 1.25)])
def test_a_scaled_rectangle_has_the_product_of_areas(wide: float, tall: float) -> None:
    """20 x 12 pixels of ink; edges are blurred, the sum is not."""
    images = np.zeros((1, 60, 60), dtype=np.float32)
    images[0, 24:36, 20:40] = 1

    assert warp(images, scaling(wide, tall)).sum() == pytest.approx(20 * 12 * wide * tall, rel=0.005)


@pytest.mark.parametrize("maps", [rotation(33), shear(0.4), translation(2.3, -1.7)], ids=["turn", "shear", "move"])
def test_turning_slanting_and_moving_keep_the_amount_of_ink(maps: Maps) -> None:
    """Their determinant is 1. A lone rectangle stays within half a percent."""
    images = np.zeros((1, 60, 60), dtype=np.float32)
    images[0, 24:36, 20:40] = 1

    assert warp(images, maps).sum() == pytest.approx(240, rel=0.005)


def test_the_middle_of_a_figure_goes_where_its_map_says() -> None:
    """Centre of mass of a spot, in points; forward, though pixels look backward."""
    rows, columns = np.mgrid[:41, :51]
    spot = np.exp(-((rows - 16) ** 2 + (columns - 32) ** 2) / 18).astype(np.float32)[None]  # x = 7, y = 4
    maps = compose(translation(-3, 2), rotation(70), scaling(1.1, 1.1))
    found = warp(spot, maps)[0]
    centers = pixel_centers(41, 51)

    (expected,) = transform(maps, np.array([[7.0, 4.0]]))[0]
    np.testing.assert_allclose((found[..., None] * centers).sum(axis=(0, 1)) / found.sum(), expected, atol=0.02)


# ---------------------------------------------------------------- maps


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_product_acts_like_its_parts_one_after_the_other(seed: int) -> None:
    """Three of them, the rightmost first."""
    third, second, first = (random_maps(4, 3 * seed + n) for n in range(3))
    expected = np.broadcast_to(np.random.default_rng(seed).normal(0, 10, (6, 2)), (4, 6, 2))
    points = expected[0]
    for maps in (first, second, third):
        expected = expected @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2]

    np.testing.assert_allclose(transform(compose(third, second, first), points), expected, atol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_an_inverse_undoes(seed: int) -> None:
    maps = random_maps(5, seed)
    nothing = np.broadcast_to(IDENTITY, maps.shape)

    np.testing.assert_allclose(compose(inverse(maps), maps), nothing, atol=1e-9)
    np.testing.assert_allclose(compose(maps, inverse(maps)), nothing, atol=1e-9)


@pytest.mark.parametrize(
    ("maps", "goes_to"),
    [
        (translation(2, 1), (5, 2)),
        (rotation(90), (-1, 3)),
        (scaling(2, 3), (6, 3)),
        (shear(0.5), (3.5, 1)),
    ],
)
def test_where_the_point_3_1_goes(maps: Maps, goes_to: tuple[float, float]) -> None:
    """Each map by hand."""
    np.testing.assert_allclose(transform(maps, np.array([[3.0, 1.0]]))[0, 0], goes_to, atol=1e-12)


def test_pixels_lie_around_the_middle() -> None:
    assert pixel_centers(2, 3).tolist() == [[[-1, 0.5], [0, 0.5], [1, 0.5]], [[-1, -0.5], [0, -0.5], [1, -0.5]]]


# ---------------------------------------------------------------- elastic deformation


def test_a_field_is_simards() -> None:
    """Mean 0, the rms asked for, and alike over the distance that the Gaussian gives: exp(-d² / 4 sigma²)."""
    sigma_px = 4.0
    fields = elastic_fields(np.random.default_rng(0), 4000, 28, 28, 1.5, sigma_px).astype(np.float64)
    variance = np.square(fields).mean()

    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert np.sqrt(variance) == pytest.approx(1.5, rel=0.03)
    for distance in (2, 5, 8):
        alike = (fields[..., distance:] * fields[..., :-distance]).mean() / variance
        assert alike == pytest.approx(np.exp(-(distance**2) / (4 * sigma_px**2)), abs=0.05)
    assert (fields[:, 0] * fields[:, 1]).mean() == pytest.approx(0, abs=0.1)


def test_simards_alpha_in_pixels() -> None:
    """Uniform noise in -1..1, smoothed with sigma=4 and multiplied by alpha=34, moves by 1.4 px rms."""
    rough = np.random.default_rng(0).uniform(-1, 1, (1000, 1000))
    field = 34 * ndimage.gaussian_filter(rough, 4.0, mode="wrap")

    assert field.std() == pytest.approx(34 / (4 * np.sqrt(12 * np.pi)), rel=0.05)


def test_windows_wrap_around_the_noise() -> None:
    """A window that begins at the last row goes on at the first."""
    elastic = ElasticNoise(np.random.default_rng(0), 6, 5, 2.0)
    last = elastic.side - 1
    over_the_edge, at_the_edge = elastic.fields(np.array([[[last, last]] * 2, [[0, 0]] * 2]), 1.0)

    np.testing.assert_array_equal(over_the_edge[:, 1:, 1:], at_the_edge[:, :-1, :-1])


def test_a_field_of_one_vector_is_a_translation_the_other_way() -> None:
    """Pixels look up their value at p + field."""
    images = noise(2, 9, 9)
    field = np.empty((2, 2, 9, 9), dtype=np.float32)
    field[:, 0], field[:, 1] = 2, -1

    np.testing.assert_array_equal(warp(images, IDENTITY, field), warp(images, translation(-2, 1)))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "maps", [scaling(0, 1), scaling(np.nan, 1), translation(np.inf, 0), compose(scaling(1, 0), rotation(10))]
)
def test_a_map_that_cannot_be_undone_is_refused(maps: Maps) -> None:
    with pytest.raises(ValueError, match="expected maps that can be undone, found"):
        warp(noise(1), maps)


@pytest.mark.parametrize(
    ("images", "maps", "fields", "said"),
    [
        (noise(2).astype(np.float64), IDENTITY, None, r"uint8 or float32, found \(2, 5, 4\) of float64"),
        (noise(2)[0], IDENTITY, None, r"found \(5, 4\) of uint8"),
        (noise(2), rotation([1, 2, 3]), None, r"expected maps \(2, 2, 3\) or \(1, 2, 3\), found \(3, 2, 3\)"),
        (noise(2), IDENTITY, np.zeros((1, 2, 5, 4), np.float32), r"expected fields \(2, 2, 5, 4\)"),
    ],
)
def test_arrays_of_another_shape_are_refused(images: Any, maps: Any, fields: Any, said: str) -> None:
    """No batch is broadcast by chance."""
    with pytest.raises(ValueError, match=said):
        warp(images, maps, fields)
