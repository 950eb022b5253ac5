"""The champion behind MLflow's server, and as ONNX: the same answers everywhere, and nothing malformed ends it."""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanes import number
from pipeline.prediction.models import find_model
from project_maker import Project
from tracking.tracking_makers import free_port, wait_until_it_listens

pytestmark = pytest.mark.slow
NUM_MALFORMED = number(1_000, 10_000)
JSON = "application/json"


class Server:
    """`make serve` on a port of its own."""

    def __init__(self, project: Project, port: int, example: Path) -> None:
        self.project, self.port, self.example = project, port, example
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, body: bytes, kind: str = JSON) -> tuple[int, bytes]:
        try:
            self.connection.request("POST", "/invocations", body, {"Content-Type": kind})
            reply = self.connection.getresponse()
            return reply.status, reply.read()
        except (http.client.HTTPException, ConnectionError):
            self.connection.close()
            raise


@pytest.fixture(scope="module")
def server(ready: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    project, port = ready.copy(tmp_path_factory.mktemp("serve") / "work"), free_port()
    with project.started(sys.executable, "-m", "pipeline", "serve", "--port", str(port)) as process:
        assert process.stdout is not None
        said = [process.stdout.readline(), process.stdout.readline()]
        assert "@champion. When it runs:" in said[0], said
        for pipe in (process.stdout, process.stderr):  # a line for each request: a full pipe would halt the server
            threading.Thread(target=list, args=(pipe,), daemon=True).start()
        wait_until_it_listens(port)
        running = Server(project, port, Path(said[1].rpartition("@")[2].strip()))
        yield running
        running.connection.close()
        process.terminate()
        process.wait(timeout=30)


def images_and_answers(project: Project, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images, and the probabilities that the champion's own weights give them."""
    images = np.load(project.root / "data/processed/test/images.npy")[:count]
    return images, np.exp(find_model(project.root, "@champion", "serve").model.predict_log_proba(images))


def malformed(rng: random.Random, good: bytes) -> tuple[bytes, str]:
    """A body that no sample can be read from, and its content type."""

    def wrong(value: Any) -> bytes:
        row: list[Any] = [0] * 28
        row[rng.randrange(28)] = value
        return json.dumps({"inputs": [[row] * 28]}).encode()

    height, width = rng.choice([(27, 28), (28, 29), (1, 1), (28, 0), (0, 28), (784, 1)])
    cut = rng.randrange(len(good) - 1)
    return rng.choice([
        (rng.randbytes(rng.randrange(200)), rng.choice([JSON, "text/csv", "image/png", ""])),
        (good[:cut], JSON),
        (wrong(rng.choice([-1, 256, 10**30, "a", None, [], {}, float("nan"), float("inf")])), JSON),
        (json.dumps({"inputs": np.zeros((1, height, width), int).tolist()}).encode(), JSON),
        (json.dumps({rng.choice(["input", "inputs", "instances", "dataframe_split", "x"]): rng.choice(
            [None, 1, "text", [], {}, [1], [[1]], {"columns": ["a"], "data": [[1]]}, [{"a": 1}]]
        )}).encode(), JSON),
        (json.dumps(rng.choice([None, 1, [], {}, "inputs", [{"inputs": 1}]])).encode(), JSON),
        (b"[" * rng.randrange(1, 500), JSON),
    ])  # fmt: skip


def test_the_request_of_the_docs_is_answered(server: Server) -> None:
    """By curl, as it is printed; and the server gives the probabilities that the pipeline's own model gives."""
    command = re.search(r"^(curl .*)$", (server.project.root / "docs/serving.md").read_text(), re.MULTILINE)
    assert command is not None
    asked = command[1].replace("5001", str(server.port)).replace("@example.json", f"@{server.example}")
    said = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout
    assert np.array(json.loads(said)["predictions"]).shape == (2, 10)

    images, expected = images_and_answers(server.project, 50)
    status, body = server.post(json.dumps({"inputs": images.tolist()}).encode())
    assert status == 200
    np.testing.assert_allclose(json.loads(body)["predictions"], expected, atol=1e-5)


def test_malformed_requests_are_refused_and_the_server_goes_on(server: Server) -> None:
    images, expected = images_and_answers(server.project, 1)
    good, rng, found = json.dumps({"inputs": images.tolist()}).encode(), random.Random(0), {}
    for _ in range(NUM_MALFORMED):
        body, kind = malformed(rng, good)
        status, _ = server.post(body, kind)
        found.setdefault(status, (kind, body[:200]))
    assert all(400 <= status < 500 for status in found), found

    status, body = server.post(good)
    assert status == 200
    np.testing.assert_allclose(json.loads(body)["predictions"], expected, atol=1e-5)
