"""Batches: each sample once, in an order that is a function of seed and epoch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline.training.data_module as batches_module
from pipeline.training.data_module import BatchShard, ChunkLoader, EpochOrder


def order(num_samples: int, seed: int, epoch: int) -> list[int]:
    made = EpochOrder(num_samples, seed)
    made.set_epoch(epoch)
    return made.indices().tolist()


def numbered(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 2, 2) and labels (count,) that all hold their own index."""
    index = np.arange(count)
    return np.repeat(index.astype(np.uint8), 4).reshape(count, 2, 2), index


def visited(batches: ChunkLoader) -> list[int]:
    """The labels of an epoch, after checking that each image came with its own label."""
    labels = []
    for samples, part, *_ in batches:
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
    batches = ChunkLoader(*numbered(count), 8, 0 if shuffled else None)

    assert sorted(visited(batches)) == list(range(count))


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (8, [8]), (9, [8, 1]), (16, [8, 8]), (23, [8, 8, 7])], ids=str)
def test_the_last_batch_has_what_is_left(count: int, sizes: list[int]) -> None:
    """Nothing is dropped, nothing is padded, and a chunk says how its samples are divided."""
    batches = ChunkLoader(*numbered(count), 8, seed=0)

    assert [size for chunk in batches for size in chunk.sizes] == sizes
    assert [len(labels) for chunk in batches for _, labels, _ in chunk.steps()] == sizes


def test_without_an_order_they_come_as_they_lie() -> None:
    """Validation and test are read front to back."""
    assert visited(ChunkLoader(*numbered(20), 8, None)) == list(range(20))


def test_with_an_order_they_come_in_it() -> None:
    """Exactly the indices of the epoch that was set."""
    batches = ChunkLoader(*numbered(20), 8, seed=3)
    assert batches.order is batches.sampler
    batches.sampler.set_epoch(2)  # as Lightning does

    assert visited(batches) == order(20, seed=3, epoch=2)


def test_a_second_pass_repeats_the_first() -> None:
    """An iterator leaves nothing behind."""
    batches = ChunkLoader(*numbered(20), 8, seed=0)

    assert visited(batches) == visited(batches)


@pytest.mark.parametrize("shuffled", [True, False])
def test_memory_maps_are_read_without_a_warning(shuffled: bool, tmp_path: Path) -> None:
    """torch warns about read-only arrays, and warnings are errors here; types stay uint8 and int64."""
    images, labels = numbered(20)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    maps = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))

    batches = list(ChunkLoader(*maps, 8, 0 if shuffled else None))

    assert {(samples.dtype, part.dtype) for samples, part, *_ in batches} == {(torch.uint8, torch.int64)}
    assert sorted(torch.cat([chunk.labels for chunk in batches]).tolist()) == list(range(20))


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_batch_is_a_copy(shuffled: bool) -> None:
    """What is done to a batch in place does not reach the data."""
    images, labels = numbered(20)
    for samples, part, *_ in ChunkLoader(images, labels, 8, 0 if shuffled else None):
        samples.zero_()
        part.zero_()

    np.testing.assert_array_equal(images, numbered(20)[0])
    np.testing.assert_array_equal(labels, numbered(20)[1])


# ---------------------------------------------------------------- chunks of several steps


@pytest.mark.parametrize(("count", "max_steps", "steps"), [(40, 2, [2, 2, 1]), (41, 2, [2, 2, 2]), (16, 1, [1, 1])])
def test_a_chunk_holds_several_steps(count: int, max_steps: int, steps: list[int]) -> None:
    """len() is the number of chunks: what Lightning takes for batches."""
    batches = ChunkLoader(*numbered(count), 8, seed=0, max_steps=max_steps)

    assert [len(chunk.sizes) for chunk in batches] == steps
    assert len(batches) == len(steps)


def test_chunks_change_no_step() -> None:
    """Which samples a step gets does not depend on how many are gathered at once."""
    one, many = (ChunkLoader(*numbered(45), 8, seed=0, max_steps=most) for most in (1, 4))

    assert steps_of(one) == steps_of(many)


def test_a_chunk_stays_small() -> None:
    """Some 2 MiB: 20 batches of MNIST, one of large samples."""
    digits, photos = np.zeros((9000, 28, 28), np.uint8), np.zeros((300, 256, 256, 3), np.uint8)

    assert len(ChunkLoader(digits, np.arange(9000), 128, seed=0)) == 4  # 71 steps
    assert len(ChunkLoader(photos, np.arange(300), 128, seed=0)) == 3


