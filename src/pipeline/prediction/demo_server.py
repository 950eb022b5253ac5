"""The page to draw on, and what answers it."""

from __future__ import annotations

import io
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.prediction.models import Found
from pipeline.prediction.samples import drawing_as_sample
from pipeline.prediction.strokes import answer_and_strokes
from pipeline.system.errors import ConfigError, DataContractError

MOST_BYTES = 1 << 20  # of a drawing
MOST_PIXELS = 1 << 20
PAGE = Path(__file__).parent / "page.html"


class Demo(ThreadingHTTPServer):
    """GET / is the page; POST /answer takes a PNG and tells what the network says of it."""

    daemon_threads = True

    def __init__(self, found: Found, port_number: int) -> None:
        self.found = found
        super().__init__(("127.0.0.1", port_number), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def is_called(self, host: str | None) -> bool:
        """Whether a request names this server as a browser on this machine does, and not a page from elsewhere."""
        return host in {f"{name}:{self.server_address[1]}" for name in ("127.0.0.1", "localhost")}

    def answer(self, drawing: NDArray[np.uint8]) -> dict[str, Any]:
        """For a drawing (H, W). Raises DataContractError: there is nothing on it."""
        model = self.found.model
        sample, done = drawing_as_sample(drawing, model.input, "the drawing")
        probabilities, strokes = answer_and_strokes(model, sample)
        return {
            "probabilities": [round(float(value), 6) for value in probabilities],
            "answer": int(probabilities.argmax()),
            "seen": sample.tolist(),
            "strokes": np.round(strokes, 5).tolist(),
            "done": done,
        }


class Handler(BaseHTTPRequestHandler):
    server: Demo
    timeout = 10  # s, for a request that does not come to its end

    def do_GET(self) -> None:
        if not self._is_from_here():
            return None
        if self.path != "/":
            return self._tell(HTTPStatus.NOT_FOUND, {"error": f"{self.path}: there is only / and /answer"})
        about = {"classes": self.server.found.model.classes, "model": self.server.found.what}
        text = PAGE.read_text(encoding="utf-8").replace("{}/*about*/", json.dumps(about).replace("<", "\\u003c"))
        return self._send(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())

    def do_POST(self) -> None:
        """Whatever is wrong with a request is the request's: 4xx."""
        if not self._is_from_here():
            return None
        if self.path != "/answer":
            return self._tell(HTTPStatus.NOT_FOUND, {"error": f"{self.path}: there is only /answer"})
        try:
            num_bytes = int(self.headers.get("Content-Length", "-1"))
        except ValueError:
            num_bytes = -1
        if not 0 <= num_bytes <= MOST_BYTES:
            self.close_connection = True
            return self._tell(HTTPStatus.BAD_REQUEST, {"error": f"expected a PNG of at most {MOST_BYTES:,} bytes"})
        try:
            return self._tell(HTTPStatus.OK, self.server.answer(drawing_of(self.rfile.read(num_bytes))))
        except DataContractError as error:
            return self._tell(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})

    def _is_from_here(self) -> bool:
        """Else it is refused: another site's page must not ask through the browser of somebody here."""
        origin = self.headers.get("Origin")
        names = [self.headers.get("Host"), *([origin.partition("://")[2]] if origin else [])]
        if all(map(self.server.is_called, names)):
            return True
        self.close_connection = True
        self._tell(HTTPStatus.FORBIDDEN, {"error": f"expected a request of {self.server.url}, found {names}"})
        return False

    def _tell(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(values).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not a line for each stroke."""


def drawing_of(content: bytes) -> NDArray[np.uint8]:
    """(H, W) of a PNG. Raises DataContractError: it is none, or a huge one."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
            if file.width * file.height > MOST_PIXELS:
                raise DataContractError(f"expected at most {MOST_PIXELS:,} pixels, found {file.width} x {file.height}")
            return np.asarray(file.convert("L"))
    except DataContractError:
        raise
    except Exception as error:  # each decoder raises what it likes
        raise DataContractError(f"expected a PNG, found {type(error).__name__}: {error}") from error


def require_pictures(found: Found) -> None:
    """Raise ConfigError for a network that takes no grey pictures."""
    if len(found.model.input.shape) != 2 or found.model.input.dtype != "uint8":
        raise ConfigError(
            f"{found.what} takes samples of the shape {found.model.input.shape}: only grey pictures can be drawn"
        )
