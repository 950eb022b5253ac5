"""Locks end with their holder, however it dies, and leave nothing where nothing may be left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pipeline
from pipeline.system.locks import LIVE, LockHeld, alive, forget, is_alive, locked, locked_folder, tokens

SOURCES = Path(pipeline.__file__).parents[1]


@contextmanager
def holder(lock: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock until it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from pipeline.system.locks import *\n"
        f"with {lock}:\n    print('held', flush=True)\n    time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_file_lock_is_refused_waited_for_and_free_once_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "folder/lock"
    waited = []
    with holder(f"locked(Path({str(path)!r}))") as process:
        with (
            pytest.raises(LockHeld, match="the stage is running"),
            locked(path, wait=False, busy="the stage is running"),
        ):
            pass

        def end_the_holder() -> None:
            waited.append(True)
            kill(process)

        with locked(path, on_wait=end_the_holder), pytest.raises(LockHeld), locked(path, wait=False):
            pass
    with locked(path, wait=False, on_wait=lambda: waited.append(False)):
        pass
    assert waited == [True]


def test_a_folder_is_locked_by_itself(tmp_path: Path) -> None:
    with holder(f"locked_folder(Path({str(tmp_path)!r}), busy='')") as process:
        with (
            pytest.raises(LockHeld, match="another writes here"),
            locked_folder(tmp_path, busy="another writes here"),
        ):
            pass
        kill(process)
    with locked_folder(tmp_path, busy=""):
        (tmp_path / "written").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["written"]


def test_an_error_within_a_lock_stays_what_it_is(tmp_path: Path) -> None:
    """And the lock is free after it."""
    with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        raise BlockingIOError
    with locked(tmp_path / "lock", wait=False):
        pass


def test_a_token_is_alive_as_long_as_its_process(tmp_path: Path) -> None:
    with alive(tmp_path) as own:
        assert is_alive(tmp_path, own)
    assert tokens(tmp_path) == []
    with holder(f"alive(Path({str(tmp_path)!r}))") as process:
        (token,) = tokens(tmp_path)
        assert is_alive(tmp_path, token)
        kill(process)
    assert not is_alive(tmp_path, token)
    forget(tmp_path, token)
    assert not is_alive(tmp_path, token)
    assert list((tmp_path / LIVE).iterdir()) == []
