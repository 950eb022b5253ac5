"""What the page to draw on is answered, what is refused, and what each pixel adds to an answer."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from config.config_makers import train_config
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import TrainedModel
from pipeline.prediction.demo_app import MAX_BYTES, attribute, demo_app
from pipeline.prediction.models import NamedModel
from pipeline.system.errors import ConfigError


def model() -> TrainedModel:
    torch.manual_seed(0)
    spec = InputSpec((4, 5), "uint8", 0.0, 255.0)
    network = DenseNetwork(train_config({"model.units": [32]}).model, spec, 3).eval()
    return TrainedModel(network, ["a", "b", "c"], spec, "0" * 64, {})


def test_strokes_add_up_to_the_answer() -> None:
    """Without biases a network of relu is linear around each sample, so nothing is left over."""
    found, sample = model(), np.random.default_rng(0).integers(0, 256, (4, 5), dtype=np.uint8)
    assert not any(bias.any() for name, bias in found.network.named_parameters() if name.endswith("bias"))
    probabilities, strokes = attribute(found, sample)
    with torch.inference_mode():
        logits = found.network(torch.from_numpy(sample)[None])[0]
    np.testing.assert_allclose(probabilities, torch.softmax(logits, 0), atol=1e-6)
    np.testing.assert_allclose(strokes.sum(), float(logits.max() - logits.mean()), rtol=1e-4)


def test_a_black_pixel_says_nothing() -> None:
    sample = np.zeros((4, 5), dtype=np.uint8)
    sample[1, 2] = 200
    _, strokes = attribute(model(), sample)
    assert np.flatnonzero(strokes).tolist() == [7]


# ---------------------------------------------------------------- requests

HERE = {"host": "127.0.0.1:5002"}


def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and content of the answer to a request, as a server hands it to the app."""
    sent: list[dict[str, Any]] = []
    pairs = [(name.encode(), value.encode()) for name, value in (HERE | headers).items()]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": pairs, "root_path": "", "scheme": "http", "server": ("127.0.0.1", 5002), "client": ("127.0.0.1", 1),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = demo_app(NamedModel(model(), "<b>one"), 5002)
    asyncio.run(app(scope, receive, send))
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


def png(*shape: int) -> bytes:
    file, drawing = io.BytesIO(), np.full(shape, 255, np.uint8)
    drawing[shape[0] // 4 : shape[0] // 2, shape[1] // 2] = 0
    Image.fromarray(drawing).save(file, "PNG")
    return file.getvalue()


def test_the_page_names_the_model_and_no_name_breaks_it() -> None:
    status, page = ask("GET", "/")
    assert (status, page.count("Draw a figure"), "<b>one" in page) == (200, 2, False)
    assert ask("GET", "/", host="localhost:5002")[0] == 200


def test_a_drawing_is_answered() -> None:
    status, text = ask("POST", "/answer", png(300, 200))
    answer = json.loads(text)
    assert (status, np.shape(answer["seen"]), np.shape(answer["strokes"])) == (200, (4, 5), (4, 5))
    assert answer["answer"] == np.argmax(answer["probabilities"])


@pytest.mark.parametrize(
    ("status", "reason", "method", "path", "body", "headers"),
    [
        (422, "expected a PNG, found", "POST", "/answer", b"no picture", {}),
        (422, "expected at most 1,048,576 pixels, found 2000 x 2000", "POST", "/answer", png(2000, 2000), {}),
        (413, "Content Too Large", "POST", "/answer", b"x" * (MAX_BYTES + 1), {}),
        (413, "Content Too Large", "POST", "/answer", b"", {"content-length": str(1 << 40)}),
        (404, "there is only GET / and POST /answer", "GET", "/elsewhere", b"", {}),
        (405, "there is only GET / and POST /answer", "GET", "/answer", b"", {}),
        (403, "expected a request of http://127.0.0.1:5002", "GET", "/", b"", {"host": "elsewhere.example"}),
        (403, "expected a request of http://127.0.0.1:5002", "GET", "/", b"", {"host": "127.0.0.1:5001"}),
        (403, "found ", "POST", "/answer", png(9, 9), {"origin": "http://elsewhere.example"}),
    ],
    ids=["no png", "pixels", "bytes", "length", "path", "method", "host", "port", "origin"],
)
def test_a_bad_request_is_refused_with_a_reason(
    status: int, reason: str, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    assert (status, True) == ((answer := ask(method, path, body, **headers))[0], reason in answer[1])


def test_a_network_of_rows_takes_no_drawing() -> None:
    found = model()
    rows = TrainedModel(found.network, found.classes, InputSpec((3,), "float32", 0.0, 1.0), "0" * 64, {})
    with pytest.raises(ConfigError, match="only grey pictures can be drawn"):
        demo_app(NamedModel(rows, "rows"), 5002)
