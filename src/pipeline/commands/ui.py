"""pipeline ui: open MLflow's pages on this project's runs, or on the jobs of one sweep.

The server listens on 127.0.0.1 only, because it has no passwords. From another machine:
``ssh -L 5000:127.0.0.1:5000 HOST``.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from pipeline.runtime.places import project_root
from pipeline.system.errors import PipelineError
from pipeline.system.startup import load
from pipeline.tracking import Store, leaderboard_url
from pipeline.tracking.database import DATABASE, artifacts_uri, ensure_database
from pipeline.tracking.leaderboard import experiments_url
from pipeline.tracking.lookup import Sweep, find

HOST = "127.0.0.1"
PORTS_TO_TRY = 100
# With MLflow's defaults: 15 processes and 2.4 GB. With these and one worker: 2 processes and 0.4 GB.
SLIM = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "PYTHONWARNINGS": "ignore",  # deprecations among the server's own libraries
}


def main(args: argparse.Namespace) -> None:
    """Print the link, then become the server until Ctrl-C.

    Raises:
        PipelineError: no store yet, no such experiment, another host, or the port is taken.
    """
    root = project_root()
    check_host(args.host, args.port)
    check_port(args.port)
    require_runs(root)
    load("ui", "MLflow")
    link = experiment_link(root, args.port, args.experiment)
    if args.sweep:
        link = sweep_link(root, args.port, args.sweep)
    print(f"{link}\nAnswers in about ten seconds. Ctrl-C ends it.", flush=True)
    serve(root, args.port)


def require_runs(root: Path) -> None:
    """Raises PipelineError if there is no store yet."""
    if not (root / DATABASE).exists():
        raise PipelineError(f"There are no runs to show: {root / DATABASE} does not exist. Make some with: make repro")


def experiment_link(root: Path, port: int, experiment: str | None) -> str:
    """The leaderboard to open; runs whose process died are closed first."""
    store = Store(root)
    ensure_database(root)
    store.reap()
    experiment_id = store.newest_experiment(experiment)
    if experiment_id is None and experiment is not None:
        raise PipelineError(f"{root / DATABASE} has no experiment called {experiment!r}. Leave it out to see them all.")
    return leaderboard_url(port, experiment_id) if experiment_id else experiments_url(port)


def sweep_link(root: Path, port: int, name: str) -> str:
    """The jobs of a sweep, best first."""
    target = find(Store(root), name, ("sweep",), given=f"--sweep {name}")
    assert isinstance(target, Sweep)
    return leaderboard_url(port, target.row.experiment_id, f"sweep-{target.identity}")


def check_host(host: str, port: int) -> None:
    """Raises PipelineError, with the way to open the UI from elsewhere, for a host that other machines can reach."""
    if host not in (HOST, "localhost"):
        raise PipelineError(
            f"--host {host}: the server has no passwords, and whoever reaches it can change and delete runs, so it "
            f"listens on {HOST} only. From another machine, with it running here: "
            f"ssh -L {port}:{HOST}:{port} {socket.gethostname()}, then open http://{HOST}:{port} there"
        )


def check_port(port: int) -> None:
    """Raises PipelineError, with a port to use instead, if another program listens on this one."""
    if _is_free(port):
        return
    free = next((other for other in range(port + 1, min(port + PORTS_TO_TRY, 2**16)) if _is_free(other)), None)
    advice = f"Use another: pipeline ui --port {free}" if free else "So are the hundred after it."
    raise PipelineError(f"Port {port} is taken, perhaps by an MLflow UI that is still open. {advice}")


def serve(root: Path, port: int) -> None:
    """Replace this process by the server, so that Ctrl-C reaches it directly. Does not return."""
    options = {
        "--backend-store-uri": Store(root).uri,
        "--registry-store-uri": Store(root).uri,
        "--default-artifact-root": artifacts_uri(root),
        "--host": HOST,
        "--port": str(port),
        "--allowed-hosts": f"{HOST}:*,localhost:*",  # any port: an ssh tunnel may end at another one
        "--workers": "1",
        "--uvicorn-opts": "--log-level warning",
    }
    arguments = [text for option in options.items() for text in option]
    command = [sys.executable, "-m", "mlflow", "server", *arguments]
    os.execve(sys.executable, command, {**os.environ, **SLIM})


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed counts as free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
