"""pipeline warm: keep a process ready that runs commands at once.

It has imported torch, Lightning and MLflow, and runs each command as a fork of itself where PIPELINE_WARM=1 is set. It
ends by itself after ten minutes without a command.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from pipeline.system.errors import PipelineError
from pipeline.system.fork_client import IDLE_S, VARIABLE, pid_of, place, reason_to_stay_cold, start

READY_WITHIN_S = 300
POLL_S = 0.05


def answers(where: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(where) == 0


def ready(where: str) -> float:
    """Start one unless there is one; back when it answers. Returns the seconds that it took.

    Raises:
        PipelineError: it ended instead, or takes too long.
    """
    start_s = time.monotonic()
    pid, ended = None if answers(where) else start(where), False
    while not answers(where):
        time.sleep(POLL_S)
        took_s = time.monotonic() - start_s
        ended = ended or (pid is not None and os.waitpid(pid, os.WNOHANG)[0] == pid)
        if (ended and pid_of(where) is None) or took_s > READY_WITHIN_S:
            said = Path(f"{where}.log").read_text(encoding="utf-8", errors="replace")[-2000:].strip()
            raise PipelineError(f"it {'ended' if ended else 'does not answer'} after {took_s:.0f} s. It said: {said}")
    return time.monotonic() - start_s


def stop(where: str) -> None:
    if (pid := pid_of(where)) is None:
        print("there is none for this environment")
        return
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, signal.SIGTERM)
    while pid_of(where) == pid:
        time.sleep(POLL_S)
    print(f"process {pid} has ended")


def main(args: argparse.Namespace) -> None:
    if os.environ.get(VARIABLE, "0") in ("", "0"):
        os.environ[VARIABLE] = "1"
    if reason := reason_to_stay_cold(os.environ, [sys.executable, "-m", "pipeline.train"]):
        raise PipelineError(f"commands would not be run by it: {reason}")
    try:
        where = place(os.environ)
    except OSError as error:
        raise PipelineError(f"{VARIABLE}={os.environ[VARIABLE]}: {error}") from error
    if args.stop:
        stop(where)
        return
    print("warm: importing torch, Lightning, MLflow and what else commands need", file=sys.stderr, flush=True)
    print(
        f"ready after {ready(where):.1f} s: process {pid_of(where)}. Let it run commands: export {VARIABLE}=1\n"
        f"It ends {IDLE_S / 60:.0f} minutes after the last one; at once: pipeline warm --stop"
    )
