"""The process that forks. Started by its path, it knows nothing of the project: no code of the project can be stale.

    python -P fork_server.py SOCKET SECONDS MODULE…    serve a socket until no request has come for so many seconds

The jobs of a sweep are forks of the same kind, of a fork of the sweep's own process (`pipeline.sweeps.jobs.worker`).
As this file may import nothing of the project, what others need too is defined here: how a process is tied to its
parent (`die_with_parent`), how it ends (`exit_at_once`, `exit_status`) and what commands import (`import_available`).

A `Request` comes over a connection of its own. Then the client sends a byte for each signal that the fork shall get,
and receives two whole numbers: the fork's process id and, at its end, its exit status (negative: the signal that killed
it). When a client is gone, its fork gets SIGTERM. When this process is gone, all of them do.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import io
import json
import logging
import os
import random
import resource
import runpy
import selectors
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NUMBER = struct.Struct("i")
MAX_FDS = 250  # that Linux passes in one message
REQUEST_WITHIN_S = 10.0  # or the client hangs
KILL_AFTER_S = 20.0  # that a process has to end after SIGTERM; then it gets SIGKILL
FORK = "PIPELINE_WARM_FORK"  # process id of a fork, in its environment: it uses no warm process in its turn
TO_END = (signal.SIGTERM, signal.SIGCONT)  # one that is stopped would not hear the first
TO_A_GROUP = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGSTOP, signal.SIGCONT)  # as a terminal sends them
# What a training imports beside the project's own modules, some of it on its way. The next version of a package may not
# have those with an underscore; then each fork imports what it needs.
TRAINING = (
    "numpy", "torch", "torch.export", "torch.export._trace", "torch._export.serde.serialize",
    "torch._functorch.aot_autograd", "torch._inductor.ir", "torch.distributed", "sympy",
    "pytorch_lightning", "torchmetrics", "safetensors.torch", "numba", "numba.np.ufunc", "numba.core.typing.cffi_utils",
    "mlflow", "mlflow.pytorch", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store", "sqlalchemy.dialects.sqlite", "alembic.command",
    "hydra", "omegaconf", "pydantic", "yaml", "rich.console", "rich.live", "rich.progress", "email.policy",
)  # fmt: skip
# What other commands do.
OTHERS = (
    "scipy.special", "scipy.stats", "scipy.optimize", "cleanlab.filter", "pandas", "optuna", "mlxtend.data",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image", "PIL.PngImagePlugin", "rich.table",
    "hydra._internal.hydra", "hydra.core.override_parser.overrides_parser",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """`python -m MODULE ARGUMENTS`, and what such a process would inherit."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    cpus: list[int]  # that it may run on; none: all
    limits: dict[str, list[int]]  # name of RLIMIT_… -> soft, hard
    fds: list[int]  # numbers of the open files that come with it
    ignored: list[int]  # signals, as of a command in the background of a script

    def send(self, connection: socket.socket, files: Sequence[int]) -> None:
        """files: the open files, under the numbers that they have here."""
        data = json.dumps(asdict(self)).encode()
        socket.send_fds(connection, [NUMBER.pack(len(data))], list(files))
        connection.sendall(data)

    @classmethod
    def receive(cls, connection: socket.socket) -> tuple[Request, list[int]]:
        """The request and its open files, under the numbers that they have here.

        Raises:
            EOFError, OSError, struct.error: the client has gone, or hangs.
            ValueError, TypeError: it sent something else.
        """
        head, files, _, _ = socket.recv_fds(connection, NUMBER.size, MAX_FDS)
        try:
            return cls(**json.loads(_exactly(connection, NUMBER.unpack(head)[0]))), files
        except Exception:
            _close(files)
            raise


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


