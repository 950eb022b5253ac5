"""The page to draw on, and what answers it, on this machine alone.

GET / is the page; POST /answer takes a PNG and gives what the network says of it. Whatever is wrong with a request is
the request's: 4xx, with a reason.
"""

from __future__ import annotations

import asyncio
import io
import socket
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from jinja2 import Environment
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pipeline.model.portable import TrainedModel
from pipeline.prediction.models import NamedModel
from pipeline.prediction.samples import drawing_as_sample
from pipeline.system.errors import ConfigError, DataContractError

HOST = "127.0.0.1"
MAX_BYTES = 1 << 20  # of a drawing
MAX_PIXELS = 1 << 20
MAX_REQUEST_S = 10  # that a drawing may take to arrive
PAGE = Path(__file__).with_name("demo.html.j2")


def serve(app: Starlette, listener: socket.socket) -> None:
    """Answer until Ctrl-C, which waits a second at most for an answer that is on its way."""
    config = uvicorn.Config(
        app, http="h11", loop="asyncio", ws="none", lifespan="off", proxy_headers=False, log_config=None,
        log_level="error", access_log=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


def demo_app(named: NamedModel, port: int) -> Starlette:
    """Raises ConfigError: the network takes no grey pictures."""
    spec = named.model.input
    if len(spec.shape) != 2 or spec.dtype != "uint8":
        raise ConfigError(f"{named.what} takes samples of the shape {spec.shape}: only grey pictures can be drawn")
    about = {"classes": named.model.classes, "model": named.what}
    text = Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8")).render(about=about)

    async def page(request: Request) -> Response:
        return HTMLResponse(text)

    async def answer(request: Request) -> Response:
        try:
            async with asyncio.timeout(MAX_REQUEST_S):
                content = await request.body()
        except TimeoutError as error:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from error
        return JSONResponse(answer_of(named.model, decode_drawing(content)))

    async def require_local(request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Another site's page must not ask through the browser of somebody here: by Origin, or by DNS rebinding."""
        origin = request.headers.get("Origin")
        names = [request.headers.get("Host"), *([origin.partition("://")[2]] if origin else [])]
        if {f"{HOST}:{port}", f"localhost:{port}"}.issuperset(names):
            response = await call_next(request)
        else:
            reason = f"expected a request of http://{HOST}:{port}, found {names}"
            response = JSONResponse({"error": reason}, HTTPStatus.FORBIDDEN)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return Starlette(
        routes=[Route("/", page), Route("/answer", answer, methods=["POST"], max_body_size=MAX_BYTES)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=require_local)],
        exception_handlers={HTTPException: _refused, DataContractError: _unusable},
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = error.detail
    if error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        reason = f"{request.method} {request.url.path}: there is only GET / and POST /answer"
    return JSONResponse({"error": reason}, error.status_code)


async def _unusable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)


def decode_drawing(content: bytes) -> NDArray[np.uint8]:
    """(H, W) of a PNG. Raises DataContractError: it is none, or a huge one."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
            if file.width * file.height > MAX_PIXELS:
                raise DataContractError(f"expected at most {MAX_PIXELS:,} pixels, found {file.width} x {file.height}")
            return np.asarray(file.convert("L"))
    except DataContractError:
        raise
    except Exception as error:  # each decoder raises what it likes
        raise DataContractError(f"expected a PNG, found {type(error).__name__}: {error}") from error


def answer_of(model: TrainedModel, drawing: NDArray[np.uint8]) -> dict[str, Any]:
    """For a drawing (H, W). Raises DataContractError: there is nothing on it."""
    sample, done = drawing_as_sample(drawing, model.input, "the drawing")
    probabilities, strokes = attribute(model, sample)
    return {
        "probabilities": [round(float(value), 6) for value in probabilities],
        "answer": int(probabilities.argmax()),
        "seen": sample.tolist(),
        "strokes": np.round(strokes, 5).tolist(),
        "done": done,
    }


def attribute(model: TrainedModel, sample: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities (C,), and for each value of the sample (*shape) what it adds to the most probable class's logit
    over the mean of all logits, to first order.

    Gradient times input (Shrikumar et al. 2016): for a network of relu without biases these add up to that difference
    exactly. A black pixel has nothing to say.
    """
    values = torch.from_numpy(np.asarray(sample, dtype=np.float32))[None].requires_grad_()
    logits_C = model.network(values)[0]
    lead = logits_C[int(logits_C.argmax())] - logits_C.mean()
    (gradient,) = torch.autograd.grad(lead, values)
    attributions: NDArray[np.float32] = (gradient * values)[0].detach().numpy()
    return torch.softmax(logits_C.detach(), dim=0).numpy(), attributions
