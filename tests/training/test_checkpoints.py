"""A training that is cut short at any point goes on from there and ends bit for bit as if it had not been."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.processed import Split
from pipeline.system.errors import Diverged, PipelineError
from pipeline.training import checkpoints
from pipeline.training import data_module as batches
from pipeline.training.checkpoints import (
    BEFORE,
    BEST,
    LAST,
    AtomicCheckpointIO,
    Interrupted,
    candidates,
    discard_damaged,
    is_whole,
)
from pipeline.training.module import Classifier
from training.training_makers import SimulatedCrash, Trained, assert_same_weights, digits, trained

VALIDATION = digits(30, seed=1)
CHUNKS_PER_EPOCH, EPOCHS = 6, 4
EVERYTHING = {
    "model.dropout": 0.5,
    "scheduler": {"name": "cosine", "warmup_fraction": 0.2, "final_lr_ratio": 0.1},
    "trainer.keep": "best",
    "tracking.step_metrics_every": 2,
}
ALWAYS = {"tracking.save_every_s": 0.0}


@pytest.fixture(scope="module", autouse=True)
def a_chunk_is_a_step() -> Iterator[None]:
    """So that an epoch of 6 steps has places to be cut at, and is saved at each of them where that is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "CHUNK_BYTES", 1)
        patch.setattr(checkpoints, "MAX_SAVE_SHARE", 1e9)
        yield


@pytest.fixture(scope="module")
def whole(a_chunk_is_a_step: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("whole"), EVERYTHING, validation=VALIDATION)


def assert_same(whole: Trained, other: Trained) -> None:
    assert_same_weights(whole, other)
    assert other.fit.history == whole.fit.history
    assert (other.fit.kept_epoch, other.fit.num_steps) == (whole.fit.kept_epoch, whole.fit.num_steps)


# ---------------------------------------------------------------- where it is cut


@pytest.mark.parametrize("chunk", range(1, EPOCHS * CHUNKS_PER_EPOCH - 1))
def test_a_training_asked_to_stop_goes_on_from_there(whole: Trained, chunk: int, tmp_path: Path) -> None:
    """Before each chunk of each epoch. An epoch's last chunk is still done, and its validation with it."""
    with pytest.raises(Interrupted):
        trained(tmp_path, EVERYTHING, validation=VALIDATION, stop_at_chunk=chunk)
    resumed = trained(tmp_path, EVERYTHING, validation=VALIDATION)

    assert_same(whole, resumed)
    done, begun = divmod(chunk, CHUNKS_PER_EPOCH)
    if begun == CHUNKS_PER_EPOCH - 1:
        done, begun = done + 1, 0
    assert resumed.fit.first_epoch == done
    assert [epoch for epoch, _ in resumed.epochs] == list(range(done, EPOCHS))
    assert [points for _, points in resumed.steps] == [points for _, points in whole.steps][done:]


def test_a_training_asked_to_stop_in_its_last_chunk_is_done(whole: Trained, tmp_path: Path) -> None:
    last = EPOCHS * CHUNKS_PER_EPOCH - 1
    assert_same(whole, trained(tmp_path, EVERYTHING, validation=VALIDATION, stop_at_chunk=last))


@pytest.mark.parametrize("batch", [1, 4, 9, 20])
def test_a_training_killed_amid_an_epoch_goes_on_from_its_last_save(whole: Trained, batch: int, tmp_path: Path) -> None:
    with pytest.raises(SimulatedCrash):
        trained(tmp_path, EVERYTHING | ALWAYS, validation=VALIDATION, crash_at_batch=batch)
    steps_lost = 0
    saved = torch.load(tmp_path / LAST, weights_only=True) if (tmp_path / LAST).exists() else None
    if saved is not None:
        forwards_per_epoch = CHUNKS_PER_EPOCH + 1  # with validation
        steps_lost = batch - batch // forwards_per_epoch - saved["global_step"]
    resumed = trained(tmp_path, EVERYTHING, validation=VALIDATION)

    assert saved is not None
    assert 0 <= steps_lost <= 2  # an epoch's last chunk is saved with the epoch
    assert_same(whole, resumed)


