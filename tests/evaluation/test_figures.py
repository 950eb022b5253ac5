"""Figures: what is written on them, and that the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

from pipeline.evaluation import figures
from pipeline.evaluation.robustness import Curve, image_changes
from pipeline.evaluation.scores import Calibration, calibration

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


def gallery(images: NDArray[np.uint8], name: str = "cat") -> Figure:
    n = len(images)
    return figures.error_gallery(images, np.arange(n) * 7, [name] * n, ["dog"] * n, [0.987] * n)


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


# ---------------------------------------------------------------- room


def matrix(num_classes: int, name: str, most: int = 9) -> Figure:
    counts = np.random.default_rng(0).integers(0, most, (num_classes, num_classes))
    return figures.confusion_matrix(counts, [f"{name}{n}" for n in range(num_classes)])


def steep(factor: float, num_epochs: int = 200) -> Figure:
    """Losses from `factor` down, so that their numbers on the axis are wide."""
    epochs = np.arange(num_epochs, dtype=float)
    columns = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
    return figures.learning_curves({"epoch": epochs} | {name: factor * np.exp(-epochs) for name in columns}, 0)


def robustness(num_curves: int) -> Figure:
    known = image_changes(pixels(2, 28, 28))[:num_curves]
    correct = [tuple(range(0, 100 * len(change.amounts), 100)) for change in known]
    return figures.robustness(
        [Curve(c.name, c.unit, c.amounts, right, 1000, c.none) for c, right in zip(known, correct, strict=True)]
    )


def many_samples(count: int) -> Figure:
    return figures.reliability_diagram(
        Calibration(np.linspace(0, 1, 4), np.array([1, 0, count]), np.array([0.2, NAN, 0.9]), np.array([0, NAN, 1.0]))
    )


ROOM: dict[str, Callable[[], Figure]] = {
    **EVERY,
    "2 short names": lambda: matrix(2, ""),
    "2 long names": lambda: matrix(2, "a tumour of the skin that is no. ", 90_000),
    "2 longer names": lambda: matrix(2, "x" * 100),
    "10 names": lambda: matrix(10, "Ankle boot "),
    "26 letters": lambda: matrix(26, ""),
    "26 long names": lambda: matrix(26, "a rather long name of class "),
    "100 names": lambda: matrix(100, "class "),
    "large losses": lambda: steep(123_456.0),
    "huge losses": lambda: steep(1e30),
    "small losses": lambda: steep(1e-4, 3),
    "a million samples": lambda: many_samples(1_000_000),
    "one sample": lambda: many_samples(1),
    "all changes": lambda: robustness(6),
    "one change": lambda: robustness(1),
    "25 images": lambda: gallery(pixels(25, 28, 28)),
    "25 images of long names": lambda: gallery(pixels(25, 28, 28), "a rather long name of a class"),
    "images of names without end": lambda: gallery(pixels(6, 28, 28), "W" * 100),
}


@pytest.mark.parametrize("make", ROOM.values(), ids=ROOM)
def test_nothing_is_cut_and_no_axes_overlap(make: Callable[[], Figure]) -> None:
    """All that is drawn lies in the picture; the words of each axes lie beside the others'."""
    figure = make()
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    boxes = [box for axes in figure.axes if axes.axison and (box := axes.get_tightbbox())]

    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= figure.get_figwidth()
    assert drawn.y1 <= figure.get_figheight()
    for first, second in combinations(boxes, 2):
        overlap = Bbox.intersection(first, second)
        assert overlap is None or min(overlap.width, overlap.height) < 1, "px"


@pytest.mark.parametrize("name", ["cat", "Ankle boot and more", "W" * 100])
def test_the_words_above_images_do_not_overlap(name: str) -> None:
    """Long names are written smaller, very long ones cut."""
    figure = gallery(pixels(25, 28, 28), name)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]

    assert not any(Bbox.intersection(first, second) for first, second in combinations(boxes, 2))
    assert figure.axes[0].texts[0].get_fontsize() >= 3


def test_the_matrix_has_half_of_the_picture_whatever_the_names() -> None:
    """A picture with long names is larger, and its cells are squares."""
    figure = matrix(2, "x" * 100)
    figure.draw_without_rendering()
    place = figure.axes[0].get_window_extent()

    assert place.width == pytest.approx(place.height, abs=0.01)
    assert place.width > 0.45 * figure.bbox.width


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


@pytest.mark.parametrize(
    ("most", "expected"),
    [(1, ["1", "10"]), (900, ["1", "10", "100", "1,000"]), (90_000, ["1", "10", "100", "1,000", "10,000", "100,000"])],
)
def test_the_numbers_of_samples_are_written_out(most: int, expected: list[str]) -> None:
    """From one sample up, in steps of ten."""
    lower = many_samples(most).axes[1]
    low, high = lower.get_ylim()
    ticks = zip(lower.get_yticks(), lower.get_yticklabels(), strict=True)

    assert [label.get_text() for at, label in ticks if low <= at <= high] == expected


# ---------------------------------------------------------------- gallery


@pytest.mark.parametrize("shape", [(7, 6, 6), (7, 6, 6, 3)], ids=["gray", "rgb"])
def test_the_gallery_shows_the_images_in_order(shape: tuple[int, ...]) -> None:
    """Pixel by pixel, 0 to 255 whatever is in them, with index, true class, prediction and confidence."""
    images = pixels(*shape)
    (axes,) = gallery(images).axes

    assert len(axes.images) == len(axes.texts) == 7
    for n, (image, text) in enumerate(zip(axes.images, axes.texts, strict=True)):
        np.testing.assert_array_equal(image.get_array(), images[n])
        assert image.get_clim() == (0, 255)
        assert text.get_text() == f"#{7 * n}  is cat\nsaid dog (98.7%)"


@pytest.mark.parametrize("shape", [(7, 6, 6), (7, 12, 6), (7, 6, 18, 3)], ids=["square", "tall", "wide"])
def test_the_gallery_keeps_the_shape_of_its_images(shape: tuple[int, ...]) -> None:
    """Pixels are squares; five images stand in a row, each in its own cell below its words."""
    (axes,) = gallery(pixels(*shape)).axes
    boxes = [image.get_extent() for image in axes.images]

    for left, right, bottom, top in boxes:
        assert (right - left) / (top - bottom) == pytest.approx(shape[2] / shape[1])
    middles = [((left + right) / 2, (bottom + top) / 2) for left, right, bottom, top in boxes]
    assert [x for x, _ in middles[5:]] == pytest.approx([x for x, _ in middles[:2]])
    assert len({round(y, 6) for _, y in middles}) == 2
    assert all(before[1] < after[0] for before, after in pairwise(boxes[:5]))
    for box, text in zip(boxes, axes.texts, strict=True):
        assert text.get_position()[1] > box[3]


def test_a_gallery_without_errors_says_so() -> None:
    """A text, not an empty picture."""
    assert texts(gallery(pixels(0, 6, 6))) == ["no errors on the test set"]
