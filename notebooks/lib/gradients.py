"""Pictures of slopes, gradients, descents, and of the chain of operations that a network is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from lib.style import BLUE, GREEN, GREY, INK, ORANGE, new_figure, plain

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]
RULE_STYLES = {"SGD": (BLUE, "o"), "momentum": (ORANGE, "s"), "RMSprop": (GREEN, "^")}


def slope_and_steps(
    loss: Function, slope: Function, at: float, gaps: Sequence[float], paths: Mapping[str, Floats]
) -> Figure:
    """Left: secants that turn into the tangent. The others: the points that each descent visits.

    Args:
        at: where the tangent touches.
        gaps: from `at` to the secants' second points.
        paths: title → the weights visited.
    """
    figure = new_figure(10.5, 3.3)
    first, *others = figure.subplots(1, 1 + len(paths), sharey=True)
    reach = 2.2
    w = np.linspace(-reach, reach, 200)
    for axes in (first, *others):
        axes.plot(w, loss(w), color=INK, linewidth=1.3)
        axes.set(xlabel="weight w", xlim=(-reach, reach), ylim=(-0.6, 5))
        plain(axes)
    y = loss(np.array(at))
    for gap, alpha in zip(gaps, np.linspace(0.35, 0.9, len(gaps)), strict=True):
        rise = (loss(np.array(at + gap)) - y) / gap
        first.plot(w, y + rise * (w - at), color=BLUE, linewidth=1, alpha=alpha)
        first.plot(at + gap, loss(np.array(at + gap)), "o", color=BLUE, markersize=4)
    tangent = slope(np.array(at))
    first.plot(w, y + tangent * (w - at), color=ORANGE, linewidth=2)
    first.plot(at, y, "o", color=ORANGE)
    first.set(ylabel="loss", title=f"slope at w = {at:g}: {tangent:.3f}")
    for axes, (name, path) in zip(others, paths.items(), strict=True):
        axes.plot(path, loss(path), "-o", color=BLUE, markersize=3.5, linewidth=0.9)
        axes.plot(path[0], loss(path[:1]), "o", color=ORANGE)
        axes.set_title(name)
    return figure


def steepest(
    surface: Callable[[Floats, Floats], Floats], at: tuple[float, float], gradient: Floats, rises: Floats, step: float
) -> Figure:
    """Left: lines of equal loss, a circle of directions and the gradient. Right: the rise of the loss in each of them.

    Args:
        rises: (A,) change of the loss after `step` in directions of 0 to 360 degrees.
    """
    figure = new_figure(9, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    x, y = np.meshgrid(np.linspace(at[0] - 1, at[0] + 1, 121), np.linspace(at[1] - 1, at[1] + 1, 121))
    left.contour(x, y, surface(x, y), levels=14, colors=GREY, linewidths=1)
    around = np.linspace(0, 2 * np.pi, 200)
    left.plot(at[0] + 0.6 * np.cos(around), at[1] + 0.6 * np.sin(around), color=INK, linewidth=0.8, linestyle=":")
    up = 0.6 * gradient / np.hypot(*gradient)
    for sign, color, name in ((1, ORANGE, "gradient: steepest ascent"), (-1, BLUE, "its opposite: steepest descent")):
        tip = (at[0] + sign * up[0], at[1] + sign * up[1])
        left.annotate("", tip, at, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 2.2, "shrinkA": 0})
        angle = np.degrees(np.arctan2(sign * up[1], sign * up[0])) % 360
        right.axvline(angle, color=color, linewidth=2, label=name)
    left.plot(*at, "o", color=INK)
    left.set(xlabel="weight w", ylabel="bias b", aspect="equal", title="lines of equal loss")
    degrees = np.linspace(0, 360, len(rises))
    right.plot(degrees, rises, color=INK)
    right.axhline(0, color=GREY, linewidth=0.8)
    right.set(xlabel="direction of the step, degrees", xticks=range(0, 361, 45), ylabel="change of the loss")
    right.set_title(f"after a step of length {step:g}")
    plain(right)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    return figure


def descents(
    surface: Callable[[Floats, Floats], Floats],
    paths: Mapping[str, Mapping[str, Floats]],
    w_range: tuple[float, float],
    b_range: tuple[float, float],
) -> Figure:
    """A panel for each start: the loss as shades and the path of each rule on it. Last: the first panel's losses.

    Args:
        paths: title → rule (a key of RULE_STYLES) → points (T + 1, 2).
    """
    figure = new_figure(3.1 * len(paths) + 3, 3.6)
    *maps, curves = figure.subplots(1, 1 + len(paths), width_ratios=[1] * len(paths) + [0.95])
    w, b = np.linspace(*w_range, 240), np.linspace(*b_range, 240)
    loss = surface(*np.meshgrid(w, b))
    for axes, (title, of_rule) in zip(maps, paths.items(), strict=True):
        shades = _draw_paths(axes, w, b, loss, of_rule)
        axes.set(xlabel="weight w", title=title)
    maps[0].set_ylabel("bias b")
    _colorbar(figure, shades, maps)
    title, of_rule = next(iter(paths.items()))
    _draw_losses(curves, {rule: surface(*path.T) for rule, path in of_rule.items()}, every=1)
    curves.set_title(f"{title}: loss")
    return figure


def descents_on_plane(
    across: Floats, over: Floats, loss: Floats, paths: Mapping[str, Floats], losses: Mapping[str, Floats], every: int
) -> Figure:
    """The loss (O, A) on a plane of weights with the paths (T, 2) as seen in it, and the loss along each path.

    Args:
        losses: rule → (T,), at the weights themselves, which lie off the plane.
        every: steps from one point of a path to the next.
    """
    figure = new_figure(9.5, 4)
    plane, curves = figure.subplots(1, 2, width_ratios=(1.15, 1))
    shades = _draw_paths(plane, across, over, loss, paths)
    plane.set(xlabel="first principal axis", ylabel="second principal axis", title="loss on the plane")
    _colorbar(figure, shades, [plane])
    _draw_losses(curves, losses, every)
    curves.set_title("loss at the weights themselves")
    return figure


def _draw_paths(axes: Axes, x: Floats, y: Floats, loss: Floats, paths: Mapping[str, Floats]) -> ContourSet:
    levels = np.geomspace(loss.min(), loss.max(), 22)
    shades = axes.contourf(x, y, loss, levels=levels, norm=LogNorm(levels[0], 4 * levels[-1]), cmap="Greys")
    for place, (rule, path) in enumerate(paths.items()):
        color, marker = RULE_STYLES[rule]
        axes.plot(*path.T, color=color, marker=marker, markersize=2.8, linewidth=1.1, zorder=9 - place)  # first on top
    start = next(iter(paths.values()))[0]
    axes.plot(*start, "o", color="white", markeredgecolor=INK, markersize=8, zorder=10)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    return shades


def _colorbar(figure: Figure, shades: ContourSet, maps: list[Axes]) -> None:
    low, high = shades.get_clim()
    ticks = [tick for tick in (0.01, 0.03, 0.1, 0.3, 1, 3, 10) if low <= tick <= high / 4]
    bar = figure.colorbar(shades, ax=maps, ticks=ticks[:: 2 if len(ticks) > 5 else 1], pad=0.01, fraction=0.04)
    bar.ax.set_yticklabels([f"{tick:g}" for tick in bar.get_ticks()])
    bar.ax.set_title("loss", fontsize=9)
    bar.ax.minorticks_off()


def _draw_losses(axes: Axes, losses: Mapping[str, Floats], every: int) -> None:
    for rule, values in losses.items():
        axes.semilogy(every * np.arange(len(values)), values, color=RULE_STYLES[rule][0], label=rule)
    axes.set(xlabel="step")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False)
    plain(axes)


@dataclass(frozen=True)
class Link:
    """One operation of a chain."""

    name: str
    shape: str  # of what comes out
    gradient: str  # of the loss at what comes out


def chain(links: Sequence[Link], weights: Mapping[int, tuple[str, str]]) -> Figure:
    """Operations from left to right: what each gives above, the gradient that comes back below.

    Args:
        weights: place of an operation → its weights and the gradient of the loss at them.
    """
    figure = new_figure(11, 3.1)
    axes = figure.subplots()
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "linewidth": 1.6}
    for n, link in enumerate(links):
        axes.add_patch(FancyBboxPatch((n - 0.3, -0.2), 0.6, 0.4, boxstyle="round,pad=0.03", fc="white", ec=INK))
        axes.text(n, 0, link.name, ha="center", va="center", fontsize=10)
        axes.text(n, 0.34, link.shape, ha="center", va="bottom", fontsize=8, color=BLUE)
        axes.text(n, -0.36, link.gradient, ha="center", va="top", fontsize=9, color=ORANGE)
        if n:
            axes.annotate("", (n - 0.34, 0.08), (n - 0.66, 0.08), arrowprops=arrow | {"color": BLUE})
            axes.annotate("", (n - 0.66, -0.08), (n - 0.34, -0.08), arrowprops=arrow | {"color": ORANGE})
    for n, (name, gradient) in weights.items():
        axes.annotate("", (n, 0.62), (n, 0.9), arrowprops=arrow | {"color": BLUE})
        axes.text(n, 0.94, name, ha="center", va="bottom", fontsize=10, color=BLUE)
        axes.annotate("", (n, -0.98), (n, -0.7), arrowprops=arrow | {"color": ORANGE})
        axes.text(n, -1.02, gradient, ha="center", va="top", fontsize=9, color=ORANGE)
    axes.text(-0.45, 1.3, "forward: values →", color=BLUE, fontsize=10, va="center")
    axes.text(-0.45, -1.42, "backward: gradients of the loss ←", color=ORANGE, fontsize=10, va="center")
    axes.set(xlim=(-0.5, len(links) - 0.5), ylim=(-1.55, 1.45))
    axes.axis("off")
    return figure


def two_histories(first: Mapping[str, Floats], second: Mapping[str, Floats], names: tuple[str, str]) -> Figure:
    """Curves of two trainings over each other, one panel for each name in `first`; epochs counted from 1."""
    figure = new_figure(8.5, 3)
    for axes, what in zip(figure.subplots(1, len(first), squeeze=False)[0], first, strict=True):
        _curve(axes, first[what], BLUE, {"linewidth": 4, "alpha": 0.45, "label": names[0]})
        _curve(axes, second[what], ORANGE, {"linewidth": 1.2, "marker": ".", "label": names[1]})
        axes.set(xlabel="epoch", title=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain(axes)
        axes.legend(frameon=False)
    return figure


def _curve(axes: Axes, values: Floats, color: str, style: dict[str, object]) -> None:
    axes.plot(np.arange(1, len(values) + 1), values, color=color, **style)  # type: ignore[arg-type]
