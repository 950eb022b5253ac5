"""What a command sees as a fork of a warm process is what it sees as a process of its own, and it ends in the same way.

The command is tests/system/probe.py, as `python -m pipeline.probe` of a folder with what the package does at its start.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.commands.warm import answers
from pipeline.system.fork_client import VARIABLE, pid_of, place, reason_to_stay_cold, start
from warm_process import FOLDER, socket_of_all, warmed

OURS = Path(pipeline.__file__).parent
BEGIN = (
    "from pipeline.system.startup import begin\nbegin('pipeline.probe', [])\n"  # as each command of the package does
)
OF_ITS_OWN = ("random", "is_leader", "orig_argv")  # what two processes differ in

# Each second of a start costs; the first test pays for the warm process.
pytestmark = pytest.mark.slow


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    """A folder to put on PYTHONPATH."""
    package = tmp_path / "sources" / "pipeline"
    package.mkdir(parents=True)
    for name in (
        "__init__.py",
        "system/__init__.py",
        "system/errors.py",
        "system/signals.py",
        "system/startup.py",
        "system/fork_client.py",
        "system/fork_server.py",
    ):
        (package / name).parent.mkdir(exist_ok=True)
        shutil.copy(OURS / name, package / name)
    shutil.copy(Path(__file__).with_name("probe.py"), package)
    return package.parent


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(probe: Path, tmp_path: Path) -> Run:
    """Run the probe, warm or cold."""

    def run(warm: bool, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        own = {"PYTHONPATH": str(probe), **options.pop("env", {})}
        environment = warmed({**os.environ, **own}) if warm else {**os.environ, **own, VARIABLE: "0"}
        assert environment[VARIABLE] == (os.environ[FOLDER] if warm else "0")
        environment["PROBE_WARM"] = ""
        options = {"cwd": tmp_path, "input": "", **options}
        if options.get("stdin") is not None:
            del options["input"]
        return subprocess.run(
            [sys.executable, "-m", "pipeline.probe", *arguments], env=environment, capture_output=True, text=True,
            timeout=60, check=False, **options,
        )  # fmt: skip

    return run


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {name: value for name, value in json.loads(done.stdout).items() if name not in OF_ITS_OWN}


def without_stdin() -> None:
    os.close(0)


def in_the_background() -> None:
    """Of a script: the shell has it ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def in_another_way() -> None:
    os.umask(0o007)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input": "typed\n"},
        {"env": {"PROBE_NAME": "ä \udcff", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}},
        {"env": {"PYTHONDONTWRITEBYTECODE": "", "PYTHONUNBUFFERED": ""}},
        {"preexec_fn": in_another_way},
        {"preexec_fn": in_the_background},
        {"preexec_fn": without_stdin, "stdin": subprocess.DEVNULL},
        {"cwd": "/"},
    ],
    ids=["plain", "stdin", "environment", "no environment", "limits", "background", "stdin closed", "folder"],
)
def test_it_sees_what_a_process_of_its_own_sees(run: Run, options: dict[str, Any]) -> None:
    cold, warm = (run(how, "a b", "ä", **options) for how in (False, True))

    assert seen(warm) == seen(cold)
    assert (warm.returncode, warm.stderr) == (cold.returncode, cold.stderr) == (0, "")
    assert json.loads(warm.stdout)["orig_argv"] == json.loads(cold.stdout)["orig_argv"]


def test_an_open_file_is_handed_over(run: Run) -> None:
    """As bash's <(command) is."""
    for warm in (False, True):
        reading, writing = os.pipe()
        os.write(writing, b"through a pipe")
        done = run(warm, env={"PROBE_FD": str(reading)}, pass_fds=(reading,))
        os.close(reading)
        os.close(writing)
        assert seen(done)["open"] == "through a pipe"


@pytest.mark.parametrize(
    "arguments",
    [
        ("exit", "0"),
        ("exit", "3"),
        ("exit", "259"),
        ("exit_words",),
        ("raise",),
        ("interrupt",),
        ("killed", "9"),
        ("killed", "15"),
    ],
    ids=" ".join,
)
def test_it_ends_as_a_process_of_its_own_does(run: Run, arguments: tuple[str, ...]) -> None:
    """Exit code or signal, and the last line of what it says."""
    cold, warm = (run(how, *arguments) for how in (False, True))

    assert warm.returncode == cold.returncode
    assert warm.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]


def test_its_last_words_are_heard(run: Run) -> None:
    """Modules are not taken apart at its end; all else that Python does there is done."""
    cold, warm = (run(how, "last_words") for how in (False, True))

    assert warm.returncode == cold.returncode == 0
    assert set(warm.stdout.split()[-3:]) == set(cold.stdout.split()[-3:]) == {"thread", "atexit", "finalized"}


def into_a_pipe_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(reading)


@pytest.mark.parametrize(("unbuffered", "code"), [("", 120), ("1", 1)], ids=["at its end", "at once"])
def test_what_cannot_be_written_is_an_error(run: Run, unbuffered: str, code: int) -> None:
    options = {"preexec_fn": into_a_pipe_that_nobody_reads, "env": {"PYTHONUNBUFFERED": unbuffered}}
    cold, warm = (run(how, **options) for how in (False, True))

    assert warm.returncode == cold.returncode == code
    assert warm.stderr.splitlines()[-1] == cold.stderr.splitlines()[-1] == "BrokenPipeError: [Errno 32] Broken pipe"


