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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.config.schema import TrainConfig
from pipeline.system.errors import ConfigError, PipelineError, ProcessLost
from pipeline.system.files import read_json, write_json
from pipeline.system.fork_server import end_with
from pipeline.system.processes import GRACE_S
from pipeline.system.startup import begin, run, settle

if TYPE_CHECKING:  # a process is tied to its parent before it spends seconds on importing torch
    from pipeline.training.module import OnEpoch, OnSteps

TASK = "processes.json"
WEIGHTS = "trained.safetensors"
PIPES = "PIPELINE_PIPES"  # file descriptors of process 0: to write events to, to read answers from
ANSWERS = {False: b"go on\n", True: b"enough\n"}
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


def fit_in_new(processed: Path, work: Path, cfg: TrainConfig, on_epoch: OnEpoch, on_steps: OnSteps) -> dict[str, Any]:
    """Train in `trainer.devices` new processes. What the first one tells is passed on, and its answer goes back.

    However this is left, no process is.

    Returns:
        The fields of its `Fit` without the network, whose weights are in work/WEIGHTS.

    Raises:
        PipelineError: what a process said, or how it died.
    """
    settings = cfg.model_dump(mode="json", by_alias=True)
    write_json(work / TASK, {"processed": str(processed.resolve()), "work": str(work.resolve()), "cfg": settings})
    done: dict[str, Any] | None = None
    (read_end, events_end), (answers_end, write_end) = os.pipe(), os.pipe()
    with (
        open(read_end, "rb", buffering=0) as told,
        open(write_end, "wb", buffering=0) as answers,
        _started(cfg.trainer.devices, work, (events_end, answers_end)) as started,
    ):
        for event in _lines(told, started):
            match event["event"]:
                case "epoch":
                    enough = bool(on_epoch(event["epoch"], event["values"]))
                    with suppress(BrokenPipeError):  # it has died; below it is said how
                        answers.write(ANSWERS[enough])
                case "steps":
                    on_steps(event["name"], event["points"])
                case "done":
                    done = event["fit"]
        dead = started.reason()
        started.kill()
        if dead is not None and started.errors[dead].exists():
            error = read_json(started.errors[dead])
            raise (ConfigError if error["kind"] == "ConfigError" else PipelineError)(error["message"])
        sys.stderr.write(started.stderr[dead or 0].read_text(encoding="utf-8", errors="replace"))
        if dead is not None:
            raise PipelineError(f"process {dead} of {cfg.trainer.devices} {_how(started.processes[dead].returncode)}")
    assert done is not None  # all have ended well
    return done


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}; the others were ended"
    return f"ended with exit code {exit_code}; what it said is above. The others were ended"


@contextmanager
def _started(count: int, work: Path, pipes: tuple[int, int]) -> Iterator[Started]:
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
                started.processes.append(_start(number, count, work, port, stderr[number], pipes))
            for descriptor in pipes:
                os.close(descriptor)
            yield started
        finally:
            started.kill()


def _start(
    number: int, count: int, work: Path, port: int, error: Path, pipes: tuple[int, int]
) -> subprocess.Popen[bytes]:
    rank = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "NODE_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {key: str(value) for key, value in {**rank, **address}.items()}
    if number == 0:
        environment[PIPES] = json.dumps(pipes)
    with open(error, "wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.training.distributed", str(work), str(os.getpid())],
            env=environment, stderr=stderr, pass_fds=pipes if number == 0 else (),
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
    """`python -m pipeline.training.distributed FOLDER PARENT`, which `fit_in_new` starts, one a device."""
    end_with(int(sys.argv[2]), signal.SIGKILL)  # no process outlives the one that started it
    from rich.console import Console
    from safetensors.torch import save_file

    from pipeline.config.check import validate
    from pipeline.training.fit import fit_processed

    settle()
    work = Path(sys.argv[1])
    task = read_json(work / TASK)
    starter = Starter(json.loads(os.environ.pop(PIPES, "null")))
    first = starter.pipes is not None
    try:
        done = fit_processed(
            Path(task["processed"]), Path(task["work"]), validate(TrainConfig, task["cfg"]),
            Console(soft_wrap=True, quiet=not first),
            on_epoch=lambda epoch, values: starter.ask(event="epoch", epoch=epoch, values=values),
            on_steps=lambda name, points: starter.tell(event="steps", name=name, points=points),
        )  # fmt: skip
    except PipelineError as error:
        said = {"kind": type(error).__name__, "message": str(error)}
        write_json(work / f"process-{os.environ['RANK']}.json", said)
        sys.exit(error.exit_code)
    if first:
        save_file(done.network.state_dict(), work / WEIGHTS)
        starter.tell(event="done", fit={name: value for name, value in vars(done).items() if name != "network"})


class Starter:
    """The process that started this one: nobody, to all processes but the first."""

    def __init__(self, pipes: list[int] | None) -> None:
        self.pipes = pipes

    def tell(self, **event: Any) -> None:
        if self.pipes:
            line = json.dumps(event).encode() + b"\n"
            while line:
                line = line[os.write(self.pipes[0], line) :]

    def ask(self, **event: Any) -> bool:
        """Whether the event was the last one wanted."""
        self.tell(**event)
        return self.pipes is not None and os.read(self.pipes[1], len(ANSWERS[True])) == ANSWERS[True]


if __name__ == "__main__":
    begin("pipeline.training.distributed", [], may_be_warm=False)  # a process that is tied to its parent
    run(main)
