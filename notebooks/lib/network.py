"""A trained network with one hidden layer, opened: what its units do with an image, what each pixel adds to an answer.

Shapes: N samples, P pixels, H hidden units, C classes. Images are (rows, columns), uint8; what goes into the network
is scaled to [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.style import BLUE, GREY, INK, ORANGE, bare, new_figure
from pipeline.evaluation.figures import confusion_matrix as confusion_matrix
from pipeline.evaluation.figures import error_gallery as error_gallery
from pipeline.model.dense import DenseNetwork

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Images = NDArray[np.uint8]
SIGNED = LinearSegmentedColormap.from_list("against to for", ["#0b2f52", BLUE, "#ffffff", ORANGE, "#6b3a0b"])


@torch.no_grad()
def activations(network: DenseNetwork, images: Images) -> Floats:
    """What the hidden units (N, H) say of raw images, after relu."""
    found: Floats = network.hidden(_inputs(network, images)).numpy()
    return found


@torch.no_grad()
def accuracies_without(network: DenseNetwork, images: Images, labels: Labels, silenced: Labels) -> Floats:
    """(C,) the share of each class's images, one or more, that are right while some hidden units are held at 0."""
    hidden_NH = network.hidden(_inputs(network, images))
    hidden_NH[:, torch.from_numpy(silenced)] = 0
    right_N = network.head(hidden_NH).argmax(1).numpy() == labels
    counts_C = np.bincount(labels, minlength=network.head.out_features)
    shares: Floats = np.bincount(labels, right_N, len(counts_C)) / counts_C
    return shares


@dataclass(frozen=True)
class Votes:
    """How far each unit moves each class's logit above the mean of all logits, on average over some images."""

    moves_CH: Floats  # in logits

    @property
    def speaks_for(self) -> Labels:
        """(H,) the class that a unit moves up most."""
        return np.asarray(self.moves_CH.argmax(axis=0))

    def speakers(self, label: int, most: int) -> Labels:
        """(≤ most,) the units that speak for a class, strongest first."""
        own = np.flatnonzero(self.speaks_for == label)
        return own[np.argsort(-self.moves_CH[label, own], kind="stable")][:most]


def votes(network: DenseNetwork, images: Images) -> Votes:
    """Head weight times mean activation; softmax sees only differences of logits, so their mean is taken off."""
    head_CH = network.head.weight.detach().numpy()
    return Votes((head_CH - head_CH.mean(axis=0)) * activations(network, images).mean(axis=0))


@dataclass(frozen=True)
class Shares:
    """A difference of two logits, told apart by pixels: difference = pixels.sum() + rest."""

    pixels: Floats  # (H, W) as the image
    rest: float  # from the biases
    difference: float


def pixel_shares(network: DenseNetwork, image: Images, one: int, other: int) -> Shares:
    """Gradient of logit `one` less logit `other` at each pixel, times the pixel.

    With relu the network is linear as far as the same units stay active, so this is no approximation: with the share
    of the biases it adds up to the difference.
    """
    x_P = _inputs(network, image[None]).requires_grad_()
    logits_C = network.head(network.hidden(x_P))[0]
    difference = logits_C[one] - logits_C[other]
    (gradient_P,) = torch.autograd.grad(difference, x_P)
    pixels: Floats = (gradient_P * x_P).detach().numpy().reshape(image.shape)
    whole = float(difference.detach())
    return Shares(pixels, whole - float(pixels.sum(dtype=np.float64)), whole)


def erased(image: Images, shares: Floats, count: int) -> Images:
    """A copy in which the `count` pixels with the largest shares are blank."""
    copy = image.copy()
    copy.reshape(-1)[np.argsort(-shares, axis=None, kind="stable")[:count]] = 0
    return copy


def nearest(of: NDArray[Any], among: NDArray[Any], count: int) -> Labels:
    """For each of (M, …) the indices (M, count) of the nearest (N, …), nearest first, by Euclidean distance."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (of, among))
    squares_MN = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)
    found: Labels = np.argsort(squares_MN, axis=1, kind="stable")[:, :count]
    return found


def _inputs(network: DenseNetwork, images: Images) -> torch.Tensor:
    """(N, P) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images)).flatten(1).float() / network.scale


# ---------------------------------------------------------------- pictures


def weights_learned(start: Floats, now: Floats, units: Sequence[int]) -> Figure:
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


def speakers(learned: Floats, votes: Votes, classes: Sequence[str], each: int) -> Figure:
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


def who_speaks_for_what(votes: Votes, classes: Sequence[str], lost: Floats, count: int) -> Figure:
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
    probabilities: Floats  # (C,)
    shares: Floats  # of each pixel, in logits, for what was said against what is true
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
