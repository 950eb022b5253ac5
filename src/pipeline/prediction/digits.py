"""Any picture of a figure as MNIST's images were made.

Source of the procedure: LeCun, Cortes, Burges, "The MNIST database of handwritten digits": bright on black, the figure
scaled to fit a box of 20 x 20 pixels with its aspect ratio kept, its centre of mass in the middle of 28 x 28.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.system.errors import DataContractError

Grey = NDArray[np.uint8]
BOX = 20 / 28  # of the image's side: what the figure fits into
FAINTEST = 24  # of 255: a picture with less contrast is blank
INK = 0.2  # of the brightest: what counts as the figure when its box is measured


def as_digit(picture: Grey, shape: tuple[int, int], name: str) -> tuple[Grey, list[str]]:
    """The picture (H, W) as an image of that shape, and what was done to it.

    A picture that has the shape, with bright ink on black, is left as it is.

    Raises:
        DataContractError: a blank picture.
    """
    background = float(np.median(np.concatenate([picture[[0, -1]].ravel(), picture[:, [0, -1]].ravel()])))
    brighter, darker = (picture - background).clip(0), (background - picture).clip(0)
    dark_ink = bool(darker.sum() > brighter.sum())
    done = ["inverted"] if dark_ink else []
    values = darker if dark_ink else brighter
    if values.max() >= FAINTEST and picture.shape == shape and not dark_ink and picture.min() <= FAINTEST:
        return picture, []
    if values.max() < FAINTEST:
        raise DataContractError(
            f"{name}: expected a figure on a plain background, found a blank picture (contrast "
            f"{values.max():.0f} of 255)"
        )
    bright = (values * (255 / values.max())).round().astype(np.uint8)
    figure = _cut_out(bright)
    side = min(shape)
    ratio = BOX * side / max(figure.shape)
    size = [max(1, round(length * ratio)) for length in figure.shape]
    if size != list(figure.shape):
        done.append(f"scaled from {picture.shape[1]} x {picture.shape[0]}")
        smaller = Image.Resampling.BOX if ratio < 1 else Image.Resampling.BILINEAR
        figure = np.asarray(Image.fromarray(figure).resize((size[1], size[0]), smaller))
    return _centred(figure, shape), [*done, "centred by mass"]


def _cut_out(bright: Grey) -> Grey:
    """The smallest box that holds the figure."""
    ink = bright > INK * 255
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centred(figure: Grey, shape: tuple[int, int]) -> Grey:
    """The figure on black, moved by whole pixels until its centre of mass is on pixel 14 of 28, as in MNIST."""
    out = np.zeros(shape, dtype=np.uint8)
    weights = figure.astype(np.float64)
    corner = []
    for axis, (room, length) in enumerate(zip(shape, figure.shape, strict=True)):
        along = weights.sum(1 - axis)
        middle = float((along * np.arange(length)).sum() / along.sum())
        corner.append(int(np.clip(round(room / 2 - middle), 0, room - length)))
    top, left = corner
    out[top : top + figure.shape[0], left : left + figure.shape[1]] = figure
    return out
