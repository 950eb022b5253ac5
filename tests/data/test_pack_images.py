"""A person's folder of images becomes one tar that depends on the images alone."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from data_makers import own_config, tree
from pipeline.download import download
from pipeline.system.errors import DataContractError


def make(folder: Path, *names: str) -> Path:
    """Files whose content is their name; what they hold is no business of download."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def pack(folder: Path, root: Path) -> Path:
    """Run download; returns data/raw."""
    raw = root / "data" / "raw"
    download(own_config(kind="image_folder", path=str(folder)), root, raw, None)
    return raw


def members(raw: Path) -> list[str]:
    with tarfile.open(raw / "images.tar") as tar:
        return tar.getnames()


def test_members_are_sorted_and_named_by_part_and_class(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", "dog/b.png", "cat/c.JPG", "cat/a.png")

    assert members(pack(folder, tmp_path)) == ["all/cat/a.png", "all/cat/c.JPG", "all/dog/b.png"]


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", "train/cat/a.png", "train/dog/b.png", "test/cat/c.png", "test/dog/d.png")

    assert members(pack(folder, tmp_path)) == ["test/cat/c.png", "test/dog/d.png", "train/cat/a.png", "train/dog/b.png"]


def test_times_modes_and_places_do_not_change_the_bytes(tmp_path: Path) -> None:
    one = pack(make(tmp_path / "one", "cat/a.png", "dog/b.png"), tmp_path / "x")
    other = make(tmp_path / "two", "dog/b.png", "cat/a.png")
    os.utime(other / "cat/a.png", (0, 0))
    (other / "dog/b.png").chmod(0o600)

    assert tree(one) == tree(pack(other, tmp_path / "y"))


def test_what_is_ignored_is_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "pets", "cat/a.png", "dog/b.png", "cat/.DS_Store", ".git/x", "README.md", "dog/notes.txt")

    pack(folder, tmp_path)

    assert capsys.readouterr().out.splitlines()[:2] == [
        "download: 2 images in all, 2 classes",
        "download: ignored 2 hidden, 1 not ending as an image, 1 outside a class folder",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected at least two classes, found none"),
        (["cat/a.png"], "expected at least two classes, found cat"),
        (["cat/a.png", "dog/b.txt"], "dog holds no image: expected files ending in .bmp"),
        (["a.png", "b.png"], "expected at least two classes, found none"),
    ],
    ids=["empty", "one class", "class without images", "no class folders"],
)
def test_a_folder_that_is_no_data_set_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", *names)
    folder.mkdir(exist_ok=True)

    with pytest.raises(DataContractError) as caught:
        pack(folder, tmp_path)

    assert message in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match=r"data\.path=.*/nowhere is no folder: expected PATH/CLASS/IMAGE"):
        pack(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("link", ["cat/secret.png", "owl"], ids=["file", "folder"])
def test_a_link_that_leads_outside_is_refused(link: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", "cat/a.png", "dog/b.png")
    make(tmp_path / "outside", "secret.png")
    (folder / link).symlink_to(tmp_path / "outside" / ("secret.png" if link.endswith("png") else ""))

    with pytest.raises(DataContractError, match=r"leads to .*/outside/secret\.png, which is outside .*/pets"):
        pack(folder, tmp_path)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", "cat/a.png", "dog/b.png")
    (folder / "dog/again.png").symlink_to(folder / "dog/b.png")

    with tarfile.open(pack(folder, tmp_path) / "images.tar") as tar:
        file = tar.extractfile("all/dog/again.png")
        assert file is not None
        assert file.read() == b"dog/b.png"