class Forks:
    """The forks that live, each with the connection of its client."""

    def __init__(self, ready: selectors.BaseSelector) -> None:
        self.clients: dict[int, socket.socket] = {}
        self._ready = ready

    def start(self, connection: socket.socket) -> tuple[Request, list[int]] | None:
        """Returns the request and its files in the new process; None in this one."""
        connection.settimeout(REQUEST_WITHIN_S)
        try:
            request, files = Request.receive(connection)
        except (EOFError, OSError, struct.error, ValueError, TypeError):  # the client has gone, hangs, or is another's
            connection.close()
            return None
        connection.setblocking(False)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or no process left
            _send(connection, -1, error.errno or 0)
            connection.close()
        else:
            if pid == 0:
                for client in (connection, *self.clients.values()):
                    client.close()
                die_with_parent(parent, signal.SIGTERM)
                return request, files
            self.clients[pid] = connection
            self._ready.register(connection, selectors.EVENT_READ, pid)
            _send(connection, pid)
        _close(files)
        return None

    def forward(self, pid: int) -> None:
        """The signals that the client has sent, to the fork; SIGTERM if the client has gone."""
        try:
            signals = self.clients[pid].recv(64)
        except OSError:
            signals = b""
        if not signals:
            self._ready.unregister(self.clients[pid])
        for number in signals or TO_END:
            _signal(pid, number)

    def report_exits(self) -> None:
        """To the clients of all forks that have ended."""
        for pid, status in _ended():
            if client := self.clients.pop(pid, None):
                with suppress(KeyError):  # of one whose client had gone
                    self._ready.unregister(client)
                _send(client, status)
                client.close()

    def end(self) -> None:
        """SIGTERM for all, then SIGKILL. Their clients see only that this process is gone."""
        for numbers in (TO_END, (signal.SIGKILL,)):
            for pid in self.clients:
                for number in numbers:
                    _signal(pid, number)
            end_s = time.monotonic() + KILL_AFTER_S
            while self.clients and time.monotonic() < end_s:
                for pid, _ in _ended():
                    self.clients.pop(pid).close()
                time.sleep(0.01)


def serve(
    listen: socket.socket, accept: Callable[[socket.socket], socket.socket], idle_s: float | None = None
) -> Request | None:
    """Fork for each request until SIGTERM. Returns the request in each fork, and None in this process at its end.

    Args:
        listen: readable when there is a request, or when there can be none any more.
        accept: gives the connection of the next request; raises EOFError when there can be none any more.
        idle_s: after which it ends while no fork lives; None: never.
    """
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: stopped.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    with selectors.DefaultSelector() as ready:
        ready.register(listen, selectors.EVENT_READ)
        ready.register(woken, selectors.EVENT_READ)
        forks = Forks(ready)
        while not stopped:
            events = ready.select(None if forks.clients else idle_s)
            if not events and not forks.clients:
                break
            forks.report_exits()
            for key, _ in events:
                if key.fileobj is woken:
                    woken.recv(2**16)
                elif key.fileobj is listen:
                    try:
                        received = forks.start(accept(listen))
                    except EOFError:
                        stopped.append(signal.SIGTERM)
                        break
                    if received:
                        signal.set_wakeup_fd(-1)
                        for kept in (listen, woken, wake, ready):
                            kept.close()
                        _become(*received)
                        for missed in stopped:  # signals before it was ready for them
                            signal.raise_signal(missed)
                        return received[0]
                elif key.data in forks.clients:
                    forks.forward(key.data)
        listen.close()  # a client that comes now is not kept waiting
        forks.end()
    return None


def _signal(pid: int, number: int) -> None:
    """To a fork, and to what it has started where a terminal would do that."""
    with suppress(ProcessLookupError):  # it has ended, or has no group of its own yet
        if number in TO_A_GROUP:
            os.killpg(pid, number)
            return
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _ended() -> Iterator[tuple[int, int]]:
    """(process id, exit status) of the children that have."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended[0], os.waitstatus_to_exitcode(ended[1])


def _send(client: socket.socket, *numbers: int) -> None:
    with suppress(OSError):  # it has gone
        client.sendall(b"".join(map(NUMBER.pack, numbers)))


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """On Linux: get this signal when the process that started this one dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before
            signal.raise_signal(number)


def exit_at_once(status: int) -> None:
    """What `atexit` shall call last: end this process instead of taking apart all modules, which takes 0.2 s.

    In a fork it takes 0.7 s, as it copies the memory that the fork shares. Returns if a stream cannot be written to the
    end: then Python says so as it always does.

    Args:
        status: negative: by this signal.
    """
    logging.shutdown()
    with suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            if stream and not stream.closed:
                stream.flush()
        if status < 0:
            signal.signal(-status, signal.SIG_DFL)
            signal.raise_signal(-status)
        os._exit(status)


