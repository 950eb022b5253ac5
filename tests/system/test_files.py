"""Files are there whole or not at all; digests are those of the content."""

from __future__ import annotations

import errno
import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from data_makers import tree
from pipeline.system.files import (
    atomic_file,
    atomic_folder,
    read_json,
    sha256_of,
    sha256_of_json,
    write_json,
    write_text,
)


class Broken(Exception):
    """Something goes wrong while writing."""


def break_within(writing: AbstractContextManager[Path], file: str) -> None:
    """Write half of a file below the path that is offered, then fail."""
    with writing as new:
        (new / file).write_text("half")
        raise Broken


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Until the block ends, the old content is what everybody else reads."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_file(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"

    assert tree(tmp_path) == {"a.txt": b"new"}


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """And nothing else: the half-written one is gone."""
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(Broken):
        break_within(atomic_file(tmp_path / "a.txt"), "")

    assert tree(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "x"), OSError("4096 requested and 12 written")],  # NumPy says the second
    ids=str,
)
def test_a_full_disk_is_told_with_the_name_that_people_know(error: OSError, tmp_path: Path) -> None:
    """Not the one beside it, which is gone."""
    for writing in (atomic_file, atomic_folder):
        with pytest.raises(OSError, match=r"No space|x") as caught, writing(tmp_path / "a"):
            raise error

        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
        assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    """As of one that is read meanwhile."""
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "a"):
        (tmp_path / "other").read_text()

    assert caught.value.filename == str(tmp_path / "other")


def test_folders_above_a_file_are_made(tmp_path: Path) -> None:
    """A stage need not make metrics/ first."""
    write_text(tmp_path / "x/y/a.txt", "ä\n")

    assert (tmp_path / "x/y/a.txt").read_bytes() == b"\xc3\xa4\n"


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """No file of the old folder is left among the new ones."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old.txt").write_text("old")
    with atomic_folder(tmp_path / "out") as new:
        (new / "new.txt").write_text("new")
        assert (tmp_path / "out/old.txt").exists()

    assert tree(tmp_path) == {"out/new.txt": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """As with a file."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old.txt").write_text("old")
    with pytest.raises(Broken):
        break_within(atomic_folder(tmp_path / "out"), "new.txt")

    assert tree(tmp_path) == {"out/old.txt": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_a_word_for_it_is_refused(value: float, tmp_path: Path) -> None:
    """JSON has no NaN; the old file stays."""
    write_json(tmp_path / "a.json", {"loss": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": value})

    assert read_json(tmp_path / "a.json") == {"loss": 1}


def test_json_keeps_order_and_letters(tmp_path: Path) -> None:
    """Readable as it is: keys in the order given, no escapes, a newline at the end."""
    write_json(tmp_path / "a.json", {"b": "ä", "a": [1]})

    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": "ä",\n  "a": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("num_bytes", [0, 1, 1 << 20, (1 << 20) + 1])
def test_a_digest_is_that_of_the_content(num_bytes: int, tmp_path: Path) -> None:
    """Also at the border between two chunks."""
    content = bytes(range(256)) * (num_bytes // 256) + b"x" * (num_bytes % 256)
    (tmp_path / "a").write_bytes(content)

    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_digest_of_values_does_not_depend_on_their_order() -> None:
    """Keys are sorted, at every depth; lists are not."""
    value = {"b": {"y": 1, "x": [1, 2]}, "a": 0.1}

    assert sha256_of_json(value) == sha256_of_json({"a": 0.1, "b": {"x": [1, 2], "y": 1}})
    assert sha256_of_json(value) != sha256_of_json(value | {"b": {"y": 1, "x": [2, 1]}})
    assert sha256_of_json([1]) == hashlib.sha256(json.dumps([1]).encode()).hexdigest()
