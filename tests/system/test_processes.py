"""Which process this is, and what is said when the processes that the settings ask for are not there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from config.config_makers import train_config
from pipeline.system.errors import ConfigError, ProcessLost
from pipeline.system.processes import Rank, mute_errors_off_rank_zero, require_processes
from pipeline.system.signals import exit_after_rank_zero
from pipeline.tracking.store import Ending
from pipeline.training.devices import require_device

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "2",
}  # fmt: skip
SBATCH = {name: value for name, value in SRUN.items() if not name.startswith("SLURM_STEP_")}


# ---------------------------------------------------------------- which process this is


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN, Rank("torchrun", 5, 8, 1, 4)),
        (SRUN, Rank("srun", 3, 4, 1, 2)),
        (SBATCH, None),  # the script itself, in which nobody has started several processes yet
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # the shell of salloc, in an allocation for 4 tasks
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, None),
        (SRUN | TORCHRUN, Rank("torchrun", 5, 8, 1, 4)),  # srun started torchrun
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, None),  # ours, which know it from their settings
    ],
    ids=["none", "torchrun", "srun", "sbatch", "salloc", "one_task", "torchrun_by_srun", "ours"],
)
def test_a_process_knows_who_started_it(environment: Mapping[str, str], expected: Rank | None) -> None:
    assert Rank.of(environment) == expected


# ---------------------------------------------------------------- what does not fit


def trainer(**changes: Any) -> Any:
    return train_config({f"trainer.{name}": value for name, value in changes.items()}).trainer


@pytest.mark.parametrize("rank", [Rank("torchrun", 0, 4, 0, 2), Rank("srun", 3, 4, 1, 2)], ids=lambda rank: rank.by)
def test_the_number_of_processes_must_be_the_one_asked_for(rank: Rank) -> None:
    """Both numbers are named; with the same number nothing is said."""
    require_processes(2, 2, rank)
    with pytest.raises(ConfigError) as error:
        require_processes(2, 1, rank)

    assert str(error.value) == (
        f"{rank.by} started 4 processes, but trainer.devices=2 on trainer.num_nodes=1 is 2. Make the two agree"
    )


@pytest.mark.parametrize(
    ("rank", "started", "option"),
    [
        (Rank("torchrun", 0, 4, 0, 4), "4 processes", "torchrun --nproc-per-node=2"),
        (Rank("srun", 0, 4, 0, None), "an unnamed number of processes", "srun --ntasks-per-node=2"),
    ],
    ids=["torchrun", "srun"],
)
def test_each_machine_must_have_its_number(rank: Rank, started: str, option: str) -> None:
    """Four processes in all are right here, but not so."""
    with pytest.raises(ConfigError) as error:
        require_processes(2, 2, rank)

    assert str(error.value) == (
        f"{rank.by} started {started} on this machine, but trainer.devices=2 is the number on each: give {option}"
    )


def test_several_machines_need_somebody_to_start_them() -> None:
    """The message has the command, with this training's numbers."""
    with pytest.raises(ConfigError) as error:
        require_processes(2, 4, None)

    assert str(error.value).startswith("trainer.num_nodes=4: processes on several machines are started by torchrun")
    assert "torchrun --nnodes=4 --nproc-per-node=2 " in str(error.value)


def test_one_machine_needs_nobody() -> None:
    """The stage starts the processes by itself."""
    require_processes(2, 1, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"trainer.batch_size": 100, "trainer.devices": 3},
            "batch_size=100 does not divide among 3 devices. It is the global size: use 99,",
        ),
        (
            {"trainer.batch_size": 3, "trainer.devices": 4, "trainer.num_nodes": 2},
            "batch_size=3 does not divide among 8 devices. It is the global size: use 8,",
        ),
        ({"model.normalization": "batch", "trainer.devices": 2}, "use model.normalization=layer, or one device"),
        ({"model.normalization": "batch", "trainer.num_nodes": 2}, "use model.normalization=layer, or one device"),
    ],
)
def test_an_impossible_pair_is_refused_with_the_next_valid_one(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        train_config(changes)

    assert said in str(error.value)


def test_batch_normalization_is_synchronized_on_gpus() -> None:
    """So it is refused on the CPU only."""
    train_config({"model.normalization": "batch", "trainer.devices": 2, "trainer.accelerator": "gpu"})


@pytest.mark.parametrize(
    ("changes", "gpus", "said"),
    [
        ({"strategy": "fsdp", "devices": 2}, 0, "trainer.strategy=fsdp needs GPUs"),
        ({"accelerator": "gpu", "devices": 4}, 2, "trainer.devices=4, but torch finds 2 GPUs here"),
        ({"accelerator": "auto", "devices": 4}, 2, "trainer.devices=4, but torch finds 2 GPUs here"),
    ],
)
def test_devices_that_are_not_there_are_counted(
    changes: dict[str, Any], gpus: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError) as error:
        require_device(trainer(**changes))

    assert said in str(error.value)


def test_as_many_gpus_as_asked_for_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the number of processes on the CPU is nobody's business."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_device(trainer(accelerator="gpu", devices=2, strategy="fsdp"))
    require_device(trainer(devices=64))


# ---------------------------------------------------------------- the first process speaks for all


@pytest.mark.parametrize("rank", [None, Rank("torchrun", 0, 2, 0, 1), Rank("torchrun", 1, 2, 0, 1)], ids=str)
def test_the_first_process_of_a_machine_tells_an_error_at_once(rank: Rank | None) -> None:
    start_s = time.monotonic()
    mute_errors_off_rank_zero(rank)

    assert time.monotonic() - start_s < 1


def test_another_process_lets_it_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    mute_errors_off_rank_zero(Rank("torchrun", 1, 2, 1, 2))

    assert waited == [10]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_process_ends_after_the_first(number: signal.Signals) -> None:
    """The signal does not end it; the lost connection does, with the signal's exit code, or the alarm in the end."""
    before, left_s = signal.getsignal(number), []

    def training() -> None:
        os.kill(os.getpid(), number)
        left_s.append(signal.alarm(0))
        lose_the_first()

    with pytest.raises(SystemExit) as ended, exit_after_rank_zero():
        training()

    assert (ended.value.code, left_s) == (128 + number, [10])
    assert signal.getsignal(number) is before


def test_without_a_signal_a_lost_process_is_an_error() -> None:
    with pytest.raises(ProcessLost), exit_after_rank_zero():
        lose_the_first()


def lose_the_first() -> None:
    raise ProcessLost("the first one is gone")


def test_a_lost_process_stays_the_reason_though_torchrun_sends_a_sigterm() -> None:
    """torchrun ends the others once one has ended: that one's death is why the run FAILED."""
    ending = Ending.of(ProcessLost("another process has ended"), signal.SIGTERM)

    assert (ending.status, ending.exit_code) == ("FAILED", None)
    assert Ending.of(SystemExit(143), signal.SIGTERM).status == "KILLED"
