"""The four published files of a data set, each from the first source that proves to have it.

A source is a file or an address: what an earlier download kept, a person's own mirror, then the public mirrors. What
it serves is proven by a digest after decompression; where only an archive is offered, it is taken out of that.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import DownloadView, PublishedArchive, PublishedFile
from pipeline.data.idx import MAX_HEADER_BYTES, promised_bytes
from pipeline.data.source import RawFile, describe_file
from pipeline.system.errors import DownloadError
from pipeline.system.files import CHUNK_BYTES, atomic_file, sha256_of

if TYPE_CHECKING:
    from requests import RequestException, Response

TIMEOUT_S = 30.0  # of silence; a slow line is no silence
CONNECT_S = 10.0  # a host that does not answer by then is taken to be unreachable
TRANSFER_BYTES = 1 << 16
GZIP_MAGIC = b"\x1f\x8b"
# No zip, a damaged member, a compression that Python lacks, a password.
UNZIPPABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class NotServed(Exception):
    """A source did not give what was asked for; the text says why. Caught before it leaves download."""


Unpack = Callable[[Path], None]  # writes the content of a served file, or raises NotServed


@dataclass(frozen=True)
class Published:
    """Where the files of one data set may come from."""

    cfg: DownloadView
    root: Path  # downloads are kept below root/.pipeline/downloads/<digest>/, which DVC does not empty
    mirror: str | None  # a person's own folder or address, asked first: PIPELINE_MIRROR
    timeout_s: float = TIMEOUT_S

    def write(self, out: Path) -> dict[str, RawFile]:
        """Write the four files, decompressed and verified, to the folder ``out``. Returns role -> file.

        Raises:
            DownloadError: no source had a file; one line says why, for each source.
        """
        assert self.cfg.files is not None, "data.kind=idx has files"
        files = {}
        for role, wanted in self.cfg.files:
            path = out / wanted.file.removesuffix(".gz")
            self._write_file(wanted, path)
            files[role] = describe_file(path)
        return files

    def _write_file(self, wanted: PublishedFile, out: Path) -> None:
        failures = []
        for source, cached, unpack_to_out in self._sources(wanted, out):
            try:
                self._try(source, cached, unpack_to_out)
                return
            except NotServed as error:
                failures.append(f"  {source}: {error}")
        reasons = "\n".join(failures) or "  no source was given: data.mirrors is empty"
        raise DownloadError(
            f"no source gave {wanted.file} of {self.cfg.name}:\n{reasons}\n"
            f"Without a network: put the files into FOLDER/{self.cfg.name}/ and set PIPELINE_MIRROR=FOLDER, "
            "or use images that need none: data=mnist_5k"
        )

    def _sources(self, wanted: PublishedFile, out: Path) -> Iterator[tuple[str, Path, Unpack]]:
        """(source, where a download of it is kept, how it is unpacked): the file itself, then the archive around it."""
        archive = self.cfg.archive
        cached = self._cached(wanted.sha256 or wanted.sha256_gz, wanted.file)
        for source in self._places(wanted.file, cached, () if archive else self.cfg.mirrors):
            yield source, cached, partial(unpack, wanted=wanted, out=out)
        if archive:
            cached = self._cached(archive.sha256, archive.file)
            for source in self._places(archive.file, cached, self.cfg.mirrors):
                yield source, cached, partial(unpack_member, archive=archive, wanted=wanted, out=out)

    def _cached(self, sha256: str | None, file: str) -> Path:
        return self.root / ".pipeline" / "downloads" / (sha256 or "") / file

    def _places(self, file: str, cached: Path, mirrors: tuple[str, ...]) -> Iterator[str]:
        """Files and addresses in the order in which they are asked; a person's own mirror may have decompressed it."""
        if cached.exists():
            yield str(cached)
        if self.mirror:
            folder = self.mirror if _is_url(self.mirror) else str(self.root / Path(self.mirror).expanduser())
            for name in dict.fromkeys((file, file.removesuffix(".gz"))):
                yield f"{folder.rstrip('/')}/{self.cfg.name}/{name}"
        for mirror in mirrors:
            yield f"{mirror.rstrip('/')}/{file}"

    def _try(self, source: str, cached: Path, unpack_to_out: Unpack) -> None:
        """Unpack what one source has: a file, or an address whose file is kept if it was good."""
        if not _is_url(source):
            if not Path(source).is_file():
                raise NotServed("no such file")
            unpack_to_out(Path(source))
            return
        while True:
            resumed = fetch(source, cached, self.timeout_s)
            try:
                unpack_to_out(cached)
                return
            except NotServed:
                cached.unlink()
                if not resumed:  # else the part of an earlier try may be at fault: once more, from the start
                    raise


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


# ---------------------------------------------------------------- one file over HTTP


