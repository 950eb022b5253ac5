"""Pictures of the notebooks: what is drawn is what was given."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from figure_bytes import png
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lib import gradients, maps, tensors
from lib.style import animated_png, new_figure
from pipeline.data.geometry import rotation, scaling, translation

Floats = NDArray[np.float64]
DIGITS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
PHOTOS = np.random.default_rng(1).integers(0, 256, (2, 10, 16, 3), dtype=np.uint8)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def drawn_lines(axes: Axes) -> list[Floats]:
    return [line for one in axes.collections if isinstance(one, LineCollection) for line in one.get_segments()]


def dot(place: float) -> Figure:
    figure = new_figure(1, 1)
    figure.subplots().plot(place, 0, "o")
    return figure


# ---------------------------------------------------------------- what moves


def test_an_animation_has_all_frames_and_goes_round() -> None:
    """A PNG, so that it is shown wherever pictures are."""
    made = animated_png([dot(place) for place in (0, 1, 2)], frame_ms=100, last_ms=900)
    with Image.open(io.BytesIO(made)) as image:
        durations = []
        for frame in range(3):
            image.seek(frame)
            durations.append(image.info["duration"])
        assert (image.format, image.n_frames, image.info["loop"]) == ("PNG", 3, 0)

    assert durations == [100, 100, 900]
    assert made == animated_png([dot(place) for place in (0, 1, 2)], frame_ms=100, last_ms=900)


# ---------------------------------------------------------------- tensors


def test_a_mosaic_has_each_image_in_its_place() -> None:
    """Row by row; what is left over is white."""
    found = tensors.mosaic(DIGITS[:7])

    assert found.shape == (3 * 28, 3 * 28)
    np.testing.assert_array_equal(found[28:56, 28:56], DIGITS[4])
    assert not found[56:, 28:].any()


def test_channels_add_up_to_the_photo() -> None:
    channels = [tensors.tinted(PHOTOS[0], channel) for channel in range(3)]
    np.testing.assert_array_equal(np.sum(channels, axis=0), PHOTOS[0])


def test_the_ranks_are_said_with_their_shapes() -> None:
    axes = tensors.ranks(DIGITS, PHOTOS, index=2, row=8, column=20).axes

    assert [one.get_xlabel() for one in axes] == [
        "shape ()", "shape (28,)", "shape (28, 28)", "shape (12, 28, 28)", "shape (2, 10, 16, 3)",
    ]  # fmt: skip
    assert axes[0].texts[0].get_text() == str(DIGITS[2, 8, 20])
    np.testing.assert_array_equal(axes[1].images[0].get_array(), DIGITS[2, 8][None])


def test_pixel_values_are_written_where_they_lie() -> None:
    part = tensors.pixel_values(DIGITS[0], rows=slice(4, 7), columns=slice(8, 12)).axes[1]
    written = {text.get_position(): int(text.get_text()) for text in part.texts}

    assert written == {(x, y): DIGITS[0, 4 + y, 8 + x] for x in range(4) for y in range(3)}


def test_the_class_table_has_each_class_in_its_column() -> None:
    labels = np.arange(12) % 3
    figure = tensors.class_table(DIGITS, labels, ["a", "b", "c"], per_class=2)

    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), DIGITS[4])  # second row, class b
    assert titles(figure)[:3] == [f"label {n}\nclass “{name}”" for n, name in enumerate("abc")]


# ---------------------------------------------------------------- maps


def test_a_grid_has_its_upright_lines_first() -> None:
    lines = maps.grid_lines(1, 5, num_points=3)

    assert lines.shape == (10, 3, 2)
    np.testing.assert_array_equal(lines[0], [[-1, -1], [-1, 0], [-1, 1]])
    np.testing.assert_array_equal(lines[5], [[-1, -1], [0, -1], [1, -1]])


def test_a_map_moves_the_grid_and_the_image_alike() -> None:
    """7 px of an image of 28 are half a unit of a grid that is 2 wide."""
    figure = maps.maps_at_work({"none": scaling(1, 1), "moved": translation(7, 0)}, DIGITS[0])
    before, after = (np.array(drawn_lines(axes)[10:]) for axes in figure.axes[:2])  # the first ten are the grey grid

    np.testing.assert_allclose(after, before + np.array([0.5, 0]))
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array()[:, 7:], DIGITS[0][:, :-7])


def test_a_map_is_written_as_its_matrix() -> None:
    assert maps.written(rotation(90)) == "[ 0.00 -1.00 |  0.0]\n[ 1.00  0.00 |  0.0]"


def test_regions_say_how_many_points_are_right() -> None:
    points = np.array([[-1.0, 0], [1, 0], [1, 1], [2, 0]])
    figure = maps.regions(points, np.array([0, 1, 1, 0]), {"right of 0": lambda p: (p[:, 0] > 0).astype(np.int64)})

    assert titles(figure) == ["right of 0\n75.0% of the points right"]
    said = np.asarray(figure.axes[0].images[0].get_array())
    assert (said[:, 0] == 0).all()
    assert (said[:, -1] == 1).all()


# ---------------------------------------------------------------- every picture can be drawn


def a_path(x: float, y: float) -> Floats:
    return np.linspace([x, y], [0.1, 0.2], 6)


def bowl(w: Floats, b: Floats) -> Floats:
    return w**2 + 3 * b**2 + 0.01


EVERY: dict[str, Callable[[], Figure]] = {
    "channels": lambda: tensors.channels(PHOTOS[0]),
    "batch axes": lambda: tensors.batch_axes(DIGITS[:8]),
    "frames": lambda: tensors.frames(DIGITS.reshape(3, 4, 28, 28), every="45° each"),
    "views": lambda: tensors.views({"a": DIGITS[0], "b": DIGITS[:5], "c": DIGITS[0, 0]}, columns=2),
    "flattened": lambda: tensors.flattened(DIGITS[0], {8: "red"}),
    "images": lambda: maps.images_in_a_row({"a": DIGITS[0], "b": DIGITS[1]}),
    "grids": lambda: maps.grids_in_a_row(dict.fromkeys("ab", maps.grid_lines(1, 3)), reach=2),
    "sheets": lambda: maps.sheets_figure({"a": np.random.default_rng(0).random((2, 5, 5, 3))}, reach=1),
    "slope": lambda: gradients.slope_and_steps(
        np.square, lambda w: 2 * w, 1.0, (-0.5, -0.2), {"down": np.array([1.8, 0.5, 0.1])}
    ),
    "steepest": lambda: gradients.steepest(
        bowl, (0.5, 0.5), np.array([1.0, 3.0]), np.sin(np.linspace(0, 6, 50)), 0.1
    ),
    "descents": lambda: gradients.descents(
        bowl, {"a": {"SGD": a_path(1, 1), "momentum": a_path(1, 1)}, "b": {"RMSprop": a_path(-1, 1)}}, (-2, 2), (-2, 2)
    ),
    "plane": lambda: gradients.descents_on_plane(
        np.linspace(-1, 1, 5), np.linspace(-1, 1, 4), bowl(*np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 4))),
        {"SGD": a_path(1, 1)}, {"SGD": np.geomspace(1, 0.1, 6)}, every=5,
    ),
    "chain": lambda: gradients.chain(
        [gradients.Link("x", "(B, 4)", ""), gradients.Link("dot W", "(B, 2)", "g")],
        {1: ("W", "dot(xᵀ, g)")},
    ),
    "histories": lambda: gradients.two_histories(
        {"loss": np.array([2.0, 1.0]), "accuracy": np.array([0.5, 0.6])},
        {"loss": np.array([2.0, 1.1]), "accuracy": np.array([0.5, 0.6])},
        names=("a", "b"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_the_same_picture_has_the_same_bytes(make: Callable[[], Figure]) -> None:
    """Drawn twice, without a warning: a notebook that is run again differs where its numbers do."""
    assert png(make()) == png(make())
