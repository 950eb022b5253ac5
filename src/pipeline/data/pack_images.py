"""A person's folder of images, one folder a class, as one file that DVC hashes quickly."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.source import RawFile, describe_file
from pipeline.errors import DataContractError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LAYOUT = "expected PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE and PATH/test/CLASS/IMAGE"


@dataclass
class Packed:
    """What was found in the folder."""

    file: RawFile
    num_images: Counter[str]  # part -> images
    classes: set[str]
    ignored: Counter[str] = field(default_factory=Counter)  # kind of thing -> how many of it


def pack_images(folder: Path, out: Path) -> Packed:
    """Pack the images' bytes, unchanged and in sorted order, into out/images.tar.

    Members are named part/class/file; part is train or test, or all where there is no test set. Times, owners and
    modes are dropped, so the same images give the same bytes.

    Raises:
        DataContractError: no such folder, no images, fewer than two classes, a class without images, a link that
            leads out of the folder.
    """
    if not folder.is_dir():
        raise DataContractError(f"data.path={folder} is no folder: {LAYOUT}.")
    packed = Packed(RawFile("images.tar", 0, ""), Counter(), set())
    with tarfile.open(out / "images.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for part, part_folder in _parts(folder, packed):
            for class_folder in _folders(part_folder, packed):
                _pack_class(tar, folder, part, class_folder, packed)
    if len(packed.classes) < 2:
        found = ", ".join(sorted(packed.classes)) or "none"
        raise DataContractError(f"{folder}: expected at least two classes, found {found}. {LAYOUT}.")
    packed.file = describe_file(out / "images.tar")
    return packed


def _parts(folder: Path, packed: Packed) -> Iterator[tuple[str, Path]]:
    """(part, folder of classes): train and test where both are there, else all."""
    if not ((folder / "train").is_dir() and (folder / "test").is_dir()):
        yield "all", folder
        return
    for other in _folders(folder, packed):
        if other.name in ("train", "test"):
            yield other.name, other
        else:
            packed.ignored[f"folder named {other.name}"] += 1


def _folders(folder: Path, packed: Packed) -> Iterator[Path]:
    """The folders in a folder, sorted; anything else is counted as ignored."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            packed.ignored["hidden"] += 1
        elif entry.is_dir():
            yield entry
        else:
            packed.ignored["outside a class folder"] += 1


def _pack_class(tar: tarfile.TarFile, folder: Path, part: str, class_folder: Path, packed: Packed) -> None:
    """Add the images of one class."""
    if any("\ud800" <= character <= "\udfff" for character in class_folder.name):
        raise DataContractError(f"{str(class_folder)!a}: expected a name in UTF-8, since it names a class. Rename it.")
    before = packed.num_images[part]
    for path in sorted(class_folder.iterdir()):
        if path.name.startswith("."):
            packed.ignored["hidden"] += 1
        elif path.suffix.lower() not in SUFFIXES or not path.is_file():
            packed.ignored["not ending as an image"] += 1
        else:
            _check_inside(path, folder)
            _add(tar, path, f"{part}/{class_folder.name}/{path.name}")
            packed.num_images[part] += 1
    if packed.num_images[part] == before:
        raise DataContractError(f"{class_folder} holds no image: expected files ending in {', '.join(SUFFIXES)}.")
    packed.classes.add(class_folder.name)


def _check_inside(path: Path, folder: Path) -> None:
    """A link out of the folder could bring in anything, and would break when the folder moves."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataContractError(
            f"{path} leads to {path.resolve()}, which is outside {folder}: copy the file there instead of linking it."
        )


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)  # time 0, owner 0, mode 0644
    member.size = path.stat().st_size
    with open(path, "rb") as file:
        tar.addfile(member, file)
    tar.members.clear()  # type: ignore[attr-defined]  # not in typeshed; a kilobyte for every member, never needed
