"""What a step must not do, counted instead of timed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_makers import BATCH, digits, trained

from pipeline.data.processed import Split
from pipeline.model import kernels
from pipeline.training import data_module as batches_module

WAITING = ("item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__")  # for the device


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a tensor's value was asked for."""
    counted: Counter[str] = Counter()
    for name in WAITING:
        original = getattr(torch.Tensor, name)

        def counting(self: torch.Tensor, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
            counted[name] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counting)
    return counted


def epoch_of(num_steps: int, work: Path) -> None:
    trained(work, {"trainer.num_epochs": 1}, train=digits(BATCH * num_steps))


def test_no_step_waits_for_the_device(waits: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are asked for at an epoch's end: as often for 80 steps as for 8. Without the loops that only a CPU has."""
    monkeypatch.setattr(kernels, "supports", lambda *tensors, **dtype: False)
    epoch_of(8, tmp_path / "few")
    few = dict(waits)
    waits.clear()
    epoch_of(80, tmp_path / "many")

    assert dict(waits) == few
    assert sum(few.values()) < 45  # most of them by torch.save; one a chunk asks whether its losses are finite


def test_nothing_is_told_between_epochs(tmp_path: Path) -> None:
    """Two calls an epoch, however many steps it has: what MLflow gets does not slow a step."""
    done = trained(tmp_path, {"trainer.num_epochs": 3}, train=digits(BATCH * 80))

    assert (len(done.epochs), len(done.steps)) == (3, 3)


def test_samples_are_gathered_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One indexing operation for many steps, none for a sample."""
    asked: list[int] = []

    class Counting(np.ndarray[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, np.ndarray):
                asked.append(len(key))
            return np.asarray(super().__getitem__(key))

    split = digits(BATCH * 80)
    monkeypatch.setattr(batches_module, "CHUNK_BYTES", 20 * BATCH * 36)
    trained(tmp_path, {"trainer.num_epochs": 1}, train=Split(split.images.view(Counting), split.labels))  # type: ignore[arg-type]

    assert asked == [20 * BATCH] * 4


def test_lightnings_loop_turns_once_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 steps are 4 of what Lightning takes for batches, and 80 steps all the same."""
    turns: list[int] = []
    step = batches_module.Chunk.steps
    monkeypatch.setattr(batches_module, "CHUNK_BYTES", 20 * BATCH * 36)
    monkeypatch.setattr(batches_module.Chunk, "steps", lambda self: turns.append(len(self.sizes)) or step(self))

    done = trained(tmp_path, {"trainer.num_epochs": 1}, train=digits(BATCH * 80))

    assert (turns, done.fit.num_steps) == ([20] * 4, 80)
