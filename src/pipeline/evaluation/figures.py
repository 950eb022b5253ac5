"""The pictures of a report. Each function returns a Figure; the same input gives the same PNG bytes.

They are laid out by hand: matplotlib's constrained layout measures all that is drawn, twice, and took half of the time
(docs/log.md). Margins are fixed where the words are known, and measured where they are not.

Shapes: N samples, C classes, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Affine2D, Bbox
from numpy.typing import NDArray

from pipeline.evaluation.robustness import Curve
from pipeline.evaluation.scores import Calibration, Labels

INK, BLUE, ORANGE, GREY = "#222222", "#1f6fb2", "#d9822b", "#b8b8b8"
MAX_CLASSES_WITH_NUMBERS = 20  # above it the cells of the confusion matrix are too small for text
CAPTION_PT = 9
MAX_LETTERS = 30  # of a class's name above an image
DPI = 110
EDGE_IN = 0.05  # that nothing is nearer to the border of a picture
TITLE_IN = 0.25  # of one line above the axes
MAX_SIDE_IN = 40.0  # of a confusion matrix whose classes have long names


def save(figure: Figure, path: Path) -> None:
    """As PNG, without the metadata that would tell two identical pictures apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 3})  # 6: 2/3 more time


def _blank(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _renderer(figure: Figure) -> RendererAgg:
    """What it will be drawn by, so that the words that are measured now are not measured again."""
    canvas: Any = figure.canvas
    renderer: RendererAgg = canvas.get_renderer()
    return renderer


def _beside(figure: Figure, axes: Axes) -> tuple[float, float]:
    """How far the words of the axes reach to the left and below it, in inches."""
    renderer = _renderer(figure)
    inside = axes.get_window_extent(renderer)
    left, below = (axis.get_tightbbox(renderer) or inside for axis in (axes.yaxis, axes.xaxis))
    return (inside.x0 - left.x0) / DPI, (inside.y0 - below.y0) / DPI


def confusion_matrix(counts_CC: Labels, classes: Sequence[str]) -> Figure:
    """Errors coloured, right answers left white: on a good network the diagonal would drown everything else."""
    num_classes = len(classes)
    side_in = float(np.clip(0.55 * num_classes + 2, 4.5, 14))
    figure = _blank(side_in, side_in)
    axes = figure.subplots()
    errors = np.where(np.eye(num_classes, dtype=bool), 0, counts_CC)
    axes.imshow(np.ma.masked_equal(errors, 0), cmap="Oranges", vmin=0, vmax=max(1, int(errors.max())))
    if num_classes <= MAX_CLASSES_WITH_NUMBERS:
        _write_counts(axes, counts_CC, errors)
    ticks = range(num_classes)
    axes.set_xticks(ticks, classes, rotation=0 if _short(classes) else 90)
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="predicted", ylabel="true")
    correct, count = int(np.trace(counts_CC)), int(counts_CC.sum())
    text = f"{correct:,} of {count:,} right ({correct / count:.2%})"
    title = axes.set_title(text, loc="left", fontsize=11, y=1.0)
    axes.tick_params(length=0)
    _make_room(figure, axes, title)
    return figure


def _make_room(figure: Figure, axes: Axes, title: Text) -> None:
    """For the classes' names. Where they would leave less than half of the picture to the matrix it grows.

    A title that is wider than the matrix begins before it.
    """
    left, below = (reach + EDGE_IN for reach in _beside(figure, axes))
    side_in = min(max(figure.get_figwidth(), 2 * left), MAX_SIDE_IN)
    figure.set_size_inches(side_in, side_in)
    right_in = side_in - 2 * EDGE_IN
    figure.subplots_adjust(left / side_in, below / side_in, right_in / side_in, 1 - TITLE_IN / side_in)
    axes.apply_aspect()
    place = axes.get_position()
    beyond_in = title.get_window_extent(_renderer(figure)).width / DPI - (right_in - place.x0 * side_in)
    title.set_x(-max(0.0, beyond_in) / (place.width * side_in))


def _write_counts(axes: Axes, counts_CC: Labels, errors_CC: Labels) -> None:
    dark = errors_CC.max() * 0.6
    for row, column in np.argwhere(counts_CC > 0):
        color = GREY if row == column else "white" if errors_CC[row, column] > dark else INK
        axes.text(column, row, f"{counts_CC[row, column]}", ha="center", va="center", color=color, fontsize=8)


def _short(classes: Sequence[str]) -> bool:
    return max(map(len, classes)) <= 3


