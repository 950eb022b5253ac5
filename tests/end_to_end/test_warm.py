"""`PIPELINE_WARM`: the same bytes, endings and records as from a process of its own.

What a fork sees: tests/system/test_fork.py.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lanes import long
from pipeline.system.fork_client import VARIABLE
from project_maker import Project
from warm_process import FOLDER

pytestmark = pytest.mark.slow
TRAIN, EVALUATE, WARM = ((sys.executable, "-m", "pipeline", name) for name in ("train", "evaluate", "warm"))
COLD = {VARIABLE: "0"}
DIFFERS = ("metrics/train.json", "models/run.json")  # a clock, and the id of the run
CONFIGURATIONS = {
    "as it comes": (),
    "two layers, dropout, batches normalized, Adam, a schedule": (
        "model.units=[64,32]", "model.dropout=0.2", "model.normalization=batch", "optimizer=adam", "scheduler=cosine",
    ),
    "another activation, smoothed labels, SGD, batches that do not divide": (
        "model.activation=silu", "loss.label_smoothing=0.1", "optimizer=sgd", "trainer.batch_size=100", "seed=3",
    ),
}  # fmt: skip


RICHEST = list(CONFIGURATIONS)[1]


def made(project: Project, folder: str, words: tuple[str, ...], **environment: str) -> dict[str, bytes]:
    """All files of a training by hand and of its evaluation."""
    trained, scored = (project.root / "outputs" / f"{folder}-{what}" for what in ("trained", "scored"))
    project.run(*TRAIN, *words, f"hydra.run.dir={trained}", **environment)
    project.run(*EVALUATE, f"evaluate.model_folder={trained}/models", f"hydra.run.dir={scored}", **environment)
    files = {
        str(path.relative_to(place)): path
        for place in (trained, scored)
        for path in place.rglob("*")
        if path.is_file() and ".hydra" not in path.parts and path.suffix != ".log"
    }
    return {name: path.read_bytes() for name, path in files.items() if name not in DIFFERS}


@pytest.mark.parametrize("name", [long(name) if name != RICHEST else name for name in CONFIGURATIONS])
def test_a_training_and_its_evaluation_have_the_same_bytes(project: Project, name: str) -> None:
    """Weights, description, metrics, history, predictions, tables, pictures and the page."""
    words = CONFIGURATIONS[name]
    cold, warm = made(project, "cold", words, **COLD), made(project, "warm", words)

    assert {"models/model.safetensors", "models/model.json", "plots/history.csv", "metrics/evaluate.json",
            "predictions/log_probabilities.npy", "reports/figures/worst_errors.png", "reports/evaluation.html"} <= set(
        cold
    )  # fmt: skip
    assert warm == cold


def test_the_pipeline_has_the_same_bytes(project: Project) -> None:
    """`dvc repro`, cold, of what was made warm: nothing that git or DVC watches changes."""
    project.run("dvc", "repro", "--force", **COLD)
    assert project.status == ""


@pytest.mark.parametrize(
    "words",
    [
        ("champion",),
        ("compare", "HEAD", "workspace"),
        ("predict", "data/processed/test/images.npy", "--format", "csv"),
        ("export", "model=models", "--out", "outputs/model.onnx"),
    ],
    ids=lambda words: words[0],
)
def test_an_answer_is_the_same(project: Project, words: tuple[str, ...]) -> None:
    """But for the line that says what is imported, and the hour in the name of a folder."""
    command = (sys.executable, "-m", "pipeline", *words)
    cold, warm = (project.run(*command, **how).text for how in (COLD, {}))

    said = [re.sub(r"\d{4}-\d\d-\d\d_[\d-]+", "NOW", text).splitlines() for text in (cold, warm)]
    assert [line for line in said[0] if ": loading " not in line] == said[1]


# ---------------------------------------------------------------- how it is ended


@contextmanager
def training(
    project: Project, environment: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """The client of a training that would go on for hours, once that has saved its state."""
    command = (*TRAIN, "trainer.num_epochs=100000", "tracking.save_every_s=0")
    environment = environment or project.environment()
    assert environment[VARIABLE] in (os.environ[FOLDER], "1")
    pipes = options or {
        "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }  # fmt: skip
    with subprocess.Popen(command, cwd=project.root, env=environment, text=True, **pipes) as process:
        until(lambda: list(project.root.glob("outputs/train/*/checkpoints/last.ckpt")))
        yield process
        process.wait(60)


def until(true: Callable[[], object], within_s: float = 60) -> None:
    end_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def statuses(project: Project) -> list[tuple[str, str]]:
    """Of the newest run: how it ended, and why."""
    run = project.all_runs()[0]
    return [(run.info.status, run.data.tags.get("exit.reason", ""))]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_the_command_reaches_the_training(project: Project, number: signal.Signals, code: int) -> None:
    with training(project) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)

    assert process.returncode == code
    assert err.endswith("train: interrupted; by hand the same command starts anew, under DVC it goes on\n")
    assert statuses(project) == [("KILLED", number.name)]


def test_make_warm_has_one_ready_and_its_death_ends_the_training(project: Project, tmp_path: Path) -> None:
    environment = project.environment() | {VARIABLE: "1", "XDG_RUNTIME_DIR": str(tmp_path)}

    def said(*words: str) -> str:
        done = subprocess.run(words, cwd=project.root, env=environment, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    ready = re.compile(r"^ready after [0-9.]+ s: process (\d+)\.", re.MULTILINE)
    (server,) = ready.findall(said(*WARM))
    with training(project, environment) as process:
        os.kill(int(server), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the warm process has died, and what it ran with it: start the same command again\n" in err
    until(lambda: statuses(project) == [("KILLED", "SIGTERM")])

    assert "no warm process yet: one is being made ready for the next commands" in said(*TRAIN, "--cfg", "job")
    (other,) = ready.findall(said(*WARM))
    assert other != server
    assert said(*WARM, "--stop") == f"process {other} has ended\n"
    assert said(*WARM, "--stop") == "there is none for this environment\n"


def own_terminal() -> None:
    """Have stdin as the terminal whose Ctrl-C is meant for this process."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_at_a_terminal(project: Project) -> None:
    """And the command leaves the terminal as it found it."""
    near, far = pty.openpty()
    with training(project, stdin=far, stdout=far, stderr=far, preexec_fn=own_terminal) as process:
        os.close(far)
        os.write(near, b"\x03")
        shown = b""
        while True:
            try:
                shown += os.read(near, 2**16)
            except OSError:  # nobody has it open any more
                break
    os.close(near)

    assert process.returncode == 130
    assert b"epoch" in shown
    assert shown.count(b"\x1b[?25l") <= shown.count(b"\x1b[?25h")  # the cursor is shown again
    assert statuses(project) == [("KILLED", "SIGINT")]


