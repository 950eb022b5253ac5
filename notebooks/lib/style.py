"""What all pictures of the notebooks share: colours, resolution, a figure that moves."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pipeline.evaluation.figures import BLUE, DPI, GREY, INK, ORANGE, plain

GREEN = "#009e73"  # beside BLUE and ORANGE told apart by colour-blind eyes (Okabe, Ito 2008)
PALETTE = 128  # colours of an animation; a third of the bytes of all colours

__all__ = ["BLUE", "DPI", "GREEN", "GREY", "INK", "ORANGE", "animated_png", "bare", "new_figure", "plain"]


def new_figure(width_in: float, height_in: float) -> Figure:
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")


def bare(axes: Axes) -> None:
    """No ticks, a thin frame: for images, whose shape is said elsewhere."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=GREY, linewidth=0.8)


def animated_png(figures: Sequence[Figure], frame_ms: int, last_ms: int) -> bytes:
    """The figures one after another, for ever: a PNG that moves in browsers and shows its first frame elsewhere.

    Args:
        last_ms: how long the last frame stays.
    """
    frames = [_pixels(figure).quantize(PALETTE, dither=Image.Dither.NONE).convert("RGB") for figure in figures]
    file = io.BytesIO()
    durations = [frame_ms] * (len(frames) - 1) + [last_ms]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
    return file.getvalue()


def _pixels(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi="figure")
    return Image.open(file).convert("RGB")
