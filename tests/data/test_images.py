"""Images of any kind become arrays of one shape."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_makers import cycling_labels, noise, own_config, preprocess_config, tree
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.download import download
from pipeline.preprocess import preprocess
from pipeline.system.errors import DataContractError

Pixels = NDArray[np.uint8]


def png(pixels: Pixels, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def save(folder: Path, images: dict[str, bytes]) -> None:
    for name, content in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def both_stages(tmp_path: Path, images: dict[str, bytes], **changes: object) -> tuple[Path, DataCard]:
    """Pack and preprocess; returns data/processed and its card."""
    save(tmp_path / "pets", images)
    raw, out = tmp_path / "data/raw", tmp_path / "data/processed"
    download(own_config(kind="image_folder", path="pets"), tmp_path, raw, None)
    cfg = preprocess_config(**{"color": "gray", "test_fraction": 0.2, "validation_fraction": 0.0} | changes)
    return out, preprocess(raw, out, cfg)


def two_classes(image: bytes, count: int = 5) -> dict[str, bytes]:
    """``image`` and valid ones of 5 x 4 pixels: it is the first of class a."""
    valid = {f"{name}/{index}.png": png(noise(1, seed=index)[0]) for name in "ab" for index in range(1, count)}
    return {"a/0.png": image, "b/0.png": png(noise(1)[0])} | valid


def test_images_come_back_as_the_arrays_they_were_made_from(tmp_path: Path) -> None:
    """PNG keeps every value: train/CLASS and test/CLASS in, the same pixels and labels out, ordered by class."""
    images, labels = noise(30, 28, 28), cycling_labels(30)
    parts = {"train": range(21), "test": range(21, 30)}
    files = {
        f"{part}/digit {labels[index]}/{index:02}.png": png(images[index]) for part in parts for index in parts[part]
    }

    out, card = both_stages(tmp_path, files)

    assert card.classes == ["digit 0", "digit 1", "digit 2"]
    for part, indices in parts.items():
        order = sorted(indices, key=lambda index: (labels[index], index))
        split = load_split(out, part)
        np.testing.assert_array_equal(split.images, images[order])
        np.testing.assert_array_equal(split.labels, labels[order])


def test_colour_is_three_values_a_pixel(tmp_path: Path) -> None:
    image = noise(1, 5, 4 * 3).reshape(5, 4, 3)
    files = {f"{name}/{index}.png": png(image) for name in "ab" for index in range(5)}

    out, card = both_stages(tmp_path, files, color="rgb")

    assert card.image_shape == [5, 4, 3]
    np.testing.assert_array_equal(load_split(out, "train").images[0], image)


def test_resizing_averages_the_area_behind_each_pixel(tmp_path: Path) -> None:
    blocks = np.kron([[10, 20], [30, 40]], [[0, 2], [4, 2]])  # each value spread over 2 x 2 pixels
    image = blocks.astype(np.uint8)
    out, card = both_stages(tmp_path, two_classes(png(image)), image_shape=(2, 2))

    expected = np.array([[20, 40], [60, 80]])  # the mean of 0, 2, 4, 2 is 2
    assert card.image_shape == [2, 2]
    assert any((row == expected).all() for split in ("train", "test") for row in load_split(out, split).images)


def test_an_image_is_turned_as_its_exif_note_says(tmp_path: Path) -> None:
    image, exif = noise(1, 4, 5)[0], Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    out, _ = both_stages(tmp_path, two_classes(png(image, exif=exif)))

    turned = np.rot90(image, -1)
    assert any((row == turned).all() for split in ("train", "test") for row in load_split(out, split).images)


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    images = two_classes(png(noise(1, seed=9)[0]))

    assert tree(both_stages(tmp_path / "a", images)[0]) == tree(both_stages(tmp_path / "b", images)[0])


def sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 4), 40000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """100 million pixels in a few kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


SPOILT = {
    "zero bytes": (b"", "a/0.png: expected an image, found 0 bytes"),
    "text": (b"hello", "a/0.png: expected an image, found an unknown format"),
    "truncated": (
        png(noise(1, 64, 64)[0])[:-900],
        "a/0.png: expected an image, found what cannot be decoded (image file is truncated)",
    ),
    "bomb": (bomb(), "a/0.png: expected an image, found what cannot be decoded (Image size (100000000 pixels)"),
    "16 bits": (sixteen_bits(), "a/0.png: expected 8 bits a channel, found mode I;16"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_image_is_named_and_nothing_written(how: str, tmp_path: Path) -> None:
    with pytest.raises(DataContractError) as caught:
        both_stages(tmp_path, two_classes(SPOILT[how][0]))

    assert SPOILT[how][1] in str(caught.value)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["raw"]


def test_spoilt_images_are_all_named_at_once(tmp_path: Path) -> None:
    """Those of the test images too, which come later; at most twenty."""
    good, bad = png(noise(1)[0]), [f"{part}/b/{n}.png" for part in ("train", "test") for n in range(11, 23)]
    files = {f"{part}/{name}/0.png": good for part in ("train", "test") for name in "ab"} | dict.fromkeys(bad, b"hello")

    with pytest.raises(DataContractError) as caught:
        both_stages(tmp_path, files)

    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == bad[:20]
    assert lines[-1] == "and 4 more files"


def test_images_of_two_shapes_are_both_named(tmp_path: Path) -> None:
    files = two_classes(png(noise(1)[0])) | {"b/9.png": png(noise(1, 7, 7)[0])}

    with pytest.raises(DataContractError) as caught:
        both_stages(tmp_path, files)

    assert str(caught.value) == (
        "b/9.png has the shape (7, 7), a/0.png has (5, 4): expected one shape for all. "
        "Have them resized: data.image_shape=[28,28]"
    )
    assert not (tmp_path / "data/processed").exists()


def test_a_class_that_only_the_test_images_have_is_refused(tmp_path: Path) -> None:
    image = png(noise(1)[0])
    files = {"train/cat/1.png": image, "train/dog/1.png": image, "test/cat/2.png": image, "test/dgo/1.png": image}

    with pytest.raises(DataContractError, match=r"folders of test: .* found 'dgo'; nearest: dog, cat\."):
        both_stages(tmp_path, files)


def test_classes_may_be_given_in_an_order_of_ones_own(tmp_path: Path) -> None:
    _, card = both_stages(tmp_path, two_classes(png(noise(1)[0])), classes=("b", "a"))

    assert card.classes == ["b", "a"]
    assert list(card.splits["train"]["counts_per_class"]) == ["b", "a"]
