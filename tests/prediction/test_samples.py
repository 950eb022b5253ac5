"""Files, folders, arrays and tables as samples; what is bad is told by name, and the rest is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.model.dense import InputSpec
from pipeline.prediction.samples import BATCH, Sample, batches, drawing_as_sample

DIGITS = InputSpec((28, 28), "uint8", 0.0, 255.0, kind="idx")
GREY = InputSpec((4, 6), "uint8", 0.0, 255.0, kind="image_folder")
COLOUR = InputSpec((4, 6, 3), "uint8", 0.0, 255.0, kind="image_folder")
NAMED = InputSpec((2,), "float32", 0.0, 1.0, kind="table", features=("width", "length"))


def read(spec: InputSpec, *inputs: Path) -> tuple[list[Sample], list[str]]:
    """All samples, and what was told of those that could not be had."""
    bad: list[str] = []
    return [sample for batch in batches([str(path) for path in inputs], spec, bad.append) for sample in batch], bad


def picture(path: Path, mode: str = "L", size: tuple[int, int] = (60, 80)) -> Path:
    """A dark bar on white."""
    image = Image.new("L", size, 255)
    image.paste(0, (size[0] // 2 - 3, 10, size[0] // 2 + 3, size[1] - 10))
    if mode == "RGBA":  # on nothing
        alpha = image.point(lambda value: 255 - value)
        image = Image.merge("RGBA", [Image.new("L", size, 20)] * 3 + [alpha])
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_a_drawing_of_any_mode_is_the_same_digit(mode: str, tmp_path: Path) -> None:
    (found,), bad = read(DIGITS, picture(tmp_path / "a.png", mode))
    (expected,), _ = read(DIGITS, picture(tmp_path / "b.png"))
    assert bad == []
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.done == "inverted, scaled from 60 x 80, centred by mass"


def test_pictures_of_a_folders_network_are_only_resized(tmp_path: Path) -> None:
    """Grey or in colour, as those that it was trained on; nothing is inverted."""
    file = picture(tmp_path / "a.png", "RGB")
    (grey,), _ = read(GREY, file)
    (colour,), _ = read(COLOUR, file)
    assert (grey.values.shape, colour.values.shape, grey.values[0, 0]) == ((4, 6), (4, 6, 3), 255)
    assert grey.done == "scaled from 60 x 80"
    (same,), _ = read(GREY, picture(tmp_path / "b.png", size=(6, 4)))
    assert same.done == ""


def test_a_folder_is_read_in_order_and_a_bad_image_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With folders in it; what is no image by its name is passed over, and counted."""
    for name in ("b.png/2.png", "a/1.png", "c.jpg"):
        picture(tmp_path / name)
    (tmp_path / "a/notes.txt").write_text("none")
    (tmp_path / "a/broken.png").write_bytes(b"\x89PNG and no more")
    found, bad = read(DIGITS, tmp_path)

    assert [Path(sample.name).relative_to(tmp_path).as_posix() for sample in found] == [
        "a/1.png",
        "b.png/2.png",
        "c.jpg",
    ]
    assert len(bad) == 1
    assert "a/broken.png: expected an image, found an unknown format" in bad[0]
    assert "1 files are no images by their names and were passed over" in capsys.readouterr().err


def test_what_is_not_there_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    found, bad = read(
        DIGITS, tmp_path / "none.png", tmp_path / "empty", tmp_path / "text.png", picture(tmp_path / "a.png")
    )
    assert len(found) == 1
    assert ["there is no such file" in bad[0], "expected images in this folder" in bad[1]] == [True, True]
    assert "text.png: expected an image" in bad[2]


def test_a_network_of_rows_takes_no_picture(tmp_path: Path) -> None:
    _, bad = read(NAMED, picture(tmp_path / "a.png"))
    assert "this network takes rows of a table, give a .csv or .npy file" in bad[0]


# ---------------------------------------------------------------- arrays


