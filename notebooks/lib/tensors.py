"""Pictures of tensors: their ranks, their axes, what slices take out of them.

Shapes: N samples, H rows, W columns, C classes. Images are uint8, 0 (white) to 255 (black) where they have no colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lib.style import BLUE, GREY, INK, ORANGE, bare, new_figure, plain

Images = NDArray[np.uint8]
CARD_STEP = 0.22  # how far a card of a stack lies up and right of the one before it, in widths of a card


def class_table(images: Images, labels: NDArray[np.int64], classes: Sequence[str], per_class: int) -> Figure:
    """A column for each class, with the first samples that have its label."""
    figure = new_figure(0.85 * len(classes), 0.85 * per_class + 0.5)
    for label, column in enumerate(figure.subplots(per_class, len(classes), squeeze=False).T):
        column[0].set_title(f"label {label}\nclass “{classes[label]}”", fontsize=8)
        for axes, index in zip(column, np.flatnonzero(labels == label), strict=False):
            _draw(axes, images[index])
    return figure


def pixel_values(image: Images, rows: slice, columns: slice) -> Figure:
    """An image, and a part of it with the numbers that it is."""
    figure = new_figure(9, 4.4)
    whole, part = figure.subplots(1, 2)
    _draw(whole, image)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    corner = (columns.start - 0.5, rows.start - 0.5)
    whole.add_patch(Rectangle(corner, width, height, fill=False, color=ORANGE, linewidth=2))
    whole.set(xticks=range(0, 28, 9), yticks=range(0, 28, 9), xlabel="axis 1: column", ylabel="axis 0: row")
    seen = image[rows, columns]
    _draw(part, seen)
    part.set(
        xticks=range(width), xticklabels=range(columns.start, columns.stop),
        yticks=range(height), yticklabels=range(rows.start, rows.stop),
    )  # fmt: skip
    for spine in part.spines.values():
        spine.set(color=ORANGE, linewidth=2)
    for (row, column), value in np.ndenumerate(seen):
        part.text(column, row, value, ha="center", va="center", fontsize=7.5, color="white" if value > 140 else INK)
    return figure


def ranks(images: Images, photos: Images, index: int, row: int, column: int) -> Figure:
    """One pixel, one row, one image, many images, many colour images.

    Args:
        images: (N, H, W).
        photos: (N, H, W, 3).
        index, row, column: what the lower ranks are taken from.
    """
    figure = new_figure(10.5, 3.3)
    panels = figure.subplots(1, 5, width_ratios=(0.6, 1.1, 1.1, 1.6, 1.75))
    image = images[index]
    examples = (image[row, column], image[row], image, images, photos)
    names = ("scalar", "vector", "matrix", "a batch of images", "a batch of colour images")
    for rank, (axes, example, name) in enumerate(zip(panels, examples, names, strict=True)):
        axes.set_title(f"rank {rank}\n{name}", fontsize=10)
        axes.set_xlabel(f"shape {np.shape(example)}", fontsize=9)
    scalar, vector, matrix, batch, colors = panels
    _draw(scalar, image[row : row + 1, column : column + 1])
    value = int(image[row, column])
    scalar.text(0, 0, value, ha="center", va="center", color="white" if value > 140 else INK, fontsize=14)
    _draw(vector, image[row][None])
    vector.set_aspect("auto")
    vector.set_box_aspect(0.1)
    _draw(matrix, image)
    matrix.add_patch(Rectangle((-0.5, row - 0.5), image.shape[1], 1, fill=False, color=ORANGE, linewidth=1.5))
    matrix.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color=BLUE, linewidth=2))
    for axes, color in ((scalar, BLUE), (vector, ORANGE)):
        for spine in axes.spines.values():
            spine.set(color=color, linewidth=2)
    _stack(batch, list(images[index : index + 5]))
    _stack(colors, [tinted(photo, channel) for photo in photos for channel in range(3)], step=0.12, per_group=3)
    return figure


def tinted(photo: Images, channel: int) -> Images:
    """The photo (H, W, 3) with one of red, green and blue alone."""
    return np.where(np.arange(3) == channel, photo, 0).astype(np.uint8)


def channels(photo: Images) -> Figure:
    """A colour image and the three matrices that it is made of."""
    height, width = photo.shape[:2]
    figure = new_figure(10.5, 10.5 / 4 * height / width + 0.4)
    titles = ("photo[:, :, :]", "photo[:, :, 0]  red", "photo[:, :, 1]  green", "photo[:, :, 2]  blue")
    pictures = (photo, *(tinted(photo, channel) for channel in range(3)))
    for axes, title, picture in zip(figure.subplots(1, 4), titles, pictures, strict=True):
        _draw(axes, picture)
        axes.set_title(title, fontsize=9, family="monospace")
    return figure


def batch_axes(images: Images) -> Figure:
    """A stack of images with its three axes named, and what remains when the mean is taken along some of them."""
    count, height, width = images.shape
    figure = new_figure(10.5, 3.4)
    stack, over_samples, over_rows, over_pixels = figure.subplots(1, 4, width_ratios=(1.7, 1, 1.1, 1))
    _stack(stack, list(images))
    reach = 1 + CARD_STEP * (count - 1)
    arrow = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    arrows: tuple[tuple[str, tuple[float, float], tuple[float, float], dict[str, Any]], ...] = (
        ("axis 0: sample", (1.06, -0.04), (reach + 0.04, reach - 1.06), {"rotation": 45, "rotation_mode": "anchor"}),
        ("axis 1: row", (-0.08, 1), (-0.08, 0), {"rotation": 90}),
        ("axis 2: column", (0, -0.08), (1, -0.08), {}),
    )
    places = ((1.2, -0.08, "left", "bottom"), (-0.12, 0.5, "right", "center"), (0.5, -0.12, "center", "top"))
    for (name, tail, head, turned), (x, y, ha, va) in zip(arrows, places, strict=True):
        stack.annotate("", head, tail, arrowprops=arrow)
        stack.text(x, y, name, ha=ha, va=va, fontsize=9, color=INK, **turned)
    stack.set(xlim=(-0.35, reach + 0.1), ylim=(-0.35, reach + 0.05))
    stack.set_xlabel(f"shape {images.shape}", fontsize=9)
    means = {"axis=0": images.mean(axis=0), "axis=1": images.mean(axis=1), "axis=(1, 2)": images.mean(axis=(1, 2))}
    for axes, (along, mean) in zip((over_samples, over_rows, over_pixels), means.items(), strict=True):
        axes.set_title(f"images.mean({along})", fontsize=9, family="monospace")
        axes.set_xlabel(f"shape {mean.shape}", fontsize=9)
    _draw(over_samples, means["axis=0"])
    over_rows.imshow(means["axis=1"], cmap="gray_r", aspect=width / height * 28 / count)
    bare(over_rows)
    over_rows.set(ylabel="sample", yticks=range(count))
    over_pixels.barh(range(count), means["axis=(1, 2)"], color=BLUE)
    over_pixels.set(yticks=range(count), ylim=(count - 0.5, -0.5), ylabel="sample", box_aspect=1)
    plain(over_pixels)
    return figure


def frames(films: Images, every: str) -> Figure:
    """Films (N, T, H, W): a row for each sample, a column for each frame.

    Args:
        every: what lies between two frames.
    """
    num_samples, num_frames = films.shape[:2]
    figure = new_figure(1.05 * num_frames + 0.4, 1.05 * num_samples + 0.4)
    grid = figure.subplots(num_samples, num_frames, squeeze=False)
    for axes, image in zip(grid.ravel(), films.reshape(-1, *films.shape[2:]), strict=True):
        _draw(axes, image)
    for frame, axes in enumerate(grid[0]):
        axes.set_title(f"frame {frame}", fontsize=9)
    for sample, axes in enumerate(grid[:, 0]):
        axes.set_ylabel(f"sample {sample}", fontsize=9)
    figure.supxlabel(f"axis 1: time, {every} →   shape {films.shape}", fontsize=9)
    return figure


def views(parts: Mapping[str, Images], columns: int, *, shapes: bool = True) -> Figure:
    """Each part under the expression that gives it: a matrix as an image, a batch as images side by side."""
    rows = -(-len(parts) // columns)
    figure = new_figure(10.5, 10.5 / columns * rows * 0.98)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(parts) :]:
        axes.axis("off")
    for axes, (code, part) in zip(grid, parts.items(), strict=False):
        _draw(axes, mosaic(part) if part.ndim == 3 else np.atleast_2d(part))
        axes.set_title(code, fontsize=9, family="monospace")
        if shapes:
            axes.set_xlabel(f"shape {part.shape}", fontsize=9)
    return figure


def mosaic(images: Images) -> Images:
    """A batch (N, H, W) as one image, row by row, nearly square; places that are left over are white."""
    count, height, width = images.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    filled = np.zeros((down * across, height, width), dtype=images.dtype)
    filled[:count] = images
    return filled.reshape(down, across, height, width).swapaxes(1, 2).reshape(down * height, across * width)


def flattened(image: Images, marked: Mapping[int, str]) -> Figure:
    """An image and the vector that its rows give one after another.

    Args:
        marked: row → colour; the same places are marked in both.
    """
    width = image.shape[1]
    figure = new_figure(10.5, 3.2)
    square, strip = figure.subplots(1, 2, width_ratios=(1, 3.4))
    _draw(square, image)
    square.set_xlabel(f"shape {image.shape}", fontsize=9)
    flat = image.reshape(-1)
    strip.imshow(flat[None], cmap="gray_r", vmin=0, vmax=255, aspect="auto", extent=(0, len(flat), 0, 1))
    strip.set(yticks=[], xticks=range(0, len(flat) + 1, 4 * width), xlabel=f"shape {flat.shape}", box_aspect=0.13)
    strip.set_title("image.reshape(784)", fontsize=9, family="monospace")
    for row, color in marked.items():
        square.add_patch(Rectangle((-0.5, row - 0.5), width, 1, fill=False, color=color, linewidth=2))
        strip.add_patch(Rectangle((row * width, 0), width, 1, fill=False, color=color, linewidth=2, clip_on=False))
    return figure


def _draw(axes: Axes, image: NDArray[Any]) -> None:
    axes.imshow(image, cmap="gray_r" if image.ndim == 2 else None, vmin=0, vmax=255, interpolation="nearest")
    bare(axes)


def _stack(axes: Axes, cards: list[Images], step: float = CARD_STEP, per_group: int = 0) -> None:
    """The cards one behind the other, the first in front; groups of them have a gap between."""
    height, width = cards[0].shape[:2]
    ratio = height / width
    places = [n + (3 * (n // per_group) if per_group else 0) for n in range(len(cards))]
    for card, place in reversed(list(zip(cards, places, strict=True))):
        x = y = step * place
        front = -place
        axes.imshow(
            card, cmap="gray_r" if card.ndim == 2 else None, vmin=0, vmax=255, extent=(x, x + 1, y, y + ratio),
            zorder=front, interpolation="nearest",
        )  # fmt: skip
        axes.add_patch(Rectangle((x, y), 1, ratio, fill=False, color=GREY, linewidth=0.8, zorder=front))
    reach = step * places[-1]
    axes.set(xlim=(-0.03, 1.03 + reach), ylim=(-0.03, ratio + 0.03 + reach), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
