"""A Python program in a process of its own: in a new interpreter, or in a fork that imports nothing again."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.system.fork_server import TRAINING, import_available
from pipeline.system.startup import set_mlflow_environment


@dataclass(frozen=True)
class Done:
    """A program that has ended well."""

    stdout: str
    resident_mib: float  # the largest resident set


def run(words: Sequence[str], *, fork: bool, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
    """Run `python WORDS`; the words are `-c CODE`, `-m MODULE …` or `SCRIPT …`.

    Args:
        fork: this process instead of starting an interpreter. Only before torch has computed anything in this process.

    Raises:
        RuntimeError: it ended with another status than 0; the end of its stderr is in the message.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        environment = dict(os.environ if env is None else env)
        pid = (_forked if fork else _started)(words, cwd or Path(), environment, out, err)
        _, status, usage = os.wait4(pid, 0)
        out.seek(0)
        err.seek(0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            raise RuntimeError(f"python {' '.join(words)} ended with status {code}:\n{err.read()[-4000:]}")
        return Done(out.read(), usage.ru_maxrss / 1024)


def _started(words: Sequence[str], cwd: Path, env: dict[str, str], out: IO[str], err: IO[str]) -> int:
    process = subprocess.Popen([sys.executable, *words], cwd=cwd, env=env, stdout=out, stderr=err)
    process.returncode = 0  # who called waits for it, with its usage; without this Python warns that nobody has
    return process.pid


def _forked(words: Sequence[str], cwd: Path, env: dict[str, str], out: IO[str], err: IO[str]) -> int:
    set_mlflow_environment()
    import_available("pipeline.tracking", *TRAINING, "pipeline.train")
    gc.freeze()  # no fork looks through what is imported
    process = multiprocessing.get_context("fork").Process(target=_be, args=(words, cwd, env, out, err))
    process.start()
    assert process.pid is not None
    return process.pid


def _be(words: Sequence[str], cwd: Path, env: dict[str, str], out: IO[str], err: IO[str]) -> None:
    """Become the program."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = [words[1], *words[2:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")
