"""One training: what it computes, what it keeps, what it says, and that it goes on after a crash.

Most trainings here take 4 epochs of 6 steps.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline.data.processed import Split
from pipeline.training.checkpoints import BEST, LAST
from pipeline.training.data_module import EpochOrder
from training.training_makers import (
    BATCH,
    NUM_TRAIN,
    SGD,
    STEPS_PER_EPOCH,
    SimulatedCrash,
    Trained,
    assert_same_weights,
    differ,
    digits,
    initial_network,
    small_config,
    trained,
)

VALIDATION = digits(40, seed=1)
OVERFITS = {"optimizer.lr": 0.005, "model.units": [64], "trainer.num_epochs": 8, "trainer.keep": "best"}


# ---------------------------------------------------------------- a loop written by hand


class ByHand:
    """The same training without Lightning: torch's autograd, Keras' formula, sums in float64."""

    def __init__(self, num_epochs: int, changes: dict[str, Any] | None = None) -> None:
        cfg = small_config(changes)
        train, network = digits(NUM_TRAIN), initial_network(cfg)
        weights = list(network.parameters())
        velocities = [torch.zeros_like(weight) for weight in weights]
        self.network, self.step_losses, self.history = network, [], []
        for epoch in range(num_epochs):
            order = EpochOrder(NUM_TRAIN, cfg.seed)
            order.set_epoch(epoch)
            losses, correct = 0.0, 0
            for start in range(0, NUM_TRAIN, BATCH):
                chosen = order.indices()[start : start + BATCH]
                samples, labels = torch.from_numpy(train.images[chosen]), torch.from_numpy(train.labels[chosen])
                logits = network.train()(samples)
                loss = cross_entropy(logits, labels, label_smoothing=cfg.loss.label_smoothing)
                for weight, velocity, gradient in zip(
                    weights, velocities, torch.autograd.grad(loss, weights), strict=True
                ):
                    velocity.mul_(0.9).add_(0.1 * gradient**2)
                    weight.data -= 1e-3 * gradient / (velocity + 1e-7).sqrt()
                loss = loss.detach()
                self.step_losses.append(float(loss))
                losses += float(loss) * len(labels)
                correct += int((logits.argmax(1) == labels).sum())
            self.history.append(
                {"train/loss": losses / NUM_TRAIN, "train/accuracy": correct / NUM_TRAIN, **self._val()}
            )

    def _val(self) -> dict[str, float]:
        with torch.no_grad():
            logits = self.network.eval()(torch.from_numpy(VALIDATION.images)).double()
        labels = torch.from_numpy(VALIDATION.labels)
        accuracy = float((logits.argmax(1) == labels).double().mean())
        return {"val/loss": float(cross_entropy(logits, labels)), "val/accuracy": accuracy}


def test_history_equals_a_loop_written_by_hand(tmp_path: Path) -> None:
    """Loss and accuracy, training and validation, of both epochs."""
    expected = ByHand(2).history
    found = trained(tmp_path, {"trainer.num_epochs": 2}, validation=VALIDATION).fit.history

    assert [row["epoch"] for row in found] == [0, 1]
    for row, reference in zip(found, expected, strict=True):
        assert {name: row[name] for name in reference} == pytest.approx(reference, abs=1e-6)


def test_weights_equal_a_loop_written_by_hand(tmp_path: Path) -> None:
    """To the rounding of float32 after 12 steps; the seed decides the order of the batches too."""
    expected = ByHand(2, {"seed": 3}).network.state_dict()
    found = trained(tmp_path, {"seed": 3, "trainer.num_epochs": 2}).weights

    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6, msg=name)


def test_label_smoothing_is_in_the_training_loss_only(tmp_path: Path) -> None:
    """The validation loss is the plain one, so that runs with and without smoothing can be compared."""
    changes = {"trainer.num_epochs": 1, "loss.label_smoothing": 0.2}
    (expected,) = ByHand(1, changes).history
    (found,) = trained(tmp_path, changes, validation=VALIDATION).fit.history

    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["train/loss"] != pytest.approx(ByHand(1).history[0]["train/loss"], abs=1e-3)


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_same_seed_gives_the_same_weights(dropout: float, tmp_path: Path) -> None:
    """Bit for bit, with dropout too, whatever torch's generator did before."""
    first = trained(tmp_path / "a", {"model.dropout": dropout})
    torch.rand(17)

    assert_same_weights(first, trained(tmp_path / "b", {"model.dropout": dropout}))


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    """0 and 1 differ, and 0 is not taken for no seed."""
    assert differ(trained(tmp_path / "a", {"seed": 0}), trained(tmp_path / "b", {"seed": 1}))


