"""Batches: each sample once, in an order that is a function of seed and epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.training.batches import Batches, EpochOrder


def order(num_samples: int, seed: int, epoch: int) -> list[int]:
    made = EpochOrder(num_samples, seed)
    made.set_epoch(epoch)
    return made.indices().tolist()


def numbered(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 2, 2) and labels (count,) that all hold their own index."""
    index = np.arange(count)
    return np.repeat(index.astype(np.uint8), 4).reshape(count, 2, 2), index


def visited(batches: Batches) -> list[int]:
    """The labels of an epoch, after checking that each image came with its own label."""
    labels = []
    for samples, part in batches:
        assert (samples.flatten(1) == part[:, None]).all()
        labels += part.tolist()
    return labels


# ---------------------------------------------------------------- the order


@pytest.mark.parametrize("num_samples", [1, 2, 1000])
def test_an_order_is_a_permutation(num_samples: int) -> None:
    """Each sample once."""
    assert sorted(order(num_samples, seed=3, epoch=5)) == list(range(num_samples))


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    """The order of epoch 7 does not depend on the epochs that were visited before it."""
    walked = EpochOrder(50, seed=3)
    for epoch in range(8):
        walked.set_epoch(epoch)
        walked.indices()

    assert walked.indices().tolist() == order(50, seed=3, epoch=7)


def test_torchs_and_numpys_global_state_do_not_matter() -> None:
    """Nothing else that draws numbers can shift it."""
    torch.manual_seed(0)
    before = order(50, 3, 7)
    torch.rand(1)
    np.random.seed(1)

    assert order(50, 3, 7) == before


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (1, 0), (1, 1)])
def test_each_seed_and_epoch_has_its_own_order(seed: int, epoch: int) -> None:
    """(0, 1) and (1, 0) differ too: the two are not added."""
    others = {(s, e) for s in (0, 1) for e in (0, 1)} - {(seed, epoch)}

    assert all(order(50, seed, epoch) != order(50, *other) for other in others)


# ---------------------------------------------------------------- the batches


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 41])
@pytest.mark.parametrize("shuffled", [True, False])
def test_every_sample_comes_exactly_once(shuffled: bool, count: int) -> None:
    """Whatever divides what; an image keeps its label."""
    batches = Batches(*numbered(count), 8, EpochOrder(count, 0) if shuffled else None)

    assert sorted(visited(batches)) == list(range(count))


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (8, [8]), (9, [8, 1]), (16, [8, 8]), (23, [8, 8, 7])], ids=str)
def test_the_last_batch_has_what_is_left(count: int, sizes: list[int]) -> None:
    """Nothing is dropped, nothing is padded, and len() is the number of batches."""
    batches = Batches(*numbered(count), 8, EpochOrder(count, 0))

    assert [len(labels) for _, labels in batches] == sizes
    assert len(batches) == len(sizes)


def test_without_an_order_they_come_as_they_lie() -> None:
    """Validation and test are read front to back."""
    assert visited(Batches(*numbered(20), 8, None)) == list(range(20))


def test_with_an_order_they_come_in_it() -> None:
    """Exactly the indices of the epoch that was set."""
    batches = Batches(*numbered(20), 8, EpochOrder(20, seed=3))
    batches.sampler.set_epoch(2)  # as Lightning does

    assert visited(batches) == order(20, seed=3, epoch=2)


def test_a_second_pass_repeats_the_first() -> None:
    """An iterator leaves nothing behind."""
    batches = Batches(*numbered(20), 8, EpochOrder(20, 0))

    assert visited(batches) == visited(batches)


@pytest.mark.parametrize("shuffled", [True, False])
def test_memory_maps_are_read_without_a_warning(shuffled: bool, tmp_path: Path) -> None:
    """torch warns about read-only arrays, and warnings are errors here; types stay uint8 and int64."""
    images, labels = numbered(20)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    maps = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))

    batches = list(Batches(*maps, 8, EpochOrder(20, 0) if shuffled else None))

    assert {(samples.dtype, part.dtype) for samples, part in batches} == {(torch.uint8, torch.int64)}
    assert sorted(torch.cat([part for _, part in batches]).tolist()) == list(range(20))


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_batch_is_a_copy(shuffled: bool) -> None:
    """What is done to a batch in place does not reach the data."""
    images, labels = numbered(20)
    for samples, part in Batches(images, labels, 8, EpochOrder(20, 0) if shuffled else None):
        samples.zero_()
        part.zero_()

    np.testing.assert_array_equal(images, numbered(20)[0])
    np.testing.assert_array_equal(labels, numbered(20)[1])
