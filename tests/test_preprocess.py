"""The stage preprocess: checked, split arrays, or one message and nothing written."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_makers import (
    NAMES,
    Pixels,
    cycling_labels,
    noise,
    own_config,
    preprocess_config,
    tiny_set,
    tree,
    write_raw,
)
from pipeline.config.schema import DownloadView, PreprocessConfig, PreprocessData
from pipeline.data.card import DataCard
from pipeline.data.idx import write_idx
from pipeline.data.processed import load_split, split_exists
from pipeline.download import download
from pipeline.preprocess import preprocess
from pipeline.system.errors import DataContractError
from pipeline.system.files import sha256_of

REPO = Path(__file__).parents[1]


def run(tmp_path: Path, arrays: dict[str, Pixels], **changes: object) -> tuple[Path, DataCard]:
    """Preprocess IDX files of these arrays; returns data/processed and its card."""
    write_raw(tmp_path / "raw", arrays)
    return tmp_path / "processed", preprocess(tmp_path / "raw", tmp_path / "processed", preprocess_config(**changes))


# ---------------------------------------------------------------- what is written


def test_train_and_validation_are_the_training_images_in_order(tmp_path: Path) -> None:
    arrays = tiny_set()
    out, _ = run(tmp_path, arrays)
    train, validation = load_split(out, "train"), load_split(out, "validation")

    held_out = [any((image == other).all() for other in validation.images) for image in arrays["train_images"]]
    np.testing.assert_array_equal(train.images, arrays["train_images"][~np.array(held_out)])
    np.testing.assert_array_equal(train.labels, arrays["train_labels"][~np.array(held_out)])
    np.testing.assert_array_equal(validation.images, arrays["train_images"][held_out])
    np.testing.assert_array_equal(validation.labels, arrays["train_labels"][held_out])
    assert sum(held_out) == 3


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_the_test_set_is_never_split(fraction: float, tmp_path: Path) -> None:
    arrays = tiny_set()
    out, _ = run(tmp_path, arrays, validation_fraction=fraction)

    np.testing.assert_array_equal(load_split(out, "test").images, arrays["test_images"])
    np.testing.assert_array_equal(load_split(out, "test").labels, arrays["test_labels"])
    assert split_exists(out, "validation") == (fraction > 0)


def test_the_seed_decides_which_are_held_out(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(index), tiny_set(), split_seed=seed)[0] for index, seed in enumerate((0, 0, 1))]
    first, again, other = (load_split(out, "validation").images.tobytes() for out in runs)

    assert first == again
    assert first != other


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, tiny_set())[0] for name in "ab")

    assert tree(first) == tree(second)


def test_transposed_images_are_turned_back(tmp_path: Path) -> None:
    arrays = tiny_set()
    out, card = run(tmp_path, arrays, transpose=True)

    assert card.image_shape == [4, 5]
    np.testing.assert_array_equal(load_split(out, "test").images, arrays["test_images"].transpose(0, 2, 1))


def test_own_data_gives_its_test_set_first_then_validation_of_the_rest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,x\n" + "".join(f"{'ab'[i % 2]},{i}\n" for i in range(100)))
    download(own_config(kind="table", path="t.csv"), tmp_path, tmp_path / "raw", None)

    def test_rows(validation_fraction: float, out: str) -> list[int]:
        cfg = preprocess_config(label="label", test_fraction=0.3, validation_fraction=validation_fraction)
        card = preprocess(tmp_path / "raw", tmp_path / out, cfg)
        held = round(70 * validation_fraction)
        assert [facts["count"] for facts in card.splits.values()] == [70 - held, *([held] if held else []), 30]
        rows: list[int] = load_split(tmp_path / out, "test").images[:, 0].tolist()
        return rows

    assert test_rows(0.0, "a") == test_rows(0.1, "b")


def test_own_data_without_a_test_set_must_say_how_much_to_hold_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,x\n" + "".join(f"{'ab'[i % 2]},{i}\n" for i in range(100)))
    download(own_config(kind="table", path="t.csv"), tmp_path, tmp_path / "raw", None)

    with pytest.raises(DataContractError, match=r"no test set: give data\.test_fraction=0\.2"):
        preprocess(tmp_path / "raw", tmp_path / "out", preprocess_config(label="label", test_fraction=0.0))


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """160 MB of images in; the peak is a few chunks of 4 MiB, and 24 bytes a sample for labels and fingerprints."""
    count = 200_000
    images = np.broadcast_to(noise(1, 28, 28), (count, 28, 28))
    arrays = {"train_images": images, "train_labels": cycling_labels(count)} | {
        role: values for role, values in tiny_set().items() if role.startswith("test")
    }
    arrays["test_images"] = noise(9, 28, 28)
    write_raw(tmp_path / "raw", arrays)
    tracemalloc.start()
    try:
        preprocess(tmp_path / "raw", tmp_path / "processed", preprocess_config())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 50e6


# ---------------------------------------------------------------- the card


def test_card_counts_and_digests_what_is_on_disk(tmp_path: Path) -> None:
    out, card = run(tmp_path, tiny_set())

    for split, facts in card.splits.items():
        found = load_split(out, split)
        assert facts["count"] == len(found.images)
        assert list(facts["counts_per_class"].values()) == np.bincount(found.labels, minlength=3).tolist()
        assert facts["images_sha256"] == sha256_of(out / split / "images.npy")
        assert facts["labels_sha256"] == sha256_of(out / split / "labels.npy")
        assert facts["label_range"] == [0, 2]
    assert card.classes == ["0", "1", "2"]
    assert card.scaling == {"offset": 0.0, "scale": 255.0}
    assert card.made_with == json.loads(preprocess_config().model_dump_json())


def test_card_reads_back_as_it_was_written(tmp_path: Path) -> None:
    out, card = run(tmp_path, tiny_set())

    assert DataCard.read(out / "data_card.json") == card


def test_duplicates_and_blank_images_are_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = tiny_set()
    arrays["test_images"][:2] = arrays["train_images"][0]  # twice in test, once in train
    arrays["test_images"][5] = 7

    _, card = run(tmp_path, arrays, validation_fraction=0.0)

    assert card.duplicates == {"within": {"train": 0, "test": 1}, "across": {"train/test": 2}}
    assert card.splits["test"]["blank_images"] == 1
    assert card.suspicions == [
        "test: 1 of 9 images are blank (one single value)",
        "test: 2 of 9 samples occur in train too",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "preprocess: 30 train, 9 test images 5 x 4, 3 classes",
        *(f"preprocess: suspicious: {suspicion}" for suspicion in card.suspicions),
    ]


def test_a_rare_class_is_told(tmp_path: Path) -> None:
    arrays = tiny_set(num_train=300)
    arrays["train_labels"][:] = cycling_labels(300, 2)
    arrays["train_labels"][[10, 20]] = 2

    _, card = run(tmp_path, arrays, validation_fraction=0.0)

    assert card.suspicions == ["train: class '2' has 2 of 300 samples"]


# ---------------------------------------------------------------- what is refused

Spoil = Callable[[dict[str, Path]], None]


def header(role: str, at: int, value: bytes) -> Spoil:
    """Overwrite bytes of a file."""

    def spoil(paths: dict[str, Path]) -> None:
        content = bytearray(paths[role].read_bytes())
        content[at : at + len(value)] = value
        paths[role].write_bytes(content)

    return spoil


def replaced(role: str, values: Pixels) -> Spoil:
    return lambda paths: write_idx(paths[role], values)


def resized(role: str, change: int) -> Spoil:
    """Cut bytes off the end, or add some."""

    def spoil(paths: dict[str, Path]) -> None:
        content = paths[role].read_bytes()
        paths[role].write_bytes(content[:change] if change < 0 else content + bytes(change))

    return spoil


MALFORMED: dict[str, tuple[Spoil, str]] = {
    "magic": (header("train_images", 0, b"PK"), "expected it to start with 00 00 08 03, found 50 4b 08 03"),
    "type": (header("train_images", 2, b"\x0d"), "expected values of type 0x08 (uint8), found type 0x0d"),
    "dimensions": (header("train_images", 3, b"\x01"), "expected 3 dimensions for images (N, height, width), found 1"),
    "label dimensions": (header("test_labels", 3, b"\x03"), "expected 1 dimensions for labels (N,), found 3"),
    "truncated": (resized("train_images", -1), "is truncated: its header promises 616 bytes, found 615"),
    "trailing": (resized("test_labels", 2), "is longer: its header promises 17 bytes, found 19"),
    "header cut": (resized("train_images", -608), "is truncated: its header promises 16 bytes, found 8"),
    "zero bytes": (resized("train_labels", -38), "00 00 08 01, found nothing"),
    "no images": (replaced("train_images", noise(0)), "is empty: its header gives the shape (0, 5, 4)"),
    "fewer labels": (replaced("train_labels", cycling_labels(29)), "expected 30 labels, one for each image in"),
    "more labels": (replaced("test_labels", cycling_labels(10)), "expected 9 labels, one for each image in"),
    "label out of range": (header("test_labels", 10, b"\x03"), "expected labels 0..2 for the 3 classes "
                           "in data.classes, found 3 at position 2 (1 such labels)"),
    "test images of another shape": (replaced("test_images", noise(9, 4, 4)), "expected images of (5, 4) pixels as in"),
    "class without images": (replaced("train_labels", cycling_labels(30, 2)), "found none of 'c'"),
}  # fmt: skip


@pytest.mark.parametrize("how", MALFORMED)
def test_malformed_files_are_explained_and_nothing_written(how: str, tmp_path: Path) -> None:
    spoil, message = MALFORMED[how]
    spoil(write_raw(tmp_path / "raw", tiny_set()))

    with pytest.raises(DataContractError) as caught:
        preprocess(
            tmp_path / "raw", tmp_path / "out", preprocess_config(classes=("a", "b", "c"), validation_fraction=0.0)
        )

    assert message in str(caught.value)
    assert "-ubyte" in str(caught.value) or how == "class without images"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_failure_leaves_what_was_there_before(tmp_path: Path) -> None:
    out, _ = run(tmp_path, tiny_set())
    before = tree(out)
    (tmp_path / "raw" / NAMES["train_labels"]).write_bytes(b"")

    with pytest.raises(DataContractError):
        preprocess(tmp_path / "raw", out, preprocess_config())

    assert tree(out) == before


def test_raw_data_of_another_name_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", tiny_set(), name="mnist_5k")

    with pytest.raises(DataContractError, match=r"raw holds mnist_5k, but data\.name=tiny"):
        preprocess(tmp_path / "raw", tmp_path / "out", preprocess_config())


def test_missing_raw_data_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match=r"nothing was downloaded yet\. Run: dvc repro download"):
        preprocess(tmp_path / "raw", tmp_path / "out", preprocess_config())


def test_a_damaged_note_names_the_stage_to_run_again(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", tiny_set())
    (tmp_path / "raw" / "source.json").write_text('{"files": {}}')

    with pytest.raises(DataContractError, match=r"source\.json is damaged .* Run: dvc repro -f download"):
        preprocess(tmp_path / "raw", tmp_path / "out", preprocess_config())


@pytest.mark.mnist
@pytest.mark.skipif("PIPELINE_MIRROR" not in os.environ, reason="PIPELINE_MIRROR is not set")
def test_the_whole_of_mnist_is_split_by_class_and_has_no_duplicates(tmp_path: Path) -> None:
    text = (REPO / "conf/data/base.yaml").read_text(), (REPO / "conf/data/mnist.yaml").read_text()
    values = yaml.safe_load(text[0]) | yaml.safe_load(text[1])
    cfg = DownloadView.model_validate({key: values[key] for key in DownloadView.model_fields} | {"mirrors": []})
    download(cfg, tmp_path, tmp_path / "raw", str(REPO / os.environ["PIPELINE_MIRROR"]))

    data = {key: values[key] for key in PreprocessData.model_fields}
    whole = PreprocessConfig.model_validate({"data": data, "expand": {"name": "none"}})
    card = preprocess(tmp_path / "raw", tmp_path / "out", whole)

    assert {split: facts["count"] for split, facts in card.splits.items()} == {
        "train": 54000, "validation": 6000, "test": 10000,
    }  # fmt: skip
    assert list(card.splits["validation"]["counts_per_class"].values()) == [
        592, 674, 596, 613, 584, 542, 592, 627, 585, 595,
    ]  # fmt: skip
    assert card.duplicates["across"] == {"train/validation": 0, "train/test": 0, "validation/test": 0}
    assert card.suspicions == []
