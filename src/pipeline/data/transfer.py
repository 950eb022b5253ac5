"""One file over HTTP, by pooch: continued where an earlier try broke off, with progress on a terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.data.unpack import NotServed

CONNECT_S = 10.0  # a host that does not answer by then is taken to be unreachable
CHUNK_BYTES = 1 << 16


def fetch(url: str, path: Path, timeout_s: float) -> bool:
    """Download ``url`` to ``path``. Until it is whole it is called ``path``.part, which the next try continues.

    timeout_s: longest silence between two chunks.
    Returns whether an earlier part was continued: a wrong digest may then be that part's fault.

    Raises:
        NotServed: any refusal, silence or break. The part stays.
    """
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "ab") as file:
        continued = _append(url, file, timeout_s)
    part.replace(path)
    return continued


def _append(url: str, file: IO[bytes], timeout_s: float) -> bool:
    """Add to the file what it lacks of ``url``; returns whether the server continued it."""
    import requests
    from pooch import HTTPDownloader  # 0.2 s, wasted where everything is at hand

    watch, have = _Responses(file), file.tell()
    get = HTTPDownloader(
        progressbar=Progress(url.rsplit("/", 1)[-1]) if sys.stderr.isatty() else False,
        chunk_size=CHUNK_BYTES,
        timeout=(min(CONNECT_S, timeout_s), timeout_s),
        headers={"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {}),
        hooks={"response": watch},
    )
    try:
        get(url, file, None)
    except requests.HTTPError as error:
        if watch.seen[-1].status_code == 416 and have:
            return _append(url, file, timeout_s)  # the part was longer than the file; it is gone now
        raise NotServed(f"HTTP {watch.seen[-1].status_code} {watch.seen[-1].reason}") from error
    except requests.Timeout as error:
        raise NotServed(f"no answer within {timeout_s:g} s") from error
    except requests.RequestException as error:
        # urllib3 wraps the reason in an account of retries, of which there were none
        cause = getattr(next(iter(error.args), None), "reason", error)
        raise NotServed(f"{type(error).__name__}: {cause}") from error
    finally:
        watch.close()
    return watch.continued


@dataclass
class _Responses:
    """Sees each response before its content is read."""

    file: IO[bytes]
    continued: bool = False
    seen: list[Any] = field(default_factory=list)

    def __call__(self, response: Any, **_: Any) -> None:
        """Drop the part where the server ignores Range and sends all (200), or has less than the part (416)."""
        self.seen.append(response)
        self.continued = response.status_code == 206
        if response.status_code in (200, 416):
            self.file.seek(0)
            self.file.truncate()

    def close(self) -> None:
        """Pooch leaves its connections to the garbage collector."""
        for response in self.seen:
            response.close()


@dataclass
class Progress:
    """One line on the terminal, as `pooch.HTTPDownloader` wants it: tqdm's interface without tqdm."""

    name: str
    total: int = 0  # bytes still to come; set by pooch
    done: int = 0

    def update(self, num_bytes: int) -> None:
        self.done = min(self.done + num_bytes, self.total or self.done + num_bytes)
        print(f"\r{self.name}: {self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB", end="", file=sys.stderr, flush=True)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        print(file=sys.stderr)
