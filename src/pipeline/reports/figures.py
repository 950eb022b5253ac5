"""The pictures of a report. Each function returns a Figure; the same input gives the same PNG bytes.

Shapes: N samples, C classes, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.reports.robustness import Curve
from pipeline.reports.scores import Calibration, Labels

INK, BLUE, ORANGE, GREY = "#222222", "#1f6fb2", "#d9822b", "#b8b8b8"
MAX_CLASSES_WITH_NUMBERS = 20  # above it the cells of the confusion matrix are too small for text


def save(figure: Figure, path: Path) -> None:
    """As PNG, without the metadata that would tell two identical pictures apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def confusion_matrix(counts_CC: Labels, classes: Sequence[str]) -> Figure:
    """Errors coloured, right answers left white: on a good network the diagonal would drown everything else."""
    num_classes = len(classes)
    side = float(np.clip(0.55 * num_classes + 2, 4.5, 14))
    figure = Figure(figsize=(side, side), layout="constrained")
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
    axes.set_title(f"{correct:,} of {count:,} right ({correct / count:.2%})", loc="left", fontsize=11)
    axes.tick_params(length=0)
    return figure


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
    figure = Figure(figsize=(6.8, 2.9), layout="constrained")  # fits the page of a run in the MLflow UI
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, color, name in (("train", BLUE, "training"), ("val", ORANGE, "validation")):
            values = history[f"{split}/{metric}"]
            if not np.isnan(values).all():
                axes.plot(history["epoch"] + 1, values, color=color, marker="o", markersize=3, label=name)
        axes.axvline(kept_epoch + 1, color=GREY, linewidth=1, linestyle="--", zorder=0, label="kept")
        axes.set(xlabel="epoch", title=metric)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _plain(axes)
    axes.legend(frameon=False)
    return figure


def reliability_diagram(bins: Calibration) -> Figure:
    """Accuracy against confidence; below the diagonal the network is surer than it should be."""
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    filled = bins.counts > 0
    centers, width = (bins.edges[:-1] + bins.edges[1:]) / 2, bins.edges[1] - bins.edges[0]
    upper.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    upper.plot(bins.confidence[filled], bins.accuracy[filled], color=BLUE, marker="o", label="this model")
    upper.set(ylabel="accuracy", title=f"expected calibration error {bins.ece:.4f}", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(frameon=False, loc="lower right")
    lower.bar(centers, bins.counts, width=width * 0.9, color=BLUE)
    lower.set(xlabel="confidence", ylabel="samples", yscale="log")
    for axes in (upper, lower):
        _plain(axes)
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
    figure = Figure(figsize=(9, 2.15 * rows))
    # By hand and with titles in place: to find where the titles of so many axes fit would take a second.
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.1 / rows, "top": 1 - 0.22 / rows, "wspace": 0.05, "hspace": 0.35}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=edges).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, *words in zip(grid, images, indices, true, predicted, confidence, strict=False):
        axes.imshow(image, cmap="gray_r" if image.ndim == 2 else None, vmin=0, vmax=255)
        index, is_class, said, sure = words
        axes.set_title(f"#{index}  is {is_class}\nsaid {said} ({sure:.1%})", fontsize=9, color=INK, y=1.0)
    if len(indices) == 0:
        grid[0].text(0, 0.5, "no errors on the test set", fontsize=12)
    return figure


def robustness(curves: Sequence[Curve]) -> Figure:
    """Accuracy at each strength of each change, with its 95 % interval; the dotted line marks what was not changed."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    grid = figure.subplots(2, -(-len(curves) // 2), sharey=True, squeeze=False).ravel()
    for axes, curve in zip(grid, curves, strict=False):
        low, high = zip(*curve.intervals, strict=True)
        axes.fill_between(curve.amounts, low, high, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(curve.amounts, curve.accuracies, color=BLUE, marker="o", markersize=3)
        axes.axvline(curve.unchanged, color=GREY, linewidth=1, linestyle=":", zorder=0)
        axes.set(xlabel=curve.unit, ylim=(0, 1.02))
        axes.set_title(f"{curve.name}: mean {curve.mean:.3f}", fontsize=10)
        _plain(axes)
    for axes in grid[len(curves) :]:
        axes.axis("off")
    for axes in grid[:: len(grid) // 2]:
        axes.set_ylabel("accuracy")
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