def test_validation_does_not_change_the_weights(tmp_path: Path) -> None:
    """Looking at the validation split leaves the training as it was."""
    changes = {"model.dropout": 0.5}

    assert_same_weights(trained(tmp_path / "a", changes), trained(tmp_path / "b", changes, validation=VALIDATION))


def test_memory_maps_train_like_arrays(tmp_path: Path) -> None:
    """Read-only maps, as preprocess leaves them."""
    split = digits(NUM_TRAIN)
    for name in ("images", "labels"):
        np.save(tmp_path / f"{name}.npy", getattr(split, name))
    maps = Split(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "labels")))

    assert_same_weights(trained(tmp_path / "a", train=maps), trained(tmp_path / "b"))


# ---------------------------------------------------------------- which weights are kept


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", min), ("val/accuracy", max)])
def test_keep_best_returns_the_best_epochs_weights(monitor: str, best: Any, tmp_path: Path) -> None:
    """The best epoch lies in the middle; the weights are those of a training that ends there."""
    whole = trained(tmp_path / "whole", OVERFITS | {"trainer.monitor": monitor}, validation=VALIDATION)
    measured = [row[monitor] for row in whole.fit.history]
    ends_there = {"trainer.num_epochs": whole.fit.kept_epoch + 1, "trainer.keep": "last"}

    assert 0 < whole.fit.kept_epoch < len(measured) - 1
    assert measured[whole.fit.kept_epoch] == best(measured)
    assert_same_weights(whole, trained(tmp_path / "cut", OVERFITS | ends_there))


def test_keep_last_returns_the_last_epochs_weights(tmp_path: Path) -> None:
    """Though an earlier epoch was better on the validation split."""
    changes = OVERFITS | {"trainer.keep": "last"}
    found = trained(tmp_path / "a", changes, validation=VALIDATION)
    losses = [row["val/loss"] for row in found.fit.history]

    assert losses[-1] > min(losses)
    assert found.fit.kept_epoch == 7
    assert_same_weights(found, trained(tmp_path / "b", changes))


def test_early_stopping_ends_when_patience_is_over(tmp_path: Path) -> None:
    """Two epochs without a better validation loss, and the best one's weights are kept."""
    stop = {"trainer.early_stopping": {"patience_epochs": 2, "min_delta": 0.0}}
    whole = trained(tmp_path / "whole", OVERFITS, validation=VALIDATION)
    found = trained(tmp_path / "stopped", OVERFITS | stop, validation=VALIDATION)

    losses = [row["val/loss"] for row in whole.fit.history]
    stops_after = next(n for n in range(2, 8) if min(losses[: n + 1]) == min(losses[: n - 1]))
    assert stops_after < 7
    assert [row["val/loss"] for row in found.fit.history] == losses[: stops_after + 1]
    assert found.fit.kept_epoch == int(np.argmin(losses[: stops_after + 1]))


def test_a_gain_below_min_delta_is_none(tmp_path: Path) -> None:
    """With a threshold that nothing reaches, the training ends after the first epoch and its patience."""
    stop = {"trainer.early_stopping": {"patience_epochs": 1, "min_delta": 100.0}}
    found = trained(tmp_path, OVERFITS | stop, validation=VALIDATION)

    assert len(found.fit.history) == 2


def test_the_network_comes_back_ready_to_answer(tmp_path: Path) -> None:
    """In eval(): dropout is off for whoever gets it."""
    assert not trained(tmp_path, {"model.dropout": 0.5, "trainer.num_epochs": 1}).fit.network.training


# ---------------------------------------------------------------- cut short and started again

EVERYTHING = {
    "model.dropout": 0.5,
    "scheduler": {"name": "cosine", "warmup_fraction": 0.2, "final_lr_ratio": 0.1},
    "trainer.keep": "best",
}


