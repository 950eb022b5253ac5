"""A table as a source of rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.config.schema import PreprocessData
from pipeline.data.labels import TextLabels, discovered_classes
from pipeline.data.source import Array, Part, RawNote, Source
from pipeline.data.table import Matrix, column_names, rows
from pipeline.errors import DataContractError


def source_from_table(raw: Path, note: RawNote, cfg: PreprocessData) -> Source:
    """Read the table or tables once, to find labels, classes and the type of the features.

    Features are stored as uint8 if every one of them, in every row, is a whole number in 0..255; else as float32.

    Raises:
        DataContractError: see `rows`; no such label column, no other column, no rows, other columns in the test
            table, a class there that the training table lacks.
    """
    label = cfg.label
    assert label is not None, "data.kind=table has a label"
    paths = {part: raw / file.file for part, file in note.files.items()}
    first = paths.get("train") or paths["all"]
    features = _features(first, label)
    for path in paths.values():
        _check_same(path, first, _features(path, label), features)
    scans = {part: _scan(path, label, features) for part, path in paths.items()}
    classes = cfg.classes or discovered_classes(scans["train" if "train" in scans else "all"].labels)
    dtype = np.dtype("uint8" if all(scan.fits_uint8 for scan in scans.values()) else "float32")
    parts = {
        part: Part(
            scan.labels.as_classes(classes, paths[part].name), partial(_chunks, paths[part], label, features, dtype)
        )
        for part, scan in scans.items()
    }
    return Source(classes, (len(features),), "uint8" if dtype == np.uint8 else "float32", tuple(features), parts)


def _features(path: Path, label: str) -> list[str]:
    """All columns but the label."""
    names = column_names(path)
    if label not in names:
        near = ", ".join(difflib.get_close_matches(label, names, n=5, cutoff=0))
        raise DataContractError(f"{path.name} has no column {label!r} (data.label): nearest of {len(names)}: {near}.")
    if len(names) == 1:
        raise DataContractError(f"{path.name}: expected columns beside the label {label!r}, found none.")
    return [name for name in names if name != label]


def _check_same(path: Path, first: Path, found: list[str], expected: list[str]) -> None:
    """Both tables must have the same features; their order may differ."""
    lacking, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if lacking or extra:
        raise DataContractError(
            f"{path.name}: expected the {len(expected)} features of {first.name}; lacking {_some(lacking)}, "
            f"not expected {_some(extra)}."
        )


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"


@dataclass
class _Scan:
    """What one pass over a table finds."""

    labels: TextLabels = field(default_factory=TextLabels)
    fits_uint8: bool = True


def _scan(path: Path, label: str, features: list[str]) -> _Scan:
    scan = _Scan()
    for texts, numbers in rows(path, label, features):
        scan.labels.add(texts)
        scan.fits_uint8 = scan.fits_uint8 and _fits_uint8(numbers)
    if not scan.labels.texts:
        raise DataContractError(f"{path.name} is empty: expected rows below the header, found none.")
    return scan


def _fits_uint8(numbers: Matrix) -> bool:
    return bool(numbers.min() >= 0 and numbers.max() <= 255 and np.array_equal(numbers, np.rint(numbers)))


def _chunks(path: Path, label: str, features: list[str], dtype: np.dtype[np.uint8 | np.float32]) -> Iterator[Array]:
    for _, numbers in rows(path, label, features):
        yield numbers.astype(dtype)
