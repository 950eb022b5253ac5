"""A copy of the project that really runs: its own git repository, DVC cache and MLflow store."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.places import OWN_SOURCE
from pipeline.system.fork_client import VARIABLE
from pipeline.tracking import Store
from warm_process import is_warm, run_forked, warmed

ROOT = Path(__file__).parents[1]
UNWATCHED = ("models/run.json", "metrics/train.json")
OUTPUTS = ("data", "models", "metrics", "plots", "predictions", "reports")
TIMEOUT_S = 280
GIT_IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")


@dataclass(frozen=True)
class Done:
    """What a command printed, and the stages that DVC ran in it."""

    returncode: int
    text: str

    @property
    def ran(self) -> list[str]:
        return re.findall(r"^Running stage '(\w+)'", self.text, flags=re.MULTILINE)


@dataclass(frozen=True)
class Outputs:
    """What stages have written, before a test."""

    unwatched: Mapping[str, str]  # what neither git nor DVC keeps: file -> content
    files: Mapping[Path, tuple[int, int]]  # size and time of every file that DVC keeps


@dataclass(frozen=True)
class Project:
    """A checkout that the test owns."""

    root: Path

    def run(self, *command: str, cwd: Path | None = None, expect: int | None = 0, **env: str) -> Done:
        """Run a command as a person would who activated .venv; fail the test if it ends with another code."""
        mine, folder = self.environment(**env), cwd or self.root
        match command if is_warm(mine) else ():
            case ("dvc" | "pipeline" as module, *arguments):
                code, text = run_forked(module, arguments, mine, folder, TIMEOUT_S)
            case ("python" | sys.executable, "-m", module, *arguments):
                code, text = run_forked(module, arguments, mine, folder, TIMEOUT_S)
            case _:
                done = subprocess.run(command, cwd=folder, env=mine, capture_output=True, text=True, timeout=TIMEOUT_S)
                code, text = done.returncode, done.stdout + done.stderr
        assert expect is None or code == expect, f"{command}: exit code {code}\n{text}"
        return Done(code, text)

    @contextmanager
    def started(self, *command: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """The same without waiting for it, output in pipes; Ctrl-C is not ignored, as it is by what a test runs in.

        In processes of its own, for tests that look at these, unless env has PIPELINE_WARM.
        """
        process = subprocess.Popen(
            command, cwd=self.root, env=self.environment(**{VARIABLE: "0"} | env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def environment(self, **env: str) -> dict[str, str]:
        """Commands are forks of the tests' warm process; PIPELINE_WARM="0": new processes."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_", "MLFLOW_"))}
        mine["PATH"] = f"{Path(sys.executable).parent}:{mine['PATH']}"
        mine["PYTHONPATH"] = str(self.root / "src")  # by hand: this copy's code, not that of the checkout under test
        return warmed(mine | env)

    def copy(self, target: Path) -> Project:
        """Another project, as this one is now.

        Not by this process: closing its own copy of mlflow.db would drop the locks of its open connections to it.
        """
        subprocess.run(["cp", "--archive", self.root, target], check=True)
        return Project(target)

    def repro(self) -> Done:
        return self.run("dvc", "repro")

    def git(self, *words: str) -> str:
        return self.run("git", *GIT_IDENTITY, *words).text

    def commit_all(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def outputs(self) -> Outputs:
        unwatched = {name: (self.root / name).read_text(encoding="utf-8") for name in UNWATCHED}
        files = (path for name in OUTPUTS for path in (self.root / name).rglob("*") if path.is_file())
        return Outputs(unwatched, {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files})

    def back_to_commit(self, before: Outputs) -> None:
        """Undo what a test changed and remove what it made; outputs come from DVC's cache."""
        self.git("checkout", "--quiet", "--force", "main")
        self.git("clean", "--quiet", "--force", "-d")
        for made in ("outputs", "multirun", ".pipeline/checkpoints"):
            shutil.rmtree(self.root / made, ignore_errors=True)
        if not all((self.root / name).exists() for name in UNWATCHED) or self.outputs().files != before.files:
            self.run("dvc", "checkout", "--force")  # a second
        for name, text in before.unwatched.items():
            (self.root / name).write_text(text, encoding="utf-8")

    @property
    def status(self) -> str:
        """Empty where git sees no change."""
        return self.git("status", "--porcelain")

    @property
    def store(self) -> Store:
        return Store(self.root)

    def all_runs(self) -> list[Any]:
        """Every run of the project's store that is not deleted, newest first."""
        client = self.store.client
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments))


def copy_of_the_checkout(target: Path) -> Path:
    """The files that git would commit, as they are now."""
    listed = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def mark_as_project(folder: Path) -> None:
    """What commands know a project by, without the rest of it."""
    (folder / "conf").mkdir()
    (folder / "dvc.yaml").write_text(f"stages: {{train: {{deps: [{OWN_SOURCE}]}}}}\n", encoding="utf-8")


def make_project(target: Path) -> Project:
    project = Project(copy_of_the_checkout(target))
    project.edit("conf/trainer/default.yaml", "num_epochs: 20", "num_epochs: 2")  # a training takes half a second
    project.edit("conf/model/dense.yaml", "units: 512", "units: 128")
    project.edit("conf/evaluate/default.yaml", "num_robustness_images: 2000", "num_robustness_images: 100")
    project.git("init", "--quiet", "--initial-branch", "main")
    project.commit_all("start")
    return project


def lend_environment(project: Project) -> None:
    """A .venv that `make` finds ready: links to the one that runs this test, so nothing is installed into that."""
    own = project.root / ".venv"
    own.mkdir(exist_ok=True)
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".ready" and not (own / entry.name).exists():
            (own / entry.name).symlink_to(entry)
    (own / ".ready").touch()
