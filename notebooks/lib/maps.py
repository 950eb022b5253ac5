"""Pictures of maps of the plane and of space: grids, digits, regions, sheets.

Points are (..., 2), x to the right and y up, as in `pipeline.data.geometry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from lib.style import BLUE, GREY, INK, ORANGE, bare, new_figure
from pipeline.data.geometry import Maps, transform, warp

Points = NDArray[np.float64]
LIGHT = np.array([0.3, -0.5, 0.8]) / np.sqrt(0.98)  # where it comes from, for the shades of a sheet


def grid_lines(half_side: float, num_lines: int, num_points: int = 41) -> Points:
    """The lines (2 num_lines, num_points, 2) of a square grid about (0, 0); the upright ones first."""
    places, along = np.linspace(-half_side, half_side, num_lines), np.linspace(-half_side, half_side, num_points)
    upright = np.stack(np.meshgrid(places, along, indexing="ij"), axis=-1)
    return np.concatenate([upright, upright[..., ::-1]])


def draw_grid(axes: Axes, lines: Points, *, faint: bool = False) -> None:
    """Upright lines blue, level ones orange, as they were before any map."""
    half = len(lines) // 2
    colors = [GREY] * len(lines) if faint else [BLUE] * half + [ORANGE] * half
    axes.add_collection(LineCollection(list(lines), colors=colors, linewidths=0.7 if faint else 1.1))


def maps_at_work(maps: Mapping[str, Maps], image: NDArray[np.uint8]) -> Figure:
    """Above: a grid before (grey) and after, its origin and its corner (1, 1). Below: the same done to an image."""
    figure = new_figure(1.78 * len(maps), 4.5)
    upper, lower = figure.subplots(2, len(maps), height_ratios=(1, 0.85))
    lines = grid_lines(1, 5)
    for above, below, (name, map_) in zip(upper, lower, maps.items(), strict=True):
        in_grid = map_.copy()
        in_grid[:, :, 2] /= image.shape[-1] / 2  # the grid is 2 wide where the image is so many pixels wide
        draw_grid(above, lines, faint=True)
        draw_grid(above, transform(in_grid, lines.reshape(-1, 2)).reshape(lines.shape))
        origin, corner = transform(in_grid, np.array([[0.0, 0.0], [1.0, 1.0]]))[0]
        above.plot(*origin, marker="o", color=INK, markersize=5)
        above.plot(*corner, marker="s", color=INK, markersize=5)
        above.set(xlim=(-1.9, 1.9), ylim=(-1.9, 1.9), aspect="equal")
        above.set_title(f"{name}\n{written(map_)}", fontsize=8.5, family="monospace")
        bare(above)
        below.imshow(warp(image[None], map_)[0], cmap="gray_r", vmin=0, vmax=255)
        bare(below)
    return figure


def written(map_: Maps) -> str:
    """[A | t] on two lines; t in pixels."""
    return "\n".join(f"[{a:5.2f} {b:5.2f} |{t:5.1f}]" for a, b, t in map_[0] + 0.0)  # + 0.0: no -0.00


def images_in_a_row(images: Mapping[str, NDArray[np.uint8]], width_in: float = 1.9) -> Figure:
    figure = new_figure(width_in * len(images), width_in + 0.45)
    for axes, (name, image) in zip(figure.subplots(1, len(images), squeeze=False)[0], images.items(), strict=True):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(name, fontsize=9)
        bare(axes)
    return figure


def grids_in_a_row(grids: Mapping[str, Points], reach: float) -> Figure:
    """Each grid (lines, points, 2) in a panel of its own, all to one scale, with the axes x = 0 and y = 0."""
    figure = new_figure(2.65 * len(grids), 3)
    for axes, (name, lines) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True):
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        draw_grid(axes, lines)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_title(name, fontsize=9)
        bare(axes)
    return figure


def regions(
    points: Points, labels: NDArray[np.int64], answers: Mapping[str, Callable[[Points], NDArray[np.int64]]]
) -> Figure:
    """What each network answers everywhere in the plane, with the points (N, 2) that it learned from."""
    figure = new_figure(3.5 * len(answers), 3.7)
    reach = 1.15 * np.abs(points).max()
    along = np.linspace(-reach, reach, 240)
    plane = np.stack(np.meshgrid(along, along), axis=-1)
    for axes, (name, answer) in zip(figure.subplots(1, len(answers), squeeze=False)[0], answers.items(), strict=True):
        said = answer(plane.reshape(-1, 2)).reshape(plane.shape[:2])
        pale = ListedColormap(["#cfe2f3", "#fae3cd"])
        axes.imshow(said, origin="lower", extent=(-reach, reach, -reach, reach), cmap=pale, vmin=0, vmax=1)
        for label, color, marker in ((0, BLUE, "o"), (1, ORANGE, "^")):
            axes.scatter(*points[labels == label].T, s=9, color=color, marker=marker, linewidths=0)
        share = (answer(points) == labels).mean()
        axes.set_title(f"{name}\n{share:.1%} of the points right", fontsize=10)
        bare(axes)
    return figure


def sheets_figure(stages: Mapping[str, Points], reach: float, panel_in: float = 3.4) -> Figure:
    """Two sheets (2, S, S, 3) in each panel, seen from one place, all to one scale."""
    figure = new_figure(panel_in * len(stages), panel_in + 0.35)
    for n, (name, sheets) in enumerate(stages.items()):
        axes = figure.add_subplot(1, len(stages), n + 1, projection="3d")
        quads, colors = zip(*(_shaded(*pair) for pair in zip(sheets, (BLUE, ORANGE), strict=True)), strict=True)
        # one collection for both: Matplotlib sorts by depth within a collection only
        axes.add_collection3d(
            Poly3DCollection(np.concatenate(quads), facecolors=np.concatenate(colors), antialiased=False)
        )
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
        axes.set_box_aspect((1, 1, 1), zoom=1.15)
        axes.set_axis_off()
        axes.view_init(15, -60)
        axes.set_title(name, fontsize=10, y=1.03)
    return figure


def _shaded(sheet: Points, color: str) -> tuple[Points, Points]:
    """The patches (n, 4, 3) of a sheet (S, S, 3) and their colours (n, 3), darker where they turn from the light."""
    corners = (sheet[:-1, :-1], sheet[1:, :-1], sheet[1:, 1:], sheet[:-1, 1:])
    quads = np.stack(corners, axis=2).reshape(-1, 4, 3)
    across = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    facing = np.abs(across @ LIGHT) / (np.sqrt(np.square(across).sum(axis=1)) + 1e-12)
    shades: Points = np.clip(np.array(to_rgb(color)) * (0.55 + 0.7 * facing[:, None]), 0, 1)
    return quads, shades
