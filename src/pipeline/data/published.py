"""The four published files of a data set, from the first source that proves to have them."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from pipeline.config.schema import DownloadView, PublishedArchive, PublishedFile
from pipeline.data.idx import MAX_HEADER_BYTES, promised_bytes
from pipeline.data.source import RawFile, describe_file
from pipeline.system.errors import DownloadError
from pipeline.system.files import CHUNK_BYTES, atomic_file, sha256_of

TIMEOUT_S = 30.0  # of silence; a slow line is no silence
Accept = Callable[[Path], None]  # uses the file or raises NotServed


@dataclass(frozen=True)
class Published:
    """Where the files of one data set may come from."""

    cfg: DownloadView
    root: Path  # downloads are kept below root/.pipeline/downloads/<digest>/, which DVC does not empty
    mirror: str | None  # a person's own folder or address, asked first: PIPELINE_MIRROR
    timeout_s: float = TIMEOUT_S

    @property
    def kept(self) -> Path:
        return self.root / ".pipeline" / "downloads"

    def write(self, out: Path) -> dict[str, RawFile]:
        """Write the four files, decompressed and verified, to the folder ``out``. Returns role -> file.

        Raises:
            DownloadError: no source had a file; one line says why, for each source.
        """
        assert self.cfg.files is not None, "data.kind=idx has files"
        files = {}
        for role, wanted in self.cfg.files:
            path = out / wanted.file.removesuffix(".gz")
            self._obtain(wanted, path)
            files[role] = describe_file(path)
        return files

    def _obtain(self, wanted: PublishedFile, out: Path) -> None:
        """One file: as itself where it is offered so, else out of the archive."""
        archive = self.cfg.archive
        kept = self.kept / (wanted.sha256 or wanted.sha256_gz or "") / wanted.file
        sources = self._own(wanted.file) + ([] if archive else self._public(wanted.file))
        causes = self._first(sources, kept, partial(unpack, wanted=wanted, out=out))
        if causes is not None and archive:
            sources = self._own(archive.file) + self._public(archive.file)
            kept = self.kept / archive.sha256 / archive.file
            more = self._first(sources, kept, partial(unpack_member, archive=archive, wanted=wanted, out=out))
            causes = None if more is None else causes + more
        if causes is not None:
            raise DownloadError(self._explain(wanted.file, causes))

    def _own(self, file: str) -> list[str]:
        """Where the person's own mirror may hold it; a mirror may have decompressed it."""
        if not self.mirror:
            return []
        below = self.mirror if _is_url(self.mirror) else str(self.root / Path(self.mirror).expanduser())
        names = dict.fromkeys((file, file.removesuffix(".gz")))
        return [f"{below.rstrip('/')}/{self.cfg.name}/{name}" for name in names]

    def _public(self, file: str) -> list[str]:
        return [f"{mirror.rstrip('/')}/{file}" for mirror in self.cfg.mirrors]

    def _first(self, sources: list[str], kept: Path, accept: Accept) -> list[str] | None:
        """Let ``accept`` use what was kept, else what the first source has. Returns the causes if none was good."""
        causes = []
        for source in [str(kept)] * kept.exists() + sources:
            try:
                self._try(source, kept, accept)
                return None
            except NotServed as cause:
                causes.append(f"{source}: {cause}")
        return causes

    def _try(self, source: str, kept: Path, accept: Accept) -> None:
        """Use one source: a file, or an address whose file is kept if it was good."""
        if not _is_url(source):
            if not Path(source).is_file():
                raise NotServed("no such file")
            accept(Path(source))
            return
        continued = fetch(source, kept, self.timeout_s)
        try:
            accept(kept)
        except NotServed:
            kept.unlink()
            if not continued:
                raise
            self._try(source, kept, accept)  # the part came from an earlier try: once more, from the start

    def _explain(self, file: str, causes: list[str]) -> str:
        lines = "\n".join(f"  {cause}" for cause in causes) or "  no source was given: data.mirrors is empty"
        return (
            f"no source gave {file} of {self.cfg.name}:\n{lines}\n"
            f"Without a network: put the files into FOLDER/{self.cfg.name}/ and set PIPELINE_MIRROR=FOLDER, "
            "or use images that need none: data=mnist_5k"
        )


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


# ---------------------------------------------------------------- one file over HTTP, continued


CONNECT_S = 10.0  # a host that does not answer by then is taken to be unreachable
TRANSFER_BYTES = 1 << 16


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
        chunk_size=TRANSFER_BYTES,
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


# ---------------------------------------------------------------- from a served file to its content


GZIP_MAGIC = b"\x1f\x8b"
# No zip, a damaged member, a compression that Python lacks, a password.
UNZIPPABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class NotServed(Exception):
    """One address did not give what was asked for; the text says why. Caught before it leaves download."""


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
        with _open_content(served, compressed) as source, open(out, "wb") as target:
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


def _open_content(served: Path, compressed: bool) -> gzip.GzipFile | BinaryIO:
    return gzip.open(served) if compressed else open(served, "rb")
