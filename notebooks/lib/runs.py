"""Pictures of runs that were read back from MLflow: how they learned, how they differ, how sure that is.

Shapes: S seeds, C configurations, N points of a curve. Points are hundredths of an accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.style import BLUE, GREY, INK, ORANGE, new_figure, plain
from pipeline.tracking import Store

Array = NDArray[np.floating[Any]]
MOST_SPREADS = 4.0  # a difference so many times its own spread is seen with three seeds; lines end there


@dataclass(frozen=True)
class Curve:
    """A metric of a run, in the order of its steps."""

    steps: NDArray[np.int64]  # (N,)
    values: Array  # (N,)


def curve(store: Store, run_id: str, metric: str) -> Curve:
    """All points of a metric that a run has recorded. Where a step was done again, the newest point counts."""
    points = store.client.get_metric_history(run_id, metric)
    newest = {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}
    steps = sorted(newest)
    return Curve(np.array(steps, dtype=np.int64), np.array([newest[step] for step in steps], dtype=np.float64))


@dataclass(frozen=True)
class Learning:
    """How one run learned."""

    batches: Curve  # training loss of single batches, by the number of steps done before
    epochs: Curve  # validation loss after each epoch, by the number of epochs done before
    num_steps: int  # in the whole training
    kept: int  # the epoch whose weights were kept, 0-based


def learning(panels: Mapping[str, Sequence[Learning]], columns: int) -> Figure:
    """A panel for each configuration, a line for each seed: training loss in blue, validation loss in orange."""
    rows = -(-len(panels) // columns)
    figure = new_figure(3.4 * columns, 2.35 * rows + 0.5)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, seeds) in zip(grid.ravel(), panels.items(), strict=False):
        for seed in seeds:
            per_epoch = seed.num_steps / len(seed.epochs.steps)
            (batches,) = axes.plot(seed.batches.steps / per_epoch, seed.batches.values, color=BLUE, alpha=0.45)
            after = seed.epochs.steps + 1
            (epochs,) = axes.plot(after, seed.epochs.values, color=ORANGE, marker="o", markersize=3, alpha=0.8)
            (kept,) = axes.plot(
                seed.kept + 1, seed.epochs.values[seed.kept], "o", color=INK, markersize=7, fillstyle="none"
            )
        axes.set_yscale("log")
        axes.set_yticks((0.1, 0.3, 1, 3), ("0.1", "0.3", "1", "3"))
        axes.minorticks_off()
        axes.set_title(name, fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain(axes)
    for axes in grid.ravel()[len(panels) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("epochs")
    for axes in grid[:, 0]:
        axes.set_ylabel("loss")
    words = ("training, a batch", "validation, after an epoch", "the weights that were kept")
    figure.legend((batches, epochs, kept), words, loc="outside upper center", ncols=3, frameon=False)
    return figure


def seeds_side_by_side(accuracies: Mapping[str, Sequence[float]]) -> Figure:
    """Each configuration's accuracies as dots, one line a seed, and their mean; every one has the same seeds."""
    figure = new_figure(1.5 * len(accuracies) + 1, 3.3)
    axes = figure.subplots()
    accuracies_SC = 100 * np.array(list(accuracies.values()), dtype=np.float64).T
    places = np.arange(len(accuracies))
    for seed, values in enumerate(accuracies_SC):
        axes.plot(places, values, color=GREY, linewidth=0.9, zorder=1)
        axes.text(places[-1] + 0.2, values[-1], f"seed {seed}", fontsize=8, va="center", color=INK)
    axes.plot(places, accuracies_SC.T, "o", color=BLUE, markersize=5, alpha=0.75, zorder=2)
    axes.plot(places, accuracies_SC.mean(axis=0), "_", color=ORANGE, markersize=34, markeredgewidth=2.5, label="mean")
    axes.set_xticks(places, accuracies)
    axes.set(xlim=(-0.4, len(places) - 0.4), ylabel="test accuracy, %")
    axes.legend(frameon=False, markerscale=0.5)
    plain(axes)
    return figure


