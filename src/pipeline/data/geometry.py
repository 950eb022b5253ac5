"""Plane geometry on batches of images: affine maps, elastic deformation, and the pictures that they give.

Points     (x, y) in pixels, x to the right, y up, (0, 0) in the middle of the image: the matrices are those of
           textbooks, and a positive angle turns counter-clockwise.
Maps       float64 (B, 2, 3), one for each image, or (1, 2, 3), one for all: [A | t], a point p goes to A p + t.
Fields     float32 (B, 2, H, W): a displacement (x, y) in pixels for each pixel.
Images     uint8 or float32, (B, H, W) or (B, H, W, C).

Sums and products are elementwise, none by BLAS: what becomes of an image does not depend on its place in the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Maps = NDArray[np.float64]
Points = NDArray[np.float64]
Fields = NDArray[np.float32]
Images = NDArray[Any]

BLOCK_PIXELS = 1 << 15  # images are warped so many pixels at a time: what is made on the way stays in the cache
NOISE_SIDE = 512  # px; 2 fields of 1 MiB, from which 512**4 pairs of windows can be cut


# ---------------------------------------------------------------- affine maps


def translation(right_px: ArrayLike, up_px: ArrayLike) -> Maps:
    """Move by so many pixels. Like all maps below: numbers give one map, arrays (B,) give B."""
    return _maps(1, 0, right_px, 0, 1, up_px)


def rotation(degrees: ArrayLike) -> Maps:
    """Turn counter-clockwise about the middle."""
    angle = np.radians(np.asarray(degrees, dtype=np.float64))
    return _maps(np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0)


def scaling(factor_x: ArrayLike, factor_y: ArrayLike) -> Maps:
    """Stretch away from the middle; a factor of 2 is twice as wide or tall, -1 mirrors."""
    return _maps(factor_x, 0, 0, 0, factor_y, 0)


def shear(factor: ArrayLike) -> Maps:
    """Slant like italics: x grows by factor * y, so the top goes right for a positive factor."""
    return _maps(1, factor, 0, 0, 1, 0)


def _maps(a: ArrayLike, b: ArrayLike, t_x: ArrayLike, c: ArrayLike, d: ArrayLike, t_y: ArrayLike) -> Maps:
    """[[a b t_x] [c d t_y]] for each image."""
    entries = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (a, b, t_x, c, d, t_y)))
    return np.stack(entries, axis=-1).reshape(-1, 2, 3)


def compose(*maps: Maps) -> Maps:
    """The matrix product: the rightmost map acts first. compose(a, b) is "a after b"."""
    product = maps[0]
    for right in maps[1:]:
        left, offset = product[:, :, :2], product[:, :, 2:]
        product = (left[..., None] * right[:, None]).sum(axis=2)
        product[:, :, 2:] += offset
    return product


def inverse(maps: Maps) -> Maps:
    """The maps that undo these.

    Raises:
        ValueError: a map that cannot be undone, such as a scaling by 0.
    """
    (a, b, t_x), (c, d, t_y) = maps[:, 0].T, maps[:, 1].T
    area = a * d - b * c
    wrong = (area == 0) | ~np.isfinite(maps).all(axis=(1, 2))
    if wrong.any():
        raise ValueError(f"expected maps that can be undone, found {maps[wrong][0].tolist()}")
    return _maps(d / area, -b / area, (b * t_y - d * t_x) / area, -c / area, a / area, (c * t_x - a * t_y) / area)


def transform(maps: Maps, points: Points) -> Points:
    """Where points (N, 2) go under each map: (B, N, 2)."""
    turned: Points = (maps[:, None, :, :2] * points[None, :, None, :]).sum(axis=-1)
    return turned + maps[:, None, :, 2]


def pixel_centers(height: int, width: int) -> Points:
    """The points (H, W, 2) at which the pixels of an image lie."""
    x = np.arange(width) - (width - 1) / 2
    y = (height - 1) / 2 - np.arange(height)
    return np.stack(np.meshgrid(x, y), axis=-1)


# ---------------------------------------------------------------- elastic deformation


class ElasticNoise:
    """Random smooth displacements, as of a drawing on rubber (Simard, Steinkraus, Platt 2003), for millions of images.

    Simard's field is uniform noise in -1..1 smoothed by a Gaussian. Here one large field is made that way, wrapping
    around at its edges, and an image takes a window of it for x and one of another for y. A window anywhere is
    such a field, and is cut in 2 µs where smoothing anew takes 59 µs (28 x 28 pixels, sigma 4, one core).
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, sigma_px: float) -> None:
        """height, width: of the windows; sigma_px: sd of the Gaussian; displacements alike reach about so far."""
        from scipy.ndimage import gaussian_filter  # 0.3 s, wasted where nothing is deformed

        self.side = max(NOISE_SIDE, 2 * height, 2 * width)
        rough = rng.random((2, self.side, self.side)) * 2 - 1
        smooth = gaussian_filter(rough, (0, sigma_px, sigma_px), mode="wrap")
        smooth *= 1 / np.sqrt(np.square(smooth).mean(axis=(1, 2), keepdims=True))
        wrapped = np.pad(smooth.astype(np.float32), ((0, 0), (0, height - 1), (0, width - 1)), mode="wrap")
        self._windows = np.lib.stride_tricks.sliding_window_view(wrapped, (height, width), axis=(1, 2))

    def fields(self, corners: NDArray[np.int64], strength_px: float) -> Fields:
        """The fields (B, 2, H, W) whose windows begin at these rows and columns of the noise.

        corners: (B, 2, 2) in 0..side-1: [:, 0] row and column of the window for x, [:, 1] of that for y.
        strength_px: root mean square of the displacement in each direction. Simard's alpha is sqrt(12 pi) sigma
            times that: his alpha=34 with sigma=4 is 1.4 px.
        """
        fields = np.empty((len(corners), 2, *self._windows.shape[3:]), dtype=np.float32)
        for axis in (0, 1):
            fields[:, axis] = self._windows[axis][corners[:, axis, 0], corners[:, axis, 1]]
        fields *= np.float32(strength_px)
        return fields