def _become(request: Request, files: Sequence[int]) -> None:
    """Be, as far as can be seen, the requested process; it has a session of its own."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number in request.ignored:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) is not None:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.setsid()
    beyond = max([*request.fds, *files, 2]) + 1
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, beyond) for file in files]
    _close(files)
    for file, place in zip(moved, request.fds, strict=True):
        os.dup2(file, place)
        os.close(file)
    for place in {0, 1, 2}.difference(request.fds):  # closed there
        os.close(place)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    os.umask(request.umask)
    if request.cpus:
        try:
            os.sched_setaffinity(0, request.cpus)
        except OSError:
            os.write(2, b"the warm process may not run on the processors of this command, but on others\n")
    for name, (soft, hard) in request.limits.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    time.tzset()
    tempfile.tempdir = None
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _streams(request: Request) -> None:
    """stdin, stdout and stderr as Python makes them at its start."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = None
        if number in request.fds:
            before = getattr(sys, f"__{name}__")
            raw = open(number, "wb" if number else "rb", buffering=0 if number and unbuffered else -1, closefd=False)  # noqa: SIM115
            lines = bool(number) and (number == 2 or os.isatty(number)) and not unbuffered
            stream = io.TextIOWrapper(
                raw, before.encoding, before.errors, line_buffering=lines, write_through=bool(number) and unbuffered
            )
            stream.mode = "w" if number else "r"  # as Python's own have it
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def import_available(*modules: str) -> None:
    """What an import does to logging is taken back: mlflow.pytorch gives it a handler, and hides what is no error."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    root.setLevel(level)
    root.handlers[:] = handlers


def _accept(listen: socket.socket) -> socket.socket:
    return listen.accept()[0]


def _bound(path: str) -> tuple[socket.socket, int] | None:
    """A socket there, and a lock that is kept open as long as this process lives; None if another one serves it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    os.ftruncate(lock, 0)
    os.write(lock, b"%d" % os.getpid())
    with suppress(FileNotFoundError):
        Path(path).unlink()
    listen = socket.socket(socket.AF_UNIX)
    listen.bind(path)  # in a folder that is its owner's alone
    return listen, lock


def main() -> None:
    ended: list[int] = []

    @atexit.register  # before what is imported below registers its own: it is called after that
    def end_at_once() -> None:
        if ended:
            exit_at_once(ended[0])

    path, idle_s = sys.argv[1], float(sys.argv[2])
    if (bound := _bound(path)) is None:
        return
    listen, lock = bound
    gc.disable()
    import_available(*TRAINING, *OTHERS, *sys.argv[3:])
    if "numba" in sys.modules:  # at its first loop it looks through all types and functions that it knows: 0.2 s
        sys.modules["numba"].njit(lambda: None)()
    gc.freeze()
    gc.enable()
    own_path = list(sys.path)
    listen.listen(64)  # not before: a client shall not wait
    request = serve(listen, _accept, idle_s)
    if request is None:
        Path(path).unlink()
        return
    os.close(lock)  # or a fork that outlives this process would keep the next one out
    _streams(request)
    _interpret(request, own_path)
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
        ended.append(0)
    except SystemExit as end:
        ended.append(exit_status(end.code))
        raise
    except KeyboardInterrupt:  # which `python -m` ends with by the signal, and a script with exit code 1
        sys.excepthook(*sys.exc_info())
        ended.append(-signal.SIGINT)


def _interpret(request: Request, own_path: Sequence[str]) -> None:
    """Be the interpreter that `python -m` would have started; own_path: where its packages are."""
    os.environ[FORK] = str(os.getpid())
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    given = [str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    folder = [] if os.environ.get("PYTHONSAFEPATH") else [request.folder]
    sys.path[:] = [*folder, *given, *own_path]
    sys.path_importer_cache.clear()
    sys.argv[:] = ["-m", *request.arguments]
    sys.orig_argv[:] = [sys.executable, "-m", request.module, *request.arguments]


def exit_status(code: object) -> int:
    """The exit status of `sys.exit(code)`."""
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


if __name__ == "__main__":
    main()