def test_a_training_cut_at_every_chunk_ends_all_the_same(whole: Trained, tmp_path: Path) -> None:
    """Counters of Lightning that drift by one at each restart would add up."""
    starts = 0
    while True:
        starts += 1
        try:
            done = trained(tmp_path, EVERYTHING, validation=VALIDATION, stop_at_chunk=1)
            break
        except Interrupted:
            assert starts < 100
    assert starts == EPOCHS * (CHUNKS_PER_EPOCH - 1)  # all but each epoch's last one
    assert_same(whole, done)


def test_a_training_that_goes_on_within_an_epoch_says_so(tmp_path: Path) -> None:
    """And its bar begins where it goes on."""
    changes = {"tracking.progress": True, "trainer.num_epochs": 1}
    with pytest.raises(Interrupted):
        trained(tmp_path, changes, stop_at_chunk=4)
    printed = trained(tmp_path, changes, terminal=True).printed

    assert printed.startswith("going on within epoch 1 of an earlier start\n")
    assert "5/6" in printed
    assert "4/6" not in printed


def test_a_window_of_a_large_file_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunk to go on with may lie within a window."""
    data = batches.ChunkLoader(digits(90).images, digits(90).labels, 16, 7)
    data.window = 2 * data.chunk_size
    monkeypatch.setattr(batches.ChunkLoader, "_source", lambda self, chosen: (self.samples, chosen))
    all_chunks = [chunk.samples for chunk in data]
    for first in range(CHUNKS_PER_EPOCH):
        data.first_chunk = first
        rest = [chunk.samples for chunk in data]
        assert len(rest) == CHUNKS_PER_EPOCH - first
        assert all(torch.equal(a, b) for a, b in zip(all_chunks[first:], rest, strict=True))
    assert len(list(data)) == CHUNKS_PER_EPOCH  # the next epoch has all


def test_what_is_noted_may_change_between_two_starts(whole: Trained, tmp_path: Path) -> None:
    """`tracking` is no part of what a training is."""
    with pytest.raises(Interrupted):
        trained(tmp_path, EVERYTHING, validation=VALIDATION, stop_at_chunk=4)
    assert_same(whole, trained(tmp_path, EVERYTHING | {"tracking.step_metrics_every": 1}, validation=VALIDATION))


# ---------------------------------------------------------------- damage


def resumed_from(work: Path) -> Path | None:
    """What the next start with trainer.keep=best would go on from."""
    discard_damaged(work, keeps_best=True)
    return next(candidates(work), None)


def cut_short(work: Path, changes: dict[str, Any] = EVERYTHING) -> None:
    """Stopped in the third epoch: last.ckpt is within it, last-before.ckpt at its beginning, best.ckpt before it."""
    with pytest.raises(Interrupted):
        trained(work, changes, validation=VALIDATION, stop_at_chunk=2 * CHUNKS_PER_EPOCH + 3)


def torn(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    """One bit in the middle, where the weights are."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_digest(path: Path) -> None:
    """Written by something else: it could be anything."""
    torch.save(torch.load(path, weights_only=True), path)


