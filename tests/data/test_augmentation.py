"""The training split grown by deformed copies: what is written, in which order, and what it depends on."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_makers import DEFORM, cycling_labels, noise, own_config, preprocess_config, tiny_set, tree, write_raw
from pipeline.data.augmentation import deformed, elastic_noise
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.download import download
from pipeline.preprocess import preprocess
from pipeline.system.errors import PipelineError
from pipeline.system.files import sha256_of

NO_STRENGTH = {"rotation_degrees": 0.0, "translation_px": 0.0, "scale": 0.0, "shear": 0.0, "elastic_px": 0.0}


def run(folder: Path, changes: dict[str, Any] | None = None, **data: Any) -> tuple[Path, DataCard]:
    """Preprocess the tiny set, deformed; `changes` in the group expand. Returns data/processed and its card."""
    write_raw(folder / "raw", tiny_set())
    cfg = preprocess_config(expand=DEFORM | (changes or {}), **data)
    return folder / "processed", preprocess(folder / "raw", folder / "processed", cfg)


def plain(folder: Path, **data: Any) -> Path:
    """The same, not expanded."""
    write_raw(folder / "raw", tiny_set())
    preprocess(folder / "raw", folder / "processed", preprocess_config(**data))
    return folder / "processed"


# ---------------------------------------------------------------- what is written


def test_the_originals_come_first_and_copies_follow_in_their_order(tmp_path: Path) -> None:
    """Without strength a copy is its original: 27 training images, four times, with their labels."""
    grown = load_split(run(tmp_path / "a", NO_STRENGTH)[0], "train")
    originals = load_split(plain(tmp_path / "b"), "train")

    np.testing.assert_array_equal(grown.images, np.tile(originals.images, (4, 1, 1)))
    np.testing.assert_array_equal(grown.labels, np.tile(originals.labels, 4))


def test_originals_are_kept_and_every_copy_is_another_image(tmp_path: Path) -> None:
    grown = load_split(run(tmp_path / "a")[0], "train")
    originals = load_split(plain(tmp_path / "b"), "train")

    np.testing.assert_array_equal(grown.images[:27], originals.images)
    assert len(np.unique(grown.images, axis=0)) == 4 * 27
    np.testing.assert_array_equal(grown.labels, np.tile(originals.labels, 4))


def test_validation_and_test_are_not_touched(tmp_path: Path) -> None:
    """Nor does it matter for them how much training is deformed."""
    grown, as_it_is = run(tmp_path / "a")[0], plain(tmp_path / "b")

    for split in ("validation", "test"):
        assert tree(grown / split) == tree(as_it_is / split)


def test_colour_images_are_deformed(tmp_path: Path) -> None:
    """(N, H, W, 3), from a folder of images."""
    from PIL import Image

    for index, pixels in enumerate(noise(3 * 20, 8, 8).reshape(20, 8, 8, 3)):
        path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    download(own_config(kind="image_folder", path="pictures"), tmp_path, tmp_path / "raw", None)
    cfg = preprocess_config(expand=DEFORM, color="rgb", test_fraction=0.2, validation_fraction=0.0)
    preprocess(tmp_path / "raw", tmp_path / "out", cfg)

    assert load_split(tmp_path / "out", "train").images.shape == (4 * 16, 8, 8, 3)


# ---------------------------------------------------------------- what it depends on


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    assert tree(run(tmp_path / "a")[0]) == tree(run(tmp_path / "b")[0])


@pytest.mark.parametrize("block_bytes", [1, 60, 1000])
def test_the_block_size_changes_no_byte(block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time, three, all."""
    expected = run(tmp_path / "a")[0]
    monkeypatch.setattr("pipeline.data.augmentation.BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("pipeline.data.geometry.BLOCK_PIXELS", block_bytes)

    assert tree(run(tmp_path / "b")[0]) == tree(expected)


def test_fewer_copies_are_the_beginning_of_more(tmp_path: Path) -> None:
    few = load_split(run(tmp_path / "a", {"copies": 2})[0], "train").images
    many = load_split(run(tmp_path / "b", {"copies": 5})[0], "train").images

    np.testing.assert_array_equal(few, many[: len(few)])


def test_a_copy_depends_on_its_image_position_and_number_alone() -> None:
    """Its neighbours may be others; another position or number is another deformation."""
    cfg = preprocess_config(expand=DEFORM).expand
    assert cfg.name == "deform"
    elastic, images = elastic_noise(28, 28, cfg), noise(10, 28, 28)
    among_others = deformed(images, 100, 7, cfg, elastic)[4]

    np.testing.assert_array_equal(deformed(images[4:5], 104, 7, cfg, elastic)[0], among_others)
    assert (deformed(images[4:5], 105, 7, cfg, elastic)[0] != among_others).any()
    assert (deformed(images[4:5], 104, 8, cfg, elastic)[0] != among_others).any()


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"rotation_degrees": 20.0}, {"translation_px": 2.0}, {"scale": 0.2}, {"shear": 0.2},
     {"elastic_px": 2.0}, {"elastic_sigma_px": 2.0}, {"fill": 255}],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_copies_and_no_original(changes: dict[str, Any], tmp_path: Path) -> None:
    before = load_split(run(tmp_path / "a")[0], "train").images
    after = load_split(run(tmp_path / "b", changes)[0], "train").images

    np.testing.assert_array_equal(after[:27], before[:27])
    assert (after[27:] != before[27:]).any(axis=(1, 2)).mean() > 0.9


