"""A person's table, CSV or Parquet: copied as it is, and read some rows at a time, every cell of a feature a number.

Rows are counted as a spreadsheet shows them: the header is row 1. Blank lines of a CSV are not counted.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from pipeline.config.schema import PreprocessData
from pipeline.data.source import (
    CHUNK_BYTES,
    Array,
    Part,
    RawFile,
    RawNote,
    Source,
    TextLabels,
    describe_file,
    discovered_classes,
)
from pipeline.system.errors import DataContractError

Matrix = NDArray[np.float64]

SUFFIXES = (".csv", ".parquet")
FLOAT32_MAX = float(np.finfo(np.float32).max)
MISSING = "nothing"
MAX_CSV_COLUMNS = 20_000


# ---------------------------------------------------------------- a table, copied


def copy_table(path: Path, out: Path) -> dict[str, RawFile]:
    """Copy a table's bytes into the folder ``out``. Returns part -> file.

    path: a file, copied as table.csv or table.parquet (part "all"); or a folder with train.* and test.*.

    Raises:
        DataContractError: no such file, another format, a folder without exactly one train and one test table.
    """
    if path.is_dir():
        return {part: _copy(_only(path, part), out / part) for part in ("train", "test")}
    if not path.is_file():
        raise DataContractError(f"data.path={path} does not exist: expected a .csv or .parquet file or a folder.")
    return {"all": _copy(path, out / "table")}


def _only(folder: Path, part: str) -> Path:
    """The one table of a part."""
    found = [path for path in sorted(folder.iterdir()) if path.stem == part and path.suffix.lower() in SUFFIXES]
    if len(found) != 1:
        names = ", ".join(path.name for path in sorted(folder.iterdir())) or "nothing"
        raise DataContractError(f"{folder}: expected one {part}.csv or {part}.parquet, found {names}.")
    return found[0]


def _copy(path: Path, target: Path) -> RawFile:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataContractError(
            f"{path}: expected a table ending in {' or '.join(SUFFIXES)}, found {suffix or 'none'}."
        )
    copy = target.with_suffix(suffix)
    shutil.copyfile(path, copy)
    return describe_file(copy)


# ---------------------------------------------------------------- a copied table as a source of rows


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
        _check_features(path, first, _features(path, label), features)
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


def _check_features(path: Path, first: Path, found: list[str], expected: list[str]) -> None:
    """Both tables must have the same features; their order may differ."""
    lacking, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if lacking or extra:
        raise DataContractError(
            f"{path.name}: expected the {len(expected)} features of {first.name}; lacking {_shortened(lacking)}, "
            f"not expected {_shortened(extra)}."
        )


def _shortened(names: list[str]) -> str:
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


# ---------------------------------------------------------------- rows of numbers


def column_names(path: Path) -> list[str]:
    """The names of all columns.

    Raises:
        DataContractError: no table, an empty one, or a name that occurs twice.
    """
    with _explained(path):
        if path.suffix == ".parquet":
            names = parquet.read_schema(path).names
        else:
            _require_few_columns(path)
            with csv.open_csv(path) as reader:
                names = reader.schema.names
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataContractError(f"{path.name}: expected each column once, found {', '.join(map(repr, twice))} twice.")
    return list(names)


def _require_few_columns(path: Path) -> None:
    """pyarrow takes 9 kB of memory for each column of a CSV before it has read one cell."""
    with open(path, "rb") as file:
        header = re.split(rb"[\r\n]", file.read(CHUNK_BYTES), maxsplit=1)[0]
    if (found := header.count(b",") + 1) > MAX_CSV_COLUMNS:
        raise DataContractError(
            f"{path.name}: expected at most {MAX_CSV_COLUMNS:,} columns of a CSV, found {found:,}. "
            "Give it as Parquet; or images as files, with data=image_folder."
        )


def rows(path: Path, label: str, features: list[str]) -> Iterator[tuple[list[str], Matrix]]:
    """Labels as text (n) and features (n, F) as float64, finite and within float32; some rows at a time.

    Raises:
        DataContractError: a missing label; a cell that is missing, no number, infinite or beyond float32.
    """
    with _explained(path):
        try:
            yield from _rows(path, label, features, pa.float64())
        except pa.ArrowInvalid:
            for _ in _rows(path, label, features, pa.string()):
                pass  # pyarrow does not say in which row it failed; reading text and converting it here does
            raise


def _rows(path: Path, label: str, features: list[str], csv_type: pa.DataType) -> Iterator[tuple[list[str], Matrix]]:
    row = 2
    for batch in _batches(path, label, features, csv_type):
        where = f"{path.name}, row %d, column %r: expected %s, found %s. Repair the table."
        texts = _texts(batch.column(label), label, row, where)
        columns = [_numbers(batch.column(name), name, row, where) for name in features]
        numbers = np.stack(columns, axis=1)
        _check_range(numbers, features, row, where)
        yield texts, numbers
        row += batch.num_rows


def _batches(path: Path, label: str, features: list[str], csv_type: pa.DataType) -> Iterator[pa.RecordBatch]:
    """The wanted columns, some rows at a time."""
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            num_rows = max(1, CHUNK_BYTES // (8 * len(features)))
            yield from file.iter_batches(num_rows, columns=[label, *features])
        return
    types = {label: pa.string()} | dict.fromkeys(features, csv_type)
    read = csv.ReadOptions(block_size=max(CHUNK_BYTES // 4, 32 * len(features)))  # text grows; a row must fit
    convert = csv.ConvertOptions(column_types=types, include_columns=[label, *features])
    with csv.open_csv(path, read_options=read, convert_options=convert) as reader:
        yield from reader


def _texts(column: pa.Array, name: str, row: int, where: str) -> list[str]:
    """Labels as text: whole floats as whole numbers, since pandas makes floats of integers when a value is missing."""
    if pa.types.is_floating(column.type):
        values = column.to_pylist()
        texts = [f"{value:.0f}" if value is not None and value.is_integer() else value for value in values]
        texts = [None if text != text else text for text in texts]  # NaN
    else:
        texts = column.cast(pa.string()).to_pylist()
    for offset, text in enumerate(texts):
        if text is None or not str(text).strip():
            raise DataContractError(where % (row + offset, name, "a class", MISSING))
    return [str(text).strip() for text in texts]


def _numbers(column: pa.Array, name: str, row: int, where: str) -> Matrix:
    """One column (n,) as float64, NaN where a cell is missing."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
    try:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    except pa.ArrowException as error:
        offset = _first_bad(column)
        found = repr(column[offset].as_py())
        raise DataContractError(where % (row + offset, name, "a number", found)) from error


def _first_bad(column: pa.Array) -> int:
    """Where the first cell lies that is no number, by halving: a cell at a time takes seconds."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            column.slice(low, middle - low).cast(pa.float64(), safe=False)
            low = middle
        except pa.ArrowException:
            high = middle
    return low


def _check_range(numbers: Matrix, features: list[str], row: int, where: str) -> None:
    """Every cell must be there, finite and within float32, which is what the arrays hold."""
    bad = ~(np.abs(numbers) <= FLOAT32_MAX)  # NaN too
    if bad.any():
        offset, column = np.argwhere(bad)[0]
        value = numbers[offset, column]
        found = MISSING if np.isnan(value) else f"{value:g}"
        raise DataContractError(where % (row + offset, features[column], f"a number up to {FLOAT32_MAX:.2g}", found))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What pyarrow says about a file, as our error."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataContractError(f"{path.name} cannot be read as a {path.suffix[1:]} table: {error}") from error
