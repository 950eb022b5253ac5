"""The pictures of a sweep. Each function returns a Figure; the same rows give the same PNG bytes.

Optuna's own pictures were tried: docs/decisions/0018-our-own-pictures-of-a-sweep.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.config.overrides import short_names
from pipeline.evaluation.figures import BLUE, GREY, INK, ORANGE, plain
from pipeline.sweeps.report.rows import SEED, Group, Objective, Row, as_number, ranked, swept
from pipeline.sweeps.report.table import best_text, left_out, value_text

POOR_TO_GOOD = LinearSegmentedColormap.from_list("poor to good", ["#dfe5ea", "#7fa9cf", BLUE, "#0b2f52"])
MISSING = "not set"  # a key that some jobs do not have


def parallel_coordinates(
    rows: Sequence[Row], objectives: Sequence[Objective], log_keys: Collection[str] = ()
) -> Figure:
    """A line a configuration (the mean of its seeds), an axis a swept key, then the objectives; the best on top.

    Args:
        log_keys: swept keys that were sampled on a logarithmic scale, where their values do not show it.
    """
    groups = ranked(rows, objectives)
    lines = _lines(groups, objectives)
    if not lines:
        return _empty(rows, objectives)
    scales = _scales([line.rows[0] for line in lines], log_keys)
    ends = [Scale.of_numbers([line.values[n] for line in lines]) for n in range(len(objectives))]
    every = [*scales.values(), *ends]
    figure = Figure(figsize=(max(6.8, 1.5 * len(every) + 1.4), 4.2), layout="constrained")
    axes = figure.subplots()
    colors = POOR_TO_GOOD.reversed() if objectives[0].mode == "min" else POOR_TO_GOOD
    for line in reversed(lines):
        places = [scale.place(line.rows[0].values.get(key, MISSING)) for key, scale in scales.items()]
        shares = [float(scale.norm(place)) for scale, place in zip(every, (*places, *line.values), strict=True)]
        color = ORANGE if line.best else colors(shares[len(scales)])
        width = 2.4 if line.best else 1.5 if len(lines) < 30 else 0.9
        axes.plot(shares, color=color, linewidth=width, marker="o", markersize=3, solid_capstyle="round")
    names = [*short_names(list(scales)).values(), *(objective.name for objective in objectives)]
    _draw_upright_axes(axes, names, every)
    mappable = ScalarMappable(ends[0].norm, colors)
    bar = figure.colorbar(mappable, ax=axes, label=objectives[0].name, pad=0.03, fraction=0.04)
    bar.outline.set_visible(False)
    ends[0].draw(bar.ax, "y")
    _title(figure, groups, rows, objectives)
    return figure


def against_parameters(rows: Sequence[Row], objectives: Sequence[Objective], log_keys: Collection[str] = ()) -> Figure:
    """Each objective against each swept key: a dot a job, and the mean of the jobs where several share a value.

    Args:
        log_keys: as for `parallel_coordinates`.
    """
    groups = ranked(rows, objectives)
    if not groups:
        return _empty(rows, objectives)
    counted = [row for group in groups for row in group.counted]
    best = [row for line in _lines(groups, objectives) if line.best for row in line.rows]
    scales = _scales(counted, log_keys)
    columns = min(3, len(scales))
    deep = -(-len(scales) // columns)  # rows of panels for one objective
    size = (max(5.6, 3.1 * columns), 2.6 * deep * len(objectives) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(deep * len(objectives), columns, squeeze=False).reshape(len(objectives), -1)
    names = short_names(list(scales))
    for objective, strip in zip(objectives, panels, strict=True):
        for axes in strip[len(scales) :]:
            axes.axis("off")
        for n, (key, axes) in enumerate(zip(scales, strip, strict=False)):
            _draw_panel(axes, best, counted, key, scales[key], objective)
            axes.set(xlabel=names[key], ylabel="" if n % columns else objective.name)
            axes.tick_params(labelleft=n % columns == 0)
    legends = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    handles = {text: handle for legend in legends for handle, text in legend}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False)
    _title(figure, groups, rows, objectives)
    return figure


# ---------------------------------------------------------------- what they are made of


@dataclass(frozen=True)
class Line:
    """Of the parallel coordinates."""

    rows: tuple[Row, ...]  # its seeds; each has the values of the swept keys
    values: tuple[float, ...]  # of the objectives, means over the seeds
    best: bool


def _lines(groups: Sequence[Group], objectives: Sequence[Objective]) -> list[Line]:
    """Best first, those with all objectives; of nothing but seeds a line each and none the best: that would be luck."""
    counted = [row for group in groups for row in group.counted]
    names = [objective.name for objective in objectives]
    if swept(counted):
        means = [tuple(map(group.mean_of, names)) for group in groups]
        lines = [Line(g.counted, values, g.on_front or g is groups[0]) for g, values in zip(groups, means, strict=True)]
    else:
        lines = [Line((row,), tuple(row.metrics.get(name, math.nan) for name in names), False) for row in counted]
    return [line for line in lines if all(map(math.isfinite, line.values))]


def _scales(rows: Sequence[Row], log_keys: Collection[str]) -> dict[str, Scale]:
    """Of each swept key; the seed is one only if nothing else was swept."""
    keys = swept(rows) or [SEED]
    return {key: Scale.of([row.values.get(key, MISSING) for row in rows], key in log_keys) for key in keys}


def _draw_upright_axes(host: Axes, names: Sequence[str], scales: Sequence[Scale]) -> None:
    """An axis for each name, side by side, over lines that are drawn in shares of the axes."""
    last = len(names) - 1
    host.set(xlim=(-0.05, last + 0.05), ylim=(0, 1), yticks=[])
    host.set_xticks(range(len(names)), [_on_two_lines(name) for name in names])
    host.tick_params(axis="x", length=0, pad=6)
    host.spines[:].set_visible(False)
    for n, (name, scale) in enumerate(zip(names, scales, strict=True)):
        axes = host.twinx()
        axes.set_label(name)
        scale.draw(axes, "y")
        axes.spines[:].set_visible(False)
        axes.spines["right"].set(visible=True, position=("data", n), color=GREY)
        axes.tick_params(axis="y", which="both", color=GREY, labelsize=8.5)
        for label in axes.get_yticklabels(which="both"):
            label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _draw_panel(
    axes: Axes, best: Sequence[Row], counted: Sequence[Row], key: str, scale: Scale, objective: Objective
) -> None:
    """One key: the jobs, the best among them, and means where jobs share a value."""
    shown = [row for row in counted if math.isfinite(row.metrics.get(objective.name, math.nan))]
    scores = np.array([row.metrics[objective.name] for row in shown])
    places = np.array([scale.place(row.values.get(key, MISSING)) for row in shown])
    shifts = np.array([(row.number * 0.618 % 1 - 0.5) * 0.3 for row in shown]) * (scale.kind == "category")
    top = np.isin([row.unique_id for row in shown], [row.unique_id for row in best])
    x = places + shifts
    axes.plot(x[~top], scores[~top], "o", color=BLUE, markersize=4.5, markeredgewidth=0, alpha=0.45, label="a job")
    axes.plot(x[top], scores[top], "o", color=ORANGE, markersize=5, markeredgewidth=0, zorder=4)
    distinct = np.unique(places)
    if len(distinct) <= len(shown) / 2:
        means = [scores[places == place].mean() for place in distinct]
        line = "none" if scale.kind == "category" else "-"
        (drawn,) = axes.plot(distinct, means, color=INK, linewidth=0.8, linestyle=line, zorder=3)
        drawn.set(marker="_", markersize=16, label="mean at this value")
    scale.draw(axes, "x")
    if scale.kind == "category" and sum(len(shortened(text)) for _, text in scale.ticks) > 20:
        axes.tick_params(axis="x", rotation=30 if len(scale.ticks) < 7 else 90, rotation_mode="xtick")
    Scale.of_numbers(scores.tolist() or [0.0]).draw(axes, "y")
    _draw_grid(axes)


def _empty(rows: Sequence[Row], objectives: Sequence[Objective]) -> Figure:
    figure = Figure(figsize=(6.8, 1.6), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.text(0, 0.5, f"no job finished with a finite {objectives[0].name}", fontsize=12, color=INK)
    _title(figure, ranked(rows, objectives), rows, objectives)
    return figure


def _title(figure: Figure, groups: Sequence[Group], rows: Sequence[Row], objectives: Sequence[Objective]) -> None:
    """What is orange, and what is not there."""
    lines = []
    if groups and swept(rows):
        front = sum(group.on_front for group in groups)
        best = f"best of {len(groups)}, {best_text(groups[0], [])}"
        lines.append(f"orange: {f'the Pareto front, {front} of {len(groups)}' if front else best}")
    elif groups:
        lines.append(best_text(groups[0], []))
    if out := left_out(rows, objectives[0]):
        lines.append(f"left out: {out}")
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, color=INK)


def _on_two_lines(name: str) -> str:
    """If it is long."""
    return name if len(name) <= 12 else name.replace(".", ".\n", 1) if "." in name else name.replace("_", "_\n", 1)


def _draw_grid(axes: Axes) -> None:
    plain(axes)
    axes.set_axisbelow(True)


# ---------------------------------------------------------------- axes: linear, logarithmic or named


MAX_TICKS = 6  # at the values themselves; more distinct numbers get round ticks
MAX_CATEGORIES = 12  # with a name each
MAX_NAME = 17  # characters of a category


@dataclass(frozen=True)
class Scale:
    """Where a value lies on its axis."""

    kind: Literal["linear", "log", "category"]
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()  # matplotlib's own if empty

    @classmethod
    def of(cls, texts: Sequence[str], log: bool = False) -> Scale:
        """Of values as typed: numeric if all of them are numbers, else by category, numbers first."""
        named = {as_number(text): value_text(text) for text in texts}
        if None not in named:
            return cls.of_numbers([number for number in named if number is not None], log)._named(named)
        ordered = sorted(set(texts), key=lambda text: (as_number(text) is None, as_number(text) or 0, text))
        return cls("category", -0.5, len(ordered) - 0.5, tuple(enumerate(ordered)))

    @classmethod
    def of_numbers(cls, numbers: Sequence[float], log: bool = False) -> Scale:
        """With a margin. Logarithmic if `log`, for a geometric series such as 32, 64, 128, and for two decades.

        Even samples of 0..1 also span two decades, so half of the numbers must crowd at the low end.
        """
        low, high = min(numbers), max(numbers)
        crowded = median_low(set(numbers)) < high / 4
        if low > 0 and (log or (high / low >= 100 and crowded) or _geometric(numbers)):
            factor = (high / low) ** 0.04 if high > low else 1.5
            return cls("log", low / factor, high * factor)
        margin = (high - low) * 0.04 or abs(low) * 0.05 or 0.5
        return cls("linear", low - margin, high + margin)

    def place(self, text: str) -> float:
        """In the coordinates of the axis."""
        return float([name for _, name in self.ticks].index(text) if self.kind == "category" else text)

    @property
    def norm(self) -> Normalize:
        """To 0 at the low end, 1 at the high one."""
        return (LogNorm if self.kind == "log" else Normalize)(self.low, self.high)

    def draw(self, axes: Axes, letter: Literal["x", "y"]) -> None:
        axis = axes.xaxis if letter == "x" else axes.yaxis
        axes.set(**{f"{letter}scale": "log" if self.kind == "log" else "linear"})
        axes.set(**{f"{letter}lim": (self.low, self.high)})
        if self.ticks:
            shown = self.ticks[:: -(-len(self.ticks) // MAX_CATEGORIES)]
            axis.set_ticks([place for place, _ in shown], [shortened(name) for _, name in shown])
            axis.set_ticks([], minor=True)
        elif self.kind == "linear":
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(lambda value, _: f"{value:.6g}")  # an offset would stand between two axes
        elif self.high / self.low < 100:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:.6g}")
            axis.set_ticks([], minor=True)

    def _named(self, names: dict[float | None, str]) -> Scale:
        """With ticks at the values, if they are few and not too close."""
        ticks = sorted((number, name) for number, name in names.items() if number is not None)
        shares = [self.norm(number) for number, _ in ticks]
        clear = all(b - a > 0.1 for a, b in pairwise(shares))
        return replace(self, ticks=tuple(ticks)) if clear and len(ticks) <= MAX_TICKS else self


def _geometric(numbers: Sequence[float]) -> bool:
    """At least three, each about the same multiple of the one before: 1e-3, 3e-3, 1e-2 are, 10, 20, 30 are not."""
    ordered = np.unique(numbers)
    if len(ordered) < 3:
        return False
    ratios = ordered[1:] / ordered[:-1]
    return bool(ratios.min() > 1.9 and ratios.max() / ratios.min() < 1.15)


def shortened(name: str) -> str:
    """A name, shortened in the middle: names that begin alike differ at their ends."""
    half = (MAX_NAME - 1) // 2
    return name if len(name) <= MAX_NAME else f"{name[:half]}…{name[-half:]}"


# ---------------------------------------------------------------- how much of the spread each swept key explains


MIN_ROWS_FOR_IMPORTANCE = 4
MAX_ROWS_FOR_IMPORTANCE = 300  # 2 s; 1000 would take 18 s
MAX_CATEGORIES_FOR_IMPORTANCE = 6  # fANOVA takes 2**categories steps: 10 cost 2 s, 35 did not end in ten minutes


def importances(rows: Sequence[Row], objective: Objective, log_keys: Collection[str] = ()) -> Figure | None:
    """The share of the objective's variance that each swept key explains, by optuna's fANOVA.

    None for fewer than four finished jobs, fewer than two keys that vary, or an objective that is the same for all.
    Of more than 300 jobs a random 300 are taken.
    """
    counted = [row for row in rows if row.score(objective) is not None]
    if len(counted) > MAX_ROWS_FOR_IMPORTANCE:  # not every second one, which a grid may have given the same value
        counted = random.Random(0).sample(counted, MAX_ROWS_FOR_IMPORTANCE)
    keys = [key for key in swept(counted) if len({row.values.get(key, MISSING) for row in counted}) > 1]
    num_scores = len({row.metrics[objective.name] for row in counted})
    if len(counted) < MIN_ROWS_FOR_IMPORTANCE or len(keys) < 2 or num_scores < 2:
        return None
    scales = _scales(counted, log_keys)
    shares = fanova(counted, objective, {key: scales[key] for key in keys})
    ordered = sorted(shares, key=lambda key: (shares[key], key))
    figure = Figure(figsize=(6.8, 0.42 * len(keys) + 1.5), layout="constrained")
    axes = figure.subplots()
    names = short_names(swept(rows))
    bars = axes.barh([names[key] for key in ordered], [shares[key] for key in ordered], color=BLUE)
    axes.bar_label(bars, [f"{shares[key]:.0%}" for key in ordered], padding=4, color=INK)
    axes.set(xlim=(0, 1.08), xlabel=f"share of the variance of {objective.name} explained (fANOVA)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(f"what mattered, as far as {len(counted)} jobs can tell", loc="left", fontsize=11)
    _draw_grid(axes)
    return figure


def fanova(rows: Sequence[Row], objective: Objective, scales: dict[str, Scale]) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    from pipeline.sweeps.search.options import quiet

    distributions: dict[str, BaseDistribution] = {}
    columns: dict[str, Sequence[str | float]] = {}
    for key, scale in scales.items():
        texts, log = [row.values.get(key, MISSING) for row in rows], scale.kind == "log"
        places = [scale.place(text) for text in texts]
        few_categories = scale.kind == "category" and len(scale.ticks) <= MAX_CATEGORIES_FOR_IMPORTANCE
        columns[key] = texts if few_categories else places  # places of many, which the forest can split as well
        if few_categories:
            distributions[key] = CategoricalDistribution(sorted(set(texts)))
        elif all(place.is_integer() for place in places):
            distributions[key] = IntDistribution(int(min(places)), int(max(places)), log=log)
        else:
            distributions[key] = FloatDistribution(min(places), max(places), log=log)
    with quiet():
        study = optuna.create_study(direction="minimize" if objective.mode == "min" else "maximize")
    for n, row in enumerate(rows):
        params = {key: values[n] for key, values in columns.items()}
        value = row.metrics[objective.name]
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