def test_strengths_are_limits_on_both_sides() -> None:
    """A bar of 9 x 3 pixels, moved and nothing else: its middle stays within 2 px, and comes near to it everywhere."""
    cfg = preprocess_config(expand=DEFORM | NO_STRENGTH | {"translation_px": 2.0}).expand
    assert cfg.name == "deform"
    images = np.zeros((2000, 21, 21), dtype=np.uint8)
    images[:, 9:12, 6:15] = 255
    found = deformed(images, 0, 1, cfg, elastic_noise(21, 21, cfg)).astype(np.float64)
    place = np.arange(21) - 10
    for middle in ((found.sum(axis=axis) * place).sum(axis=1) / found.sum(axis=(1, 2)) for axis in (1, 2)):
        assert -2.01 < middle.min() < -1.95
        assert 1.95 < middle.max() < 2.01
        assert abs(middle.mean()) < 0.1


# ---------------------------------------------------------------- the card


def test_the_card_counts_and_digests_what_is_on_disk(tmp_path: Path) -> None:
    out, card = run(tmp_path)
    facts, found = card.splits["train"], load_split(out, "train")

    assert facts["count"] == len(found.images) == 4 * 27
    assert list(facts["counts_per_class"].values()) == np.bincount(found.labels, minlength=3).tolist()
    assert facts["images_sha256"] == sha256_of(out / "train/images.npy")
    assert facts["labels_sha256"] == sha256_of(out / "train/labels.npy")
    assert card.expansion == {"originals": 27, "factor": 4}
    assert card.made_with["expand"] == DEFORM
    assert DataCard.read(out / "data_card.json") == card


def test_a_set_that_is_not_expanded_says_so(tmp_path: Path) -> None:
    card = DataCard.read(plain(tmp_path) / "data_card.json")

    assert card.expansion is None
    assert card.made_with["expand"] == {"name": "none"}


def test_what_is_odd_is_told_of_the_originals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A blank image stays blank in all copies: one of 30, not four of 120, and no duplicate."""
    arrays = tiny_set()
    arrays["train_images"][3] = 0
    write_raw(tmp_path / "raw", arrays)
    card = preprocess(
        tmp_path / "raw", tmp_path / "out", preprocess_config(expand=DEFORM, validation_fraction=0.0)
    )  # fmt: skip

    assert card.duplicates["within"] == {"train": 0, "test": 0}
    assert capsys.readouterr().out.splitlines() == [
        "preprocess: 120 train, 9 test images 5 x 4, 3 classes",
        "preprocess: train is 30 images, each of them 4 times: once as it is, then deformed",
        "preprocess: suspicious: train: 1 of 30 images are blank (one single value)",
    ]


# ---------------------------------------------------------------- room


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """10^12 copies fit on no disk; the message has what is needed, what is free, where, and how many would fit."""
    with pytest.raises(PipelineError) as caught:
        run(tmp_path, {"copies": 10**12})

    message = str(caught.value)
    assert f"{tmp_path / 'processed'}: expected room for 27,000,000,000,039 samples, 756,000,000 MB, found " in message
    assert (
        f" MB free in {tmp_path}. Nothing was written. Make room there, or take fewer copies: expand.copies=" in message
    )
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_the_copies_that_a_message_offers_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for 5.5 copies beside the 39 samples of 28 bytes, five are offered; those fit, six do not."""
    free = int((39 + 5.5 * 27) * 28)
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr("pipeline.data.splits.shutil.disk_usage", lambda _: usage)

    with pytest.raises(PipelineError, match=r"expand\.copies=5\."):
        run(tmp_path / "a", {"copies": 6})
    assert run(tmp_path / "b", {"copies": 5})[1].splits["train"]["count"] == 6 * 27


def test_originals_that_do_not_fit_are_told_without_advice_on_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.splits.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))

    with pytest.raises(PipelineError, match=r"found 0 MB free in .*\. Nothing was written\. Make room there\.$"):
        plain(tmp_path)


def test_memory_does_not_grow_with_the_copies(tmp_path: Path) -> None:
    """160 MB of copies; the peak is that of a block."""
    arrays = {"train_images": noise(2000, 28, 28), "train_labels": cycling_labels(2000),
              "test_images": noise(9, 28, 28), "test_labels": cycling_labels(9)}  # fmt: skip
    write_raw(tmp_path / "raw", arrays)
    cfg = preprocess_config(expand=DEFORM | {"copies": 100})
    tracemalloc.start()
    try:
        preprocess(tmp_path / "raw", tmp_path / "out", cfg)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 50e6


def test_an_interrupted_expansion_leaves_what_was_there_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file never takes the place of a whole one."""
    out = plain(tmp_path)
    before = tree(out)

    def interrupt(copy: int, _copies: int) -> None:
        if copy == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.data.augmentation._show_progress", interrupt)
    with pytest.raises(KeyboardInterrupt):
        preprocess(tmp_path / "raw", out, preprocess_config(expand=DEFORM))

    assert tree(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["processed", "raw"]
