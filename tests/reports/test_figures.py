"""Figures: what is written on them, and that the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipeline.reports import figures
from pipeline.reports.scores import calibration

NAN = float("nan")


def counts(num_classes: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, 9, (num_classes, num_classes))


def names(num_classes: int) -> list[str]:
    return [f"class {n}" for n in range(num_classes)]


def history(*, validation: bool = True) -> dict[str, NDArray[np.float64]]:
    return {
        "epoch": np.array([0.0, 1.0, 2.0]),
        "train/loss": np.array([3.0, 2.0, 1.0]),
        "train/accuracy": np.array([0.5, 0.6, 0.7]),
        "val/loss": np.array([3.0, 1.5, 2.0] if validation else [NAN] * 3),
        "val/accuracy": np.array([0.4, 0.6, 0.5] if validation else [NAN] * 3),
        "lr": np.array([1e-3] * 3),
    }


def reliability() -> Figure:
    probabilities = np.random.default_rng(0).dirichlet([0.3] * 4, 200)
    return figures.reliability_diagram(calibration(probabilities, probabilities.argmax(1), 10))


def gallery(images: NDArray[np.uint8]) -> Figure:
    n = len(images)
    return figures.error_gallery(images, np.arange(n) * 7, ["cat"] * n, ["dog"] * n, [0.987] * n)


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


EVERY: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: figures.confusion_matrix(counts(3), names(3)),
    "47 classes": lambda: figures.confusion_matrix(counts(47), names(47)),
    "no errors": lambda: figures.confusion_matrix(np.diag([3, 4]), ["a", "b"]),
    "curves": lambda: figures.learning_curves(history(), 1),
    "curves without validation": lambda: figures.learning_curves(history(validation=False), 2),
    "curves of one epoch": lambda: figures.learning_curves({k: v[:1] for k, v in history().items()}, 0),
    "reliability": reliability,
    "gallery": lambda: gallery(pixels(7, 6, 6)),
    "rgb gallery": lambda: gallery(pixels(5, 6, 6, 3)),
    "empty gallery": lambda: gallery(pixels(0, 6, 6)),
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_the_same_figure_has_the_same_bytes(make: Callable[[], Figure], tmp_path: Path) -> None:
    """DVC then sees no change where there is none; the file is a PNG that opens."""
    for name in ("a", "b"):
        figures.save(make(), tmp_path / f"new/{name}.png")

    assert (tmp_path / "new/a.png").read_bytes() == (tmp_path / "new/b.png").read_bytes()
    with Image.open(tmp_path / "new/a.png") as image:
        assert image.format == "PNG"


# ---------------------------------------------------------------- confusion matrix


def test_the_matrix_says_how_many_are_right() -> None:
    """As counts and as a share."""
    figure = figures.confusion_matrix(np.array([[1200, 20], [30, 1250]]), ["a", "b"])

    assert figure.axes[0].get_title(loc="left") == "2,450 of 2,500 right (98.00%)"


def test_the_matrix_colours_errors_alone() -> None:
    """The diagonal is drawn as 0, or not at all."""
    figure = figures.confusion_matrix(np.array([[90, 2], [5, 80]]), ["a", "b"])

    assert np.ma.filled(figure.axes[0].images[0].get_array(), 0).tolist() == [[0, 2], [5, 0]]


def test_the_matrix_has_the_true_class_in_rows() -> None:
    """Row 0, column 1 holds the samples of class 0 that were called class 1."""
    figure = figures.confusion_matrix(np.array([[0, 7], [0, 0]]), ["a", "b"])

    (text,) = figure.axes[0].texts
    assert (text.get_text(), text.get_position()) == ("7", (1, 0))
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == ("true", "predicted")


@pytest.mark.parametrize(("num_classes", "written"), [(20, True), (21, False), (47, False)])
def test_many_classes_leave_the_numbers_out(num_classes: int, written: bool) -> None:
    """Above 20 they could not be read; every class keeps its name."""
    figure = figures.confusion_matrix(counts(num_classes) + 1, names(num_classes))

    assert len(texts(figure)) == (num_classes**2 if written else 0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names(num_classes)


# ---------------------------------------------------------------- curves


def test_the_curves_have_the_values_of_the_history() -> None:
    """Epochs are counted from 1; the kept one is marked."""
    loss, accuracy = figures.learning_curves(history(), 1).axes

    drawn = {line.get_label(): np.column_stack(line.get_data()).tolist() for line in loss.lines}
    assert drawn["training"] == [[1, 3.0], [2, 2.0], [3, 1.0]]
    assert drawn["validation"] == [[1, 3.0], [2, 1.5], [3, 2.0]]
    assert [point[0] for point in drawn["kept"]] == [2, 2]
    assert {line.get_label() for line in accuracy.lines} == {"training", "validation", "kept"}


def test_without_validation_there_is_no_curve_of_it() -> None:
    """Columns of NaN draw nothing and name nothing."""
    loss, accuracy = figures.learning_curves(history(validation=False), 2).axes

    assert {line.get_label() for line in [*loss.lines, *accuracy.lines]} == {"training", "kept"}


# ---------------------------------------------------------------- reliability


def test_the_diagram_shows_each_filled_bin() -> None:
    """Confidence against accuracy, empty bins left out, and the error in the title."""
    bins = calibration(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]), np.array([0, 1, 0]), 10)
    upper, lower = figures.reliability_diagram(bins).axes

    model = next(line for line in upper.lines if line.get_label() == "this model")
    np.testing.assert_allclose(np.column_stack(model.get_data()), [[0.6, 1.0], [0.9, 0.5]])
    assert upper.get_title() == f"expected calibration error {bins.ece:.4f}"
    assert sum(bar.get_height() for bar in lower.patches) == 3


# ---------------------------------------------------------------- gallery


@pytest.mark.parametrize("shape", [(7, 6, 6), (7, 6, 6, 3)], ids=["gray", "rgb"])
def test_the_gallery_shows_the_images_in_order(shape: tuple[int, ...]) -> None:
    """Pixel by pixel, 0 to 255 whatever is in them, with index, true class, prediction and confidence."""
    images = pixels(*shape)
    figure = gallery(images)
    filled = [axes for axes in figure.axes if axes.images]

    assert len(filled) == 7
    for n, axes in enumerate(filled):
        np.testing.assert_array_equal(axes.images[0].get_array(), images[n])
        assert axes.images[0].get_clim() == (0, 255)
        assert axes.get_title() == f"#{7 * n}  is cat\nsaid dog (98.7%)"


def test_a_gallery_without_errors_says_so() -> None:
    """A text, not an empty picture."""
    assert texts(gallery(pixels(0, 6, 6))) == ["no errors on the test set"]
