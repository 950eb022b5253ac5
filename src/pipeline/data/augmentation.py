"""Deformed copies of the training images, written after them: few images become millions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.config.schema import DeformConfig
from pipeline.data.card import Expansion, SplitFacts
from pipeline.data.geometry import ElasticNoise, compose, rotation, scaling, shear, translation, warp
from pipeline.data.source import Array
from pipeline.data.splits import write_header
from pipeline.system.files import sha256_of

BLOCK_BYTES = 1 << 20  # of copies made at once; what is made on the way is twenty times that
DRAWS = 12  # random numbers for a copy, of which 9 are used: Philox gives four a step


def expand(folder: Path, cfg: DeformConfig) -> Expansion:
    """Append cfg.copies deformed copies of all images to folder/images.npy, and their labels to folder/labels.npy.

    The images stay the first; then come copy 1 of each in the same order, copy 2 of each, and so on. So any number of
    copies is the beginning of any larger number, and a stretch of the file is as mixed as the images were.
    """
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    assert images.ndim > 2, "the schema refuses to deform tables"
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    noise = elastic_noise(images.shape[1], images.shape[2], cfg)
    step = max(1, BLOCK_BYTES // images[0].size)
    with _lengthened(folder / "labels.npy", cfg.copies) as file:
        for _ in range(cfg.copies):
            file.write(labels.data)
    with _lengthened(folder / "images.npy", cfg.copies) as file:
        for copy in range(1, cfg.copies + 1):
            for start in range(0, len(images), step):
                file.write(deformed(images[start : start + step], start, copy, cfg, noise).data)
            _show_progress(copy, cfg.copies)
    return Expansion(originals=len(images), factor=1 + cfg.copies)


def elastic_noise(height: int, width: int, cfg: DeformConfig) -> ElasticNoise:
    """What the elastic deformations of all copies are cut from."""
    return ElasticNoise(_random(cfg.seed, 0), height, width, cfg.elastic_sigma_px)


def deformed(images: Array, start: int, copy: int, cfg: DeformConfig, noise: ElasticNoise) -> Array:
    """Copy number ``copy`` (1, 2, …) of the images (n, H, W) or (n, H, W, C) at start, start + 1, … of the split.

    Each is a function of the image, its position, the copy's number and cfg alone: position and number say where in
    the stream of random numbers its own ones lie.
    """
    draws = _random(cfg.seed, copy, skip=start).random((len(images), DRAWS))
    turn, right, up, stretch, slant = 2 * draws[:, :5].T - 1  # -1..1
    factor = (1 + cfg.scale) ** stretch
    maps = compose(
        translation(cfg.translation_px * right, cfg.translation_px * up),
        rotation(cfg.rotation_degrees * turn),
        shear(cfg.shear * slant),
        scaling(factor, factor),
    )
    corners = (draws[:, 5:9].reshape(-1, 2, 2) * noise.side).astype(np.int64)
    return warp(images, maps, noise.fields(corners, cfg.elastic_px), fill=cfg.fill)


def _random(seed: int, copy: int, skip: int = 0) -> np.random.Generator:
    """The random numbers of a copy, those of its first ``skip`` images passed over. No copy has the number 0."""
    return np.random.Generator(np.random.Philox(key=[seed, copy], counter=[skip * DRAWS // 4, 0, 0, 0]))


@contextmanager
def _lengthened(path: Path, copies: int) -> Iterator[IO[bytes]]:
    """An array's file, open at its end, with a header that promises ``copies`` times as many items more."""
    with open(path, "r+b") as file:
        np.lib.format.read_magic(file)
        (count, *shape), _, dtype = np.lib.format.read_array_header_1_0(file)
        begin = file.tell()
        file.seek(0)
        write_header(file, (count * (1 + copies), *shape), dtype)
        assert file.tell() == begin, "NumPy leaves room in a header for the first dimension to grow"
        file.seek(0, os.SEEK_END)
        yield file


def _show_progress(copy: int, copies: int) -> None:
    """One line on the terminal."""
    if sys.stderr.isatty():
        end = "\n" if copy == copies else ""
        print(f"\rpreprocess: copy {copy:,} of {copies:,}", end=end, file=sys.stderr, flush=True)


def expanded_facts(facts: SplitFacts, folder: Path, expansion: Expansion) -> SplitFacts:
    """The facts of a split of which those of the originals are known."""
    factor = expansion["factor"]
    return {
        **facts,
        "count": factor * facts["count"],
        "counts_per_class": {name: factor * count for name, count in facts["counts_per_class"].items()},
        "images_sha256": sha256_of(folder / "images.npy"),
        "labels_sha256": sha256_of(folder / "labels.npy"),
    }
