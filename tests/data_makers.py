"""Small real data for the tests of download and preprocess, and a mirror on loopback that can be made to fail."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import DownloadView, PreprocessConfig, PreprocessData
from pipeline.data.idx import write_idx
from pipeline.data.source import RawNote, describe_file

Pixels = NDArray[np.uint8]
NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


# ---------------------------------------------------------------- images


def noise(count: int, height: int = 5, width: int = 4, seed: int = 0) -> Pixels:
    """Images (count, height, width) that are all different."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width), dtype=np.uint8)


def cycling_labels(count: int, num_classes: int = 3) -> Pixels:
    """0, 1, 2, 0, 1, 2, …"""
    return (np.arange(count) % num_classes).astype(np.uint8)


def tiny_set(num_train: int = 30, num_test: int = 9) -> dict[str, Pixels]:
    """The four arrays of a small data set of three classes: role -> values."""
    return {
        "train_images": noise(num_train),
        "train_labels": cycling_labels(num_train),
        "test_images": noise(num_test, seed=1),
        "test_labels": cycling_labels(num_test),
    }


def write_raw(raw: Path, arrays: dict[str, Pixels], name: str = "tiny") -> dict[str, Path]:
    """data/raw as download leaves it for IDX files. Returns role -> path."""
    raw.mkdir(parents=True)
    paths = {role: raw / NAMES[role] for role in arrays}
    for role, values in arrays.items():
        write_idx(paths[role], values)
    files = {role: describe_file(path) for role, path in paths.items()}
    RawNote(name, "idx", "idx", files).write(raw)
    return paths


def idx_file(values: Pixels, folder: Path) -> bytes:
    """The bytes of an IDX file."""
    write_idx(folder / "one.idx", values)
    return (folder / "one.idx").read_bytes()


# ---------------------------------------------------------------- configuration

DEFORM = {
    "name": "deform", "copies": 3, "rotation_degrees": 10.0, "translation_px": 1.0, "scale": 0.1, "shear": 0.1,
    "elastic_px": 0.9, "elastic_sigma_px": 4.0, "fill": 0, "seed": 0,
}  # fmt: skip


def preprocess_config(expand: dict[str, Any] | None = None, **changes: Any) -> PreprocessConfig:
    """Three classes, a tenth for validation; expand: the group of that name, none if left out."""
    values: dict[str, Any] = {
        "name": "tiny",
        "label": None,
        "classes": None,
        "image_shape": None,
        "color": None,
        "transpose": False,
        "test_fraction": None,
        "validation_fraction": 0.1,
        "split_seed": 0,
    }
    data = PreprocessData.model_validate(values | changes)
    return PreprocessConfig.model_validate({"data": data, "expand": expand or {"name": "none"}})


def own_config(**changes: Any) -> DownloadView:
    """A person's own data."""
    values: dict[str, Any] = {"name": "tiny", "files": None, "archive": None, "path": None, "mirrors": []}
    return DownloadView(**values | changes)


def published_config(contents: dict[str, bytes], mirrors: list[str], **changes: Any) -> DownloadView:
    """Published files of the given contents (role -> bytes), proven by the digest of the content."""
    files = {
        role: {"file": f"{NAMES[role]}.gz", "sha256": hashlib.sha256(content).hexdigest(), "sha256_gz": None}
        for role, content in contents.items()
    }
    return own_config(**{"kind": "idx", "files": files, "mirrors": mirrors} | changes)


def published_contents(folder: Path, num_train: int = 30) -> dict[str, bytes]:
    """Role -> IDX bytes of the tiny set."""
    return {role: idx_file(values, folder) for role, values in tiny_set(num_train).items()}


def zipped(contents: dict[str, bytes]) -> dict[str, bytes]:
    """What a mirror offers: file name -> gzip bytes."""
    return {f"{NAMES[role]}.gz": gzip.compress(content) for role, content in contents.items()}


# ---------------------------------------------------------------- a mirror

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Mirror:
    """An HTTP server with files, which may be told to answer otherwise."""

    url: str
    files: dict[str, bytes]
    answer: Answer | None = None  # instead of the files
    requests: list[str] = field(default_factory=list)  # paths, and the range asked for
    ranges: bool = True  # whether a part may be asked for


@contextmanager
def mirror(files: dict[str, bytes], answer: Answer | None = None) -> Iterator[Mirror]:
    """A mirror on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = self.headers.get("Range", "bytes=0-")[len("bytes=") : -1]
            served.requests.append(self.path + (f" from {begin}" if begin != "0" else ""))
            if served.answer:
                served.answer(self)
            else:
                send_file(self, served.files.get(self.path.lstrip("/")), int(begin) if served.ranges else 0)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Mirror(f"http://127.0.0.1:{server.server_port}/", files, answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send_file(handler: BaseHTTPRequestHandler, content: bytes | None, begin: int = 0) -> None:
    """A whole file, or what comes after ``begin``; 404 where there is none, 416 where it is not that long."""
    if content is None or begin >= len(content):
        handler.send_error(404 if content is None else 416)
        return
    handler.send_response(206 if begin else 200)
    handler.send_header("Content-Length", str(len(content) - begin))
    handler.end_headers()
    handler.wfile.write(content[begin:])


def status(code: int) -> Answer:
    """Refuse with a status."""
    return lambda handler: handler.send_error(code)


def body(content: bytes, promised: int | None = None) -> Answer:
    """Send this with status 200; ``promised`` may announce more than comes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised or len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def silence(seconds: float) -> Answer:
    """Say nothing for a while, then hang up."""
    return lambda handler: time.sleep(seconds)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: name -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
