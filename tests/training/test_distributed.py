"""Training in several processes of this machine: the numbers of one process, and no process that outlives it.

Each start of a process costs seconds of imports, so a test has few trainings and they are short.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.system.errors import PipelineError
from pipeline.training.checkpoints import LAST
from training.ranks_makers import alone, in_processes, none_left, processed_folder, ranks_of, step_losses
from training.training_makers import SGD, SimulatedCrash, Trained, assert_same_weights

pytestmark = pytest.mark.ddp
TESTS = Path(__file__).parents[1]
LONG = {"trainer.num_epochs": 100_000}  # for those that are killed


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,003 samples to train on, 200 for validation."""
    return processed_folder(tmp_path_factory.mktemp("data"), 1003, 200)


# ---------------------------------------------------------------- the numbers of one process

OVERFITS = {"optimizer.lr": 0.02, "model.units": [64], "trainer.keep": "best", "trainer.monitor": "val/accuracy"}
COSINE = {"name": "cosine", "warmup_fraction": 0.2, "final_lr_ratio": 0.1}


@pytest.fixture(scope="module")
def whole(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """RMSprop on two processes, from the first epoch to the last."""
    return in_processes(2, processed, tmp_path_factory.mktemp("whole"), OVERFITS)


def test_two_processes_compute_what_one_does(whole: Trained, processed: Path, tmp_path: Path) -> None:
    """Steps, losses, metrics and weights; and they find the same best epoch."""
    one = alone(processed, tmp_path, OVERFITS)

    assert_same_training(one, whole, num_steps=4 * 63)  # the last batch of an epoch has 11
    assert whole.fit.kept_epoch == one.fit.kept_epoch
    assert 0 < one.fit.kept_epoch < 3  # else this test shows little


@pytest.mark.parametrize(
    ("devices", "changes", "num_steps"),
    [
        # the last batch of an epoch has 43
        (2, {"trainer.batch_size": 64, "optimizer": SGD | {"momentum": 0.9}, "trainer.gradient_clip_norm": 0.5}, 32),
        # the last batch has 1: two of the processes have nothing to do in it
        pytest.param(3, {"trainer.batch_size": 501, "scheduler": COSINE}, 6, marks=pytest.mark.long),
    ],
    ids=["2-sgd", "3-rmsprop"],
)
def test_several_processes_compute_what_one_does(
    devices: int, changes: dict[str, Any], num_steps: int, processed: Path, tmp_path: Path
) -> None:
    """Whatever divides what; with clipping and with a schedule, which count steps and gradients of all processes."""
    changes = changes | {"trainer.num_epochs": 2}
    one, several = alone(processed, tmp_path / "1", changes), in_processes(devices, processed, tmp_path / "n", changes)

    assert_same_training(one, several, num_steps)


def assert_same_training(one: Trained, other: Trained, num_steps: int) -> None:
    """Each step's loss and each epoch's metrics to 1e-5, the weights to what that makes of them."""
    assert other.fit.num_steps == one.fit.num_steps == num_steps
    assert [step for step, _ in step_losses(other)] == list(range(num_steps))
    assert [epoch for epoch, _ in other.epochs] == [epoch for epoch, _ in one.epochs]
    assert [loss for _, loss in step_losses(other)] == pytest.approx([loss for _, loss in step_losses(one)], abs=1e-5)
    for row, expected in zip(other.fit.history, one.fit.history, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    for name, weight in one.weights.items():
        np.testing.assert_allclose(other.weights[name], weight, rtol=0, atol=1e-4, err_msg=name)


def test_every_sample_of_validation_counts_once(tmp_path: Path) -> None:
    """10,007 on 2 processes: as many right answers as one process counts, of 10,007 samples."""
    processed, changes = processed_folder(tmp_path, 96, 10_007), {"trainer.num_epochs": 1}
    one, two = (found.fit.history[0] for found in (
        alone(processed, tmp_path / "1", changes), in_processes(2, processed, tmp_path / "2", changes)
    ))  # fmt: skip

    correct = two["val/accuracy"] * 10_007
    assert correct == pytest.approx(round(correct), abs=1e-9)
    assert two["val/accuracy"] == one["val/accuracy"]
    assert two["val/loss"] == pytest.approx(one["val/loss"], abs=1e-6)


def test_10007_samples_on_2_processes_are_10007(tmp_path: Path) -> None:
    """Counted by each process for itself and summed by the metric; padding would make 10,008 of them."""
    out = script("count_samples.py", "10007", "2", tmp_path / "meeting")

    assert sorted(out.splitlines()) == ["0 5003 10007", "1 5004 10007"]  # number, own, of all


@pytest.mark.long
def test_processes_draw_different_noise(tmp_path: Path) -> None:
    """All samples are one sample, so only dropout tells the processes apart.

    The first process draws what one process with its half of the batch draws. If the other drew the same, the mean of
    both losses would be that one's loss.
    """
    for name, count in (("half", 32), ("whole", 64)):
        processed = processed_folder(tmp_path / name, count, 6)
        for array in ("images", "labels"):
            path = processed / f"train/{array}.npy"
            np.save(path, np.repeat(np.load(path)[:1] * 0 + 1, count, axis=0))
    changes = {"trainer.num_epochs": 1, "model.dropout": 0.5, "optimizer": SGD}
    half = alone(tmp_path / "half/processed", tmp_path / "1", changes | {"trainer.batch_size": 32})
    two = in_processes(2, tmp_path / "whole/processed", tmp_path / "2", changes | {"trainer.batch_size": 64})

    assert abs(step_losses(two)[0][1] - step_losses(half)[0][1]) > 1e-4


# ---------------------------------------------------------------- cut short


def test_a_training_cut_short_ends_with_the_same_weights(whole: Trained, processed: Path, tmp_path: Path) -> None:
    """An error in what is called after epoch 2 leaves no process; started again it goes on, bit for bit."""

    def crash(epoch: int) -> None:
        if epoch == 2:
            left.extend(ranks_of(os.getpid()))
            raise SimulatedCrash

    with none_left() as left, pytest.raises(SimulatedCrash):
        in_processes(2, processed, tmp_path, OVERFITS, crash)
    resumed = in_processes(2, processed, tmp_path, OVERFITS)

    assert len(left) == 2
    assert resumed.fit.first_epoch in (2, 3)  # the crash may come before or after epoch 2 is saved
    assert_same_weights(whole, resumed)
    assert resumed.fit.history == whole.fit.history


@pytest.mark.long
def test_a_training_killed_amid_an_epoch_goes_on_within_it(tmp_path: Path) -> None:
    """Each process with what it had counted itself. An epoch is 14 chunks, and is saved before the ninth."""
    processed = processed_folder(tmp_path, 800_000, 200)
    changes = {"trainer.batch_size": 8192, "trainer.num_epochs": 2, "model.dropout": 0.5, "tracking.save_every_s": 0.0}
    whole = in_processes(2, processed, tmp_path / "whole", changes)
    cut = tmp_path / "cut"
    with none_left() as left, started(processed, cut, changes) as parent:
        while not (cut / LAST).exists():
            assert parent.poll() is None
            time.sleep(0.002)
        left.extend(ranks_of(parent.pid))
        parent.kill()
    saved = torch.load(cut / LAST, weights_only=True)
    resumed = in_processes(2, processed, cut, changes)

    assert (saved["mid_epoch"]["chunk"], saved["epoch"]) == (8, 0)
    assert_same_weights(whole, resumed)
    assert resumed.fit.history == whole.fit.history
    assert resumed.steps == whole.steps


# ---------------------------------------------------------------- a process that ends badly


def test_a_killed_process_ends_the_training_and_is_named(processed: Path, tmp_path: Path) -> None:
    """Within seconds, the others with it. Here it is the one that tells the others' story."""
    killed_s: list[float] = []

    def kill(epoch: int) -> None:
        if not left:
            left.extend(ranks_of(os.getpid()))
            left[0].send_signal(signal.SIGKILL)
            killed_s.append(time.monotonic())

    with none_left() as left, pytest.raises(PipelineError) as error:
        in_processes(2, processed, tmp_path, LONG, kill)

    assert str(error.value) == "process 0 of 2 was killed by SIGKILL; the others were ended"
    assert time.monotonic() - killed_s[0] < 5
    assert len(left) == 2


def test_a_diverging_training_is_one_message(
    processed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the words that one process has for it."""
    with pytest.raises(PipelineError, match=r"the training diverged: the loss is (nan|inf) in step \d+ ") as error:
        in_processes(2, processed, tmp_path, {"optimizer": SGD | {"lr": 1e38}})

    assert "Use a smaller optimizer.lr" in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.long
def test_a_process_that_raises_shows_its_traceback_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And not that of the other one, which only lost its connection: a single label that there is no class for."""
    processed = processed_folder(tmp_path, 30, 6)
    labels = np.load(processed / "train/labels.npy")
    labels[0] = 7
    np.save(processed / "train/labels.npy", labels)
    with pytest.raises(PipelineError, match=r"^process [01] of 2 ended with exit code 1; what it said is above\."):
        in_processes(2, processed, tmp_path / "work")

    said = capfd.readouterr().err
    assert said.count("Traceback") == 1
    assert "Target 7 is out of bounds" in said


def test_no_process_outlives_the_one_that_started_it(processed: Path, tmp_path: Path) -> None:
    """Not even where that one gets no chance to end them."""
    with none_left() as left, started(processed, tmp_path, LONG) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"epoch   1/")
        left.extend(ranks_of(parent.pid))
        parent.kill()

    assert len(left) == 2


def started(processed: Path, work: Path, changes: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A training whose starter may be killed."""
    command = [sys.executable, TESTS / "training/train_in_processes.py", processed, work, json.dumps(changes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())


def script(name: str, *words: str | Path) -> str:
    """What a script of this folder prints."""
    command = [sys.executable, TESTS / "training" / name, *words]
    return subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS}"}
