"""What is told after an epoch may end the training, in one process and in several."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.train import fit_in_processes
from pipeline.training.fit import fit
from training.ranks_makers import alone, processed_folder
from training.training_makers import NUM_TRAIN, digits, initial_network, small_config, trained

VALIDATION = digits(40, seed=1)


def test_an_answer_after_an_epoch_ends_the_training(tmp_path: Path) -> None:
    """The epochs before it are those of a longer training, bit for bit, and its weights are kept."""
    whole = trained(tmp_path / "whole", validation=VALIDATION)
    cfg = small_config()
    done = fit(
        initial_network(cfg), digits(NUM_TRAIN), VALIDATION, cfg, tmp_path / "cut", Console(file=io.StringIO()),
        on_epoch=lambda epoch, values: epoch == 1, on_steps=lambda name, points: None,
    )  # fmt: skip

    assert done.history == whole.fit.history[:2]
    assert len(whole.fit.history) > 2
    assert done.num_steps == whole.fit.num_steps * 2 // len(whole.fit.history)


@pytest.mark.ddp
def test_the_answer_reaches_all_processes(tmp_path: Path) -> None:
    """None of them waits for another one's next epoch."""
    processed = processed_folder(tmp_path, 96, 12)
    one = alone(processed, tmp_path / "one")
    (tmp_path / "two").mkdir()
    two = fit_in_processes(
        processed, tmp_path / "two", small_config({"trainer.devices": 2}), Console(quiet=True),
        on_epoch=lambda epoch, values: epoch == 1, on_steps=lambda name, points: None,
    )  # fmt: skip

    assert [row["epoch"] for row in two.history] == [0, 1]
    assert two.history[1] == pytest.approx(one.fit.history[1], abs=1e-5)
    assert len(one.fit.history) > 2
