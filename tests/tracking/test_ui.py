"""`pipeline ui`: a slim server that comes up, says where, and goes away."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from arguments import arguments_of
from pipeline.commands import ui
from pipeline.system.errors import PipelineError
from pipeline.tracking import Store
from pipeline.tracking.leaderboard import experiments_url
from tracking.tracking_makers import free_port, wait_until_it_answers

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind((ui.HOST, 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_the_server_answers_slim_and_is_gone_after_sigint_and_sigterm(store: Store, start: Start) -> None:
    with store.run("mnist", "one"):
        pass
    servers = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        port = free_port()
        servers[number] = (port, start("-m", "pipeline", "ui", "--port", str(port), cwd=store.root))
    for number, (port, process) in servers.items():
        wait_until_it_answers(port)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) <= 3
        listening = {
            (at.laddr.ip, at.laddr.port) for one in family for at in one.net_connections() if at.status == "LISTEN"
        }
        assert listening == {(ui.HOST, port)}
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert psutil.wait_procs(family[1:], timeout=10)[1] == []
        assert out.startswith(f"http://127.0.0.1:{port}/#/experiments/{store.experiment('mnist')}/runs?")
        assert [line.split()[0] for line in err.splitlines()] == ["ui:", "[MLflow]"]  # what takes a moment; the hosts
        assert "Allowed hosts: 127.0.0.1:*, localhost:*" in err
    assert not [path.name for path in store.root.iterdir() if path.name in ("mlruns", "mlartifacts")]


def test_a_taken_port_is_one_error_with_the_next_free_port(project: Path, taken_port: int) -> None:
    with pytest.raises(PipelineError, match=rf"Port {taken_port} is taken.*--port \d+$") as error:
        ui.main(arguments_of(ui, "--port", str(taken_port)))
    ui.check_port(int(str(error.value).rsplit(" ", 1)[1]))


def test_without_a_store_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="make repro"):
        ui.require_runs(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_link_opens_the_experiment_of_the_newest_run_or_the_one_asked_for(store: Store) -> None:
    for name in ("first", "second"):
        with store.run(name, "one"):
            pass
    assert f"/experiments/{store.experiment('second')}/" in ui.experiment_link(store.root, 5000, None)
    assert f"/experiments/{store.experiment('first')}/" in ui.experiment_link(store.root, 5000, "first")
    with pytest.raises(PipelineError, match="no experiment called 'third'"):
        ui.experiment_link(store.root, 5000, "third")


def test_without_runs_the_link_opens_the_list_of_experiments(project: Path) -> None:
    assert ui.experiment_link(project, 5000, None) == experiments_url(5000)
