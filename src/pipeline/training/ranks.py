"""The processes of a training on several devices of one machine: how they are started, what they tell, how they end.

Lightning would start the others by running this command line again. In a sweep that runs the sweep again in every
process, with other settings in each; here the processes get the settings in a file, and know no command line.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.config.schema import TrainConfig
from pipeline.errors import ConfigError, PipelineError, ProcessLost
from pipeline.files import read_json, write_json
from pipeline.processes import GRACE_S, end_with

TASK = "processes.json"
WEIGHTS = "trained.safetensors"
EVENTS_FD = "PIPELINE_EVENTS_FD"
POLL_S = 0.1


# ---------------------------------------------------------------- the process that starts the others


@dataclass(frozen=True)
class Started:
    """The processes of one training on this machine."""

    processes: list[subprocess.Popen[bytes]]
    stderr: list[Path]
    errors: list[Path]  # a file each for its PipelineError

    def failed(self) -> list[int]:
        """Those that ended badly, the reason first: the others lost their connection to it."""
        found = [number for number, process in enumerate(self.processes) if process.poll()]
        codes = [process.returncode for process in self.processes]
        return sorted(found, key=lambda number: (codes[number] == ProcessLost.exit_code, codes[number] > 0))

    def reason(self) -> int | None:
        """The first one to fail. It may end after those that lost it, as its connections go before it does."""
        end_s = time.monotonic() + GRACE_S
        while (failed := self.failed()) and self.processes[failed[0]].returncode == ProcessLost.exit_code:
            if not self.running() or time.monotonic() > end_s:
                break
            time.sleep(POLL_S)
        return failed[0] if failed else None

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def events(processed: Path, work: Path, cfg: TrainConfig) -> Generator[dict[str, Any]]:
    """Train in `trainer.devices` new processes and yield what the first one tells, until all have ended well.

    However this generator is left, no process is.

    Raises:
        PipelineError: what a process said, or how it died.
    """
    settings = cfg.model_dump(mode="json", by_alias=True)
    write_json(work / TASK, {"processed": str(processed.resolve()), "work": str(work.resolve()), "cfg": settings})
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as told, _started(cfg.trainer.devices, work, write_end) as started:
        yield from _lines(told, started)
        dead = started.reason()
        started.kill()
        if dead is not None and started.errors[dead].exists():
            error = read_json(started.errors[dead])
            raise (ConfigError if error["kind"] == "ConfigError" else PipelineError)(error["message"])
        sys.stderr.write(started.stderr[dead or 0].read_text(encoding="utf-8", errors="replace"))
        if dead is not None:
            raise PipelineError(f"process {dead} of {cfg.trainer.devices} {_how(started.processes[dead].returncode)}")


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}; the others were ended"
    return f"ended with exit code {exit_code}; what it said is above. The others were ended"


@contextmanager
def _started(count: int, work: Path, events_fd: int) -> Iterator[Started]:
    stderr, errors = ([work / f"process-{number}.{kind}" for number in range(count)] for kind in ("stderr", "json"))
    for file in errors:
        file.unlink(missing_ok=True)  # of an earlier start
    started = Started([], stderr, errors)
    with socket.socket() as reserved:
        # Bound, so that the kernel gives the port to nobody else; reusable, so that process 0 can listen on it.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        try:
            for number in range(count):
                started.processes.append(_start(number, count, work, port, stderr[number], events_fd))
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
    with open(error, "wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.training.ranks", str(work), str(os.getpid())],
            env=environment, stderr=stderr, pass_fds=[events_fd] if number == 0 else [],
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
        )  # fmt: skip


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
            elif started.failed() or not started.running():
                return
    while started.running() and not started.failed():  # the first process is done, the others must end well too
        time.sleep(POLL_S)


# ---------------------------------------------------------------- one of the processes


def main() -> None:
    """`python -m pipeline.training.ranks FOLDER PARENT`, started by `events` with the environment of one process."""
    end_with(int(sys.argv[2]), signal.SIGKILL)  # no process outlives the one that started it
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
        said = {"kind": type(error).__name__, "message": str(error)}
        write_json(work / f"process-{os.environ['RANK']}.json", said)
        sys.exit(error.exit_code)
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