def interrupted(work: Path, changes: dict[str, Any], **crash: int) -> Trained:
    with pytest.raises(SimulatedCrash):
        trained(work, changes, validation=VALIDATION, **crash)
    return trained(work, changes, validation=VALIDATION)


# An epoch is 6 steps and 1 batch of validation: in pass 14 the third epoch begins.
@pytest.mark.parametrize("crash", [{"crash_in_epoch": 2}, {"crash_at_batch": 14}, {"crash_at_batch": 18}], ids=str)
def test_a_killed_training_ends_with_the_same_weights(crash: dict[str, int], tmp_path: Path) -> None:
    """Killed after epoch 2 of 4, at its end, at the next one's beginning or within it; dropout and a schedule on."""
    whole = trained(tmp_path / "whole", EVERYTHING, validation=VALIDATION)
    resumed = interrupted(tmp_path / "cut", EVERYTHING, **crash)

    assert resumed.fit.first_epoch == 2  # it went on; it did not start again
    assert_same_weights(whole, resumed)
    assert resumed.fit.history == whole.fit.history
    assert (resumed.fit.kept_epoch, resumed.fit.num_steps) == (whole.fit.kept_epoch, 4 * STEPS_PER_EPOCH)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_optimizers_state_survives_a_kill(optimizer: str, tmp_path: Path) -> None:
    """Momentum and second moments are in the checkpoint."""
    adamw = {
        "_target_": "torch.optim.AdamW",
        "lr": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.1,
    }
    changes = {"optimizer": adamw if optimizer == "adamw" else SGD | {"momentum": 0.9}}
    whole = trained(tmp_path / "whole", changes, validation=VALIDATION)

    assert_same_weights(whole, interrupted(tmp_path / "cut", changes, crash_in_epoch=2))


def test_a_training_killed_twice_ends_with_the_same_weights(tmp_path: Path) -> None:
    """After epoch 1, and again after epoch 3."""
    whole = trained(tmp_path / "whole", EVERYTHING, validation=VALIDATION)
    with pytest.raises(SimulatedCrash):
        trained(tmp_path / "cut", EVERYTHING, validation=VALIDATION, crash_in_epoch=1)
    resumed = interrupted(tmp_path / "cut", EVERYTHING, crash_in_epoch=3)

    assert resumed.fit.first_epoch == 3
    assert_same_weights(whole, resumed)
    assert len(resumed.fit.history) == 4


def test_a_training_killed_in_its_first_epoch_starts_anew(tmp_path: Path) -> None:
    """There is no checkpoint yet, and nothing of the first try is left in the second."""
    whole = trained(tmp_path / "whole", EVERYTHING, validation=VALIDATION)
    again = interrupted(tmp_path / "cut", EVERYTHING, crash_at_batch=3)

    assert again.fit.first_epoch == 0
    assert_same_weights(whole, again)


def test_the_best_epoch_may_lie_before_the_kill(tmp_path: Path) -> None:
    """best.ckpt of the first process is what the second keeps, if nothing better comes."""
    whole = trained(tmp_path / "whole", OVERFITS, validation=VALIDATION)
    resumed = interrupted(tmp_path / "cut", OVERFITS, crash_in_epoch=7)

    assert resumed.fit.kept_epoch == whole.fit.kept_epoch < 7
    assert_same_weights(whole, resumed)


def test_early_stopping_remembers_its_patience(tmp_path: Path) -> None:
    """The epochs without a gain are counted across the kill."""
    changes = OVERFITS | {"trainer.early_stopping": {"patience_epochs": 2, "min_delta": 0.0}}
    whole = trained(tmp_path / "whole", changes, validation=VALIDATION)
    last = len(whole.fit.history) - 1
    resumed = interrupted(tmp_path / "cut", changes, crash_in_epoch=last)

    assert resumed.fit.first_epoch == last
    assert len(resumed.fit.history) == len(whole.fit.history)
    assert_same_weights(whole, resumed)


