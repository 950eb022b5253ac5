"""From a served file, perhaps compressed or in an archive, to its verified content."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from pipeline.config.schema import PublishedArchive, PublishedFile
from pipeline.data.idx import MAX_HEADER_BYTES, promised_bytes
from pipeline.files import CHUNK_BYTES, atomic_file, sha256_of

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
