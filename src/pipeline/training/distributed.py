"""The processes of a training on several devices of one machine: how they start, what rank zero sends, how they end.

Lightning would start the others by running this command line again. In a sweep that runs the sweep again in every
process, with other settings in each; here the processes get the settings in a file, and know no command line.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import TrainConfig
from pipeline.system.errors import ConfigError, PipelineError, ProcessLost
from pipeline.system.files import read_json, write_json
from pipeline.system.fork_server import die_with_parent
from pipeline.system.signals import RANK_GRACE_S
from pipeline.system.startup import begin, run, settle

if TYPE_CHECKING:  # a process is tied to its parent before it spends seconds on importing torch
    from pipeline.training.module import OnEpoch, OnSteps, Values

TASK = "processes.json"
WEIGHTS = "trained.safetensors"
POLL_S = 0.1


# ---------------------------------------------------------------- the process that starts the others


@dataclass(frozen=True)
class RankProcesses:
    """The processes of one training on this machine, by rank."""

    processes: list[subprocess.Popen[bytes]]
    rank_zero: Connection  # receives its events, sends the answers
    stderr: list[Path]
    errors: list[Path]  # a file each for its PipelineError

    def events(self) -> Iterator[tuple[Any, ...]]:
        """What rank zero sends, until it has ended or another one has failed. Then the others have ended well too."""
        while True:
            if self.rank_zero.poll(POLL_S):
                try:
                    yield self.rank_zero.recv()
                except (EOFError, OSError):  # closed, or killed amid a message
                    break
            elif self.failed() or not self.are_running():
                return
        while self.are_running() and not self.failed():
            time.sleep(POLL_S)

    def failed(self) -> list[int]:
        """The ranks that ended badly, the reason first: the others lost their connection to it."""
        codes = [process.poll() or 0 for process in self.processes]
        ranks = [rank for rank, code in enumerate(codes) if code]
        return sorted(ranks, key=lambda rank: (codes[rank] == ProcessLost.exit_code, codes[rank] > 0))

    def first_failed(self) -> int | None:
        """The first one to fail. It may end after those that lost it, as its connections go before it does."""
        end_s = time.monotonic() + RANK_GRACE_S
        while (failed := self.failed()) and self.processes[failed[0]].returncode == ProcessLost.exit_code:
            if not self.are_running() or time.monotonic() > end_s:
                break
            time.sleep(POLL_S)
        return failed[0] if failed else None

    def are_running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def raise_failure(self) -> None:
        """End all; raise what the first one that failed has left, or how it died. Prints its stderr, or rank zero's."""
        rank = self.first_failed()
        self.kill()
        if rank is not None and self.errors[rank].exists():
            error = read_json(self.errors[rank])
            raise (ConfigError if error["kind"] == "ConfigError" else PipelineError)(error["message"])
        sys.stderr.write(self.stderr[rank or 0].read_text(encoding="utf-8", errors="replace"))
        if rank is not None:
            exit_code = self.processes[rank].returncode
            how = f"ended with exit code {exit_code}; what it said is above. The others were ended"
            if exit_code < 0:
                how = f"was killed by {signal.Signals(-exit_code).name}; the others were ended"
            raise PipelineError(f"process {rank} of {len(self.processes)} {how}")


def fit_in_new_processes(
    processed: Path, work: Path, cfg: TrainConfig, on_epoch: OnEpoch, on_steps: OnSteps
) -> dict[str, Any]:
    """Train in `trainer.devices` new processes. Rank zero's events are passed on, and the answers go back to it.

    However this is left, no process is.

    Returns:
        The fields of its `Fit` without the network, whose weights are in work/WEIGHTS.

    Raises:
        PipelineError: what a process said, or how it died.
    """
    settings = cfg.model_dump(mode="json", by_alias=True)
    write_json(work / TASK, {"processed": str(processed.resolve()), "work": str(work.resolve()), "cfg": settings})
    fit: dict[str, Any] | None = None
    with _rank_processes(cfg.trainer.devices, work) as ranks:
        for event in ranks.events():
            match event:
                case "epoch", epoch, values:
                    should_stop = bool(on_epoch(epoch, values))
                    with suppress(OSError):  # it has died; below it is said how
                        ranks.rank_zero.send(should_stop)
                case "steps", name, points:
                    on_steps(name, points)
                case "done", fields:
                    fit = fields
        ranks.raise_failure()
    assert fit is not None  # all have ended well
    return fit


@contextmanager
def _rank_processes(world_size: int, work: Path) -> Iterator[RankProcesses]:
    stderr, errors = ([work / f"process-{rank}.{kind}" for rank in range(world_size)] for kind in ("stderr", "json"))
    for file in errors:
        file.unlink(missing_ok=True)  # of an earlier start
    near_end, far_end = Pipe()
    ranks = RankProcesses([], near_end, stderr, errors)
    with socket.socket() as reserved, near_end:
        # Bound, so that the kernel gives the port to nobody else; reusable, so that rank zero can listen on it.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(reserved.getsockname()[1])}
        try:
            with far_end:
                for rank, file in enumerate(stderr):
                    descriptors = (far_end.fileno(),) if rank == 0 else ()
                    ranks.processes.append(_start(rank, world_size, work, address, file, descriptors))
            yield ranks
        finally:
            ranks.kill()


def _start(
    rank: int, world_size: int, work: Path, address: dict[str, str], error: Path, descriptors: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    environment = os.environ | address | {key: str(value) for key, value in {**numbers, "NODE_RANK": 0}.items()}
    with open(error, "wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.training.distributed", str(work), *map(str, (os.getpid(), *descriptors))],
            env=environment, stderr=stderr, pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
        )  # fmt: skip


# ---------------------------------------------------------------- one of the processes


def main() -> None:
    """`python -m pipeline.training.distributed FOLDER PARENT [DESCRIPTOR]`, one a device; rank zero has the third."""
    die_with_parent(int(sys.argv[2]), signal.SIGKILL)  # no process outlives the one that started it
    from rich.console import Console
    from safetensors.torch import save_file

    from pipeline.config.check import validate
    from pipeline.training.fit import fit_processed

    settle()
    work = Path(sys.argv[1])
    task = read_json(work / TASK)
    parent = Connection(int(sys.argv[3])) if len(sys.argv) > 3 else None

    def on_epoch(epoch: int, values: Values) -> bool:
        if parent is None:
            return False
        parent.send(("epoch", epoch, values))
        return bool(parent.recv())

    def on_steps(name: str, points: list[tuple[int, float]]) -> None:
        if parent:
            parent.send(("steps", name, points))

    try:
        fit = fit_processed(
            Path(task["processed"]), Path(task["work"]), validate(TrainConfig, task["cfg"]),
            Console(soft_wrap=True, quiet=parent is None), on_epoch, on_steps,
        )  # fmt: skip
    except PipelineError as error:
        content = {"kind": type(error).__name__, "message": str(error)}
        write_json(work / f"process-{os.environ['RANK']}.json", content)
        sys.exit(error.exit_code)
    if parent:
        save_file(fit.network.state_dict(), work / WEIGHTS)
        parent.send(("done", {name: value for name, value in vars(fit).items() if name != "network"}))


if __name__ == "__main__":
    begin("pipeline.training.distributed", [], may_be_warm=False)  # a process that is tied to its parent
    run(main)