def learning_curves(history: dict[str, NDArray[np.float64]], kept_epoch: int) -> Figure:
    """Loss and accuracy of each epoch, training and validation; the epoch whose weights were kept is marked.

    Args:
        history: columns epoch, train/loss, train/accuracy, val/loss, val/accuracy, each (E,); NaN without validation.
    """
    figure = _blank(6.8, 2.9)  # fits the page of a run in the MLflow UI
    both = figure.subplots(1, 2, gridspec_kw={"bottom": 0.163, "top": 0.912})
    for axes, metric in zip(both, ("loss", "accuracy"), strict=True):
        for split, color, name in (("train", BLUE, "training"), ("val", ORANGE, "validation")):
            values = history[f"{split}/{metric}"]
            if not np.isnan(values).all():
                axes.plot(history["epoch"] + 1, values, color=color, marker="o", markersize=3, label=name)
        axes.axvline(kept_epoch + 1, color=GREY, linewidth=1, linestyle="--", zorder=0, label="kept")
        axes.set(xlabel="epoch")
        axes.set_title(metric, y=1.0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain(axes)
    axes.legend(frameon=False)
    _side_by_side(figure, both)
    return figure


def _side_by_side(figure: Figure, both: Sequence[Axes]) -> None:
    """Two axes of equal width, whose numbers on the left have the room that they need."""
    width_in = figure.get_figwidth()
    room = [_beside(figure, axes)[0] + EDGE_IN for axes in both]
    each = (width_in - sum(room) - 3 * EDGE_IN) / 2
    left = 0.0
    for axes, numbers in zip(both, room, strict=True):
        place = axes.get_position()
        axes.set_position(Bbox.from_bounds((left + numbers) / width_in, place.y0, each / width_in, place.height))
        left += numbers + each + 1.5 * EDGE_IN


def reliability_diagram(bins: Calibration) -> Figure:
    """Accuracy against confidence; below the diagonal the network is surer than it should be."""
    figure = _blank(5, 5.6)
    edges = {"right": 0.97, "bottom": 0.085, "top": 0.953, "hspace": 0.06}
    upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True, gridspec_kw=edges)
    filled = bins.counts > 0
    centers, width = (bins.edges[:-1] + bins.edges[1:]) / 2, bins.edges[1] - bins.edges[0]
    upper.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    upper.plot(bins.confidence[filled], bins.accuracy[filled], color=BLUE, marker="o", label="this model")
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.set_title(f"expected calibration error {bins.ece:.4f}", y=1.0)
    upper.legend(frameon=False, loc="lower right")
    lower.bar(centers, bins.counts, width=width * 0.9, color=BLUE)
    lower.set(xlabel="confidence", ylabel="samples", yscale="log", ylim=(0.7, 1.5 * max(10, bins.counts.max())))
    lower.yaxis.set_major_locator(LogLocator(numticks=6))
    lower.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lower.yaxis.set_minor_formatter(NullFormatter())
    for axes in (upper, lower):
        plain(axes)
    figure.subplots_adjust(left=(max(_beside(figure, axes)[0] for axes in (upper, lower)) + EDGE_IN) / 5)
    return figure


def error_gallery(
    images: NDArray[np.uint8],
    indices: Labels,
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float],
) -> Figure:
    """The given images with their index in the test set, the true class and the prediction.

    Args:
        images: (n, H, W) or (n, H, W, 3), uint8, in the order of `indices`.
    """
    columns = 5
    rows = max(1, -(-len(indices) // columns))
    figure = _blank(9, 2.15 * rows)
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.1 / rows, "top": 1 - 0.22 / rows, "wspace": 0.05, "hspace": 0.35}
    grid = GridSpec(rows, columns, figure, **edges)
    # One for all images, in inches: 25 would take half a second.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 9), ylim=(0, 2.15 * rows), autoscale_on=False)
    axes.axis("off")
    captions = [
        f"#{index}  is {_shortened(is_class)}\nsaid {_shortened(taken_for)} ({sure:.1%})"
        for index, is_class, taken_for, sure in zip(indices, true, predicted, confidence, strict=True)
    ]
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        place = grid[divmod(number, columns)].get_position(figure)
        _draw_image(axes, image, place.transformed(Affine2D().scale(9, 2.15 * rows)), caption)
    if len(indices) == 0:
        axes.text(0.09, 0.9, "no errors on the test set", fontsize=12)
    else:
        _fit_into(grid[0, 0].get_position(figure).width * 9, axes.texts, _renderer(figure))
    return figure


def _fit_into(width_in: float, texts: Sequence[Text], renderer: RendererAgg) -> None:
    """Make all of them smaller where one is too wide."""
    widest_in = max(text.get_window_extent(renderer).width for text in texts) / DPI
    if widest_in > width_in:
        for text in texts:
            text.set_fontsize(0.98 * CAPTION_PT * width_in / widest_in)  # letters keep whole pixels


def _draw_image(axes: Axes, image: NDArray[np.uint8], cell: Bbox, caption: str) -> None:
    """An image in the middle of a cell, as large as it fits, and two lines above the cell."""
    height, width = image.shape[:2]
    size = min(cell.width / width, cell.height / height)
    x, y = (cell.x0 + cell.x1) / 2, (cell.y0 + cell.y1) / 2
    extent = (x - size * width / 2, x + size * width / 2, y - size * height / 2, y + size * height / 2)
    axes.imshow(image, cmap="gray_r" if image.ndim == 2 else None, vmin=0, vmax=255, extent=extent, aspect="auto")
    axes.text(x, extent[3] + 6 / 72, caption, fontsize=CAPTION_PT, color=INK, ha="center", va="baseline")


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"


def robustness(curves: Sequence[Curve]) -> Figure:
    """Accuracy at each strength of each change, with its 95 % interval; the dotted line marks what was not changed."""
    figure = _blank(9, 5)
    edges = {"left": 0.065, "right": 0.99, "bottom": 0.095, "top": 0.95, "wspace": 0.06, "hspace": 0.4}
    grid = figure.subplots(2, -(-len(curves) // 2), sharey=True, squeeze=False, gridspec_kw=edges).ravel()
    for axes, curve in zip(grid, curves, strict=False):
        low, high = zip(*curve.intervals, strict=True)
        axes.fill_between(curve.amounts, low, high, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(curve.amounts, curve.accuracies, color=BLUE, marker="o", markersize=3)
        axes.axvline(curve.unchanged, color=GREY, linewidth=1, linestyle=":", zorder=0)
        axes.set(xlabel=curve.unit, ylim=(0, 1.02))
        axes.set_title(f"{curve.name}: mean {curve.mean:.3f}", fontsize=10, y=1.0)
        plain(axes)
    for axes in grid[len(curves) :]:
        axes.axis("off")
    for axes in grid[:: len(grid) // 2]:
        axes.set_ylabel("accuracy")
    return figure


def plain(axes: Axes) -> None:
    """A frame on the left and below alone, and a pale grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