def fetch(url: str, path: Path, timeout_s: float) -> bool:
    """Download ``url`` to ``path``. Until it is whole it is called ``path``.part, which the next try resumes.

    timeout_s: longest silence between two chunks.
    Returns whether an earlier part was resumed: a wrong digest may then be that part's fault.

    Raises:
        NotServed: any refusal, silence or break. The part stays.
    """
    import requests  # 0.2 s with pooch, wasted where everything is at hand

    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    while True:
        num_bytes = part.stat().st_size if part.exists() else 0
        try:
            resumed = _append(url, part, num_bytes, timeout_s)
            break
        except requests.HTTPError as error:
            response: Any = error.response
            if response.status_code != 416 or not num_bytes:  # 416: the part was longer than the file
                raise NotServed(f"HTTP {response.status_code} {response.reason}") from error
        except requests.Timeout as error:
            raise NotServed(f"no answer within {timeout_s:g} s") from error
        except requests.RequestException as error:
            raise NotServed(f"{type(error).__name__}: {_reason(error)}") from error
    part.replace(path)
    return resumed


def _append(url: str, part: Path, num_bytes: int, timeout_s: float) -> bool:
    """Add to the part, which has so many bytes, what it lacks of ``url``; returns whether the server resumed it."""
    from pooch import HTTPDownloader
    from tqdm import tqdm

    resumed = False

    def begin(response: Response, **_: Any) -> None:
        """Drop the part where the server ignores Range and sends all (200), or has less than the part (416)."""
        nonlocal resumed
        stack.enter_context(response)  # pooch leaves closing it to the garbage collector
        resumed = response.status_code == 206
        if response.status_code in (200, 416):
            file.truncate(0)

    with ExitStack() as stack:
        file = stack.enter_context(open(part, "ab"))
        progress: tqdm[Any] | bool = False
        if sys.stderr.isatty():  # pooch sets the total; a bar that has none yet is no truth value
            progress = stack.enter_context(tqdm(desc=url.rsplit("/", 1)[-1], total=1, unit="B", unit_scale=True))
        download = HTTPDownloader(
            progressbar=progress,
            chunk_size=TRANSFER_BYTES,
            timeout=(min(CONNECT_S, timeout_s), timeout_s),
            headers={"Accept-Encoding": "identity"} | ({"Range": f"bytes={num_bytes}-"} if num_bytes else {}),
            hooks={"response": begin},
        )
        download(url, file, None)
    return resumed


def _reason(error: RequestException) -> Any:
    """Without urllib3's account of retries, of which there were none."""
    return getattr(next(iter(error.args), None), "reason", error)


# ---------------------------------------------------------------- from a served file to its content


def unpack(served: Path, wanted: PublishedFile, out: Path) -> None:
    """Write the content of ``served`` to ``out``, decompressed, if it is proven to be ``wanted``.

    Either digest is proof. That of the content comes first: a mirror may have compressed the file anew.

    Raises:
        NotServed: it is something else. Nothing is left at ``out``.
    """
    with open(served, "rb") as file:
        start = file.read(512)
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise NotServed("a web page came instead of the file")
    compressed = start.startswith(GZIP_MAGIC)
    if wanted.sha256 is None:
        if not compressed:
            raise NotServed("not compressed with gzip, and only the digest of the compressed file is known")
        _check_digest("sha256 of the compressed file", wanted.sha256_gz, sha256_of(served))
    with atomic_file(out) as new:
        found = _copy_content(served, compressed, new)
        if wanted.sha256 not in (None, found) and sha256_of(served) != wanted.sha256_gz:
            _check_digest("sha256 of the content", wanted.sha256, found)


def unpack_member(served: Path, archive: PublishedArchive, wanted: PublishedFile, out: Path) -> None:
    """Write the content of the one member ``folder/file`` of a zip to ``out``; see `unpack`.

    No name in the archive becomes a path here, and the archive is opened only after its digest matched.
    """
    _check_digest("sha256 of the archive", archive.sha256, sha256_of(served))
    name = f"{archive.folder}/{wanted.file}"
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        member = Path(folder) / "member"
        try:
            with zipfile.ZipFile(served) as members:
                if name not in members.namelist():
                    raise NotServed(f"the archive has no member {name}")
                with members.open(name) as source, open(member, "wb") as target:
                    shutil.copyfileobj(source, target, CHUNK_BYTES)
        except UNZIPPABLE as error:
            raise NotServed(f"not a zip that can be read ({error})") from error
        unpack(member, wanted, out)


def _check_digest(what: str, expected: str | None, found: str) -> None:
    if found != expected:
        raise NotServed(f"{what}: expected {expected}, found {found}")


def _copy_content(served: Path, compressed: bool, out: Path) -> str:
    """Copy the decompressed content chunk by chunk and return its SHA-256.

    The IDX header bounds what is written, so a few bytes that decompress to a full disk are refused in time.
    """
    digest, written = hashlib.sha256(), 0
    try:
        with gzip.open(served) if compressed else open(served, "rb") as source, open(out, "wb") as target:
            chunk = source.read(CHUNK_BYTES)
            promised = promised_bytes(chunk[:MAX_HEADER_BYTES])
            if promised is None:
                raise NotServed(
                    f"no IDX file of uint8 values: its content starts with {chunk[:4].hex(' ') or 'nothing'}"
                )
            while chunk:
                written += len(chunk)
                if written > promised:
                    raise NotServed(f"the content is larger than the {promised:,} bytes that its IDX header promises")
                digest.update(chunk)
                target.write(chunk)
                chunk = source.read(CHUNK_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise NotServed(f"truncated or damaged gzip ({error})") from error
    return digest.hexdigest()