def test_a_command_that_is_killed_ends_its_training(project: Project) -> None:
    """The fork hears of it, saves its state and closes its run."""
    with training(project) as process:
        process.kill()
        process.communicate(timeout=60)

    until(lambda: statuses(project) == [("KILLED", "SIGTERM")])


def test_a_stopped_command_stops_its_training(project: Project) -> None:
    """Ctrl-Z, and `fg` after it."""
    with training(project) as process:
        checkpoint = next(project.root.glob("outputs/train/*/checkpoints/last.ckpt"))

        def age_of_the_state() -> int:
            return checkpoint.stat().st_mtime_ns

        process.send_signal(signal.SIGTSTP)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T")
        time.sleep(0.5)
        before = age_of_the_state()
        time.sleep(1.0)
        assert age_of_the_state() == before
        process.send_signal(signal.SIGCONT)
        until(lambda: age_of_the_state() != before)
        process.terminate()
        process.communicate(timeout=60)

    assert process.returncode == 143


def test_a_stage_hears_of_a_killed_dvc(project: Project) -> None:
    """Its command, which is dvc's child, passes it on."""
    project.edit("conf/trainer/default.yaml", "num_epochs: 2", "num_epochs: 100000")
    project.edit("conf/tracking/local.yaml", "save_every_s: 30", "save_every_s: 0")
    before = len(project.all_runs())
    with project.started("dvc", "repro", **{VARIABLE: os.environ[FOLDER]}) as dvc:
        until(lambda: list(project.root.glob(".pipeline/checkpoints/*/last.ckpt")))
        dvc.kill()
        dvc.wait(60)
        until(lambda: statuses(project) == [("KILLED", "SIGTERM")])
    assert len(project.all_runs()) == before + 1
