"""Ten thousand malformed inputs to each reader: out comes data or one message of ours, soon, in bounded memory."""

from __future__ import annotations

import copy
import gc
import gzip
import hashlib
import io
import json
import pickle
import random
import re
import shutil
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from config.config_makers import CONF, default_yaml, train_config
from data_makers import noise, preprocess_config, tiny_set, write_raw
from lanes import SEED, number
from pipeline.config.check import valid_keys, validate
from pipeline.config.compose import compose_yaml, parse, refusals, suggested_keys
from pipeline.config.schema import Config, PreprocessConfig, PublishedFile
from pipeline.data.card import DataCard
from pipeline.data.images import decode
from pipeline.data.processed import load_split
from pipeline.data.published import NotServed, unpack
from pipeline.data.source import RawNote, Source, describe_file
from pipeline.data.tables import source_from_table
from pipeline.model import DESCRIPTION, WEIGHTS
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import TrainedModel, load_model, save_model
from pipeline.preprocess import open_source, preprocess
from pipeline.system.errors import DataContractError, PipelineError
from pipeline.training.checkpoints import BEFORE, LAST, AtomicCheckpointIO, candidates, discard_damaged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NUM_CASES, NUM_OTHERS = number(1_000, 10_000), number(500, 2_000)  # of each of the five readers; of what lies around
STAGE_EVERY = 50  # of the cases, one goes through the whole stage, which looks at what is left behind
LONGEST_S = 10.0
MOST_BYTES = 256 << 20  # beyond what the process had before
MOST_IMAGE_BYTES = 1 << 30  # Pillow lets 89 million pixels through, of up to 4 bytes, and copies them
LONGEST_MESSAGE = 20_000
EXPLAINED = (
    PipelineError,
    HydraException,
    OmegaConfBaseException,
)  # what `pipeline.runtime.stage_runner.explained` prints as a line
FUZZ = settings(
    deadline=None, database=None, print_blob=False,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip


# ---------------------------------------------------------------- what is demanded


def fuzz(
    cases: st.SearchStrategy[Any],
    read: Callable[[int, Any], bool],
    num_cases: int = NUM_CASES,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Give each case to ``read``, which says whether it was taken for data. Some must be, and most not."""
    tried, taken = 0, 0

    @seed(SEED)
    @settings(FUZZ, max_examples=num_cases)
    @given(cases)
    def each(case: Any) -> None:
        nonlocal tried, taken
        start_s = time.perf_counter()
        taken += read(tried, case)
        tried += 1
        assert time.perf_counter() - start_s < LONGEST_S

    gc.freeze()  # what is there now need not be looked through thousands of times
    with bounded_memory(most_bytes):
        each()
    gc.unfreeze()
    print(f"{tried:,} cases, {taken:,} taken for data")
    assert tried >= num_cases
    assert tried / 100 < taken < tried / 2


class bounded_memory:
    """The peak of this process while the block runs. Linux sets the mark back when it is asked to."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes

    def __enter__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = status_bytes("VmRSS")

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            assert status_bytes("VmHWM") - self.before < self.most_bytes


def status_bytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def refused(error: BaseException) -> bool:
    """That it is a message a person can use, of one error's length. Always False: the case was no data."""
    assert str(error).strip()
    assert len(str(error)) < LONGEST_MESSAGE, str(error)[:500]
    return False


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory: on a disk, emptying a file takes longer than reading it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


# ---------------------------------------------------------------- how bytes are spoilt

INTERESTING = [0, 1, 2, 3, 4, 5, 9, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]


@st.composite
def spoilt(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with one to three things done to it anywhere. Where and what is one number's: drawing is slow."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    content = bytearray(good)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(content) + 1)
        match chance.randrange(7):
            case 0:
                del content[place:]
            case 1 if place < len(content):
                content[place] ^= 1 << chance.randrange(8)
            case 2:
                content[place:place] = chance.randbytes(chance.choice([1, 2, 4, 16, 300]))
            case 3:
                del content[place : place + chance.choice([1, 2, 4, 100])]
            case 4:
                content[place : place + 4] = struct.pack(chance.choice("<>") + "I", chance.choice(INTERESTING))
            case 5:
                content[place:place] = content[place : place + chance.choice([4, 30, 500])]
            case _:
                content[place : place + 8] = bytes(8)
    return bytes(content)


def anything(good: bytes) -> st.SearchStrategy[bytes]:
    """A spoilt file mostly; else bytes of no format, or some behind its first bytes."""
    noise = st.integers(0, 2**48).map(lambda seed: random.Random(seed).randbytes(seed % 200))
    return st.one_of(spoilt(good), spoilt(good), spoilt(good), noise, noise.map(lambda tail: good[:8] + tail))


# ---------------------------------------------------------------- a stage


class Stage:
    """preprocess in a folder of its own: all of its output is there, or nothing."""

    def __init__(self, raw: Path, cfg: PreprocessConfig) -> None:
        self.raw, self.cfg, self.out = raw, cfg, raw.parent / "processed"

    def source(self) -> Source:
        """What preprocess does up to its first written byte."""
        return open_source(self.raw, RawNote.read(self.raw), self.cfg.data)

    def read(self, number: int) -> bool:
        """Every sample of every part; now and then by the stage itself."""
        try:
            source = self.source()
            for part in source.parts.values():
                count = 0
                for chunk in part.chunks():
                    assert chunk.shape[1:] == source.shape
                    assert chunk.dtype == source.dtype
                    count += len(chunk)
                assert count == len(part.labels)
                assert part.labels.min() >= 0
                assert part.labels.max() < len(source.classes)
            taken = True
        except DataContractError as error:
            taken = refused(error)
        if number % STAGE_EVERY == 0:
            self.run(taken)
        return taken

    def run(self, readable: bool) -> None:
        try:
            card = preprocess(self.raw, self.out, self.cfg)
        except PipelineError as error:
            refused(error)
            assert [path.name for path in self.raw.parent.iterdir()] == [self.raw.name]
            return
        assert readable
        assert DataCard.read(self.out / "data_card.json") == card
        for split, facts in card.splits.items():
            assert len(load_split(self.out, split).images) == facts["count"]
        shutil.rmtree(self.out)


# ---------------------------------------------------------------- IDX


@st.composite
def idx_files(draw: st.DrawFn, good: bytes) -> bytes:
    """A header that may promise anything, and a body of any length: the one promised, one more, none."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    ndim = chance.choice([1, 3, 3, 3, 0, 2, 4, 255])
    sizes = [chance.choice([*INTERESTING, 4, 5, 9, 30]) for _ in range(ndim)]
    header = struct.pack(">HBB", chance.choice([0, 0, 0, 1, 0xFFFF]), chance.choice([8, 8, 8, 9, 13, 255]), ndim)
    header += struct.pack(f">{ndim}I", *sizes)
    promised = int(np.prod(sizes, dtype=object)) if ndim else 1
    length = chance.choice([promised, promised, promised + 1, promised - 1, 0, 600, 60])
    body = good[16:] * 40
    return header + body[: max(0, length)]


def test_idx_files(folder: Path) -> None:
    """Any one of the four, or the note about them, is spoilt."""
    raw = folder / "work" / "raw"
    paths = [*write_raw(raw, tiny_set()).values(), raw / "source.json"]
    good = {path: path.read_bytes() for path in paths}
    stage = Stage(raw, preprocess_config())

    def read(number: int, case: tuple[Path, bytes]) -> bool:
        path, content = case
        path.write_bytes(content)
        taken = stage.read(number)
        path.write_bytes(good[path])
        return taken

    cases = [anything(content).map(partial(pair, path)) for path, content in good.items()]
    headers = [idx_files(good[path]).map(partial(pair, path)) for path in paths[:-1]]
    fuzz(st.one_of(*cases, *headers, *headers), read)


def quick_gzip(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def pair(path: Path, content: bytes) -> tuple[Path, bytes]:
    return path, content


def test_compressed_idx_files_as_they_are_served(folder: Path) -> None:
    """A mirror sends gzip of another content, a damaged one, a bomb. Nothing is written but what was asked for."""
    values = tiny_set()["train_labels"]
    content = struct.pack(">HBBI", 0, 8, 1, len(values)) + values.tobytes()
    packed = quick_gzip(content)
    wanted = PublishedFile(file="labels.gz", sha256=hashlib.sha256(content).hexdigest())
    served, out = folder / "served", folder / "out"
    bombs = st.sampled_from([quick_gzip(content + bytes(8 << 20)), quick_gzip(bytes(8 << 20))])

    def read(number: int, case: bytes) -> bool:
        served.write_bytes(case)
        try:
            unpack(served, wanted, out)
        except NotServed as error:
            assert [path.name for path in folder.iterdir()] == ["served"]
            return refused(error)
        assert out.read_bytes() == content
        out.unlink()
        return True

    inner = anything(content).map(quick_gzip)
    whole = st.integers(0, 2**31).map(lambda time_s: gzip.compress(content, 1, mtime=time_s))
    fuzz(st.one_of(*[anything(packed)] * 9, *[inner] * 9, whole, whole, anything(content) | bombs), read, NUM_OTHERS)


# ---------------------------------------------------------------- PNG

CHUNKS = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"acTL",
          b"fcTL", b"fdAT", b"IDAT", b"IHDR", b"IEND", b"abCd", b"\xff\0\0\0"]  # fmt: skip
BOMB = zlib.compress(bytes(4 << 20), 1)


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """With right lengths and sums, so that a reader goes on to what the chunks say."""
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@st.composite
def png_files(draw: st.DrawFn, good: bytes) -> bytes:
    """Whole chunks that say wrong things: sizes, depths, colours, text that unpacks to megabytes, two headers."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    chunks = png_chunks(good)
    for _ in range(chance.randint(1, 3)):
        match chance.randrange(5):
            case 0:
                size = [chance.choice([0, 1, 4, 5, 6, 300, 20_000, 2**31 - 1, 2**32 - 1]) for _ in range(2)]
                kind = [
                    chance.choice([1, 2, 4, 8, 8, 16, 99]),
                    chance.choice([0, 2, 3, 4, 6, 7]),
                    0,
                    0,
                    chance.randrange(3),
                ]
                chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *size, *kind))
            case 1:
                data = chance.choice(
                    [b"", b"a\0", b"a\0\0" + BOMB, b"a\0\1\0\0\0" + BOMB, chance.randbytes(40), b"\0" * 26]
                )
                chunks.insert(chance.randrange(len(chunks) + 1), (chance.choice(CHUNKS), data))
            case 2:
                del chunks[chance.randrange(len(chunks))]
            case 3:
                chance.shuffle(chunks)
            case _:
                pixels = chance.choice([b"", bytes(3), BOMB, zlib.compress(chance.randbytes(50)), chance.randbytes(30)])
                chunks = [(kind, pixels if kind == b"IDAT" else data) for kind, data in chunks]
        if not chunks:
            break
    return png_of(chunks)


def pictures() -> dict[str, bytes]:
    """One of each format that a folder of images may hold."""
    kinds = {"PNG": "L", "JPEG": "RGB", "GIF": "P", "BMP": "RGB", "TIFF": "RGB", "WEBP": "RGB", "PPM": "L"}
    found = {}
    for kind, mode in kinds.items():
        buffer = io.BytesIO()
        Image.fromarray(noise(1, 5, 4)[0]).convert(mode).save(buffer, kind)
        found[kind] = buffer.getvalue()
    return found


def test_images(folder: Path) -> None:
    """PNG by chunks and by bytes, the other formats by bytes; some lie among good ones in the archive."""
    good = pictures()
    raw = folder / "work" / "raw"
    raw.mkdir(parents=True)
    cfg = preprocess_config(color="gray", test_fraction=0.25, validation_fraction=0.0, image_shape=(5, 4))
    stage = Stage(raw, cfg)

    def read(number: int, case: bytes) -> bool:
        try:
            image = decode(case, "a/0.png", cfg.data.color, cfg.data.image_shape)
            assert (image.shape, image.dtype) == ((5, 4), np.uint8)
            taken = True
        except DataContractError as error:
            taken = refused(error)
        if number % STAGE_EVERY == 0:
            write_tar(raw, [case, *[good["PNG"]] * 7])
            stage.run(taken)
        return taken

    by_chunks = png_files(good["PNG"])
    others = [spoilt(content) for content in good.values()]
    fuzz(st.one_of(*[by_chunks] * 6, *[anything(good["PNG"])] * 3, *others), read, most_bytes=MOST_IMAGE_BYTES)


def write_tar(raw: Path, images: list[bytes]) -> bytes:
    """What download leaves: as many images of each of two classes. Returns the archive."""
    with tarfile.open(raw / "images.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for index, content in enumerate(images):
            member = tarfile.TarInfo(f"all/{'ab'[index * 2 // len(images)]}/{index}.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    RawNote("tiny", "image_folder", "image_folder", {"images": describe_file(raw / "images.tar")}).write(raw)
    return (raw / "images.tar").read_bytes()


def test_archives_of_images(folder: Path) -> None:
    """The archive itself is spoilt: headers, lengths, kinds of members."""
    raw = folder / "work" / "raw"
    raw.mkdir(parents=True)
    good = write_tar(raw, [pictures()["PNG"]] * 8)
    stage = Stage(raw, preprocess_config(color="gray", test_fraction=0.25, validation_fraction=0.0))

    def read(number: int, case: bytes) -> bool:
        (raw / "images.tar").write_bytes(case)
        return stage.read(number)

    fuzz(st.one_of(tar_files(good), tar_files(good), anything(good)), read, NUM_OTHERS)


@st.composite
def tar_files(draw: st.DrawFn, good: bytes) -> bytes:
    """A field of a member's header says something else, and its sum is right again."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    content = bytearray(good)
    start = 1024 * chance.randrange(8)
    match chance.randrange(3):
        case 0:
            name = chance.choice(
                [b"x", b"all/x", b"/etc/passwd", b"../../x/y", b"all/a/../../../x", b"\xff/\xfe/\xfd", b""]
            )
            content[start : start + 100] = name.ljust(100, b"\0")
        case 1:
            content[start + 156] = chance.choice(b"0125678xgLKSVD\0\xff")
            content[start + 157 : start + 257] = chance.choice([b"all/a/0.png", b"/etc/passwd", b"x"]).ljust(100, b"\0")
        case _:
            length = chance.choice([b"00000000000", b"77777777777", b"\x80" + b"\xff" * 10, b"-0000000001", b"zz"])
            content[start + 124 : start + 136] = length.ljust(12, b"\0")
    header = content[start : start + 512]
    header[148:156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(content)


# ---------------------------------------------------------------- CSV

CELLS = [
    "0", "1", "-1.5", "1e308", "1e999", "nan", "inf", "-0", "", " ", "NULL", "true", "0x1f", "1,5", '"', '""', '"a',
    "a\"b", "ä", "\ufeff", "\u202e", "\0", "\r", "=1+1", "٣", "1" * 400, "1.0", "2024-01-01", "x" * 5_000,
]  # fmt: skip
NAMES_OF_COLUMNS = ["x", "y", "species", "species", "", " ", "x", "Species", '"', "ä", "\0", "p" * 300]


@st.composite
def csv_files(draw: st.DrawFn) -> bytes:
    """Rows of any length below a header of any names, with any ends of line and any text encoding."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    odd = chance.choice([0.0, 0.02, 0.3])
    names = (
        ["x", "species", "y"]
        if chance.random() < 0.7
        else chance.choices(NAMES_OF_COLUMNS, k=chance.choice([1, 2, 3, 9]))
    )
    if chance.random() < 0.01:
        names += [f"p{number}" for number in range(chance.choice([500, 3_000]))]

    def cell(column: str) -> str:
        if chance.random() < odd:
            return chance.choice(CELLS)
        return chance.choice("abc") if column == "species" else str(chance.randrange(300))

    num_rows = chance.choice([0, 1, 2, 30])
    rows = [names, *([cell(name) for name in names] for _ in range(num_rows))]
    if chance.random() < odd:
        chance.choice(rows)[:] = chance.choice([[], ["1"], ["a"] * 5])
    between, end = chance.choice([",", ",", ",", ";", "\t"]), chance.choice(["\n", "\n", "\r\n", "\r"])
    text = end.join(between.join(row) for row in rows) + chance.choice(["", end])
    return text.encode(chance.choice(["utf-8", "utf-8", "utf-8", "latin-1", "utf-16"]), errors="replace")


def test_tables(folder: Path) -> None:
    """Bytes that are spoilt, and rows and cells that no table should have."""
    raw = folder / "work" / "raw"
    raw.mkdir(parents=True)
    table = raw / "table.csv"
    good = "\n".join(["x,species,y", *(f"{index / 4},{'abc'[index % 3]},{10 - index}" for index in range(30))]).encode()
    table.write_bytes(good)
    RawNote("tiny", "table", "table", {"all": describe_file(table)}).write(raw)
    stage = Stage(raw, preprocess_config(label="species", test_fraction=0.2, validation_fraction=0.0))

    def read(number: int, case: bytes) -> bool:
        table.write_bytes(case)
        return stage.read(number)

    fuzz(st.one_of(csv_files(), csv_files(), anything(good)), read)


def test_a_header_of_a_hundred_thousand_columns_is_refused_soon(folder: Path) -> None:
    """A few hundred kilobytes; comparing each name with each other one took minutes, and reading it a gigabyte."""
    names = ",".join(f"p{number}" for number in range(100_000))
    refuse_table(folder, f"{names}\n{names}\n", r"at most 20,000 columns of a CSV, found 100,000\.")


def test_as_many_columns_as_are_allowed_are_read_soon(folder: Path) -> None:
    names = ",".join(f"p{number}" for number in range(20_000))
    refuse_table(folder, f"{names}\n{names}\n", "no column 'species'")


def refuse_table(folder: Path, text: str, message: str) -> None:
    (folder / "table.csv").write_text(text)
    note = RawNote("tiny", "table", "table", {"all": describe_file(folder / "table.csv")})
    start_s = time.perf_counter()
    with bounded_memory(), pytest.raises(DataContractError, match=message):
        source_from_table(folder, note, preprocess_config(label="species", test_fraction=0.2).data)
    assert time.perf_counter() - start_s < LONGEST_S


# ---------------------------------------------------------------- checkpoints

OPCODES = [getattr(pickle, name) for name in dir(pickle) if name.isupper() and isinstance(getattr(pickle, name), bytes)]
OPCODES = [code for code in OPCODES if len(code) == 1]
GLOBALS = [b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nload\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n",
           b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\nbytearray\n", b"ctorch\nFloatStorage\n"]  # fmt: skip


def sealed(content: bytes) -> bytes:
    """With the digest that says it is whole: what an attacker, or another version of torch, could write."""
    return content + b"\nsha256:" + hashlib.sha256(content).hexdigest().encode()


@st.composite
def checkpoint_files(draw: st.DrawFn, good: bytes) -> bytes:
    """torch's archive with another pickle in it, or other records, or a record gone."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(chance.randint(1, 2)):
        name = chance.choice([name for name in records if name.endswith("data.pkl")] * 3 + list(records))
        content = bytearray(records.get(name, b""))
        place = chance.randrange(len(content) + 1)
        match chance.randrange(6):
            case 0:
                content[place : place + 1] = chance.choice(OPCODES)
            case 1:
                content[place:place] = chance.choice(GLOBALS) + b"(" + chance.choice(OPCODES) + b"tR"
            case 2:
                content[place : place + 4] = struct.pack("<I", chance.choice(INTERESTING))
            case 3:
                content = bytearray(
                    b"\x80\x02" + b"".join(chance.choices([*OPCODES, *GLOBALS, b"K\1", b"X\1\0\0\0a"], k=9)) + b"."
                )
            case 4:
                del content[place : place + chance.choice([1, 5, 80])]
            case _:
                records.pop(name, None)
                continue
        records[name] = bytes(content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    ) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


OTHER_CONTENTS = [None, 3, [], {}, {"history": None}, {"history": []}, {"state_dict": {}}, torch.arange(3), "history",
                  {"history": torch.arange(3)}, ["history"], {"history": [{"epoch": 0}]}]  # fmt: skip


def test_checkpoints(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Spoilt after sealing, which the digest tells; and sealed again after spoiling, which only reading tells."""
    path = folder / LAST
    AtomicCheckpointIO().save_checkpoint({"history": [{"epoch": 0}], "state_dict": {"w": torch.arange(20.0)}}, path)
    written = path.read_bytes()
    good = written[: -len(sealed(b""))]
    (folder / "before").write_bytes(written)

    def read(number: int, case: bytes) -> bool:
        caplog.clear()
        path.write_bytes(case)
        try:
            loaded = AtomicCheckpointIO().load_checkpoint(path)
            taken = isinstance(loaded.get("history"), list)
        except PipelineError as error:
            taken = refused(error)
        (folder / BEFORE).write_bytes(written)
        discard_damaged(folder, keeps_best=False)
        assert next(candidates(folder)) == (path if taken else folder / BEFORE)
        assert path.exists() == taken
        return taken

    resealed = st.one_of(*[checkpoint_files(good)] * 3, anything(good), st.sampled_from(OTHER_CONTENTS).map(saved))
    fuzz(st.one_of(*[resealed.map(sealed)] * 4, anything(written)), read)


# ---------------------------------------------------------------- models

SPEC = InputSpec((3,), "float32", (1.0, -2.0, 0.5), (2.0, 4.0, 0.25))
WILD_JSON: list[Any] = [
    None, True, 0, -1, 1.5, 1e999, 2**70, "", "x", [], [1], [-1], [2**40], [[]], {}, {"a": 1}, "../x", ["a", "b"],
    [0.0, 0.0, 0.0], [None], "dense", "relu", 10**400, [1] * 2_000,
]  # fmt: skip


@st.composite
def descriptions(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """A value anywhere in model.json becomes another one, or goes."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    whole = copy.deepcopy(good)
    section = whole
    for _ in range(chance.randint(0, 1)):
        inner = [value for value in section.values() if isinstance(value, dict)]
        section = chance.choice(inner) if inner else section
    key = chance.choice(list(section))
    if chance.random() < 0.1:
        del section[key]
    else:
        section[key] = chance.choice(WILD_JSON)
    return json.dumps(whole).encode()


def test_models(folder: Path) -> None:
    """model.json and model.safetensors; the digest in the one is that of the other again, so that it is read."""
    cfg = train_config({"model.units": [4]}).model
    save_model(folder, DenseNetwork(cfg, SPEC, 2), cfg, SPEC, ["cat", "dog"], {"seed": 0})
    good = {name: (folder / name).read_bytes() for name in (DESCRIPTION, WEIGHTS)}
    description = json.loads(good[DESCRIPTION])
    deep = [b"[" * 100_000, b'{"a":' * 100_000]

    def read(number: int, case: tuple[str, bytes]) -> bool:
        name, content = case
        (folder / name).write_bytes(content)
        if name == WEIGHTS:
            digest = hashlib.sha256(content).hexdigest()
            (folder / DESCRIPTION).write_text(json.dumps(description | {"sha256": {WEIGHTS: digest}}))
        try:
            loaded = load_model(folder)
            taken = isinstance(loaded, TrainedModel) and len(loaded.classes) == 2
        except PipelineError as error:
            taken = refused(error)
        for other, bytes_before in good.items():
            (folder / other).write_bytes(bytes_before)
        return taken

    described = st.one_of(*[descriptions(description)] * 8, *[anything(good[DESCRIPTION])] * 4, st.sampled_from(deep))
    cases = (described.map(partial(named, DESCRIPTION)), anything(good[WEIGHTS]).map(partial(named, WEIGHTS)))
    fuzz(st.one_of(*cases), read, NUM_OTHERS)


def named(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content


# ---------------------------------------------------------------- overrides

KEYS = sorted(key for key in set(valid_keys(Config)) if not (CONF / key).is_dir())
GROUPS = ["data", "optimizer", "trainer", "experiment"]
WILD_KEYS = [
    "", "a", "a.b.c", "_target_", "trainer.", ".seed", "seed.x", "model.units.0",
    "data.files.train_images.x", "x@y", "größe", "size", "model.size", "hydra.callbacks.x._target_", "0", "null",
    "a b", "$x", "${seed}", "seed[0]", "trainer.early_stopping.min_delta", "__class__", "data.name.x",
]  # fmt: skip
WILD_VALUES = [
    "", "null", "true", "1", "-1", "0", "1.5", "1e-3", "nan", "inf", "-inf", "1e999", "9" * 5_000, "-0.0", "0x10",
    "1_000", "[]", "[1,2]", "[[1],[2]]", "{}", "{a:1}", "{_target_:os.system}", "{a:{b:{c:1}}}", "[1,", "{a:", "]",
    "}", "(", "'", '"', "'a", "a,b", "1,2,3", "range(3)", "range(0,1e9)", "choice(1,2)", "interval(0,1)", "glob(*)",
    "shuffle(1,2)", "int(x)", "float([1])", "json_str(1)", "extend_list(1)", "sort(3,2)", "tag(a,1)", "${seed}",
    "${x.y}", "${oc.env:NOPE}", "${oc.env:HOME}", "${oc.decode:'[1'}", "${oc.create:{a:1}}", "${now:%Y}",
    "${hydra:job.name}", "${", "${}", "${${seed}}", "${model}", "${.lr}", "${..seed}", "${optimizer}",
    "${trainer.batch_size}", "ä", "\u202e", "\U0001f600", "\x00", "\x85", "\u2028", "\udcff", "\t", "\n", "a\nb: c",
    "os.system", "../../etc", "/etc/passwd", "!!python/object/apply:os.system [id]", "'!!python/name:os.system'",
    "&a [*a]", "*", "<<", "- a", "~", "@", "%", "`", "|", ">", "#", "a #b", "'" + "x" * 5_000 + "'", "[" * 60,
    "[" * 400 + "]" * 400, "{a:" * 300 + "1" + "}" * 300, "yes", "2024-01-01", "1:30", "0o17", "'1e-3'",
]  # fmt: skip


@st.composite
def words(draw: st.DrawFn) -> list[str]:
    """One override or two: a real key or a wild one, with a value that it cannot have or one that it can."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    return [word_of(chance) for _ in range(chance.choice([1, 1, 1, 2]))]


GOOD_WORDS = [
    "seed=7", "trainer.num_epochs=3", "model.units=[64,32]", "optimizer.lr=1e-3", "model.dropout=0.5", "++seed=0",
    "trainer.batch_size=${model.units}", "tracking.run_name='größer'", "data.classes=['a','b']",
    "tracking.run_name='1e-3'", "trainer.early_stopping={patience_epochs:3,min_delta:0.0}", "model.units=[]",
    "tracking.experiment=\u202e",
]  # fmt: skip


def word_of(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return chance.choice(GOOD_WORDS)
    key = chance.choice(KEYS if chance.random() < 0.75 else WILD_KEYS)
    value = chance.choice(WILD_VALUES)
    if chance.random() < 0.1:
        value = "".join(chance.choices("[]{}(),:='\"$\\ ab1.-~+@é", k=chance.randint(1, 12)))
    if chance.random() < 0.02:
        return "".join(chance.choices("[]{}(),:='\"$\\ ab1.-~+@/é", k=chance.randint(0, 20)))
    prefix = chance.choice(["", "", "", "", "+", "++", "~"])
    return f"{prefix}{key}" if prefix == "~" and chance.random() < 0.5 else f"{prefix}{key}={value}"


class Composition:
    """conf/ composed once; then, for each case, what Hydra does with overrides of values, and what a stage does.

    A whole composition takes some 100 ms, of which these words decide 1 ms: the rest is reading conf/ again. Words that
    choose files of conf/, or are about Hydra's own settings, are composed as a whole.
    """

    def __init__(self) -> None:
        self.parser = OverridesParser.create()
        config = OmegaConf.create(parse(default_yaml()))
        OmegaConf.set_struct(config, True)
        self.pickled = pickle.dumps(config)  # copied so, six times as fast as by deepcopy

    def validated(self, words: list[str]) -> Config:
        with refusals(" ".join(words)):
            overrides = self.parser.parse_overrides(words)
        if any(needs_files(one.get_key_element()) for one in overrides):
            return whole(words)
        with refusals(" ".join(words)), suggested_keys():
            ConfigLoaderImpl.validate_sweep_overrides_legal(overrides, RunMode.RUN, from_shell=False)
            config = pickle.loads(self.pickled)
            ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
            OmegaConf.resolve(config)
            values = self.read_again(config, overrides)
        return validate(Config, values)

    def read_again(self, config: Any, overrides: list[Any]) -> dict[str, Any]:
        """As by way of params.yaml, for the groups that were touched."""
        values: Any = OmegaConf.to_container(config)
        touched = {one.key_or_group.split(".")[0] for one in overrides} & values.keys()
        return values | parse(OmegaConf.to_yaml(OmegaConf.create({key: values[key] for key in touched})))


def needs_files(key: str) -> bool:
    bare = key.lstrip("+~").partition("@")[0]
    return "/" in bare or bare.startswith("hydra") or (bare != "" and (CONF / bare).is_dir())


def whole(words: list[str]) -> Config:
    """As every command does it."""
    return validate(Config, parse(compose_yaml(CONF, words)))


def test_overrides() -> None:
    composition = Composition()

    def read(number: int, case: list[str]) -> bool:
        try:
            return isinstance(composition.validated(case), Config)
        except EXPLAINED as error:
            return refused(error)

    fuzz(words(), read)


def test_the_short_way_of_these_overrides_is_that_of_the_commands() -> None:
    """The same configuration, or the same message, as by whole compositions."""
    composition, chance = Composition(), random.Random(0)
    outcomes = []
    for _ in range(60):
        case = [word_of(chance)]
        short = outcome(composition.validated, case)
        assert short == outcome(whole, case), case
        outcomes.append(type(short))
    assert outcomes.count(Config) > 3
    assert outcomes.count(str) > 30


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("choice", ["nope", "../config", "/etc/passwd", "[a,b]", "null"])
def test_a_choice_that_no_group_has_is_refused(group: str, choice: str) -> None:
    assert isinstance(outcome(whole, [f"{group}={choice}"]), str)


def outcome(compose: Callable[[list[str]], Config], words: list[str]) -> Config | str:
    try:
        return compose(words)
    except EXPLAINED as error:
        refused(error)
        return str(error)