def test_an_array_is_taken_as_it_is(tmp_path: Path) -> None:
    """In batches, nothing done to it; one sample alone too."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH + 3, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "all.npy", images)
    np.save(tmp_path / "one.npy", images[0])
    bad: list[str] = []
    found = list(batches([str(tmp_path / "all.npy"), str(tmp_path / "one.npy")], DIGITS, bad.append))

    assert [len(batch) for batch in found] == [BATCH, 4]
    np.testing.assert_array_equal(np.stack([s.values for batch in found for s in batch]), [*images, images[0]])
    assert (found[0][5].name, found[0][5].done, bad) == (f"{tmp_path}/all.npy[5]", "", [])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 27, 28), np.uint8), "expected samples of the shape (28, 28), found (27, 28)"),
        (np.zeros((3, 28, 28), np.float32), "expected uint8, found float32"),
        (np.array([None]), "expected one array that numpy.save wrote"),
        (np.array("text"), "expected samples of the shape"),
    ],
    ids=["shape", "type", "pickled", "text"],
)
def test_an_array_of_something_else_is_told(array: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    found, bad = read(DIGITS, tmp_path / "a.npy")
    assert found == []
    assert said in bad[0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'", b"text"])
def test_a_damaged_array_is_told_and_the_rest_goes_on(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    np.save(tmp_path / "b.npy", np.zeros((28, 28), np.uint8))
    with open(tmp_path / "c.npy", "wb") as several:
        np.savez(several, a=np.zeros(3))
    found, bad = read(DIGITS, tmp_path / "a.npy", tmp_path / "c.npy", tmp_path / "b.npy")
    assert len(found) == 1
    assert "a.npy: expected one array that numpy.save wrote" in bad[0]
    assert "c.npy: expected one array that numpy.save wrote" in bad[1]


def test_what_is_no_finite_number_is_told_by_its_row(tmp_path: Path) -> None:
    """Not a number, and what float32 does not hold."""
    np.save(tmp_path / "a.npy", np.array([[1, 2], [np.nan, 0], [1e300, 0], [3, 4]]))
    found, bad = read(NAMED, tmp_path / "a.npy")
    assert [sample.values.tolist() for sample in found] == [[1, 2], [3, 4]]
    assert [message.partition(": ")[0].rpartition("[")[2] for message in bad] == ["1]", "2]"]


# ---------------------------------------------------------------- tables


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    """In any order, with others beside them; a bad row is told by its number and the next ones are there."""
    (tmp_path / "a.csv").write_text("length,kind,width\n1.5,x,2\noops,x,3\n\n0,y,-1e3\n2,y\n")
    found, bad = read(NAMED, tmp_path / "a.csv")
    assert [sample.values.tolist() for sample in found] == [[2, 1.5], [-1000, 0]]
    assert [sample.name.rpartition(":")[2] for sample in found] == ["2", "5"]
    assert bad == [
        f"{tmp_path}/a.csv:3: expected numbers, found 'oops'",
        f"{tmp_path}/a.csv:6: expected 3 cells, found 2",
    ]


@pytest.mark.parametrize("name", [None, "p{}", "{}"], ids=["bare", "with names", "with numbers"])
def test_pixels_in_a_row_are_an_image(name: str | None, tmp_path: Path) -> None:
    head = ",".join(name.format(n) for n in range(784)) + "\n" if name else ""
    image = np.random.default_rng(0).integers(0, 256, (28, 28))
    (tmp_path / "a.csv").write_text(head + ",".join(map(str, image.ravel())) + "\n")
    (found,), bad = read(DIGITS, tmp_path / "a.csv")
    np.testing.assert_array_equal(found.values, image)
    assert (found.values.dtype, bad) == (np.uint8, [])


@pytest.mark.parametrize(
    ("spec", "text", "said"),
    [
        (NAMED, "", "expected a table, found an empty file"),
        (NAMED, "width,size\n1,2\n", "the columns length are lacking in its first row"),
        (NAMED, "width,length\n1,nan\n", "expected numbers, found 'nan'"),
        (NAMED, "width,length\n1,1e99\n", "expected numbers, found '1e99'"),
        (DIGITS, "1,2\n", "expected 784 columns, one a value, found 2"),
        (DIGITS, ",".join(["256"] * 784), "expected whole numbers from 0 to 255, found 256"),
    ],
)
def test_a_table_of_something_else_is_told(spec: InputSpec, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    found, bad = read(spec, tmp_path / "a.csv")
    assert found == []
    assert said in bad[0]


def test_a_bad_first_row_is_told_like_any_other(tmp_path: Path) -> None:
    """One cell that is no number does not make it a head."""
    good = ["7"] * 784
    lines = [["x", *good[1:]], good, ["300", *good[1:]], good]
    (tmp_path / "a.csv").write_text("\n".join(map(",".join, lines)))
    (tmp_path / "b.csv").write_text("\n".join(map(",".join, lines[2:])))
    found, bad = read(DIGITS, tmp_path / "a.csv", tmp_path / "b.csv")
    assert [sample.name.rpartition("/")[2] for sample in found] == ["a.csv:2", "a.csv:4", "b.csv:2"]
    assert ["found 'x'" in bad[0], "a.csv:3" in bad[1], "b.csv:1" in bad[2]] == [True, True, True]


def test_a_drawing_is_made_as_pictures_are() -> None:
    """For a network of digits as a digit; for one of a folder it is resized alone."""
    drawing = np.full((40, 60), 255, dtype=np.uint8)
    drawing[10:30, 28:32] = 0
    digit, done = drawing_as_sample(drawing, DIGITS, "it")
    assert (digit.shape, done[0]) == ((28, 28), "inverted")
    resized, done = drawing_as_sample(drawing, GREY, "it")
    assert (resized.shape, resized[0, 0], done) == ((4, 6), 255, ["scaled from 60 x 40"])
