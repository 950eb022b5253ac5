"""However a run ends, its status says so. Real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from pipeline.system import signals as signals_module
from pipeline.system.locks import LIVE
from pipeline.system.signals import DeferredSignals, deferred_stop
from pipeline.tracking import Store
from pipeline.tracking.store import LIVE_TAG, REASON_TAG, TRACEBACK_FILE

SCRIPT = Path(__file__).with_name("exit_paths.py")
SIGNALS = {
    "sigint": signal.SIGINT,
    "swallowed_sigint": signal.SIGINT,
    "sigterm": signal.SIGTERM,
    "sighup": signal.SIGHUP,
    "sigkill": signal.SIGKILL,
}


@dataclass(frozen=True)
class Endings:
    """What was left behind by a process for each way to end."""

    store: Store
    exit_codes: dict[str, int]
    run_ids: dict[str, str]
    reaped: list[str]
    status_before_reaping: str

    def run(self, name: str) -> Any:
        return self.store.client.get_run(self.run_ids[name])


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory, start: Callable[..., subprocess.Popen[str]]) -> Endings:
    root = tmp_path_factory.mktemp("endings")
    process = start(SCRIPT, root, cwd=root)
    run_ids = {}
    for name in ("normal", "exit_0", "exception", "pipeline_error", *SIGNALS):
        pid, run_ids[name] = wait_for(root / f"{name}.ready").split()
        if name in SIGNALS:
            os.kill(int(pid), SIGNALS[name])
    out, _ = process.communicate(timeout=60)
    store = Store(root)
    before = store.client.get_run(run_ids["sigkill"]).info.status
    return Endings(store, json.loads(out), run_ids, store.reap(), before)


def wait_for(file: Path) -> str:
    for _ in range(600):
        if file.exists():
            return file.read_text()
        time.sleep(0.1)
    raise TimeoutError(f"{file} did not appear in 60 s")


@pytest.mark.parametrize(
    ("name", "status", "exit_code", "reason"),
    [
        ("normal", "FINISHED", 0, None),
        ("exit_0", "FINISHED", 0, None),
        ("exception", "FAILED", 1, "RuntimeError: boom"),
        ("pipeline_error", "FAILED", 1, "PipelineError: the data is not there"),
        ("sigint", "KILLED", 130, "SIGINT"),
        ("swallowed_sigint", "KILLED", 130, "SIGINT"),
        ("sigterm", "KILLED", 143, "SIGTERM"),
        ("sighup", "KILLED", 129, "SIGHUP"),
        ("sigkill", "KILLED", -9, "the process died without ending the run (SIGKILL or power cut)"),
    ],
)
def test_each_ending_has_its_status_exit_code_and_reason(
    endings: Endings, name: str, status: str, exit_code: int, reason: str | None
) -> None:
    run = endings.run(name)
    assert (run.info.status, endings.exit_codes[name], run.data.tags.get(REASON_TAG)) == (status, exit_code, reason)
    assert run.info.end_time is not None
    assert LIVE_TAG not in run.data.tags


def test_only_the_killed_process_needs_reaping(endings: Endings) -> None:
    assert endings.status_before_reaping == "RUNNING"
    assert endings.reaped == [endings.run_ids["sigkill"]]
    assert endings.store.reap() == []


def test_a_failed_run_keeps_its_traceback(endings: Endings) -> None:
    file = endings.store.client.download_artifacts(endings.run_ids["exception"], TRACEBACK_FILE)
    text = Path(file).read_text()
    assert text.startswith("Traceback")
    assert text.endswith("RuntimeError: boom\n")


def test_a_living_run_is_not_reaped(store: Store) -> None:
    with store.run("endings", "alive") as run:
        assert Store(store.root).reap() == []
        assert store.client.get_run(run.id).info.status == "RUNNING"


def test_a_run_that_ended_just_before_its_process_died_keeps_its_status(store: Store) -> None:
    with store.run("endings", "ended", tags={"stage": "train"}) as run:
        pass
    store.client.set_tag(run.id, LIVE_TAG, "token")
    (store.root / LIVE / "token").touch()
    assert store.reap() == []
    assert store.client.get_run(run.id).info.status == "FINISHED"
    assert list((store.root / LIVE).iterdir()) == []


def test_an_error_of_the_store_does_not_hide_the_error_of_the_run(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(store.client, "set_terminated", full)
    with pytest.raises(RuntimeError, match="boom"), store.run("endings", "full disk"):
        raise RuntimeError("boom")
    assert "No space left on device" in caplog.text


def test_a_run_works_outside_the_main_thread(store: Store) -> None:
    ids = []

    def work() -> None:
        with store.run("endings", "thread") as run:
            ids.append(run.id)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert store.client.get_run(ids[0]).info.status == "FINISHED"


def test_signal_handlers_are_given_back(store: Store) -> None:
    before = [signal.getsignal(number) for number in SIGNALS.values()]
    with store.run("endings", "handlers"):
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in SIGNALS.values()] == before


def test_a_signal_while_a_run_is_opened_raises_when_the_block_starts() -> None:
    steps = []

    def interrupted_early() -> None:
        with DeferredSignals() as signals:
            signal.raise_signal(signal.SIGTERM)
            steps.append("opened")
            with signals.interruptible():
                steps.append("block")

    with pytest.raises(SystemExit) as exit_info:
        interrupted_early()
    assert (exit_info.value.code, steps) == (143, ["opened"])


def test_a_signal_while_a_run_is_closed_raises_when_it_is_closed() -> None:
    steps = []

    def interrupted_late() -> None:
        with DeferredSignals() as signals:
            with signals.interruptible():
                steps.append("block")
            signal.raise_signal(signal.SIGTERM)
            steps.append("closed")

    with pytest.raises(SystemExit) as exit_info:
        interrupted_late()
    assert (exit_info.value.code, steps) == (143, ["block", "closed"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_amid_a_write_waits_for_its_end(store: Store, number: signal.Signals) -> None:
    """Cut short, MLflow's transaction would stay open, and the run could not be marked as ended for 20 s."""
    steps = []
    ids = []

    def interrupt(*event: Any) -> None:
        statement = event[2]
        if statement.startswith("INSERT INTO metrics"):
            steps.append("inserted")
            signal.raise_signal(number)

    def interrupted() -> None:
        with store.run("endings", "amid a write") as run:
            ids.append(run.id)
            run.metrics({"loss": 0.5})
            steps.append("after the write")

    sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", interrupt)
    try:
        with pytest.raises(SystemExit) as exit_info:
            interrupted()
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "after_cursor_execute", interrupt)

    assert (exit_info.value.code, steps) == (128 + number, ["inserted"])
    run = store.client.get_run(ids[0])
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 0.5})


