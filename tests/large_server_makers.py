"""PostgreSQL, of Debian's package, and S3, as moto plays it: both on loopback, both gone after the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil

from tracking.tracking_makers import free_port, wait_until_it_listens

PROGRAMS = Path("/usr/lib/postgresql")
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "runs"


@dataclass
class Postgres:
    """A cluster of one database, which can be killed and started again."""

    programs: Path
    folder: Path
    user: str | None  # PostgreSQL does not run as root
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://mlflow@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [
            self.programs / "postgres", "-D", self.folder, "-p", str(self.port), "-h", "127.0.0.1", "-k", self.folder,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, user=self.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline_s = time.monotonic() + 60
        while subprocess.run(ready).returncode:  # it listens before it has recovered from a kill
            assert self.process.poll() is None, "PostgreSQL does not start"
            assert time.monotonic() < deadline_s, "PostgreSQL is not ready after 60 s"
            time.sleep(0.1)

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self.process is not None and self.process.poll() is None:
            whole = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
            for process in whole:
                with suppress(psutil.NoSuchProcess):  # a child that has just ended by itself
                    process.kill()
            self.process.wait()
            psutil.wait_procs(whole, timeout=10)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new cluster, started.

    Raises:
        RuntimeError: the package is missing.
    """
    versions = sorted(PROGRAMS.glob("*/bin"))
    if not versions:
        raise RuntimeError("these tests need a real PostgreSQL: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="postgres") as top:  # where another user may look into it
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(top, user)
        database = Postgres(versions[-1], Path(top) / "cluster", user)
        settings = ["--username=mlflow", "--auth=trust", "--no-sync", "--no-instructions"]
        subprocess.run(
            [database.programs / "initdb", *settings, "-D", database.folder], user=user, check=True, capture_output=True
        )
        database.start()
        try:
            yield database
        finally:
            database.kill()


@dataclass
class S3:
    """An empty bucket."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the tracking server needs to reach it."""
        return {**KEYS, "MLFLOW_S3_ENDPOINT_URL": self.url}

    def client(self) -> Any:
        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        )

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_it_listens(self.port)
        self.client().create_bucket(Bucket=BUCKET)

    def kill(self) -> None:
        """With all that it had."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def names(self) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@contextmanager
def s3() -> Iterator[S3]:
    bucket = S3()
    bucket.start()
    try:
        yield bucket
    finally:
        bucket.kill()
