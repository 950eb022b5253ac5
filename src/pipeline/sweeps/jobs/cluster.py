"""A sweep's jobs in SLURM's queue: found by their name, cancelled with the sweep, awaited when one of them is lost."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.config.overrides import values_of
from pipeline.system.errors import ConfigError, PipelineError

POLL_S = 2.0
CANCELLED_WITHIN_S = 60  # SLURM's KillWait, after which it kills, is 30 s as a rule


@contextmanager
def slurm_jobs(overrides: Sequence[str], run_id: str) -> Iterator[list[str]]:
    """The overrides that give the sweep's SLURM jobs their name.

    submitit leaves its jobs alone, whatever happens to it. So if the block is interrupted, its jobs are cancelled; if
    it raises because a job was lost, the others are awaited.

    Raises:
        ConfigError: SLURM's commands are not here.
        PipelineError: jobs of an earlier start are in the queue, SLURM refused the jobs, or one of them was lost.
    """
    if not shutil.which("sbatch"):
        raise ConfigError(
            "hydra/launcher=submitit_slurm: there is no sbatch on this machine; `-m` alone uses its own cores"
        )
    name = f"{values_of(overrides).get('hydra.launcher.name', 'train')}-{run_id[:8]}"
    if left := _num_queued(name):
        raise PipelineError(
            f"{left} jobs of an earlier start of this sweep are in SLURM's queue: squeue --name={name}\n"
            f"Wait for them, or cancel them (scancel --name={name}), then start the same command again"
        )
    try:
        try:
            yield [f"hydra.launcher.name={name}"]
        except Exception as error:
            await_jobs(name)  # which may be interrupted too
            if type(error).__module__.startswith("submitit."):
                raise PipelineError(str(error)) from error
            raise
    except (KeyboardInterrupt, SystemExit):
        _cancel(name)
        raise


def await_jobs(name: str) -> None:
    """Until SLURM has no job of this name any more; at once where there is no SLURM."""
    while shutil.which("squeue") and _num_queued(name):
        time.sleep(POLL_S)


def _cancel(name: str) -> None:
    _output_of("scancel", f"--name={name}")
    deadline_s = time.monotonic() + CANCELLED_WITHIN_S
    while _num_queued(name) and time.monotonic() < deadline_s:
        time.sleep(POLL_S / 4)


def _num_queued(name: str) -> int:
    """How many jobs of this name wait or run; none where SLURM does not answer."""
    return len(_output_of("squeue", "--noheader", "--array", "--format=%i", f"--name={name}").split())


def _output_of(*command: str) -> str:
    """Of a command of SLURM, which is out of Ctrl-C's reach."""
    return subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True).stdout
