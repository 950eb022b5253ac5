"""`pipeline train -m …`: real sweeps whose jobs fail, hang, are killed or interrupted. Nothing is lost."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from sweep_faults import PROBE, WAITS, inject

from lanes import long
from pipeline.system.fork_client import VARIABLE
from project_maker import Project
from training.ranks_makers import lives
from warm_process import FOLDER

pytestmark = pytest.mark.slow
TRAIN = (sys.executable, "-m", "pipeline.train")
SWEEP = (*TRAIN, "-m", "trainer.num_epochs=3")
LEFT_WITHIN_S = 5


# ---------------------------------------------------------------- what a sweep leaves


@dataclass(frozen=True)
class Filed:
    """A run as it was at one moment."""

    run_id: str
    name: str
    status: str
    end_ms: int | None
    tags: dict[str, str] = field(repr=False)

    @property
    def reason(self) -> str:
        return self.tags.get("exit.reason", "")


@dataclass(frozen=True)
class After:
    """The store and the exit code after one start of a command."""

    code: int
    out: str
    err: str
    parents: list[Filed]
    jobs: dict[str, Filed]  # by name, the newest of each
    num_runs: int

    @property
    def parent(self) -> Filed:
        (parent,) = self.parents
        return parent

    @property
    def statuses(self) -> dict[str, str]:
        return {name: job.status for name, job in sorted(self.jobs.items())}


def filed(project: Project) -> tuple[list[Filed], dict[str, Filed], int]:
    """Parents and jobs, newest first; nothing is closed or changed by looking."""
    if not project.store.exists:
        return [], {}, 0
    runs = [
        Filed(run.info.run_id, run.info.run_name, run.info.status, run.info.end_time, dict(run.data.tags))
        for run in project.all_runs()
    ]
    children = {run.name: run for run in reversed(runs) if "mlflow.parentRunId" in run.tags}
    return [run for run in runs if run.tags.get("sweep.role") == "parent"], children, len(runs)


@dataclass(frozen=True)
class Sweeping:
    """A command that runs, in a session of its own as in a terminal's."""

    project: Project
    process: subprocess.Popen[str]

    def wait_until(self, number: int, name: str = WAITS) -> None:
        """So many jobs have left a file of this name."""
        end_s = time.monotonic() + 60
        while len(list(self.project.root.glob(f"multirun/train/*/*/{name}"))) < number:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end_s, "the jobs did not come so far within 60 s"
            time.sleep(0.05)
        for file in self.project.root.glob(f"multirun/train/*/*/{name}"):
            file.unlink()

    def server(self) -> psutil.Process:
        (server,) = psutil.Process(self.process.pid).children()
        return server

    def ended(self) -> After:
        out, err = self.process.communicate(timeout=120)
        assert_nobody_left(self.project)
        return After(self.process.returncode, out, err, *filed(self.project))


def assert_nobody_left(project: Project) -> None:
    """No process works in the project's folder, a moment after its command has ended."""
    end_s = time.monotonic() + LEFT_WITHIN_S
    while left := at_work(project):
        assert time.monotonic() < end_s, left
        time.sleep(0.05)


def at_work(project: Project) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()) == project.root and lives(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@contextmanager
def started(project: Project, *words: str, **environment: str) -> Iterator[Sweeping]:
    with project.started("setsid", *words, **{VARIABLE: os.environ[FOLDER]} | environment) as process:
        yield Sweeping(project, process)


def done(project: Project, *words: str, **environment: str) -> After:
    with started(project, *words, **environment) as sweeping:
        return sweeping.ended()


Make = Callable[[str], Project]


@pytest.fixture(scope="module")
def make(ready: Project, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A project with data and nothing else: no mlflow.db, no output. Its trainings know faults."""

    def make(name: str) -> Project:
        root = tmp_path_factory.mktemp(name)
        for folder in ("src", "conf"):
            shutil.copytree(ready.root / folder, root / folder)
        for file in ("dvc.yaml", "dvc.lock"):
            shutil.copy(ready.root / file, root)
        (root / "data").symlink_to(ready.root / "data")
        inject(root / "src")
        return Project(root)

    return make


# ---------------------------------------------------------------- jobs that fail

FAULTS = "2=raise 3=sigkill 4=exit 5=_exit 6=hang 7=sigkill_at_start"
FAULTY = (*SWEEP, "seed=1,2,3,4,5,6,7,8", "hydra.launcher.n_jobs=4", "hydra.launcher.timeout_s=12")


@dataclass(frozen=True)
class Faulty:
    project: Project
    first: After
    again: After  # the same command, with the same faults
    retried: After  # with sweep.retry_failed=true, and no faults


@pytest.fixture(scope="module")
def faulty(make: Make) -> Faulty:
    project = make("faulty")
    first = done(project, *FAULTY, FAULTS=FAULTS)
    again = done(project, *FAULTY, FAULTS=FAULTS)
    return Faulty(project, first, again, done(project, *FAULTY, "sweep.retry_failed=true"))


@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        (2, "RuntimeError: (sqlite3.OperationalError) database is locked"),
        (3, "killed by SIGKILL (out of memory?)"),
        (4, "ended with exit code 3"),
        (5, "ended with exit code 3"),
        (6, "took longer than hydra.launcher.timeout_s=12 and was ended"),
        (7, "killed by SIGKILL (out of memory?)"),
    ],
    ids=["raises", "is killed", "calls sys.exit", "calls os._exit", "hangs", "is killed before its run is opened"],
)
def test_a_job_that_fails_is_one_failed_run_with_the_reason(faulty: Faulty, seed: int, reason: str) -> None:
    """In MLflow, and in one line on the terminal; the page of SQL that a store's error has is in neither."""
    job = faulty.first.jobs[f"seed={seed}"]
    assert job.status == "FAILED"
    (line,) = [line for line in faulty.first.out.splitlines() if f"  seed={seed}  failed" in line]
    assert reason in line
    if seed != 4:  # the run knows it as SystemExit: 3
        assert reason in job.reason


def test_jobs_that_fail_cost_no_other_job(faulty: Faulty) -> None:
    first = faulty.first
    assert [name for name, job in first.jobs.items() if job.status == "FINISHED"] == ["seed=1", "seed=8"]
    assert len(first.jobs) == 8
    assert first.num_runs == 9
    assert (first.code, first.parent.status) == (1, "FAILED")
    assert "6 of 8 jobs failed" in first.err
    assert "Traceback" not in first.err


def test_failed_jobs_are_not_run_again_unless_asked_for(faulty: Faulty) -> None:
    assert faulty.again.code == 1
    assert faulty.again.jobs == faulty.first.jobs
    assert faulty.again.num_runs == faulty.first.num_runs
    assert faulty.again.parent.run_id == faulty.first.parent.run_id
    assert "sweep.retry_failed=true" in faulty.again.err


def test_failed_jobs_are_run_again_when_asked_for_and_the_others_are_not(faulty: Faulty) -> None:
    """They go on in their own runs; only the one that never had one of its own gets one now."""
    first, retried = faulty.first, faulty.retried
    assert set(retried.statuses.values()) == {"FINISHED"}
    assert (retried.code, retried.parent.status) == (0, "FINISHED")
    assert [retried.jobs[name] for name in ("seed=1", "seed=8")] == [first.jobs[name] for name in ("seed=1", "seed=8")]
    assert [name for name in first.jobs if retried.jobs[name].run_id != first.jobs[name].run_id] == ["seed=7"]


def test_output_that_is_no_terminal_is_a_line_for_each_job(faulty: Faulty) -> None:
    lines = [line for line in faulty.first.out.splitlines() if re.match(r" *\d/8 ", line)]
    assert [line.split()[0] for line in lines] == [f"{number}/8" for number in range(1, 9)]
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", faulty.first.out)


def test_fail_fast_ends_the_sweep_at_the_first_failure(make: Make) -> None:
    after = done(
        make("fast"), *SWEEP, "seed=2,3,1", "hydra.launcher.n_jobs=2", "sweep.fail_fast=true", FAULTS="2=raise 3=wait"
    )
    assert (after.code, after.parent.status) == (1, "FAILED")
    assert after.statuses == {"seed=2": "FAILED", "seed=3": "KILLED"}
    assert "job 0 (seed=2) failed: RuntimeError" in after.err or "1 of 3 jobs failed" in after.err


# ---------------------------------------------------------------- sweeps that are interrupted

ENDLESS = (*SWEEP, "seed=1,2,3,4", "hydra.launcher.n_jobs=2")
WAITING = "2=wait 3=wait"


@dataclass(frozen=True)
class Interrupted:
    """The same sweep, started again and again."""

    project: Project
    ctrl_c: After
    sigterm: After
    sigkill: After  # of the sweep's own process
    server: After  # SIGKILL of the process that starts the jobs
    whole: After  # with nothing in its way

    @property
    def all(self) -> list[After]:
        return [self.ctrl_c, self.sigterm, self.sigkill, self.server, self.whole]


@pytest.fixture(scope="module")
def interrupted(make: Make) -> Interrupted:
    project = make("interrupted")

    def cut_short(how: Callable[[Sweeping], None], **environment: str) -> After:
        with started(project, *ENDLESS, FAULTS=WAITING, **environment) as sweeping:
            sweeping.wait_until(2)
            how(sweeping)
            return sweeping.ended()

    return Interrupted(
        project,
        ctrl_c=cut_short(lambda sweeping: os.killpg(sweeping.process.pid, signal.SIGINT)),
        sigterm=cut_short(lambda sweeping: sweeping.process.terminate()),
        sigkill=cut_short(lambda sweeping: sweeping.process.kill(), **{VARIABLE: "0"}),
        server=cut_short(lambda sweeping: sweeping.server().kill(), **{VARIABLE: "0"}),
        whole=done(project, *ENDLESS),
    )


@pytest.mark.parametrize(("how", "code"), [("ctrl_c", 130), ("sigterm", 143)])
def test_an_interrupted_sweep_and_its_jobs_are_killed(interrupted: Interrupted, how: str, code: int) -> None:
    """With the table of what is done, and one message."""
    after: After = getattr(interrupted, how)
    assert (after.code, after.parent.status) == (code, "KILLED")
    assert after.statuses == {"seed=1": "FINISHED", "seed=2": "KILLED", "seed=3": "KILLED"}
    assert after.jobs["seed=2"].reason == "SIGTERM"
    assert after.err.strip().splitlines() == ["train: interrupted; the same command goes on with this sweep"]
    assert re.search(r"^1 of 4 jobs finished", after.out, flags=re.MULTILINE)
    assert "best    val/loss" in after.out


def test_the_jobs_of_a_killed_sweep_close_their_runs(interrupted: Interrupted) -> None:
    """Only the sweep's own run stays open, until the next start."""
    after = interrupted.sigkill
    assert (after.code, after.parent.status) == (-signal.SIGKILL, "RUNNING")
    assert after.statuses == {"seed=1": "FINISHED", "seed=2": "KILLED", "seed=3": "KILLED"}


def test_a_sweep_whose_jobs_lost_their_server_fails_and_their_runs_are_closed(interrupted: Interrupted) -> None:
    after = interrupted.server
    assert (after.code, after.parent.status) == (1, "FAILED")
    assert after.statuses == {"seed=1": "FINISHED", "seed=2": "KILLED", "seed=3": "KILLED"}
    assert after.err.count("the process that starts the jobs has died") == 1
    assert "Traceback" not in after.err


def test_a_sweep_started_again_goes_on_with_its_jobs(interrupted: Interrupted) -> None:
    """In its own run and in theirs; what was done at the first start was not touched at the others."""
    whole = interrupted.whole
    assert (whole.code, whole.parent.status) == (0, "FINISHED")
    assert whole.statuses == {f"seed={seed}": "FINISHED" for seed in (1, 2, 3, 4)}
    assert {after.parent.run_id for after in interrupted.all} == {whole.parent.run_id}
    assert len({after.jobs["seed=1"].end_ms for after in interrupted.all}) == 1
    for name in ("seed=1", "seed=2", "seed=3"):
        assert len({after.jobs[name].run_id for after in interrupted.all}) == 1
    assert whole.num_runs == 5


def test_a_job_that_was_cut_short_has_each_epoch_once(interrupted: Interrupted) -> None:
    client = interrupted.project.store.client
    points = client.get_metric_history(interrupted.whole.jobs["seed=2"].run_id, "val/loss")
    assert [point.step for point in points] == [0, 1, 2]


def test_a_sweep_is_resumed_by_its_id_and_with_more_values(interrupted: Interrupted) -> None:
    """`sweep.resume=` alone repeats the sweep; with a larger grid only the new job runs."""
    project, whole = interrupted.project, interrupted.whole
    alone = done(project, *TRAIN, "-m", f"sweep.resume={whole.parent.tags['sweep.id']}")
    more = done(project, *SWEEP, "seed=1,2,3,4,5", f"sweep.resume={whole.parent.run_id[:8]}")

    assert (alone.code, alone.jobs) == (0, whole.jobs)
    assert more.code == 0
    assert {name: job for name, job in more.jobs.items() if name != "seed=5"} == whole.jobs
    assert more.jobs["seed=5"].status == "FINISHED"
    assert more.parent.run_id == whole.parent.run_id


def test_a_sweep_resumed_with_other_code_compares_the_new_jobs_alone(make: Make) -> None:
    """Each configuration has its two seeds, not four of which two are of another code; nor other fixed settings."""
    project = make("changed")
    words = ("model.units=8,16", "sweep.seeds=2", "trainer.num_epochs=1")
    before = done(project, *TRAIN, "-m", *words)
    identity = before.parent.tags["sweep.id"]
    project.edit("src/pipeline/model/dense.py", "Raw samples in", "Raw  samples in")
    changed = done(project, *TRAIN, "-m", f"sweep.resume={identity}")
    summary = json.loads((Path(changed.parent.tags["sweep.folder"]) / "summary.json").read_text())
    longer = done(project, *TRAIN, "-m", *words[:2], "trainer.num_epochs=2", f"sweep.resume={identity}")
    longer_summary = json.loads((Path(changed.parent.tags["sweep.folder"]) / "summary.json").read_text())

    assert (before.code, changed.code, longer.code) == (0, 0, 0)
    assert changed.num_runs == before.num_runs + 4
    assert (len(summary["rows"]), summary["best"]["n"]) == (4, 2)
    assert {row["run_id"] for row in summary["rows"]} == {job.run_id for job in changed.jobs.values()}
    assert (len(longer_summary["rows"]), longer_summary["best"]["n"]) == (4, 2)


def test_a_sweep_to_resume_that_is_not_there_is_a_mistake(interrupted: Interrupted) -> None:
    """The message names those that are."""
    after = done(interrupted.project, *TRAIN, "-m", "sweep.resume=nothing")
    assert after.code == 2
    assert after.err.startswith("train: error: sweep.resume=nothing: nothing is called so. Expected a sweep. ")
    assert interrupted.whole.parent.tags["sweep.id"] in after.err


# ---------------------------------------------------------------- mistakes, and trying out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("trainer.batch_size=129,100", "trainer.devices=3"), 2, "batch_size=100 does not divide among 3 devices"),
        (("model.units=64,32,abc",), 2, "job 2 (units=abc) cannot run, so none is started: model.units: "),
        (("seed=1,2", "sweep.dry_run=true"), 0, ""),
    ],
    ids=["devices", "type", "dry_run"],
)
def test_a_mistake_and_a_dry_run_leave_nothing(make: Make, words: tuple[str, ...], code: int, said: str) -> None:
    project = make("nothing")
    before = sorted(project.root.iterdir())
    after = done(project, *SWEEP, *words)

    assert (after.code, after.num_runs) == (code, 0)
    assert sorted(project.root.iterdir()) == before
    assert said in after.err
    assert len(after.err.splitlines()) == (1 if code else 0)
    if code == 0:
        listed = ["2 jobs; none is started (sweep.dry_run)", "  #0  seed=1", "  #1  seed=2"]
        assert after.out.splitlines() == listed


# ---------------------------------------------------------------- many at once


@dataclass(frozen=True)
class Eight:
    project: Project
    after: After
    by_hand: Path  # models/ of the same configuration as job 7, trained alone


@pytest.fixture(scope="module")
def eight(make: Make) -> Eight:
    project = make("eight")
    same = ("trainer.num_epochs=3", "trainer.gradient_clip_norm=1.0", "model.units=[512,512]")
    after = done(project, *TRAIN, "-m", *same, "seed=0,1,2,3,4,5,6,7", "hydra.launcher.n_jobs=8")
    project.run(*TRAIN, *same, "seed=7", OMP_NUM_THREADS="2")
    (by_hand,) = project.root.glob("outputs/train/*/models")
    return Eight(project, after, by_hand)


def test_eight_jobs_at_once_into_an_empty_folder_are_eight_runs(eight: Eight) -> None:
    after = eight.after
    assert (after.code, after.parent.status) == (0, "FINISHED")
    assert after.statuses == {f"seed={seed}": "FINISHED" for seed in range(8)}
    assert after.num_runs == 9
    for job in after.jobs.values():
        assert [artifact.path for artifact in eight.project.store.client.list_artifacts(job.run_id, "dvc")]


def test_a_job_trains_the_weights_that_a_single_training_does(eight: Eight) -> None:
    """One thread in the sweep, two alone, with the gradient clipped and two layers: the same bytes."""
    (job,) = eight.project.root.glob("multirun/train/*/7")
    threads = [json.loads((folder / PROBE).read_text())["threads"] for folder in (job, eight.by_hand.parent)]
    assert threads == [1, min(2, os.cpu_count() or 1)]
    for file in ("model.safetensors", "model.json"):
        assert (job / "models" / file).read_bytes() == (eight.by_hand / file).read_bytes()


@dataclass(frozen=True)
class AtOnce:
    """Two sweeps in an empty folder at the same time, one of them started twice."""

    project: Project
    other: tuple[str, ...]  # the command of the one that was started once
    refused: tuple[int, str]  # exit code and message
    after: After


@pytest.fixture(scope="module")
def at_once(make: Make) -> AtOnce:
    project = make("at_once")
    twice, other = (*SWEEP, "seed=1,2", "hydra.launcher.n_jobs=2"), (*SWEEP, "model.units=16,32")
    with (
        started(project, *twice, FAULTS="1=wait 2=wait") as one,
        started(project, *twice, FAULTS="1=wait 2=wait") as two,
        started(project, *other) as three,
    ):
        told = three.process.communicate(timeout=120)
        assert three.process.returncode == 0, told
        while one.process.poll() is None and two.process.poll() is None:
            time.sleep(0.1)
        winner, loser = (one, two) if one.process.poll() is None else (two, one)
        _, message = loser.process.communicate()
        (project.root / "go").touch()
        return AtOnce(project, other, (loser.process.returncode, message), winner.ended())


def test_a_sweep_that_is_running_is_refused_and_unharmed(at_once: AtOnce) -> None:
    code, message = at_once.refused
    assert code == 1
    assert re.fullmatch(r"train: error: .*(being written|just been started) by another process.*\n", message)
    assert at_once.after.code == 0


def test_two_sweeps_at_once_file_their_own_jobs(at_once: AtOnce) -> None:
    after = at_once.after
    assert [parent.status for parent in after.parents] == ["FINISHED"] * 2
    assert after.statuses == dict.fromkeys(["seed=1", "seed=2", "units=16", "units=32"], "FINISHED")
    assert after.num_runs == 6
    parents = {name: job.tags["mlflow.parentRunId"] for name, job in after.jobs.items()}
    assert parents["seed=1"] == parents["seed=2"] != parents["units=16"] == parents["units=32"]


def test_a_sweep_that_begins_anew_leaves_the_earlier_one_alone(at_once: AtOnce) -> None:
    """`sweep.again=true`; the same command without it then goes on with the newer one."""
    project, before = at_once.project, at_once.after
    again = done(project, *at_once.other, "sweep.again=true")
    after = done(project, *at_once.other)

    assert (again.code, len(again.parents), again.num_runs) == (0, 3, before.num_runs + 3)
    assert again.parents[1:] == before.parents
    assert again.jobs["units=16"].run_id != before.jobs["units=16"].run_id
    assert (after.code, after.jobs, after.num_runs) == (0, again.jobs, again.num_runs)
    assert after.parents[1:] == before.parents


# ---------------------------------------------------------------- devices, terminals, Hydra's own launcher


def val_losses(folder: Path) -> list[float]:
    with open(folder / "plots/history.csv", newline="", encoding="utf-8") as lines:
        return [float(row["val/loss"]) for row in csv.DictReader(lines)]


@pytest.mark.ddp
@pytest.mark.parametrize(("launcher", "optimizers"), [("process", ["rmsprop", "adam"]), long("basic", ["adam"])])
def test_each_job_has_its_own_devices_and_optimizer(make: Make, launcher: str, optimizers: list[str]) -> None:
    """Under Hydra's own launcher too, where one process trains all jobs."""
    project = make("devices")
    words = ("trainer.devices=1,2", f"optimizer={','.join(optimizers)}", f"hydra/launcher={launcher}")
    after = done(project, *SWEEP, *words)
    assert (after.code, after.num_runs) == (0, 1 + 2 * len(optimizers))

    runs = [project.store.client.get_run(job.run_id) for job in after.jobs.values()]
    assert {run.info.status for run in runs} == {"FINISHED"}
    found = {(run.data.params["trainer.devices"], run.data.params["optimizer.name"]) for run in runs}
    assert found == {(devices, optimizer) for devices in ("1", "2") for optimizer in optimizers}
    (folder,) = project.root.glob("multirun/train/*")
    losses = [val_losses(folder / str(number)) for number in range(len(runs))]
    for one_device, two_devices in zip(losses[: len(optimizers)], losses[len(optimizers) :], strict=True):
        assert two_devices == pytest.approx(one_device, abs=1e-5)
    assert len({round(found[0], 3) for found in losses}) == len(optimizers)  # another optimizer, another curve


def test_under_hydras_own_launcher_a_job_that_raises_costs_no_other_job(make: Make) -> None:
    """Nor does one that is interrupted: the next start goes on."""
    project = make("basic")
    basic = (*SWEEP, "seed=1,2,3,4", "hydra/launcher=basic")
    with started(project, *basic, FAULTS="2=raise 4=wait") as sweeping:
        sweeping.wait_until(1)
        os.killpg(sweeping.process.pid, signal.SIGINT)
        cut = sweeping.ended()
    after = done(project, *basic)

    assert (cut.code, cut.parent.status) == (130, "KILLED")
    assert cut.statuses == {"seed=1": "FINISHED", "seed=2": "FAILED", "seed=3": "FINISHED", "seed=4": "KILLED"}
    assert (after.code, after.parent.status) == (1, "FAILED")  # for the one that failed before
    assert after.parent.run_id == cut.parent.run_id
    assert after.statuses == cut.statuses | {"seed=4": "FINISHED"}
    assert after.jobs["seed=1"] == cut.jobs["seed=1"]


def test_a_terminal_shows_the_running_jobs_and_keeps_what_has_ended(make: Make) -> None:
    """Redrawn in place, and gone at the end. Each job has its share of the machine."""
    project = make("terminal")
    shares = ("hydra.launcher.n_jobs=2", "hydra.launcher.gpus=[0,1]")
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = project.environment() | {"FAULTS": "1=wait 2=wait", "TERM": "xterm"}
    command = ("setsid", *SWEEP, "seed=1,2", *shares)
    with subprocess.Popen(command, cwd=project.root, env=environment, stdin=far, stdout=far, stderr=far) as process:
        os.close(far)
        written = b"".join(shown_on(near, lambda text: text.count(b"epoch 2/3") >= 2 and (project.root / "go").touch()))
    os.close(near)

    assert process.returncode == 0
    screen = Screen(written.decode())
    text = "\n".join(screen.lines)
    assert "2/2  seed=" in text
    assert "2 of 2 jobs finished" in text
    assert not re.search(r"epoch \d/3|starting|\d s left", text)
    assert screen.cursor_shown
    probes = [json.loads(file.read_text()) for file in project.root.glob(f"multirun/*/*/*/{PROBE}")]
    assert sorted(probe["CUDA_VISIBLE_DEVICES"] for probe in probes) == ["0", "1"]
    cores = len(os.sched_getaffinity(0))
    assert [probe["threads"] for probe in probes] == [max(1, min(2, cores // 2))] * 2


def shown_on(terminal: int, look: Callable[[bytes], Any]) -> Iterator[bytes]:
    """What is written to the terminal, until nobody has it open any more."""
    seen = b""
    while True:
        try:
            new = os.read(terminal, 2**16)
        except OSError:  # Linux says EIO at the end
            return
        seen += new
        look(seen)
        yield new


class Screen:
    """A terminal as wide as its lines, which knows the codes that a live display is drawn with."""

    CODES = re.compile(r"\x1b\[(\??\d*)(?:;\d+)*([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")

    def __init__(self, written: str) -> None:
        self.lines, self.cursor_shown = [""], True
        row = column = 0
        for number, code, move, text in self.CODES.findall(written):
            if text:
                self.lines[row] = self.lines[row][:column].ljust(column) + text + self.lines[row][column + len(text) :]
                column += len(text)
            elif move == "\r":
                column = 0
            elif move == "\n":
                row += 1
                self.lines += [""] * (row + 1 - len(self.lines))
            elif code == "A":
                row -= int(number or 1)
            elif code == "K":
                assert number == "2", "only whole lines are erased"
                self.lines[row] = ""
            elif code in "hl":
                self.cursor_shown = code == "h"
            else:
                assert code == "m", f"not known to this terminal: {code}"