DAMAGES = [torn, flipped, emptied, without_digest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(
    whole: Trained, damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut_short(tmp_path)
    assert resumed_from(tmp_path) == tmp_path / LAST
    damage(tmp_path / LAST)
    assert resumed_from(tmp_path) == tmp_path / BEFORE
    resumed = trained(tmp_path, EVERYTHING, validation=VALIDATION)

    assert_same(whole, resumed)
    assert f"{tmp_path / LAST} is damaged: the training goes on from what was saved before it" in caplog.text


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_good_one(whole: Trained, tmp_path: Path) -> None:
    """As the next save moves the last one aside: killed before it is whole, the good one is still there."""
    cut_short(tmp_path)
    torn(tmp_path / LAST)
    assert resumed_from(tmp_path) == tmp_path / BEFORE
    AtomicCheckpointIO().save_checkpoint({"of": "the next start"}, tmp_path / LAST)

    assert is_whole(tmp_path / BEFORE)


def test_a_best_epoch_that_is_gone_is_not_gone_on_without(whole: Trained, tmp_path: Path) -> None:
    """Its checkpoints go with it: one of them could be taken up with another training's best epoch."""
    cut_short(tmp_path)
    (tmp_path / BEST).unlink()
    assert resumed_from(tmp_path) is None
    assert list(tmp_path.glob("*.ckpt")) == []
    assert_same(whole, trained(tmp_path, EVERYTHING, validation=VALIDATION))


def test_a_training_whose_checkpoints_are_all_damaged_begins_anew(
    whole: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut_short(tmp_path)
    for name in (LAST, BEFORE):
        torn(tmp_path / name)
    again = trained(tmp_path, EVERYTHING, validation=VALIDATION)

    assert_same(whole, again)
    assert again.fit.first_epoch == 0
    assert caplog.text.count("is damaged") == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_training_whose_best_epoch_is_damaged_begins_anew(
    whole: Trained, damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The weights to keep may be there only."""
    cut_short(tmp_path)
    damage(tmp_path / BEST)
    again = trained(tmp_path, EVERYTHING, validation=VALIDATION)

    assert_same(whole, again)
    assert again.fit.first_epoch == 0
    assert "the training begins anew" in caplog.text


def test_a_file_is_whole_only_as_it_was_written(tmp_path: Path) -> None:
    """Every byte counts."""
    path = tmp_path / "some.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(20.0)}, path)
    written = path.read_bytes()
    assert is_whole(path)
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(path)["weights"], torch.arange(20.0))
    for place in range(len(written)):
        path.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
        assert not is_whole(path), place
    for length in range(len(written)):
        path.write_bytes(written[:length])
        assert not is_whole(path), length
    with pytest.raises(PipelineError, match="is damaged"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, where the error comes amid the writing or at its end."""
    path = tmp_path / LAST
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.training.checkpoints.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)

    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == [LAST]


# ---------------------------------------------------------------- no finite number


def test_a_loss_that_is_no_number_ends_the_training_at_once(tmp_path: Path) -> None:
    """It names the step, its samples, the lr and what is saved; what is saved is from before."""
    labels = digits(90).labels
    images = digits(90).images.astype(np.float32)
    images[41] = np.nan
    with pytest.raises(Diverged) as error:
        trained(tmp_path, EVERYTHING | ALWAYS, train=Split(images, labels))  # type: ignore[arg-type]

    step = error.value.details["step"]
    order = batches.EpochOrder(90, seed=0).indices()
    assert 41 in error.value.details["samples"]
    assert error.value.details["samples"] == order[step * 16 : (step + 1) * 16].tolist()
    assert f"the loss is nan in step {step} (epoch 1, lr 0." in str(error.value)
    assert "no epoch was finished" in str(error.value)
    saved = [AtomicCheckpointIO().load_checkpoint(path) for path in tmp_path.glob("*.ckpt")]
    assert all(checkpoint["global_step"] <= step for checkpoint in saved)
    assert all(torch.isfinite(weight).all() for one in saved for weight in one["state_dict"].values())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch's last step may spoil them after its own loss was fine."""
    step = Classifier._optimize

    def spoil_at_the_end(self: Classifier, loss: torch.Tensor) -> None:
        step(self, loss)
        if self.global_step == 2 * CHUNKS_PER_EPOCH:
            next(self.network.parameters()).data[0, 0] = torch.nan

    monkeypatch.setattr(Classifier, "_optimize", spoil_at_the_end)
    with pytest.raises(Diverged, match=r"a weight is no finite number in step 11 \(epoch 2, .* epoch 1 is saved"):
        trained(tmp_path)
    saved = AtomicCheckpointIO().load_checkpoint(tmp_path / LAST)
    assert saved["global_step"] == CHUNKS_PER_EPOCH