def test_forks_draw_different_random_numbers(run: Run) -> None:
    numbers = {json.loads(run(True).stdout)["random"] for _ in range(3)}
    assert len(numbers) == 3


def test_code_is_never_stale(run: Run, probe: Path) -> None:
    """A command's module is imported by each fork, from where the command says."""
    run(True)
    (probe / "pipeline/probe.py").write_text('print("edited")\n')
    assert run(True).stdout == "edited\n"


# ---------------------------------------------------------------- when it is not asked


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OMP_NUM_THREADS": "7"}, "no warm process for this environment in "),
        ({"TORCHELASTIC_RUN_ID": "1"}, "not in a warm process: TORCHELASTIC_RUN_ID is set"),
        ({"SLURM_JOB_ID": "1"}, "not in a warm process: SLURM_JOB_ID is set"),
    ],
)
def test_what_a_fork_could_not_have_is_done_cold_and_said(run: Run, environment: dict[str, str], said: str) -> None:
    socket_of_all()
    done = run(False, env=environment)
    assert done.stderr == ""  # with PIPELINE_WARM=0 nothing is said
    warm = subprocess.run(
        [sys.executable, "-m", "pipeline.probe"], env={**os.environ, **environment, VARIABLE: os.environ[FOLDER],
        "PYTHONPATH": seen(done)["path"][1]}, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    assert warm.stderr.startswith(said)
    assert json.loads(warm.stdout)["is_leader"] is False  # a fork has a session of its own


def test_the_module_of_somebody_else_is_left_alone(run: Run, probe: Path) -> None:
    """It imports this package, and is run as if that did nothing at its start."""
    (probe / "other").mkdir()
    (probe / "other/__init__.py").write_text("import pipeline\n")
    (probe / "other/__main__.py").write_text("import gc, os; print(gc.isenabled(), os.getsid(0) == os.getpid())\n")
    environment = warmed({**os.environ, "PYTHONPATH": str(probe)})
    command = [sys.executable, "-m", "other"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "True False\n"


@pytest.mark.parametrize("listens_on", [True, False], ids=["closes the connection", "does not take it"])
def test_a_command_that_meets_a_warm_process_at_its_end_is_done_cold(
    probe: Path, tmp_path: Path, listens_on: bool
) -> None:
    folder = tmp_path / "ending"
    folder.mkdir(mode=0o700)
    environment = {**os.environ, "PYTHONPATH": str(probe), VARIABLE: str(folder)}
    with socket.socket(socket.AF_UNIX) as ending:
        ending.bind(place(environment))
        ending.listen()
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline.probe"], env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as client:  # fmt: skip
            if listens_on:
                ending.accept()[0].close()
            else:
                until(lambda: select.select([ending], [], [], 0)[0])
                ending.close()
            out, err = client.communicate(timeout=60)
    assert (client.returncode, err) == (0, "not in a warm process: it was ending\n")
    assert json.loads(out)["is_leader"] is False


def test_a_stopped_fork_ends_with_its_killed_command(probe: Path) -> None:
    (probe / "pipeline/probe.py").write_text(
        f"{BEGIN}import os, time; print(os.getpid(), flush=True); time.sleep(60)\n"
    )
    environment = warmed({**os.environ, "PYTHONPATH": str(probe)})
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.probe"], env=environment, text=True, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout
        fork = int(client.stdout.readline())
        assert fork != client.pid
        os.killpg(fork, signal.SIGSTOP)
        client.kill()
    until(lambda: not Path(f"/proc/{fork}").exists(), within_s=10)


def test_python_with_options_is_itself() -> None:
    assert reason_to_stay_cold({}, ["python", "-X", "importtime", "-m", "pipeline.train"]) == "Python was given options"
    assert reason_to_stay_cold({}, ["python", "-m", "pipeline.train"]) == ""


def test_a_folder_that_others_may_write_to_is_refused(run: Run, tmp_path: Path, probe: Path) -> None:
    """Whoever can put a socket there would get the command's environment, secrets included."""
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.probe"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(probe), VARIABLE: str(tmp_path / "open")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path / 'open'}: expected a folder of user {os.getuid()} alone (mode 700)" in done.stderr


# ---------------------------------------------------------------- one of its own


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A warm process of this test alone, which ends after a second without a command."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    where = place({**os.environ, VARIABLE: str(folder)})
    start(where, idle_s=1.0)
    return where


def until(true: Callable[[], object], within_s: float = 60) -> None:
    end_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_its_commands_end_with_it_and_it_ends_when_it_is_idle(own: str, probe: Path) -> None:
    """And one that takes its time to end does not keep the next warm process out."""
    (probe / "pipeline/probe.py").write_text(
        f"{BEGIN}import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True) or time.sleep(60))\n"
        "print(os.getpid(), flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(probe), VARIABLE: str(Path(own).parent)}
    until(lambda: answers(own))
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.probe"], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:  # fmt: skip
        assert client.stdout
        fork = int(client.stdout.readline())
        server = pid_of(own)
        assert server not in (None, client.pid)
        os.kill(server, signal.SIGKILL)
        assert client.stdout.readline() == "heard\n"
        start(own, idle_s=1.0)  # its socket is still there, and nobody behind it
        until(lambda: answers(own))
        os.kill(fork, signal.SIGKILL)
        _, said = client.communicate(timeout=20)
    assert client.returncode == 1
    assert said == "the warm process has died, and what it ran with it: start the same command again\n"
    until(lambda: not Path(own).exists())
    assert not answers(own)