def steps_of(batches: ChunkLoader) -> list[list[int]]:
    """The labels of each step of an epoch."""
    return [labels.tolist() for chunk in batches for _, labels, _ in chunk.steps()]


# ---------------------------------------------------------------- several processes


@pytest.mark.parametrize("count", [1, 7, 40, 41])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_processes_share_each_batch(world: int, count: int) -> None:
    """Step for step, the parts of all processes are the batch that one process would have got, in its order."""
    alone = steps_of(ChunkLoader(*numbered(count), 8, seed=0))
    parts = [steps_of(ChunkLoader(*numbered(count), 8, seed=0, shard=BatchShard(rank, world))) for rank in range(world)]

    assert [[label for part in step for label in part] for step in zip(*parts, strict=True)] == alone


@pytest.mark.parametrize(("size", "world", "sizes"), [(8, 2, [4, 4]), (7, 2, [3, 4]), (1, 3, [0, 0, 1])], ids=str)
def test_shares_differ_by_one_sample_at_most(size: int, world: int, sizes: list[int]) -> None:
    """Nobody waits long for anybody."""
    parts = [BatchShard(rank, world).of(size) for rank in range(world)]

    assert [part.stop - part.start for part in parts] == sizes


# ---------------------------------------------------------------- files larger than memory


@pytest.fixture
def large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """2,000 images of 4 bytes on disk, and limits that make this a large file, read in windows of some 200."""
    monkeypatch.setattr(batches_module, "LARGE_BYTES", 1000)
    monkeypatch.setattr(batches_module, "WINDOW_BYTES", 800)
    monkeypatch.setattr(batches_module, "BLOCK_BYTES", 40)
    monkeypatch.setattr(batches_module, "CHUNK_BYTES", 128)
    images, labels = numbered(2000)
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r"), labels


@pytest.mark.parametrize("batch_size", [1, 8, 30, 300])
def test_a_large_file_gives_every_sample_once(
    batch_size: int, large_file: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image with its own label, whatever divides what; every batch but the last is full."""
    batches = ChunkLoader(*large_file, batch_size, seed=0)
    labels = []
    for samples, part, *_ in batches:
        assert (samples.flatten(1) == part[:, None] % 256).all()
        labels += part.tolist()

    assert sorted(labels) == list(range(2000))
    assert {size for chunk in batches for size in chunk.sizes[:-1]} <= {batch_size}
    assert sum(len(chunk.sizes) for chunk in batches) == -(-2000 // batch_size)
    assert len(list(batches)) == len(batches)


def test_a_large_file_is_shuffled_far_and_near(large_file: tuple[np.ndarray, np.ndarray]) -> None:
    """A batch comes from all over the file, and neighbours do not stay together."""
    steps = steps_of(ChunkLoader(*large_file, 50, seed=0))
    spread = [max(step) - min(step) for step in steps]
    together = [sum(b - a == 1 for a, b in pairwise(step)) for step in steps]

    assert min(spread) > 1000
    assert sum(together) < 40  # of 2,000; 1,800 if blocks of ten stayed whole


def test_a_large_file_is_never_mapped_while_training(large_file: tuple[np.ndarray, np.ndarray]) -> None:
    """Mapped pages would count as memory: the images are read, so a map that cannot be indexed does."""

    class NoIndexing(np.memmap):  # type: ignore[type-arg]
        def __getitem__(self, key: object) -> object:
            if isinstance(key, slice) and key == slice(None, 1):  # for the number of bytes of a sample
                return super().__getitem__(key)
            raise AssertionError(f"indexed by {key!r}")

    images = large_file[0].view(NoIndexing)

    assert sorted(visited_large(ChunkLoader(images, large_file[1], 50, seed=0))) == list(range(2000))


def visited_large(batches: ChunkLoader) -> list[int]:
    return [label for chunk in batches for label in chunk.labels.tolist()]


def test_a_file_that_was_cut_is_named(large_file: tuple[np.ndarray, np.ndarray]) -> None:
    """Instead of an endless wait, or rows of zeros."""
    path = Path(large_file[0].filename)  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:4000])

    with pytest.raises(OSError, match=r"images\.npy ends early"):
        list(ChunkLoader(*large_file, 50, seed=0))