def test_a_training_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    """Killed after its last checkpoint, before the model was written: the second start only collects the result."""
    changes = EVERYTHING
    whole = trained(tmp_path, changes, validation=VALIDATION)
    again = trained(tmp_path, changes, validation=VALIDATION)

    assert again.epochs == []
    assert_same_weights(whole, again)
    assert (again.fit.history, again.fit.num_steps) == (whole.fit.history, whole.fit.num_steps)
    assert again.fit.first_epoch == 4
    assert again.fit.samples_per_s == 0


def test_a_training_that_stopped_early_is_not_gone_on_with(tmp_path: Path) -> None:
    """Started again after early stopping, it has the same number of epochs."""
    changes = OVERFITS | {"trainer.early_stopping": {"patience_epochs": 2, "min_delta": 0.0}}
    whole = trained(tmp_path, changes, validation=VALIDATION)
    again = trained(tmp_path, changes, validation=VALIDATION)

    assert len(again.fit.history) == len(whole.fit.history)
    assert_same_weights(whole, again)


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    """torch.load(weights_only=True) reads them: plain values and tensors, no pickled classes."""
    trained(tmp_path, EVERYTHING, validation=VALIDATION)
    last, best = (torch.load(tmp_path / name, weights_only=True) for name in (LAST, BEST))

    assert (last["epoch"], last["global_step"]) == (3, 4 * STEPS_PER_EPOCH)
    assert "network.head.weight" in best["state_dict"]


# ---------------------------------------------------------------- steps, clipping, schedules


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """One step of plain SGD moves the weights by lr times the largest norm allowed."""
    changes = {"optimizer": SGD, "trainer.num_epochs": 1, "trainer.batch_size": NUM_TRAIN}
    clipped = trained(tmp_path / "a", changes | {"trainer.gradient_clip_norm": 0.01})
    free = trained(tmp_path / "b", changes)

    start = initial_network(small_config(changes)).state_dict()

    def moved(found: Trained) -> float:
        return float(torch.cat([(found.weights[name] - start[name]).flatten() for name in start]).norm())

    assert moved(clipped) == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert moved(free) > 10 * moved(clipped)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"name": "constant"}, [0.001] * 4),
        ({"name": "step", "every_epochs": 2, "factor": 0.5}, [0.001, 0.001, 0.0005, 0.0005]),
    ],
    ids=["constant", "step"],
)
def test_the_lr_of_an_epoch_is_recorded(scheduler: dict[str, Any], expected: list[float], tmp_path: Path) -> None:
    """The lr that the epoch's steps were taken with."""
    found = trained(tmp_path, {"scheduler": scheduler})

    assert [row["lr"] for row in found.fit.history] == pytest.approx(expected, rel=1e-12)
    assert [values["lr"] for _, values in found.epochs] == pytest.approx(expected, rel=1e-12)


def test_the_lr_of_a_cosine_is_that_of_the_epochs_last_step(tmp_path: Path) -> None:
    """4 epochs of 6 steps without warm-up: (1 + cos(pi n / 24)) / 2 in step n = 5, 11, 17, 23."""
    found = trained(tmp_path, {"scheduler": {"name": "cosine", "warmup_fraction": 0.0, "final_lr_ratio": 0.0}})
    expected = [0.001 * (1 + np.cos(np.pi * step / 24)) / 2 for step in (5, 11, 17, 23)]

    assert [row["lr"] for row in found.fit.history] == pytest.approx(expected, abs=1e-12)


