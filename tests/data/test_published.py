"""A served file becomes its verified content, or nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from data_makers import NAMES, mirror, published_config, published_contents, tree
from pipeline.config.schema import PublishedFile
from pipeline.data.published import NotServed, unpack
from pipeline.download import download
from pipeline.system.errors import DownloadError

CONTENT = b"\0\0\x08\x01\0\0\0\x03\x01\x02\x03"  # IDX, three labels
PACKED = gzip.compress(CONTENT)
OTHER = "0" * 64


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def served(folder: Path, content: bytes) -> Path:
    (folder / "served").write_bytes(content)
    return folder / "served"


@pytest.mark.parametrize(
    ("content", "gz"),
    [(sha256(CONTENT), None), (None, sha256(PACKED)), (sha256(CONTENT), OTHER), (OTHER, sha256(PACKED))],
    ids=["content", "gz", "content though gz differs", "gz though content differs"],
)
def test_either_digest_is_proof(content: str | None, gz: str | None, tmp_path: Path) -> None:
    unpack(served(tmp_path, PACKED), PublishedFile(file="x.gz", sha256=content, sha256_gz=gz), tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == CONTENT


def test_uncompressed_file_is_proven_by_its_content(tmp_path: Path) -> None:
    unpack(served(tmp_path, CONTENT), PublishedFile(file="x.gz", sha256=sha256(CONTENT)), tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == CONTENT


def refused(tmp_path: Path, content: bytes, wanted: PublishedFile) -> str:
    with pytest.raises(NotServed) as caught:
        unpack(served(tmp_path, content), wanted, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    return str(caught.value)


def test_uncompressed_file_without_a_digest_of_its_content_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, CONTENT, PublishedFile(file="x.gz", sha256_gz=sha256(PACKED)))

    assert message == "not compressed with gzip, and only the digest of the compressed file is known"


def test_wrong_digests_are_told_with_the_one_that_was_found(tmp_path: Path) -> None:
    message = refused(tmp_path, PACKED, PublishedFile(file="x.gz", sha256=OTHER, sha256_gz=OTHER))

    assert message == f"sha256 of the content: expected {OTHER}, found {sha256(CONTENT)}"


def test_gzip_bomb_stops_at_what_the_header_promises(tmp_path: Path) -> None:
    """64 MiB of zeros behind a header of three labels: 64 kB served."""
    bomb = gzip.compress(CONTENT + bytes(64 << 20))

    message = refused(tmp_path, bomb, PublishedFile(file="x.gz", sha256=OTHER))

    assert message == "the content is larger than the 11 bytes that its IDX header promises"


# ---------------------------------------------------------------- archives


def archive_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, bytes]:
    return published_contents(tmp_path)


def packed(contents: dict[str, bytes]) -> bytes:
    """A zip as EMNIST's, with more in it than is asked for and a name that would leave the folder."""
    members = {f"gzip/{NAMES[role]}.gz": gzip.compress(content) for role, content in contents.items()}
    return archive_of(members | {"../../evil": b"x", "gzip/other.gz": b"y"})


def test_four_members_are_taken_from_an_archive_fetched_once(tmp_path: Path, contents: dict[str, bytes]) -> None:
    content = packed(contents)
    archive = {"file": "all.zip", "sha256": sha256(content), "folder": "gzip"}
    with mirror({"all.zip": content}) as good:
        cfg = published_config(contents, [good.url], archive=archive)
        download(cfg, tmp_path / "root", tmp_path / "root/data/raw", None)

        assert good.requests == ["/all.zip"]
    found = tree(tmp_path / "root/data/raw")
    assert {name: found[name] for name in NAMES.values()} == {NAMES[role]: c for role, c in contents.items()}
    assert len(found) == 5  # the four and source.json
    assert not list(tmp_path.rglob("evil"))


def test_own_mirror_may_hold_the_members_instead_of_the_archive(tmp_path: Path, contents: dict[str, bytes]) -> None:
    own = tmp_path / "mine" / "tiny"
    own.mkdir(parents=True)
    for role, content in contents.items():
        (own / f"{NAMES[role]}.gz").write_bytes(gzip.compress(content))
    cfg = published_config(contents, [], archive={"file": "all.zip", "sha256": OTHER, "folder": "gzip"})

    download(cfg, tmp_path / "root", tmp_path / "root/data/raw", str(own.parent))

    assert len(tree(tmp_path / "root/data/raw")) == 5


@pytest.mark.parametrize("fault", ["wrong digest", "member missing"])
def test_a_wrong_archive_is_refused_with_the_reason(fault: str, tmp_path: Path, contents: dict[str, bytes]) -> None:
    content = archive_of({"gzip/other.gz": b"y"})
    digest, reason = {
        "wrong digest": (OTHER, f"sha256 of the archive: expected {OTHER}"),
        "member missing": (sha256(content), "the archive has no member gzip/train-images-idx3-ubyte.gz"),
    }[fault]
    archive = {"file": "all.zip", "sha256": digest, "folder": "gzip"}
    with mirror({"all.zip": content}) as bad:
        cfg = published_config(contents, [bad.url], archive=archive)
        with pytest.raises(DownloadError) as caught:
            download(cfg, tmp_path / "root", tmp_path / "root/data/raw", None)

    assert f"all.zip: {reason}" in str(caught.value)
    assert list((tmp_path / "root/data").iterdir()) == []


def test_published_files_need_a_folder_or_address_when_there_are_no_mirrors(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    with pytest.raises(DownloadError, match=r"no source was given: data\.mirrors is empty"):
        download(published_config(contents, []), tmp_path, tmp_path / "raw", None)
