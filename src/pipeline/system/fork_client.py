"""A command that lets a warm process do its work: hands over what a process inherits, and ends as the fork does."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import signal
import socket
import stat
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipeline.system.fork_server import FORK, NUMBER, Request, die_with_parent
from pipeline.system.signals import Handlers, give_back, take_over

VARIABLE = "PIPELINE_WARM"
SERVER = Path(__file__).with_name("fork_server.py")
IDLE_S = 600  # after which an unused warm process ends
# Environment that the packages read while they are imported: another value needs another process.
READ_AT_IMPORT = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH", "PYTORCH_", "CUDA_", "NVIDIA_",
    "NCCL_", "NUMBA_", "NUMPY_", "NPY_", "SCIPY_", "SKLEARN_", "PANDAS_", "SYMPY_", "MPL", "MATPLOTLIBRC",
    "MLFLOW_LOGGING", "MLFLOW_CONFIGURE_LOGGING", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "PYTHON", "LD_",
    "GLIBC_TUNABLES", "MALLOC_", "LANG", "LC_",
)  # fmt: skip
FOLDERS_AT_IMPORT = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
# But these: read when they are used, or set by the packages themselves in a process that has imported them.
READ_LATER = (
    "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK",
    "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR",
)  # fmt: skip
ONE_OF_MANY = ("TORCHELASTIC_RUN_ID", "RANK", "SLURM_JOB_ID", "SUBMITIT_EXECUTOR")  # whose resources are their own
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]


def hand_over(module: str, arguments: Sequence[str]) -> None:
    """Does not return if a warm process did the work. Where there is none, says so and starts one for the next time."""
    if reason := reason_to_stay_cold(os.environ, sys.orig_argv):
        print(f"not in a warm process: {reason}", file=sys.stderr, flush=True)
        return
    try:
        where = place(os.environ)
    except PermissionError as error:
        sys.exit(f"{VARIABLE}={os.environ[VARIABLE]}: {error}")
    except OSError as error:
        print(f"not in a warm process: {error}", file=sys.stderr, flush=True)
        return
    files = inherited()  # before the socket takes the place of one that is closed
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(where)
    except OSError:
        connection.close()
        message = "no warm process yet: one is being made ready for the next commands"
        if os.environ[VARIABLE] == "1":
            start(where)
        else:
            message = f"no warm process for this environment in {os.environ[VARIABLE]}"
        print(message, file=sys.stderr, flush=True)
        return
    with connection:
        forked = Forked(connection)
        handlers = forward_signals(forked)
        with suppress(BrokenPipeError, ConnectionResetError):  # it is ending
            forked.request(module, arguments, os.environ, files)
        try:
            if forked.has_started():
                end_as(forked.receive())
        except OSError as error:
            sys.exit(f"the warm process could not fork: {error}. End it: pipeline warm --stop")
    give_back(handlers)
    print("not in a warm process: it was ending", file=sys.stderr, flush=True)


def reason_to_stay_cold(environment: Mapping[str, str], argv: Sequence[str]) -> str:
    """Why a fork would not be the real thing; empty if it would."""
    if sys.platform != "linux":
        return "forks with torch are safe on Linux alone"
    if reason := next((f"{name} is set" for name in ONE_OF_MANY if name in environment), ""):
        return reason
    if argv[1].startswith("-") and argv[1] != "-m":
        return "Python was given options"
    return "a debugger or profiler watches" if sys.gettrace() or sys.getprofile() else ""


def place(environment: Mapping[str, str]) -> str:
    """The socket of the warm process for this interpreter, its packages as they are, and this environment.

    Raises:
        PermissionError: the folder belongs to somebody else, or others may write there.
        OSError: it, or that of the packages, is not there.
    """
    packages = Path(sysconfig.get_path("purelib"))
    limits = [resource.getrlimit(getattr(resource, name))[1] for name in LIMITS]  # a fork could not have more
    key = [
        sys.prefix, os.path.realpath(sys.executable), sys.version, packages.stat().st_mtime_ns,
        hashlib.sha256(SERVER.read_bytes()).hexdigest(),
        os.getpriority(os.PRIO_PROCESS, 0), limits, sorted(read_at_import(environment).items()),
    ]  # fmt: skip
    folder = Path(environment[VARIABLE])
    if environment[VARIABLE] == "1":
        folder = Path(environment.get("XDG_RUNTIME_DIR", "/tmp"), f"pipeline-warm-{os.getuid()}")
        folder.mkdir(0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{folder}: expected a folder of user {os.getuid()} alone (mode 700)")
    return str(folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16])


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name in FOLDERS_AT_IMPORT or (name.startswith(READ_AT_IMPORT) and name not in READ_LATER)
    }


def start(where: str, *modules: str, idle_s: float = IDLE_S) -> int:
    """Start a warm process at a socket, and return its process id. Its output goes to SOCKET.log.

    modules: to be imported beside those that commands need.
    """
    import subprocess

    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", FORK)}
    command = [sys.executable, "-P", str(SERVER), where, str(idle_s), *modules]
    with open(f"{where}.log", "ab") as log:
        process = subprocess.Popen(
            command, env=environment, cwd="/", start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    process.returncode = 0  # nobody waits for it
    return process.pid


def pid_of(where: str) -> int | None:
    """Of the warm process that serves a socket; None: none does, whatever an earlier one has left there."""
    try:
        with open(f"{where}.lock", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(Path(f"{where}.lock").read_text())
    return None


def inherited() -> dict[int, int]:
    """Number -> open file, of those that a process started by this one would have."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return {number: number for number in numbers if _is_open(number) and (number < 3 or os.get_inheritable(number))}


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class Forked:
    """A process that a warm one has forked for this one."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def request(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], files: Mapping[int, int],
        folder: Path | None = None,
    ) -> None:  # fmt: skip
        """files: number there -> open file here."""
        mask = os.umask(0)
        os.umask(mask)
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        limits = {name: list(resource.getrlimit(getattr(resource, name))) for name in LIMITS}
        ignored = [int(one) for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN]
        request = Request(
            module, list(arguments), dict(environment), str(folder or Path.cwd()), mask, cpus, limits, list(files),
            ignored,
        )  # fmt: skip
        request.send(self.connection, list(files.values()))

    def signal(self, number: int) -> None:
        with suppress(OSError):  # it has ended
            self.connection.send(bytes([number]))

    def receive(self) -> int | None:
        """The next number: the process id, then the exit status; None: the warm process is gone."""
        try:
            data = self.connection.recv(NUMBER.size, socket.MSG_WAITALL)
        except ConnectionResetError:  # before it had read the request
            return None
        return NUMBER.unpack(data)[0] if len(data) == NUMBER.size else None

    def has_started(self) -> bool:
        """Whether there is a fork; its exit status, negative for a signal, is the next number.

        Raises:
            OSError: it could not fork, for want of memory or processes.
        """
        pid = self.receive()
        if pid == -1 and (reason := self.receive()):
            raise OSError(reason, os.strerror(reason))
        return pid is not None


def forward_signals(forked: Forked) -> Handlers:
    """To the fork; and the death of dvc, which a stage ends with. Returns the handlers of before."""

    def pause(_: int, frame: FrameType | None) -> None:
        forked.signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        forked.signal(signal.SIGCONT)

    handlers = take_over(lambda number, _: forked.signal(number), FORWARDED)
    if "DVC_STAGE" in os.environ:
        die_with_parent(os.getppid(), signal.SIGTERM)
    return handlers | take_over(pause, [signal.SIGTSTP])


def end_as(status: int | None) -> NoReturn:
    """End this process as the fork has ended."""
    if status is None:
        print("the warm process has died, and what it ran with it: start the same command again", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
    if status < 0:
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
