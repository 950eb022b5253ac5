"""The processes of a training on several devices of one machine: how they are started, what they tell, how they end.

Lightning would start the others by running this command line again. In a sweep that runs the sweep again in every
process, with other settings in each; here the processes get the settings in a file, and know no command line.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.config.schema import TrainConfig
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import read_json, write_json

TASK = "processes.json"
WEIGHTS = "trained.safetensors"
EVENTS_FD = "PIPELINE_EVENTS_FD"
POLL_S = 0.1
LIBC = ctypes.CDLL(None)  # loaded here, since little is safe between fork and exec


# ---------------------------------------------------------------- the process that starts the others


@dataclass(frozen=True)
class Started:
    """The processes of one training on this machine."""

    processes: list[subprocess.Popen[bytes]]
    errors: list[Path]  # what each one wrote on stderr

    def first_dead(self) -> int | None:
        """The one that failed; a process killed by a signal before one that ended because of it."""
        failed = [number for number, process in enumerate(self.processes) if process.poll()]
        return min(failed, key=lambda number: self.processes[number].returncode > 0, default=None)

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def events(processed: Path, work: Path, cfg: TrainConfig) -> Iterator[dict[str, Any]]:
    """Train in `trainer.devices` new processes and yield what the first one tells, until all have ended well.

    However this generator is left, no process is.

    Raises:
        PipelineError: what a process said, or how it died.
    """
    settings = cfg.model_dump(mode="json", by_alias=True)
    write_json(work / TASK, {"processed": str(processed.resolve()), "work": str(work.resolve()), "cfg": settings})
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as told, _started(cfg.trainer.devices, work, write_end) as started:
        told_error = None
        for event in _lines(told, started):
            if event["event"] == "error":
                told_error = event
            else:
                yield event
        dead = started.first_dead()
        started.kill()
        if told_error:
            raise (ConfigError if told_error["kind"] == "ConfigError" else PipelineError)(told_error["message"])
        sys.stderr.write(started.errors[dead or 0].read_text(encoding="utf-8", errors="replace"))
        if dead is not None:
            raise PipelineError(f"process {dead} of {cfg.trainer.devices} {_how(started.processes[dead].returncode)}")


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}; the others were ended"
    return f"ended with exit code {exit_code}; what it said is above. The others were ended"


@contextmanager
def _started(count: int, work: Path, events_fd: int) -> Iterator[Started]:
    errors = [work / f"process-{number}.stderr" for number in range(count)]
    started = Started([], errors)
    with socket.socket() as reserved:
        # Bound, so that the kernel gives the port to nobody else; reusable, so that process 0 can listen on it.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        try:
            for number in range(count):
                started.processes.append(_start(number, count, work, port, errors[number], events_fd))
            os.close(events_fd)
            yield started
        finally:
            started.kill()


def _start(number: int, count: int, work: Path, port: int, error: Path, events_fd: int) -> subprocess.Popen[bytes]:
    rank = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "NODE_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {key: str(value) for key, value in {**rank, **address}.items()}
    if number == 0:
        environment[EVENTS_FD] = str(events_fd)
    parent = os.getpid()
    with open(error, "wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.training.ranks", str(work)],
            env=environment, stderr=stderr, pass_fds=[events_fd] if number == 0 else [],
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
            preexec_fn=lambda: _die_with(parent),
        )  # fmt: skip


def _die_with(parent: int) -> None:
    """On Linux: no process outlives the one that started it, however that dies."""
    if sys.platform == "linux":
        LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def _lines(told: IO[bytes], started: Started) -> Iterator[dict[str, Any]]:
    """Lines of JSON, until the writer has closed or a process has failed."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(told, selectors.EVENT_READ)
        while True:
            ready = selector.select(POLL_S)
            if ready:
                read = told.read(2**16)
                if not read:
                    break
                *lines, rest = (rest + read).split(b"\n")
                yield from map(json.loads, lines)
            elif started.first_dead() is not None or not started.running():
                return
    while started.running() and started.first_dead() is None:  # the first process is done, the others must end well too
        selectors.DefaultSelector().select(POLL_S)


# ---------------------------------------------------------------- one of the processes


def main() -> None:
    """`python -m pipeline.training.ranks FOLDER`, started by `events` with the environment of one process."""
    from rich.console import Console
    from safetensors.torch import save_file

    from pipeline.config.check import validate
    from pipeline.training.fit import fit_processed

    work = Path(sys.argv[1])
    task = read_json(work / TASK)
    first = EVENTS_FD in os.environ
    tell = _teller(int(os.environ.pop(EVENTS_FD))) if first else lambda **_: None
    try:
        done = fit_processed(
            Path(task["processed"]), Path(task["work"]), validate(TrainConfig, task["cfg"]),
            Console(soft_wrap=True, quiet=not first),
            on_epoch=lambda epoch, values: tell(event="epoch", epoch=epoch, values=values),
            on_steps=lambda name, points: tell(event="steps", name=name, points=points),
        )  # fmt: skip
    except PipelineError as error:
        tell(event="error", kind=type(error).__name__, message=str(error))
        sys.exit(1)
    if first:
        save_file(done.network.state_dict(), work / WEIGHTS)
        tell(event="done", fit={name: value for name, value in vars(done).items() if name != "network"})


def _teller(descriptor: int) -> Any:
    def tell(**event: Any) -> None:
        line = json.dumps(event).encode() + b"\n"
        while line:
            line = line[os.write(descriptor, line) :]

    return tell


if __name__ == "__main__":
    main()
