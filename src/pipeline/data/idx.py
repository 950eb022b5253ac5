"""The IDX format of the MNIST family: a magic number, the dimensions, the values.

bytes 0-1  zero
byte  2    type of the values; 0x08: uint8, the only one that the family uses
byte  3    number of dimensions
4 bytes    size of each dimension, big endian
then       the values, last dimension fastest
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataContractError

UINT8 = 0x08
MAX_HEADER_BYTES = 4 + 4 * 3


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write uint8 values of any shape as one IDX file."""
    header = struct.pack(f">HBB{values.ndim}I", 0, UINT8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


def promised_bytes(start: bytes) -> int | None:
    """Length of the whole file according to its first bytes; None where they are no header of uint8 values."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != UINT8 or len(start) < 4 + 4 * start[3]:
        return None
    sizes = struct.unpack(f">{start[3]}I", start[4 : 4 + 4 * start[3]])
    return 4 + 4 * start[3] + int(math.prod(sizes))


def open_idx(path: Path, ndim: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """The values of an IDX file, memory-mapped and read-only: images (N, H, W) for ndim=3, labels (N,) for ndim=1.

    Raises:
        DataContractError: another format, type or number of dimensions, a size of 0, a file longer or shorter
            than its header says.
    """
    with open(path, "rb") as file:
        start = file.read(4 + 4 * ndim)
    _check_magic(path, start[:4], ndim)
    expected, found = promised_bytes(start), path.stat().st_size
    if expected is None or found != expected:
        wrong = "longer" if expected is not None and found > expected else "truncated"
        raise DataContractError(
            f"{path.name} is {wrong}: its header promises {expected or 4 + 4 * ndim:,} bytes, found {found:,}. {_AGAIN}"
        )
    shape = struct.unpack(f">{ndim}I", start[4:])
    if 0 in shape:
        raise DataContractError(f"{path.name} is empty: its header gives the shape {shape}, expected sizes above 0.")
    return np.memmap(path, np.uint8, "r", offset=len(start), shape=shape)


_AGAIN = "Fetch it again: dvc repro -f download"


def _check_magic(path: Path, magic: bytes, ndim: int) -> None:
    """The first four bytes must be those of uint8 values with ``ndim`` dimensions."""
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataContractError(
            f"{path.name} is no IDX file: expected it to start with 00 00 08 {ndim:02x}, "
            f"found {magic.hex(' ') or 'nothing'}. {_AGAIN}"
        )
    if magic[2] != UINT8:
        raise DataContractError(f"{path.name}: expected values of type 0x08 (uint8), found type 0x{magic[2]:02x}.")
    if magic[3] != ndim:
        what = "images (N, height, width)" if ndim == 3 else "labels (N,)"
        raise DataContractError(f"{path.name}: expected {ndim} dimensions for {what}, found {magic[3]}.")
