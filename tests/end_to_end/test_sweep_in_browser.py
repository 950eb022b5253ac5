"""A sweep as people see it in MLflow's UI, in a real browser. Screenshots: PIPELINE_SHOTS=<folder>."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_server import compare_url, run_url
from pipeline.tracking import Store
from pipeline.tracking.leaderboard import leaderboard_url
from pipeline.tracking.lookup import sweeps
from project_maker import Project
from tracking.tracking_makers import free_port, wait_until_it_answers

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def swept(ready: Project) -> Project:
    ready.run(sys.executable, "-m", "pipeline.train", "-m", "model.units=16,32,64", "optimizer.lr=1e-3,3e-3")
    return ready


@pytest.fixture(scope="module")
def port(swept: Project) -> Iterator[int]:
    number, sweep = free_port(), sweeps(swept.store)[0]
    with swept.started(
        sys.executable, "-m", "pipeline", "ui", "--port", str(number), "--sweep", sweep.tags["sweep.id"]
    ) as server:
        wait_until_it_answers(number)
        assert server.stdout is not None
        assert server.stdout.readline().strip() == leaderboard_url(
            number, sweep.experiment_id, f"sweep-{sweep.tags['sweep.id']}"
        )
        yield number
        server.terminate()  # a killed one would leave its worker behind
        server.wait(30)


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1600, "height": 900})
        browser.close()


def visit(page: Any, url: str, sign: str, shot: str) -> str:
    page.goto("about:blank")
    page.goto(url)
    page.get_by_text(sign).first.wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)
    if folder := os.environ.get("PIPELINE_SHOTS"):
        page.screenshot(path=Path(folder, f"{shot}.png"))
    return str(page.inner_text("body"))


def test_the_table_of_a_sweep_shows_its_jobs_best_first(swept: Project, port: int, page: Any) -> None:
    """The view that the sweep left: what was swept, what came out, nothing else."""
    parent = sweeps(swept.store)[0]
    url = leaderboard_url(port, parent.experiment_id, f"sweep-{parent.tags['sweep.id']}")
    text = visit(page, url, "units=64 lr=0.003", "sweep-table")

    jobs = {row.name: row.metrics["kept_val_loss"] for row in swept.store.children(parent.run_id)}
    assert len(jobs) == 6
    assert re.findall(r"units=\d+ lr=\S+", text)[:6] == sorted(jobs, key=lambda name: jobs[name])
    assert "model.units" in text
    assert "optimizer.lr" in text


def test_the_runs_of_the_experiment_show_parent_and_children(swept: Project, port: int, page: Any) -> None:
    parent = sweeps(swept.store)[0]
    text = visit(page, leaderboard_url(port, parent.experiment_id), "sweep model.units", "runs")

    assert "units=16 lr=0.001" in text


def test_the_parents_page_says_what_was_best(swept: Project, port: int, page: Any) -> None:
    parent = sweeps(swept.store)[0]
    text = visit(page, run_url(port, parent.experiment_id, parent.run_id), "best val/loss", "parent")

    assert "with units=" in text


def test_the_compare_page_draws_parallel_coordinates(swept: Project, port: int, page: Any) -> None:
    parent = sweeps(swept.store)[0]
    ids = [row.run_id for row in Store(swept.root).children(parent.run_id)]
    visit(page, compare_url(port, parent.experiment_id, ids), "Parallel Coordinates", "compare")

    assert page.locator("g.parcoords, .parcoords, svg g.y-axis").count() > 0
    assert page.get_by_text("model.units").count() > 0