class Range(Protocol):
    """A difference of accuracies with its 95 % interval, all fractions."""

    @property
    def difference(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def intervals(ranges: Mapping[str, Mapping[str, Range]], verdicts: Sequence[str], xlabel: str) -> Figure:
    """A block for each comparison, in it a bar for each of two questions; the verdict beside it.

    Args:
        ranges: comparison → question → its interval; the first question is drawn blue, the second orange.
    """
    figure = new_figure(9.5, 0.72 * len(ranges) + 1.3)
    axes = figure.subplots()
    ends = [end for block in ranges.values() for one in block.values() for end in (100 * one.low, 100 * one.high)]
    span = max(0.0, *ends) - min(0.0, *ends)
    rows = range(len(ranges) - 1, -1, -1)  # the first on top
    for y, block, verdict in zip(rows, ranges.values(), verdicts, strict=True):
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color=GREY, alpha=0.12, linewidth=0)
        for shift, color, (question, one) in zip((0.17, -0.17), (BLUE, ORANGE), block.items(), strict=True):
            axes.plot(
                (100 * one.low, 100 * one.high), (y + shift,) * 2, color=color, linewidth=3.2, solid_capstyle="round"
            )
            label = question if y == rows[0] else None
            axes.plot(
                100 * one.difference, y + shift, "o", color=color, markersize=7, markeredgecolor="white", label=label
            )
        axes.text(max(0.0, *ends) + 0.04 * span, y, verdict, va="center", fontsize=9)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(rows, ranges)
    axes.set(xlabel=xlabel, ylim=(-0.6, len(ranges) - 0.4))
    axes.set_xlim(min(0.0, *ends) - 0.05 * span, max(0.0, *ends) + 0.42 * span)
    axes.set_xticks([tick for tick in axes.get_xticks() if min(0.0, *ends) - 0.05 * span <= tick <= max(0.0, *ends)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    plain(axes)
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def seeds_to_see(
    needed: Callable[[float], int | None], spreads: Sequence[float], found: Mapping[str, tuple[float, float]]
) -> Figure:
    """How many seeds a side show a difference: a line for each spread of it over the seeds, a mark for each comparison.

    Args:
        needed: of the difference in standard deviations; None: more than it can say.
        spreads: standard deviations of the difference over the seeds, points.
        found: comparison → (difference, spread), points.
    """
    figure = new_figure(8.6, 3.9)
    axes = figure.subplots()
    for spread, shade in zip(spreads, np.linspace(0.45, 1, len(spreads)), strict=True):
        differences = np.geomspace(0.15, MOST_SPREADS * spread, 60)
        seeds = np.array([needed(difference / spread) or np.nan for difference in differences])
        axes.plot(differences, seeds, color=BLUE, alpha=shade, linewidth=1.5, zorder=1)
        first = int(np.flatnonzero(np.isfinite(seeds))[0])
        axes.text(differences[first], seeds[first], f"  sd {spread:g}", color=BLUE, fontsize=9, va="bottom")
    for marker, (name, (difference, spread)) in zip("os^Dvp<>", found.items(), strict=False):
        count = needed(difference / spread)
        if count is not None:
            seen = f"{name}: {abs(difference):.2f} points, sd {spread:.2f}: {count} seeds"
            axes.plot(abs(difference), count, marker, color=ORANGE, markersize=7, zorder=3, label=seen)
    axes.set(
        xscale="log", yscale="log", ylim=(1.7, 1200), xlabel="difference to be seen, points", ylabel="seeds a side"
    )
    _plain_numbers(axes)
    plain(axes)
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    return figure


def _plain_numbers(axes: Axes) -> None:
    low, high = axes.get_xlim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks((2, 3, 5, 10, 30, 100, 300, 1000), ("2", "3", "5", "10", "30", "100", "300", "1,000"))
    axes.minorticks_off()
