"""A real tracking server that tests kill, stop, fill up and wipe."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psutil

from pipeline.commands.ui import SLIM
from tracking.tracking_makers import free_port, wait_until_it_answers


class TrackingServer:
    """`mlflow server` on loopback, artifacts through it; its port stays the same when it is started again."""

    def __init__(
        self, folder: Path, database: str | None = None, artifacts: str | None = None, **environment: str
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.database = database or f"sqlite:///{folder}/server.db"
        self.artifacts = artifacts or str(folder / "artifacts")
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, max_file_kib: int | None = None) -> None:
        """With `max_file_kib` no file of it may grow beyond that: what it meets is what a full disk is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        server = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", self.database, "--artifacts-destination", self.artifacts,
            "--uvicorn-opts", "--log-level warning",
        ]  # fmt: skip
        limit = f"ulimit -f {max_file_kib}; " if max_file_kib else ""
        command = ["bash", "-c", f'{limit}exec "$@"', "server", *server]
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | SLIM | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        wait_until_it_answers(self.port)

    def send(self, number: signal.Signals) -> list[psutil.Process]:
        """To the server and all that it started."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        whole = [*parent.children(recursive=True), parent]
        for process in whole:
            process.send_signal(number)
        return whole

    def kill(self) -> None:
        """Its port is free afterwards."""
        if self.process is not None and self.process.poll() is None:
            _, left = psutil.wait_procs(self.send(signal.SIGKILL), timeout=10)
            assert not left
            self.process.wait()

    def wipe(self) -> None:
        """All that it had is gone."""
        self.kill()
        shutil.rmtree(self.folder)


CLASSIC = "workflowType=machine_learning"


def run_url(port: int, experiment_id: str, run_id: str) -> str:
    """The page of one run in MLflow's UI."""
    return f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs/{run_id}?{CLASSIC}"


def compare_url(port: int, experiment_id: str, run_ids: Sequence[str]) -> str:
    """The page that compares runs: parallel coordinates, scatter, contours, and what differs."""
    runs, experiments = (quote(json.dumps(list(ids))) for ids in (run_ids, [experiment_id]))
    return f"http://127.0.0.1:{port}/#/compare-runs?runs={runs}&experiments={experiments}&{CLASSIC}"
