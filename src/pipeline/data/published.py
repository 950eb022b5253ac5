"""The four published files of a data set, from the first source that proves to have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.config.schema import DownloadView, PublishedFile
from pipeline.data.source import RawFile, describe_file
from pipeline.data.transfer import fetch
from pipeline.data.unpack import NotServed, unpack, unpack_member
from pipeline.errors import DownloadError

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
