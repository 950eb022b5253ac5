"""What a person sees who follows the leaderboard link, in a real browser. Screenshots: PIPELINE_SHOTS=<folder>."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_server import run_url
from pipeline.tracking import Store, leaderboard_url, provenance
from project_maker import mark_as_project
from tracking.tracking_makers import Serve, free_port, make_images, wait_until_it_answers

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CHROMIUM = "/usr/bin/chromium"
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
ACCURACIES = {"dense-64": 0.9432, "dense-512": 0.9785, "dense-256x128": 0.9611}


def fill(store: Store, name: str, accuracy: float) -> str:
    """A run with all that a stage would record; its id."""
    with store.run("mnist-dense", name) as run:
        run.provenance(provenance(Path(__file__).parents[2]))
        units = [int(width) for width in name.removeprefix("dense-").split("x")]
        run.params({"model.units": units, "optimizer.name": "rmsprop", "optimizer.lr": 1e-3})
        run.params({"trainer.num_epochs": 5, "trainer.batch_size": 128, "data.name": "mnist", "seed": 0})
        for epoch in range(5):
            run.metrics({"train/loss": 0.3 / (epoch + 1), "train/accuracy": accuracy - 0.03 / (epoch + 1)}, step=epoch)
            run.metrics({"kept_val_accuracy": accuracy - 0.01}, step=epoch)
        model_id = run.model(Serve().eval(), make_images(2), name=name, requirements=["torch", "mlflow"])
        used = run.dataset("mnist-test", "0123456789abcdef.dir", "data/processed/test", "test")
        run.metrics({"test/accuracy": accuracy, "test/loss": 1 - accuracy}, model_id=model_id, dataset=used)
        recall = np.linspace(0.9, 1, 10)
        run.table({"class": [str(n) for n in range(10)], "recall": list(recall)}, "evaluation/per_class.json")
        run.note(f"{accuracy:.2%} of 10,000 test images", "Dense network, RMSprop, 5 epochs, seed 0.")
    return run.id


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Any]) -> Iterator[tuple[Store, int, str]]:
    """A UI on a store with three runs: the store, the port and the id of the best run."""
    root = tmp_path_factory.mktemp("browser")
    mark_as_project(root)
    store = Store(root)
    runs = {name: fill(store, name, accuracy) for name, accuracy in ACCURACIES.items()}
    port = free_port()
    process: subprocess.Popen[str] = start("-m", "pipeline", "ui", "--port", str(port), cwd=root, DVC_ROOT=str(root))
    wait_until_it_answers(port)
    yield store, port, runs["dense-512"]
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser.new_page(viewport={"width": 1600, "height": 900})
        browser.close()


def visit(page: Any, url: str, sign: str, shot: str) -> str:
    """Open a link, wait until ``sign`` is on the page, take a picture; the page's text."""
    page.goto("about:blank")
    page.goto(url)
    page.get_by_text(sign).first.wait_for(timeout=60_000)
    page.wait_for_timeout(2_000)  # the rest of the table
    assistant = page.locator('[data-component-id="mlflow.assistant.chat_panel.close"]')
    if assistant.count():  # opens itself on the first visit and stays closed once it was closed
        assistant.click()
        page.wait_for_timeout(1_000)
    if folder := os.environ.get("PIPELINE_SHOTS"):
        page.screenshot(path=f"{folder}/{shot}.png")
    return str(page.inner_text("body"))


def test_the_leaderboard_link_shows_the_runs_best_first_with_their_settings(
    server: tuple[Store, int, str], page: Any
) -> None:
    store, port, _ = server
    text = visit(page, leaderboard_url(port, store.experiment("mnist-dense")), "0.9785", "leaderboard")
    assert re.findall(r"0\.9(?:432|785|611)\b", text)[:3] == ["0.9785", "0.9611", "0.9432"]
    for shown in ("test/accuracy", "kept_val_accuracy", "model.units", "dense-512"):
        assert shown in text


def test_the_page_of_a_run_opens_with_its_headline(server: tuple[Store, int, str], page: Any) -> None:
    store, port, run_id = server
    text = visit(page, run_url(port, store.experiment("mnist-dense"), run_id), "97.85% of 10,000", "run")
    assert "Finished" in text
    assert "mnist-test" in text


def test_a_table_is_shown_as_a_table(server: tuple[Store, int, str], page: Any) -> None:
    store, port, run_id = server
    url = run_url(port, store.experiment("mnist-dense"), run_id).replace("?", "/artifacts/evaluation/per_class.json?")
    text = visit(page, url, "recall", "table")
    assert "class" in text
    assert '"columns"' not in text
