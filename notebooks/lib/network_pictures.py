"""Pictures of a trained network: its hidden units, what they speak for, and how its mistakes come about.

Shapes: H hidden units, C classes. Images are (rows, columns); weights and shares of pixels have their shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.inside import Votes
from lib.style import BLUE, GREY, INK, ORANGE, bare, new_figure

Array = NDArray[np.floating[Any]]
Images = NDArray[np.uint8]
SIGNED = LinearSegmentedColormap.from_list("against to for", ["#0b2f52", BLUE, "#ffffff", ORANGE, "#6b3a0b"])


def weights_learned(start: Array, now: Array, units: Sequence[int]) -> Figure:
    """A column for each unit: its weights before training, after it, and the difference, all to one scale.

    Args:
        start, now: (H, rows, columns), a weight for each pixel.
    """
    figure = new_figure(1.02 * len(units) + 1.2, 3.5)
    grid = figure.subplots(3, len(units))
    stages = {"at the start": start, "after training": now, "what was learned": now - start}
    reach = float(np.quantile(np.abs(start), 0.99))
    for line, (name, weights) in zip(grid, stages.items(), strict=True):
        for axes, unit in zip(line, units, strict=True):
            shown = axes.imshow(weights[unit], cmap=SIGNED, vmin=-reach, vmax=reach)
            bare(axes)
        line[0].set_ylabel(name, fontsize=9)
    _signed_bar(figure, shown, list(grid.ravel()), reach)
    for axes, unit in zip(grid[0], units, strict=True):
        axes.set_title(f"unit {unit}", fontsize=9)
    return figure


def speakers(learned: Array, votes: Votes, classes: Sequence[str], each: int) -> Figure:
    """A column for each class: what the units that speak for it most have learned, the strongest on top."""
    figure = new_figure(0.98 * len(classes) + 0.4, 1.06 * each + 0.5)
    grid = figure.subplots(each, len(classes), squeeze=False)
    for label, (column, name) in enumerate(zip(grid.T, classes, strict=True)):
        column[0].set_title(f"for “{name}”", fontsize=10)
        for axes, unit in zip(column, votes.speakers(label, each), strict=False):
            reach = float(np.abs(learned[unit]).max())
            axes.imshow(learned[unit], cmap=SIGNED, vmin=-reach, vmax=reach)
            axes.set_xlabel(f"{unit}: +{votes.moves_CH[label, unit]:.2f}", fontsize=7.5, labelpad=2)
        for axes in column:
            bare(axes)
    return figure


def who_speaks_for_what(votes: Votes, classes: Sequence[str], lost: Array, count: int) -> Figure:
    """Left: how far each unit moves each class's logit, units in the order of what they speak for. Right: what is lost.

    Args:
        lost: (C, C) in points: row the class whose speakers are silent, column the class of the images.
        count: how many are silent at a time.
    """
    figure = new_figure(10.5, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.75, 1))
    order = np.lexsort((-votes.moves_CH.max(axis=0), votes.speaks_for))
    reach = float(np.quantile(np.abs(votes.moves_CH), 0.995))
    shown = left.imshow(votes.moves_CH[:, order], cmap=SIGNED, vmin=-reach, vmax=reach, aspect="auto")
    ends = np.cumsum(np.bincount(votes.speaks_for, minlength=len(classes)))
    left.set_xticks(np.concatenate([[0], ends]), [])
    left.set_xticks((np.concatenate([[0], ends[:-1]]) + ends) / 2, classes, minor=True)
    left.tick_params(axis="x", which="minor", length=0)
    left.set_yticks(range(len(classes)), classes)
    left.set(xlabel=f"the {len(order)} hidden units, by the digit that they speak for", ylabel="logit of")
    left.set_title("how far a unit moves a logit, on average", fontsize=10)
    _signed_bar(figure, shown, [left], reach)
    right.imshow(np.ma.masked_less(lost, 0.5), cmap="Oranges", vmin=0)
    for (row, column), points in np.ndenumerate(lost):
        color = "white" if points > 0.6 * lost.max() else INK if round(points) else GREY
        right.text(column, row, f"{-round(float(points))}", ha="center", va="center", fontsize=8, color=color)
    right.set_xticks(range(len(classes)), classes)
    right.set_yticks(range(len(classes)), classes)
    right.tick_params(length=0)
    right.set(xlabel="test images of", ylabel=f"silent: {count} units for")
    right.set_title("change of accuracy, points", fontsize=10)
    return figure


def rows_of_images(rows: Mapping[str, Sequence[tuple[Images, str]]]) -> Figure:
    """Each row has a name, each image in it a caption."""
    widest = max(map(len, rows.values()))
    figure = new_figure(1.08 * widest + 1.3, 1.36 * len(rows))
    grid = figure.subplots(len(rows), widest, squeeze=False)
    for line, (name, shown) in zip(grid, rows.items(), strict=True):
        for axes in line[len(shown) :]:
            axes.axis("off")
        for axes, (image, caption) in zip(line, shown, strict=False):
            axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
            axes.set_title(caption, fontsize=8)
            bare(axes)
        line[0].set_ylabel(name, fontsize=10, rotation=0, ha="right", va="center", labelpad=8)
    return figure


@dataclass(frozen=True)
class Mistake:
    """One image that was taken for another class."""

    index: int  # in the test set
    image: Images
    label: int
    probabilities: Array  # (C,)
    shares: Array  # of each pixel, in logits, for what was said against what is true
    without: Images  # less the pixels with the largest shares
    said_without: int
    neighbours: Sequence[tuple[Images, int]]  # training images and their labels, nearest first

    @property
    def said(self) -> int:
        return int(self.probabilities.argmax())


def autopsies(mistakes: Sequence[Mistake], classes: Sequence[str], num_erased: int) -> Figure:
    """A row for each mistake: the image, probabilities, pixels for and against, the image without some, neighbours."""
    num_neighbours = len(mistakes[0].neighbours)
    figure = new_figure(10.5, 1.5 * len(mistakes) + 0.5)
    ratios = [1, 1.9, 1, 1, 0.12, *[1] * num_neighbours]
    grid = figure.subplots(len(mistakes), len(ratios), width_ratios=ratios, squeeze=False)
    for mistake, line in zip(mistakes, grid, strict=True):
        image, bars, shares, without, gap, *neighbours = line
        gap.axis("off")
        _digit(image, mistake.image, f"is {classes[mistake.label]}")
        image.set_ylabel(f"#{mistake.index}", fontsize=9)
        colors = [ORANGE if n == mistake.said else BLUE if n == mistake.label else GREY for n in range(len(classes))]
        bars.bar(classes, mistake.probabilities, color=colors)
        bars.set(ylim=(0, 1), yticks=(0, 0.5, 1))
        bars.tick_params(labelsize=8, length=2)
        bars.spines[["top", "right"]].set_visible(False)
        said = f"said {classes[mistake.said]} ({mistake.probabilities.max():.0%})"
        bars.set_title(said, fontsize=9, color=ORANGE)
        reach = float(np.abs(mistake.shares).max())
        shares.imshow(mistake.shares, cmap=SIGNED, vmin=-reach, vmax=reach)
        shares.contour(mistake.image, levels=[80], colors=GREY, linewidths=0.6)
        shares.set_title(f"for {classes[mistake.said]}, against {classes[mistake.label]}", fontsize=9)
        bare(shares)
        now = mistake.said_without
        color = BLUE if now == mistake.label else ORANGE if now == mistake.said else INK
        _digit(without, mistake.without, f"{num_erased} px less: {classes[now]}", color)
        for axes, (near, label) in zip(neighbours, mistake.neighbours, strict=True):
            color = BLUE if label == mistake.label else ORANGE if label == mistake.said else INK
            _digit(axes, near, f"near: {classes[label]}", color)
    return figure


def _digit(axes: Axes, image: Images, title: str, color: str = INK) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
    axes.set_title(title, fontsize=9, color=color)
    bare(axes)


def _signed_bar(figure: Figure, shown: Any, axes: list[Axes], reach: float) -> None:
    bar = figure.colorbar(shown, ax=axes, pad=0.01, fraction=0.05, aspect=30)
    tick = float(f"{0.8 * reach:.1g}")
    bar.set_ticks([-tick, 0, tick], labels=[f"{-tick:g}", "0", f"+{tick:g}"])
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