def test_the_recorded_schedule_is_the_one_that_acts(tmp_path: Path) -> None:
    """A step schedule with a tiny factor after epoch 1: the weights hardly move any more."""
    changes = {"scheduler": {"name": "step", "every_epochs": 1, "factor": 1e-9}}
    one = trained(tmp_path / "one", changes | {"trainer.num_epochs": 1})
    four = trained(tmp_path / "four", changes)

    for name, weight in one.weights.items():
        torch.testing.assert_close(four.weights[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("every", "expected"), [(1, [6, 6]), (4, [2, 1]), (100, [1, 0])], ids=str)
def test_every_nth_steps_loss_is_told(every: int, expected: list[int], tmp_path: Path) -> None:
    """At each epoch's end, under step numbers that go on from epoch to epoch; the values are the batches' losses."""
    losses = ByHand(2).step_losses
    found = trained(tmp_path, {"trainer.num_epochs": 2, "tracking.step_metrics_every": every})
    points = [point for _, part in found.steps for point in part]

    assert [(name, len(part)) for name, part in found.steps] == [("train/loss_step", n) for n in expected]
    assert [step for step, _ in points] == list(range(0, 12, every))
    assert [loss for _, loss in points] == pytest.approx([losses[step] for step, _ in points], abs=1e-6)


def test_step_numbers_go_on_after_a_kill(tmp_path: Path) -> None:
    """The first step of the resumed process is number 12."""
    resumed = interrupted(tmp_path, EVERYTHING | {"tracking.step_metrics_every": 1}, crash_in_epoch=2)

    assert resumed.steps[0][1][0][0] == 2 * STEPS_PER_EPOCH


def test_each_epoch_is_told_once(tmp_path: Path) -> None:
    """on_epoch gets the row of the history, and how long the epoch took."""
    found = trained(tmp_path, validation=VALIDATION)

    for (epoch, values), row in zip(found.epochs, found.fit.history, strict=True):
        assert {"epoch": epoch, **values} == row | {"epoch_s": values["epoch_s"]}
        assert 0 < values["epoch_s"] < 60


def test_without_validation_its_metrics_are_absent(tmp_path: Path) -> None:
    """Not NaN, not 0: there are none."""
    found = trained(tmp_path, {"trainer.num_epochs": 1})

    assert set(found.fit.history[0]) == {"epoch", "train/loss", "train/accuracy", "lr"}


def test_speed_counts_the_samples_of_this_process(tmp_path: Path) -> None:
    """A resumed process trained two epochs, not four."""
    resumed = interrupted(tmp_path, EVERYTHING, crash_in_epoch=2)

    assert resumed.fit.samples_per_s * resumed.fit.fit_s == pytest.approx(2 * NUM_TRAIN)


def test_the_number_of_threads_is_given_back(tmp_path: Path) -> None:
    """trainer.num_threads holds for the training alone."""
    before = torch.get_num_threads()
    trained(tmp_path, {"trainer.num_threads": 1, "trainer.num_epochs": 1})

    assert torch.get_num_threads() == before


# ---------------------------------------------------------------- what is said


def test_an_epoch_is_a_line_where_there_is_no_terminal(tmp_path: Path) -> None:
    """No bar, no escape codes: a log file stays readable, though progress is on."""
    found = trained(tmp_path, {"trainer.num_epochs": 2, "tracking.progress": True}, validation=VALIDATION)
    first, second = found.fit.history

    lines = found.printed.splitlines()
    assert [re.sub(r"[0-9.]+ s$", "… s", line) for line in lines] == [
        f"epoch   {n}/2  train/loss {row['train/loss']:.4f}  train/accuracy {row['train/accuracy']:.4f}  "
        f"val/loss {row['val/loss']:.4f}  val/accuracy {row['val/accuracy']:.4f}  … s"
        for n, row in ((1, first), (2, second))
    ]


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    """With the number of steps; without progress there is none."""
    changes = {"trainer.num_epochs": 1, "tracking.progress": True}

    assert "6/6" in trained(tmp_path / "a", changes, terminal=True).printed
    assert "6/6" not in trained(tmp_path / "b", changes | {"tracking.progress": False}, terminal=True).printed


def test_a_resumed_training_says_so(tmp_path: Path) -> None:
    """Before the first epoch of the second process."""
    resumed = interrupted(tmp_path, EVERYTHING, crash_in_epoch=2)

    assert resumed.printed.splitlines()[0] == "going on after epoch 2 of an earlier start"


def test_lightning_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str], remarks: list[str]) -> None:
    """No tips, no remarks on hardware, no warnings; what is said goes to the console we gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        interrupted(tmp_path, EVERYTHING, crash_in_epoch=2)

    assert [str(warning.message) for warning in caught] == []
    assert remarks == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def remarks() -> Iterator[list[str]]:
    """What Lightning's logger lets through; its own handler writes to the standard error of when it was imported."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pytorch_lightning").addHandler(handler)
    yield found
    logging.getLogger("pytorch_lightning").removeHandler(handler)
