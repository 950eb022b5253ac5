"""CSV and Parquet tables: every cell checked, classes and types found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from data_makers import own_config, preprocess_config, tree
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.download import download
from pipeline.preprocess import preprocess
from pipeline.system.errors import DataContractError

GOOD = ["x,species,y", *(f"{index / 4},{'abc'[index % 3]},{10 - index}" for index in range(30))]


def both_stages(tmp_path: Path, path: str, **changes: Any) -> tuple[Path, DataCard]:
    """Copy and preprocess tmp_path/path; returns data/processed and its card."""
    raw, out = tmp_path / "data/raw", tmp_path / "data/processed"
    download(own_config(kind="table", path=path), tmp_path, raw, None)
    cfg = preprocess_config(**{"label": "species", "test_fraction": 0.2, "validation_fraction": 0.0} | changes)
    return out, preprocess(raw, out, cfg)


def csv(folder: Path, lines: list[str], name: str = "flowers.csv") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")
    return name


def test_fractions_make_float32_and_the_scaling_of_train(tmp_path: Path) -> None:
    out, card = both_stages(tmp_path, csv(tmp_path, GOOD))
    train = load_split(out, "train").images

    assert (card.dtype, train.dtype, card.image_shape, card.features) == ("float32", np.float32, [2], ["x", "y"])
    np.testing.assert_allclose(card.scaling["offset"], train.mean(axis=0, dtype=np.float64), rtol=1e-8)
    np.testing.assert_allclose(card.scaling["scale"], train.std(axis=0, dtype=np.float64), rtol=1e-8)


def test_every_row_arrives_once_with_its_class(tmp_path: Path) -> None:
    out, card = both_stages(tmp_path, csv(tmp_path, GOOD))

    assert card.classes == ["a", "b", "c"]
    splits = [load_split(out, split) for split in ("train", "test")]
    rows = sorted((*row, label) for split in splits for row, label in zip(split.images, split.labels, strict=True))
    assert rows == [(index / 4, 10 - index, index % 3) for index in range(30)]


def test_pixels_of_a_table_stay_uint8_and_scale_to_one(tmp_path: Path) -> None:
    """As Kaggle ships MNIST: label first, then whole numbers up to 255."""
    lines = ["species,p0,p1", *(f"{index % 2},{index},255" for index in range(20))]

    out, card = both_stages(tmp_path, csv(tmp_path, lines))

    assert load_split(out, "train").images.dtype == np.uint8
    assert card.scaling == {"offset": 0.0, "scale": 255.0}


def test_small_whole_numbers_that_are_no_pixels_are_standardised(tmp_path: Path) -> None:
    lines = ["species,age,constant", *(f"{index % 2},{index},7" for index in range(20))]

    out, card = both_stages(tmp_path, csv(tmp_path, lines))
    ages = load_split(out, "train").images[:, 0]

    assert card.dtype == "uint8"
    assert card.scaling["offset"] == [pytest.approx(ages.mean()), 7.0]
    assert card.scaling["scale"] == [pytest.approx(ages.std()), 1.0]  # 1: a constant feature becomes 0


def test_classes_that_are_whole_numbers_are_in_their_order(tmp_path: Path) -> None:
    lines = ["species,x", *(f"{index % 11},{index}" for index in range(44))]

    _, card = both_stages(tmp_path, csv(tmp_path, lines), test_fraction=0.25)

    assert card.classes == [str(number) for number in range(11)]


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    columns = {"x": [i / 4 for i in range(30)], "species": ["abc"[i % 3] for i in range(30)]}
    columns["y"] = [10 - i for i in range(30)]
    parquet.write_table(pa.table(columns), tmp_path / "flowers.parquet")
    both_stages(tmp_path / "csv", csv(tmp_path / "csv", GOOD))

    out, _ = both_stages(tmp_path, "flowers.parquet")

    assert tree(out) == tree(tmp_path / "csv/data/processed")


@pytest.mark.parametrize("labels", [[0.0, 1.0], [False, True], pa.array(["n", "y"]).dictionary_encode()], ids=str)
def test_parquet_labels_may_have_any_type(labels: Any, tmp_path: Path) -> None:
    column = pa.concat_arrays([pa.array(labels)] * 10) if not isinstance(labels, pa.Array) else labels.take([0, 1] * 10)
    parquet.write_table(pa.table({"x": range(20), "species": column}), tmp_path / "t.parquet")

    _, card = both_stages(tmp_path, "t.parquet")

    assert card.classes in (["0", "1"], ["false", "true"], ["n", "y"])


def test_a_folder_with_train_and_test_keeps_its_test_set(tmp_path: Path) -> None:
    csv(tmp_path / "flowers", GOOD, "train.csv")
    csv(tmp_path / "flowers", ["species,y,x", "a,1,2"], "test.csv")  # another order of columns

    out, card = both_stages(tmp_path, "flowers", validation_fraction=0.1)

    assert {split: facts["count"] for split, facts in card.splits.items()} == {"train": 27, "validation": 3, "test": 1}
    assert load_split(out, "test").images.tolist() == [[2, 1]]


def test_a_file_that_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    """Byte order mark, Windows line ends, spaces after commas, a blank last line."""
    text = "\ufeffspecies,x\r\n" + "".join(f"{'ab'[i % 2]}, {i}\r\n" for i in range(20)) + "\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode())

    _, card = both_stages(tmp_path, "t.csv")

    assert card.classes == ["a", "b"]
    assert card.features == ["x"]


def changed(row: int, line: str) -> list[str]:
    """The good table with another row; the header is row 1."""
    return [*GOOD[: row - 1], line, *GOOD[row:]]


BAD = {
    "missing cell": (changed(5, "0.5,a,"), "row 5, column 'y': expected a number up to 3.4e+38, found nothing."),
    "text": (changed(9, "0.5,a,tall"), "table.csv, row 9, column 'y': expected a number, found 'tall'."),
    "infinite": (changed(3, "inf,a,1"), "row 3, column 'x': expected a number up to 3.4e+38, found inf."),
    "too large": (changed(3, "1e39,a,1"), "row 3, column 'x': expected a number up to 3.4e+38, found 1e+39."),
    "missing label": (changed(31, "0.5,,1"), "row 31, column 'species': expected a class, found nothing."),
    "ragged": (changed(4, "0.5,a"), "Expected 3 columns, got 2"),
    "no rows": (GOOD[:1], "table.csv is empty: expected rows below the header, found none."),
    "nothing": ([], "table.csv cannot be read as a csv table: CSV parse error: Empty CSV"),
    "twice": (["x,species,x", "1,a,2"], "table.csv: expected each column once, found 'x' twice."),
    "no label": (["x,specie,y", "1,a,2"], "has no column 'species' (data.label): nearest of 3: specie, "),
    "label only": (["species", "a", "b"], "expected columns beside the label 'species', found none."),
    "too few": (["species,x", "a,1", "b,2"], "data.test_fraction=0.2 of 2 samples is not one sample"),
}  # fmt: skip


@pytest.mark.parametrize("how", BAD)
def test_a_bad_table_is_told_by_row_and_column_and_nothing_written(how: str, tmp_path: Path) -> None:
    with pytest.raises(DataContractError) as caught:
        both_stages(tmp_path, csv(tmp_path, BAD[how][0]))

    assert BAD[how][1] in str(caught.value)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["raw"]


def test_the_row_is_right_beyond_the_first_block(tmp_path: Path) -> None:
    """A block has 4 MiB; a million rows of six bytes lie before the bad one."""
    lines = ["species,x", *["a,1.0", "b,2.5"] * 600_000]
    lines[1_000_000] = "a,oops"

    with pytest.raises(DataContractError, match="row 1000001, column 'x': expected a number, found 'oops'"):
        both_stages(tmp_path, csv(tmp_path, lines))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, None]), "table.parquet, row 3, column 'x': expected a number up to 3.4e+38, found nothing."),
        (pa.array(["1", "tall"]), "table.parquet, row 3, column 'x': expected a number, found 'tall'."),
        (pa.array([0, 1], pa.timestamp("s")), "row 2, column 'x': expected a number, found datetime"),
        (pa.array([[1], [2]]), "row 2, column 'x': expected a number, found [1]."),
    ],
    ids=["missing", "text", "time", "list"],
)
def test_a_bad_parquet_column_is_told_by_row(column: pa.Array, message: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"species": ["a", "b"], "x": column}), tmp_path / "t.parquet")

    with pytest.raises(DataContractError) as caught:
        both_stages(tmp_path, "t.parquet")

    assert message in str(caught.value)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really")

    with pytest.raises(DataContractError, match=r"table\.parquet cannot be read as a parquet table: "):
        both_stages(tmp_path, "t.parquet")


def test_a_class_that_only_the_test_table_has_is_refused(tmp_path: Path) -> None:
    csv(tmp_path / "flowers", GOOD, "train.csv")
    csv(tmp_path / "flowers", ["x,species,y", "1,d,2"], "test.csv")

    with pytest.raises(DataContractError, match=r"test\.csv: expected one of the 3 classes .* found 'd'"):
        both_stages(tmp_path, "flowers")


def test_a_test_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    csv(tmp_path / "flowers", GOOD, "train.csv")
    csv(tmp_path / "flowers", ["x,species,z", "1,a,2"], "test.csv")

    with pytest.raises(DataContractError, match=r"the 2 features of train\.csv; lacking 'y', not expected 'z'"):
        both_stages(tmp_path, "flowers")


# ---------------------------------------------------------------- copying


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ([], "t.csv", "t.csv does not exist: expected a .csv or .parquet file or a folder."),
        (["t.xlsx"], "t.xlsx", "expected a table ending in .csv or .parquet, found .xlsx."),
        (["flowers/train.csv"], "flowers", "expected one test.csv or test.parquet, found train.csv."),
        (["flowers/train.csv", "flowers/train.parquet"], "flowers", "expected one train.csv or train.parquet, found "),
    ],
    ids=["missing", "format", "no test", "two"],
)
def test_what_is_no_table_is_refused_by_download(files: list[str], path: str, message: str, tmp_path: Path) -> None:
    for name in files:
        csv((tmp_path / name).parent, GOOD, Path(name).name)

    with pytest.raises(DataContractError) as caught:
        both_stages(tmp_path, path)

    assert message in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []
