"""A tracking server that fails in every way: the run does not wait for it, and later it has everything, once."""

from __future__ import annotations

import gc
import http.server
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from faults.copies import assert_same
from lanes import long, number
from mlflow_server import TrackingServer
from pipeline.tracking import PARENT_TAG, Store
from pipeline.tracking import replica as following
from pipeline.tracking.database import DATABASE
from pipeline.tracking.replica import SOURCE_RUN, sync_all
from project_maker import Project, mark_as_project
from tracking.tracking_makers import Serve, make_images

pytestmark = pytest.mark.slow
STEP_S, NUM_STEPS = 0.02, 150  # 3 s
LONGEST_GAP_S, LONGEST_END_S = 0.25, 5.0  # what an outage may cost
HALTED_S = 0.5  # what it may come to beside other tests, which halt this one now and then


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path_factory.mktemp("server") / "files")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def running(server: TrackingServer) -> TrackingServer:
    """Whatever the test before did to it."""
    return up(server)


def up(server: TrackingServer) -> TrackingServer:
    if server.process is None or server.process.poll() is not None:
        server.start()
    return server


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(following, "PERIOD_S", 0.3)
    return Store(tmp_path / "project")


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Garbage collection halts this process, which has imported all there is, for 0.4 s now and then."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ---------------------------------------------------------------- while a run goes


@dataclass
class Lived:
    """A run and what the outage cost it."""

    run_id: str
    longest_gap_s: float
    end_s: float


def lived(store: Store, server: str, at_a_third: Callable[[], None] = lambda: None) -> Lived:
    """A run of 150 steps of 20 ms that logs each of them, with files and a data set; then something happens."""
    gaps, at = [], 0.0
    with store.run("outages", "one", server=server) as run:
        run.params({"lr": 0.1, "units": [64, 32]})
        run.dataset("digits", "0" * 32, "data/processed", "training")
        run.text("hello", "notes/a file with blanks.txt")
        for step in range(NUM_STEPS):
            if step == NUM_STEPS // 3:
                at_a_third()
                at = time.monotonic()
            time.sleep(STEP_S)
            run.metrics({"loss": 1 / (step + 1), "nan": float("nan")}, step)
            now = time.monotonic()
            if at:
                gaps.append(now - at)
            at = now if at or not step else 0.0
        end_s = time.monotonic()
    return Lived(run.id, max(gaps), time.monotonic() - end_s)


def assert_cheap(live: Callable[[], Lived]) -> int:
    """Returns how many runs it took, at most three: other work halts some of them, a wait for the server would all."""
    longest_gaps_s: list[float] = []
    while not longest_gaps_s or longest_gaps_s[-1] >= STEP_S + LONGEST_GAP_S:
        assert len(longest_gaps_s) < 3, longest_gaps_s
        found = live()
        assert found.longest_gap_s < STEP_S + HALTED_S
        assert found.end_s < LONGEST_END_S + 1.0  # and marking its end
        longest_gaps_s.append(found.longest_gap_s)
    return len(longest_gaps_s)


def test_the_server_has_the_run_while_it_goes(store: Store, running: TrackingServer) -> None:
    seen = []

    def look() -> None:
        there = MlflowClient(running.url, running.url)
        end_s = time.monotonic() + 10
        while not seen and time.monotonic() < end_s:
            for experiment in there.search_experiments():
                seen.extend(run for run in there.search_runs([experiment.experiment_id]) if "loss" in run.data.metrics)

    found = lived(store, running.url, look)

    assert [run.info.status for run in seen] == ["RUNNING"]
    assert_same(store, running)
    assert found.end_s < LONGEST_END_S


def killed(server: TrackingServer) -> None:
    server.kill()


def stalled(server: TrackingServer) -> None:
    server.send(signal.SIGSTOP)


def stalled_for_two_seconds(server: TrackingServer) -> None:
    server.send(signal.SIGSTOP)
    threading.Timer(2.0, server.send, [signal.SIGCONT]).start()


@pytest.mark.parametrize("outage", [killed, long(stalled), stalled_for_two_seconds])
def test_an_outage_amid_a_run_costs_it_nothing(outage: Any, store: Store, running: TrackingServer) -> None:
    assert_cheap(lambda: lived(store, up(running).url, lambda: outage(running)))
    if outage is stalled:
        running.send(signal.SIGCONT)
    if outage is killed:
        running.start()
    sync_all(store, running.url)
    assert_same(store, running)
    assert sync_all(store, running.url)[0] == 0  # nothing is left


def test_a_server_that_is_down_at_the_start(store: Store, running: TrackingServer, caplog: Any) -> None:
    """It is told once, and what to do later at the end."""
    running.kill()
    num_runs = assert_cheap(lambda: lived(store, running.url))

    assert caplog.text.count("does not answer; the run goes on without it") == num_runs
    assert caplog.text.count("Later: pipeline sync") == num_runs
    running.start()
    assert sync_all(store, running.url) == (num_runs, 0, 0)
    assert_same(store, running)


def test_a_server_that_answers_with_errors(store: Store, running: TrackingServer) -> None:
    running.kill()
    with answering_500(running.port) as answered:
        assert_cheap(lambda: lived(store, running.url))
    assert answered
    running.start()
    sync_all(store, running.url)
    assert_same(store, running)


@contextmanager
def answering_500(port: int) -> Iterator[list[str]]:
    answered: list[str] = []

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answered.append(self.path)
            self.send_error(500)

        do_POST = do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Broken) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        yield answered
        broken.shutdown()


def test_a_server_whose_disk_is_full(store: Store, running: TrackingServer) -> None:
    """It may have taken some of it."""
    running.kill()
    size_kib = (running.folder / "server.db").stat().st_size // 1024
    running.start(max_file_kib=size_kib + 8)
    assert_cheap(lambda: lived(store, running.url))
    running.kill()
    running.start()
    sync_all(store, running.url)
    assert_same(store, running)


TRAIN = (sys.executable, "-m", "pipeline.train")


def test_a_training_beside_a_dead_server_gives_the_same_weights(prepared: Project, tmp_path: Path) -> None:
    """With one warning when it begins, and one at its end."""
    project = prepared.copy(tmp_path / "work")
    project.run(*TRAIN, "trainer.num_epochs=2")
    beside = project.run(*TRAIN, "trainer.num_epochs=2", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    weights = [path.read_bytes() for path in project.root.glob("outputs/train/*/models/model.safetensors")]

    assert len(weights) == 2
    assert weights[0] == weights[1]
    assert beside.text.count("does not answer; the run goes on without it (Connection refused)") == 1
    assert beside.text.count("Later: pipeline sync") == 1


def test_a_sweep_is_complete_on_the_server_when_it_ends(
    prepared: Project, tmp_path: Path, running: TrackingServer
) -> None:
    """Jobs below the sweep's run, and the model of the best one, which is made after its run has ended."""
    project = prepared.copy(tmp_path / "work")
    words = ("-m", "model.units=8,16", "trainer.num_epochs=1", "tracking=server", f"tracking.server={running.url}")
    project.run(*TRAIN, *words)

    assert sync_all(project.store, running.url) == (0, 0, 3)
    assert_same(project.store, running)


# ---------------------------------------------------------------- afterwards


@pytest.fixture
def filled(store: Store) -> Store:
    """A sweep of three, a failed run with a traceback, and a model with results on a data set."""
    with store.run("sweeps", "sweep units", tags={"sweep.id": "s1", "sweep.role": "parent"}) as parent:
        for units in (16, 32, 64):
            with store.run("sweeps", f"units={units}", tags={PARENT_TAG: parent.id}) as job:
                job.params({"units": units})
                for step in range(200):
                    job.metrics({"loss": units / (step + 1)}, step)
    store.save_sweep_view(parent.id, "s1", ["units"], "loss", ascending=True)
    with pytest.raises(ValueError), store.run("others", "fails"):  # noqa: PT011  any error will do
        raise ValueError("on purpose")
    with store.run("others", "model") as run:
        data = run.dataset("digits", "1" * 32, "data/processed", "test")
        model = run.model(Serve().eval(), make_images(2), name="dense", requirements=["torch"], params={"units": 16})
        run.metrics({"test/accuracy": 0.9}, model_id=model, dataset=data)
    return store


def test_all_runs_are_copied_once(filled: Store, running: TrackingServer) -> None:
    """And all again to a server that was wiped."""
    running.wipe()
    running.start()
    assert sync_all(filled, running.url) == (6, 0, 0)
    assert_same(filled, running)
    start_s = time.monotonic()
    assert sync_all(filled, running.url) == (0, 0, 6)
    assert time.monotonic() - start_s < 5
    running.wipe()
    running.start()
    assert sync_all(filled, running.url) == (6, 0, 0)
    assert_same(filled, running)


def test_a_copying_that_is_killed_again_and_again_doubles_nothing(
    filled: Store, running: TrackingServer, tmp_path: Path
) -> None:
    running.wipe()
    running.start()
    chance, kills, num_kills = random.Random(3), 0, number(6, 12)
    command = [sys.executable, Path(__file__).with_name("killed_sync.py"), filled.root, running.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forks:
        assert forks.stdin is not None
        assert forks.stdout is not None
        while True:
            forks.stdin.write(f"{chance.uniform(0.0, 0.6) if kills < num_kills else 60.0}\n")
            forks.stdin.flush()
            if forks.stdout.readline() == "0\n":
                break
            kills += 1
        forks.stdin.close()

    assert kills == num_kills
    assert_same(filled, running)


@pytest.mark.long
def test_a_copy_that_was_made_twice_becomes_one(filled: Store, running: TrackingServer) -> None:
    """As by a request that was answered after it had been given up."""
    sync_all(filled, running.url)
    there = MlflowClient(running.url, running.url)
    row = next(row for row in filled.rows("") if row.name == "model")
    experiment = there.get_experiment_by_name("others").experiment_id
    for _ in range(3):  # whichever ids they get
        there.create_run(experiment, row.start_ms, {SOURCE_RUN: row.run_id}, row.name)
    assert sync_all(filled, running.url)[0] == 1
    assert_same(filled, running)


def test_a_run_of_a_dead_process_is_closed_on_the_server_too(store: Store, running: TrackingServer) -> None:
    script = (
        "import os, signal, sys, time; from pathlib import Path; from pipeline.tracking import Store\n"
        f"with Store(Path({str(store.root)!r})).run('outages', 'dies', server={running.url!r}) as run:\n"
        "    run.metrics({'loss': 1.0}); time.sleep(3); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    there = MlflowClient(running.url, running.url)
    (before,) = [run for run in _all(there) if run.info.run_name == "dies"]
    store.reap()
    sync_all(store, running.url)

    assert before.info.status == "RUNNING"
    assert there.get_run(before.info.run_id).info.status == "KILLED"
    assert_same(store, running)


def _all(client: MlflowClient) -> list[Any]:
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


def test_the_table_of_a_sweep_shows_the_copies(filled: Store, running: TrackingServer) -> None:
    """Its filter names the sweep's run, which has another id there."""
    import base64
    import json
    import zlib

    sync_all(filled, running.url)
    there = MlflowClient(running.url, running.url)
    tags = there.get_experiment_by_name("sweeps").tags
    state = json.loads(tags["mlflow.sharedViewState.sweep-s1"])["state"].removeprefix("deflate;")
    condition = json.loads(zlib.decompress(base64.b64decode(state)))["searchFilter"]
    experiment = there.get_experiment_by_name("sweeps").experiment_id

    assert sorted(run.info.run_name for run in there.search_runs([experiment], condition)) == [
        "units=16", "units=32", "units=64",
    ]  # fmt: skip


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "No server is named: give --server http://HOST:5000, or set MLFLOW_TRACKING_URI"),
        long(("--server", "http://127.0.0.1:9"), "http://127.0.0.1:9 does not answer"),
        (("--server", "http://me:secret@127.0.0.1:9"), "http://127.0.0.1:9 does not answer"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], said: str, store: Store) -> None:
    with store.run("outages", "one"):
        pass
    mark_as_project(store.root)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "sync", *words], cwd=store.root, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    *loading, error = done.stderr.splitlines()
    assert loading == (["sync: loading MLflow"] if words else [])
    assert error.startswith(f"sync: error: {said}")
    assert "secret" not in done.stderr


def test_nothing_to_copy_is_said(tmp_path: Path) -> None:
    mark_as_project(tmp_path)
    command = [sys.executable, "-m", "pipeline", "sync", "--server", "http://127.0.0.1:9"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"There is nothing to copy: {tmp_path / DATABASE} does not exist" in done.stderr
    assert not (tmp_path / DATABASE).exists()
