"""A person's table, copied as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.data.source import RawFile, describe_file
from pipeline.errors import DataContractError

SUFFIXES = (".csv", ".parquet")


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