def elastic_fields(
    rng: np.random.Generator, num_images: int, height: int, width: int, strength_px: float, sigma_px: float
) -> Fields:
    """Random fields (B, 2, H, W) for a batch; see `ElasticNoise`, which makes them for many batches."""
    noise = ElasticNoise(rng, height, width, sigma_px)
    return noise.fields(rng.integers(noise.side, size=(num_images, 2, 2)), strength_px)


# ---------------------------------------------------------------- pictures


def warp(images: Images, maps: Maps, fields: Fields | None = None, *, fill: float = 0) -> Images:
    """The images with their figures moved by `maps`. Returns an array like `images`.

    A pixel at p takes the value that the image has at inverse(map)(p) + field(p), bilinear between the four pixels
    around; uint8 is rounded, half up. Outside an image every pixel is `fill`.

    Raises:
        ValueError: another type or shape, a map that cannot be undone.
    """
    _check(images, maps, fields)
    num, height, width = images.shape[:3]
    back, out = inverse(maps), np.empty_like(images)
    alike = len(back) == 1 and fields is None  # every image is looked up at the same places
    if alike:
        places = _places(*_sampled_at(back, height, width, None))
    else:
        back = np.broadcast_to(back, (num, 2, 3))
    step = max(1, BLOCK_PIXELS // (height * width))
    for start in range(0, num, step):
        block = slice(start, start + step)
        if not alike:
            places = _places(*_sampled_at(back[block], height, width, None if fields is None else fields[block]))
        out[block] = _bilinear(images[block], *places, fill)
    return out


def _check(images: Images, maps: Maps, fields: Fields | None) -> None:
    if images.dtype not in (np.uint8, np.float32) or images.ndim not in (3, 4):
        raise ValueError(
            f"expected images (B, H, W) or (B, H, W, C) of uint8 or float32, found {images.shape} of {images.dtype}"
        )
    if maps.shape not in ((len(images), 2, 3), (1, 2, 3)):
        raise ValueError(f"expected maps ({len(images)}, 2, 3) or (1, 2, 3), found {maps.shape}")
    expected = (len(images), 2, *images.shape[1:3])
    if fields is not None and fields.shape != expected:
        raise ValueError(f"expected fields {expected}, found {fields.shape}")


def _sampled_at(back: Maps, height: int, width: int, fields: Fields | None) -> tuple[Fields, Fields]:
    """Row and column (n, H, W), counted from 0 at the top left, at which each pixel looks up its value."""
    points = pixel_centers(height, width)
    x, y = points[0, :, 0], points[:, 0, 1]
    (a, b, t_x), (c, d, t_y) = (back[:, axis].T[..., None] for axis in (0, 1))
    columns = _outer_sum(b * y + (t_x + (width - 1) / 2), a * x)
    rows = _outer_sum((height - 1) / 2 - t_y - d * y, -c * x)
    if fields is not None:
        columns += fields[:, 0]
        rows -= fields[:, 1]
    return rows, columns


def _outer_sum(of_row: NDArray[np.float64], of_column: NDArray[np.float64]) -> Fields:
    return of_row.astype(np.float32)[:, :, None] + of_column.astype(np.float32)[:, None, :]


def _places(rows: Fields, columns: Fields) -> tuple[NDArray[np.intp], Fields, Fields]:
    """Where in a framed image the pixel above and left of each position stands, and the way from there, down and right.

    All (n, H, W), as rows and columns, which are overwritten.
    """
    height, width = rows.shape[1:]
    corner = _split(rows, height) * np.int32(width + 3)
    corner += _split(columns, width)
    return corner.astype(np.intp), rows, columns


def _bilinear(images: Images, corner: NDArray[np.intp], down: Fields, right: Fields, fill: float) -> Images:
    """The images' values at `_places`, those of one image for all or of each."""
    framed, stride = _framed(images, fill)
    corner = corner + np.arange(0, len(framed), len(framed) // len(images))[:, None, None]
    down, right = (part.reshape(*part.shape, *[1] * (images.ndim - 3)) for part in (down, right))

    def value(offset: int) -> Fields:
        return framed[offset:].take(corner, axis=0, mode="clip")  # clip: no check, none is outside

    above = _between(value(0), value(1), right)
    found = _between(above, _between(value(stride), value(stride + 1), right), down)
    if images.dtype == np.uint8:
        found += np.float32(0.5)  # the cast cuts off
    return found.astype(images.dtype, copy=False)


def _framed(images: Images, fill: float) -> tuple[Fields, int]:
    """The pixels (n * (H + 3) * (W + 3), …) as float32, and a row's length; around them a frame of `fill`.

    The frame is 1 pixel wide, 2 below and on the right.
    """
    num, height, width, *channels = images.shape
    framed = np.full((num, height + 3, width + 3, *channels), np.asarray(fill, dtype=images.dtype), dtype=np.float32)
    framed[:, 1 : height + 1, 1 : width + 1] = images
    return framed.reshape(-1, *channels), width + 3


def _split(positions: Fields, num_pixels: int) -> NDArray[np.int32]:
    """The last framed pixel before each position; what is left of the positions is the way from there, 0..1."""
    positions += np.float32(1)  # the frame
    np.clip(positions, 0, num_pixels + 1, out=positions)
    before = positions.astype(np.int32)  # cuts off, which is the floor: no position is below 0
    positions -= before.astype(np.float32)
    return before


def _between(first: Fields, second: Fields, share: Fields) -> Fields:
    """first + share * (second - first), written over both."""
    second -= first
    second *= share
    first += second
    return first
