"""A SLURM of one node, this machine, made of Debian's packages and of files in one folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tracking.tracking_makers import free_port

DEBIAN = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
READY_WITHIN_S = 30
# Two CPUs whatever the machine has: two jobs at once, or one of two tasks; a third one waits.
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def one_node(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and its like find it. Afterwards no job and no daemon of it is left.

    Raises:
        RuntimeError: packages are missing, or the node is not ready in time; the message ends with the logs.
    """
    if missing := [package for program, package in DEBIAN.items() if not shutil.which(program)]:
        raise RuntimeError(f"these tests need a real SLURM: apt-get install {' '.join(missing)}, or -m 'not slurm'")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, conf = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    user, host = getpass.getuser(), socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(folder=folder, user=user, host=host, port=free_port(), node_port=free_port()))
    munge = (f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed"))
    environment = {"SLURM_CONF": str(conf)}
    with (
        _daemon(folder, "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge),
        _daemon(folder, "slurmctld", "-D", "-f", str(conf)),
        _daemon(folder, "slurmd", "-D", "-f", str(conf)),
    ):
        try:
            if not _within(READY_WITHIN_S, lambda: said(environment, "sinfo", "--noheader", "--format=%T") == "idle"):
                logs = "\n".join(log.read_text() for log in folder.glob("*.out"))
                raise RuntimeError(f"SLURM's node is not idle after {READY_WITHIN_S} s\n{logs}")
            yield environment
        finally:
            cancel_all(environment)


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    with open(folder / f"{command[0]}.out", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def said(environment: dict[str, str], *command: str) -> str:
    """What a command of SLURM printed; nothing if it did not answer."""
    try:
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip()


def cancel_all(environment: dict[str, str]) -> None:
    """And wait until no job is left."""
    said(environment, "scancel", f"--user={getpass.getuser()}")
    _within(READY_WITHIN_S, lambda: not said(environment, "squeue", "--noheader"))


def _within(limit_s: float, met: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not met():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.1)
    return True
