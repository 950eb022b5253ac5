"""One warm process for the commands of all tests, of all of pytest's workers: each command is a fork of it.

What is about a process itself (its descendants, its threads, `make`, torchrun) asks for a cold one: PIPELINE_WARM="0".
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pipeline.system.fork_client import VARIABLE, Forked, pid_of, place, start

FOLDER = "PIPELINE_TESTS_WARM"  # names, in the environment, where the socket is
READY_WITHIN_S = 120
SET_BY_COMMANDS = {"MLFLOW_DISABLE_TELEMETRY": "true"}  # before they look for the warm process
OF_DVC = (
    "dvc.cli.parser", "dvc.repo", "dvc.repo.checkout", "dvc.repo.reproduce", "dvc.repo.status", "dvc.repo.experiments",
    "dvc.stage.run", "dvc.stage.cache", "dvc.dvcfile", "dvc.output", "dvc.scm", "dvc_data.index", "dvc_data.index.view",
    "dvc_objects.fs.local", "networkx", "scmrepo.git", "pygit2", "dulwich.repo", "ruamel.yaml", "voluptuous",
)  # fmt: skip


def announce() -> None:
    """By the process that all workers descend from."""
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="pipeline-tests-")


def dismiss() -> None:
    folder = Path(os.environ.pop(FOLDER))
    for lock in folder.glob("*.lock"):
        if pid := pid_of(str(lock.with_suffix(""))):
            os.kill(pid, signal.SIGTERM)
    shutil.rmtree(folder)


def warmed(environment: Mapping[str, str]) -> dict[str, str]:
    """With the warm process, unless the environment differs in what is read while packages are imported."""
    wanted = {VARIABLE: os.environ[FOLDER], **environment}
    if wanted[VARIABLE] != os.environ[FOLDER] or place(SET_BY_COMMANDS | wanted) != socket_of_all():
        wanted[VARIABLE] = "0"
    return wanted


def is_warm(environment: Mapping[str, str]) -> bool:
    return environment[VARIABLE] == os.environ[FOLDER]


def run_forked(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float
) -> tuple[int, str]:
    """`python -m MODULE ARGUMENTS` as a fork: its exit status, and stdout followed by stderr."""
    with (
        socket.socket(socket.AF_UNIX) as connection,
        open(os.devnull) as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err,
    ):  # fmt: skip
        connection.settimeout(timeout_s)
        connection.connect(socket_of_all())
        forked = Forked(connection)
        forked.request(module, arguments, environment, {0: nothing.fileno(), 1: out.fileno(), 2: err.fileno()}, folder)
        status = forked.receive() if forked.has_started() else None
        assert status is not None, "the warm process has died"
        out.seek(0)
        err.seek(0)
        return status, (out.read() + err.read()).decode()


@cache
def socket_of_all() -> str:
    """Of the warm process that has this process's environment; waits until it answers."""
    where = place({**os.environ, VARIABLE: os.environ[FOLDER]})
    start(where, *OF_DVC)
    deadline_s = time.monotonic() + READY_WITHIN_S
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(where)
                return where
            except OSError:
                assert time.monotonic() < deadline_s, Path(f"{where}.log").read_text()
        time.sleep(0.05)