def test_a_second_signal_does_not_cut_the_cleaning_up_short() -> None:
    steps = []

    def interrupted_twice() -> None:
        with DeferredSignals() as signals, signals.interruptible():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                steps.append("cleaned")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert steps == ["cleaned"]


def test_a_third_signal_ends_a_process_unless_it_is_a_foreign_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it ends none within either, such as those of a run that is open there."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)

    def interrupted(*, hard_exit: bool) -> None:
        with DeferredSignals(hard_exit=hard_exit) as outer, outer.interruptible(), DeferredSignals():
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)

    for hard_exit, codes in ((False, []), (True, [143])):
        with pytest.raises(SystemExit):
            interrupted(hard_exit=hard_exit)
        assert ended == codes


@dataclass
class AskedToStop:
    """What a block that was asked to stop has done, and what came out of it."""

    steps: list[str]
    code: Any = None
    seconds: float = 0.0


def asked_to_stop(block: Callable[[Callable[[], bool], list[str]], None]) -> AskedToStop:
    """Run a block with ``deferred_stop``, in an open run."""
    done = AskedToStop([])
    start_s = time.monotonic()
    try:
        with DeferredSignals() as signals, signals.interruptible(), deferred_stop() as asked:
            block(asked, done.steps)
    except SystemExit as error:
        done.code = error.code
    done.seconds = time.monotonic() - start_s
    return done


def test_a_block_that_ends_itself_is_not_cut_short() -> None:
    def ends(asked: Callable[[], bool], steps: list[str]) -> None:
        before = asked()
        signal.raise_signal(signal.SIGTERM)
        steps.append(f"{before} {asked()}")

    done = asked_to_stop(ends)
    assert (done.steps, done.code) == (["False True"], 143)


@pytest.mark.timeout(120, method="signal")  # it has the timer
def test_a_block_that_does_not_end_itself_is_cut_short_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not amid a write; afterwards the timer is whose it was."""
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(signals_module, "STOP_WITHIN_S", 0.3)

    def hangs(asked: Callable[[], bool], steps: list[str]) -> None:
        signal.raise_signal(signal.SIGTERM)
        with DeferredSignals.current.critical():  # type: ignore[union-attr]
            time.sleep(0.6)
            steps.append("written")
        steps.append("not reached")

    def sleeps(asked: Callable[[], bool], steps: list[str]) -> None:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(10)

    written, slept = asked_to_stop(hangs), asked_to_stop(sleeps)
    assert (written.steps, written.code) == (["written"], 143)
    assert (slept.code, slept.seconds < 5) == (143, True)
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 60) == (before, True)


def test_a_second_signal_cuts_a_block_short_that_was_to_end_itself() -> None:
    def asked_twice(asked: Callable[[], bool], steps: list[str]) -> None:
        signal.raise_signal(signal.SIGTERM)
        steps.append("first")
        signal.raise_signal(signal.SIGTERM)
        steps.append("not reached")

    done = asked_to_stop(asked_twice)
    assert (done.steps, done.code) == (["first"], 143)


@pytest.mark.timeout(120, method="signal")  # it has the timer
def test_a_second_signal_after_a_late_first_one_does_not_cut_the_closing_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that was up counts in the block that was to end itself, not in what closes the run."""
    monkeypatch.setattr(signals_module, "STOP_WITHIN_S", 0.1)
    steps = []

    def closes() -> None:
        with DeferredSignals() as signals:
            try:
                with signals.interruptible(), deferred_stop():
                    signal.raise_signal(signal.SIGTERM)
                    time.sleep(10)
            finally:
                signal.raise_signal(signal.SIGTERM)
                steps.append("closed")

    with pytest.raises(SystemExit):
        closes()
    assert steps == ["closed"]


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with DeferredSignals() as signals, signals.interruptible():
            signal.raise_signal(signal.SIGHUP)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
