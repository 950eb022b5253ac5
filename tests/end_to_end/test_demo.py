"""The page to draw on, in a real browser, and its server under bad requests. Screenshots: PIPELINE_SHOTS=<folder>."""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from project_maker import Project
from tracking.tracking_makers import free_port, wait_until_it_listens

CHROMIUM = "/usr/bin/chromium"
pytestmark = [pytest.mark.slow, pytest.mark.browser]
THREE = [(130 + 70 * math.cos(t / 10), 90 + 45 * math.sin(t / 10)) for t in range(-25, 16)]
THREE += [(130 + 80 * math.cos(t / 10), 190 + 58 * math.sin(t / 10)) for t in range(-15, 26)]
ONE = [(150, y) for y in range(40, 260, 10)]


@pytest.fixture
def port(project: Project) -> Iterator[int]:
    number = free_port()
    with project.started(sys.executable, "-m", "pipeline", "demo", "--port", str(number)):
        wait_until_it_listens(number)
        yield number


def test_a_digit_is_drawn(port: int) -> None:
    """The probabilities move while the pen does; the page shows which strokes spoke for the answer; Clear clears."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1000, "height": 520})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{port}/")
        paper = page.locator("#paper").bounding_box()
        assert paper is not None
        assert page.locator(".row").count() == 10

        def draw(points: list[tuple[float, float]]) -> None:
            page.mouse.move(paper["x"] + points[0][0], paper["y"] + points[0][1])
            page.mouse.down()
            for x, y in points:
                page.mouse.move(paper["x"] + x, paper["y"] + y)

        draw(THREE)
        page.locator(".row.best").wait_for()  # before the pen is lifted
        page.mouse.up()
        page.wait_for_function("document.querySelector('.row.best .name').textContent === '3'")
        shares = [float(text.removesuffix("%")) for text in page.locator(".value").all_text_contents()]
        colours = page.evaluate("[...seen.getContext('2d').getImageData(0, 0, seen.width, seen.height).data]")
        pixels = np.array(colours).reshape(28, 28, 4)
        assert sum(shares) == pytest.approx(100, abs=1)
        assert (pixels[..., 2] > pixels[..., 0] + 50).any()  # blue: strokes that spoke for it
        assert page.locator("#done").text_content() == "inverted, scaled from 308 x 308, centred by mass"
        if shots := os.environ.get("PIPELINE_SHOTS"):
            page.screenshot(path=Path(shots) / "demo.png")

        page.get_by_text("Clear").click()
        assert page.locator(".row.best").count() == 0
        draw(ONE)
        page.mouse.up()
        page.wait_for_function("document.querySelector('.row.best .name')?.textContent === '1'")
        browser.close()
    assert wrong == []


def test_bad_requests_are_refused_and_the_server_goes_on(port: int) -> None:
    """Bytes that are no picture, huge ones, other paths; then a drawing is answered."""
    rng, connection = random.Random(0), http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(body: bytes, path: str = "/answer", **headers: str) -> tuple[int, dict[str, object]]:
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    def png(drawing: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(drawing).save(file, "PNG")
        return file.getvalue()

    stroke = np.full((300, 300), 255, np.uint8)
    stroke[50:250, 140:160] = 0
    whole = png(stroke)
    for _ in range(500):
        cut = bytearray(
            whole[: rng.randrange(len(whole) // 2)] if rng.random() < 0.5 else rng.randbytes(rng.randrange(99))
        )
        assert post(bytes(cut))[0] == 422
    assert post(png(np.zeros((2000, 2000), np.uint8)))[0] == 422
    assert "blank picture" in str(post(png(np.full((300, 300), 255, np.uint8))))
    assert post(b"", "/elsewhere")[0] == 404
    for length, status in (("-5", 400), ("many", 400), (str(1 << 40), 413)):
        connection.close()
        connection.putrequest("POST", "/answer")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == status
    connection.close()
    assert post(whole, Host="elsewhere.example")[0] == 403
    connection.close()
    assert post(whole, Origin="http://elsewhere.example")[0] == 403
    connection.close()
    status, reply = post(whole)
    connection.close()
    assert (status, reply["answer"]) == (200, 1)


def test_ctrl_c_ends_it_at_once_and_a_port_that_is_taken_is_one_error(project: Project) -> None:
    """Also while a browser keeps its connection and a request has stopped half way."""
    number = free_port()
    command = (sys.executable, "-m", "pipeline", "demo", "--port", str(number))
    with project.started(*command) as process:
        wait_until_it_listens(number)
        taken = project.run(*command, expect=2)
        assert taken.text.endswith(f"demo: error: --port {number}: Address already in use. Choose another\n")
        idle = http.client.HTTPConnection("127.0.0.1", number, timeout=30)
        idle.request("GET", "/")
        assert b"Draw a figure" in idle.getresponse().read()
        with socket.create_connection(("127.0.0.1", number)) as half:
            half.sendall(f"POST /answer HTTP/1.1\r\nHost: localhost:{number}\r\nContent-Length: 9\r\n\r\n".encode())
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=5) == 130
        idle.close()
