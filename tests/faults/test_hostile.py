"""What an attacker could hand in: nothing of it is run, nothing leaves its folder, one message says what it is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import socket
import stat
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import EpsImagePlugin

from arguments import arguments_of
from config.config_makers import CONF, train_config
from data_makers import (
    mirror,
    noise,
    own_config,
    preprocess_config,
    published_config,
    published_contents,
    tiny_set,
    tree,
    write_raw,
)  # fmt: skip
from lanes import long
from pipeline.commands import ui
from pipeline.config.compose import compose_yaml
from pipeline.data.images import decode
from pipeline.data.processed import load_split
from pipeline.data.source import RawNote, describe_file
from pipeline.download import download
from pipeline.model import DESCRIPTION, WEIGHTS
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import save_model
from pipeline.preprocess import preprocess
from pipeline.system.errors import ConfigError, DataContractError, DownloadError, PipelineError
from pipeline.system.files import sha256_of
from pipeline.tracking import Store
from pipeline.training.checkpoints import BEFORE, LAST, AtomicCheckpointIO, Interrupted, discard_damaged
from project_maker import Project, mark_as_project
from tracking.tracking_makers import free_port, wait_until_it_answers
from training.training_makers import assert_same_weights, trained

SPRUNG = "sprung"


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_the_trap_works(tmp_path: Path) -> None:
    """Or the tests below show nothing."""
    pickle.loads(pickle.dumps(Trap(tmp_path / SPRUNG)))
    assert (tmp_path / SPRUNG).exists()


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


# ---------------------------------------------------------------- pickles


def zipped_pickle(trap: Trap) -> bytes:
    buffer = io.BytesIO()
    torch.save({"history": [], "state_dict": {"w": trap}}, buffer)
    return buffer.getvalue()


def old_torch_pickle(trap: Trap) -> bytes:
    buffer = io.BytesIO()
    torch.save({"history": [], "state_dict": {"w": trap}}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


PICKLES: list[Callable[[Trap], bytes]] = [zipped_pickle, old_torch_pickle, pickle.dumps]


def sealed(content: bytes) -> bytes:
    """As a checkpoint ends that is whole: anyone can compute a digest."""
    return content + b"\nsha256:" + hashlib.sha256(content).hexdigest().encode()


@pytest.mark.parametrize("pickled", PICKLES)
def test_a_pickle_in_a_checkpoint_with_the_right_digest_is_refused(
    pickled: Callable[[Trap], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "some.ckpt"
    path.write_bytes(sealed(pickled(Trap(tmp_path / SPRUNG))))
    with pytest.raises(PipelineError, match="is no checkpoint of ours, and was not run: ") as caught:
        AtomicCheckpointIO().load_checkpoint(path)

    assert str(path) in one_line(caught.value)
    assert not (tmp_path / SPRUNG).exists()


@pytest.mark.parametrize("pickled", PICKLES)
def test_a_training_does_not_go_on_from_a_pickle(pickled: Callable[[Trap], bytes], tmp_path: Path) -> None:
    """But from the checkpoint before it, to the weights of one that nobody tampered with."""
    with pytest.raises(Interrupted):
        trained(tmp_path / "a", stop_at_chunk=1)
    (tmp_path / "a" / LAST).replace(tmp_path / "a" / BEFORE)
    (tmp_path / "a" / LAST).write_bytes(sealed(pickled(Trap(tmp_path / SPRUNG))))

    assert_same_weights(trained(tmp_path / "b"), trained(tmp_path / "a"))
    assert not (tmp_path / SPRUNG).exists()


def test_a_checkpoint_that_asks_for_terabytes_is_named(tmp_path: Path) -> None:
    """bytearray is one of the few names that torch lets a checkpoint call. It stays: the machine may be too small."""
    torch.save(None, tmp_path / "empty")
    with zipfile.ZipFile(tmp_path / "empty") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    records["empty/data.pkl"] = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x40\x85R."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    (tmp_path / LAST).write_bytes(sealed(buffer.getvalue()))

    with pytest.raises(PipelineError, match=r"last\.ckpt takes more memory to read than there is"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / LAST)
    with pytest.raises(PipelineError, match=r"last\.ckpt takes more memory to read than there is"):
        discard_damaged(tmp_path, keeps_best=False)
    assert (tmp_path / LAST).exists()


def test_arrays_that_are_pickles_are_refused(tmp_path: Path) -> None:
    processed = tmp_path / "processed"
    (processed / "train").mkdir(parents=True)
    np.save(processed / "train/labels.npy", np.zeros(1, np.int64))
    np.save(processed / "train/images.npy", np.array([Trap(tmp_path / SPRUNG)], dtype=object), allow_pickle=True)
    with pytest.raises(DataContractError, match=r"images\.npy cannot be read .* Run: dvc repro -f preprocess"):
        load_split(processed, "train")
    assert not (tmp_path / SPRUNG).exists()


def test_a_pickled_type_in_a_parquet_file_is_not_made(tmp_path: Path) -> None:
    """As pyarrow did before 14.0.1 (CVE-2023-47248); the column is then what it is stored as."""
    kind = {"ARROW:extension:name": "arrow.py_extension_type"}
    kind["ARROW:extension:metadata"] = pickle.dumps(Trap(tmp_path / SPRUNG))  # type: ignore[assignment]
    fields = [pa.field("x", pa.int64(), metadata=kind), pa.field("species", pa.string())]
    parquet.write_table(pa.table([range(20), ["a", "b"] * 10], schema=pa.schema(fields)), tmp_path / "t.parquet")
    download(own_config(kind="table", path="t.parquet"), tmp_path, tmp_path / "raw", None)
    cfg = preprocess_config(label="species", test_fraction=0.2, validation_fraction=0.0)

    assert preprocess(tmp_path / "raw", tmp_path / "processed", cfg).classes == ["a", "b"]
    assert not (tmp_path / SPRUNG).exists()


def test_a_picture_in_postscript_is_not_given_to_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow opens whatever it knows, by content; we what a name may end in."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / SPRUNG}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(ghostscript))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataContractError, match=r"a/0\.png: expected an image, found an unknown format"):
        decode(content, "a/0.png", "gray", None)
    assert not (tmp_path / SPRUNG).exists()


# ---------------------------------------------------------------- names of functions

TOUCH = f"touch {SPRUNG}"
RMSPROP = "conf/optimizer/rmsprop.yaml"
CALLBACK = f"callbacks: {{x: {{_target_: os.system, command: {TOUCH}}}}}"
TAG = f"!!python/object/apply:os.system ['{TOUCH}']"
CALLS = {
    "an optimizer": ["optimizer._target_=os.system"],
    "a callback": ["+hydra.callbacks.x._target_=os.system", f"+hydra.callbacks.x.command='{TOUCH}'"],
    "a callback off Hydra's own list of bad names": [
        "+hydra.callbacks.x._target_=os.mkdir", f"+hydra.callbacks.x.path={SPRUNG}",
    ],
    "a callback by reference": [
        "+hydra.callbacks.x._target_=${tracking.run_name}", "tracking.run_name=os.system",
        f"+hydra.callbacks.x.command='{TOUCH}'",
    ],
    "callbacks by reference": [
        "hydra.callbacks=${trainer}", "+trainer.x._target_=os.system", f"+trainer.x.command='{TOUCH}'",
    ],
    "a launcher": ["hydra.launcher._target_=os.system"],
    "a module of a plug-in": ["hydra.launcher._target_=hydra_plugins._pipeline.Any"],
    "a sweeper whose jobs nothing checks": [
        "hydra.sweeper._target_=hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    ],
    "a handler of a log": [
        "+hydra.job_logging.handlers.x.class=os.system", f"+hydra.job_logging.handlers.x.command='{TOUCH}'",
    ],
}  # fmt: skip


@pytest.mark.parametrize("how", [how for how in CALLS if how != "an optimizer"])
def test_a_name_in_hydras_settings_is_refused(how: str) -> None:
    with pytest.raises(ConfigError, match=r"^hydra\.") as caught:
        compose_yaml(CONF, CALLS[how])
    one_line(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "multirun"),
    [*((how, ()) for how in CALLS), (next(iter(CALLS)), ("-m",)), *(long(how, ("-m",)) for how in list(CALLS)[1:])],
    ids=lambda value: value if isinstance(value, str) else "several" if value else "one",
)
def test_a_command_runs_nothing_by_a_name_in_an_override(
    how: str, multirun: tuple[str, ...], prepared: Project, tmp_path: Path
) -> None:
    project = prepared.copy(tmp_path / "work")
    done = project.run(sys.executable, "-m", "pipeline.preprocess", *multirun, *CALLS[how], expect=2)

    assert done.text.splitlines()[-1].startswith("preprocess: error: ")
    assert "Traceback" not in done.text
    assert not list(tmp_path.rglob(SPRUNG))
    assert not (project.root / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (RMSPROP, "pipeline.model.rmsprop.KerasRMSprop", "os.system", "optimizer: 'os.system' is not on the list"),
        ("conf/config.yaml", "hydra:\n", f"hydra:\n  {CALLBACK}\n", "hydra.callbacks.x._target_: expected a launcher"),
        ("conf/config.yaml", "seed: 0", f"seed: {TAG}", "could not determine a constructor for the tag"),
    ],
    ids=["an optimizer", "a callback", "a tag of YAML"],
)
def test_a_command_runs_nothing_by_a_name_in_a_file(
    file: str, old: str, new: str, said: str, prepared: Project, tmp_path: Path
) -> None:
    """Under DVC and by hand."""
    project = prepared.copy(tmp_path / "work")
    project.edit(file, old, new)
    for command in ([sys.executable, "-m", "pipeline.preprocess"], ["dvc", "repro", "configure"]):
        done = project.run(*command, expect=None)
        assert done.returncode != 0
        assert said in done.text
        assert "Traceback" not in done.text
    assert not list(tmp_path.rglob(SPRUNG))


@pytest.mark.slow
def test_evaluate_does_not_run_a_pickled_model(prepared: Project, tmp_path: Path) -> None:
    project = prepared.copy(tmp_path / "work")
    cfg = train_config({"model.units": [4]}).model
    spec = InputSpec((28, 28), "uint8", 0.0, 255.0)
    models = project.root / "models"
    save_model(models, DenseNetwork(cfg, spec, 10), cfg, spec, [str(label) for label in range(10)], {})
    (models / WEIGHTS).write_bytes(zipped_pickle(Trap(tmp_path / SPRUNG)))
    description = json.loads((models / DESCRIPTION).read_text())
    (models / DESCRIPTION).write_text(json.dumps(description | {"sha256": {WEIGHTS: sha256_of(models / WEIGHTS)}}))
    done = project.run(sys.executable, "-m", "pipeline.evaluate", expect=1)

    assert done.text.startswith("evaluate: error: ")
    assert "not a model of this pipeline" in done.text
    assert done.text.count("\n") == 1
    assert not (tmp_path / SPRUNG).exists()


# ---------------------------------------------------------------- archives


def archive_with(member: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member.size = 5 if member.isreg() else 0
        tar.addfile(member, io.BytesIO(b"hello"))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, leads_to: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, leads_to
    return made


MEMBERS = {
    "above": member("../../evil/x.png"),
    "above, later": member("all/../../evil.png"),
    "absolute": member("/tmp/evil/x.png"),
    "a link to a file": member("all/a/x.png", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": member("all/a/x.png", tarfile.LNKTYPE, "/etc/passwd"),
    "a device": member("all/a/x.png", tarfile.CHRTYPE),
    "a pipe": member("all/a/x.png", tarfile.FIFOTYPE),
    "a folder": member("all/a/x.png", tarfile.DIRTYPE),
}


@pytest.mark.parametrize("how", MEMBERS)
def test_a_member_that_download_does_not_pack_is_refused(how: str, tmp_path: Path) -> None:
    raw = tmp_path / "data/raw"
    raw.mkdir(parents=True)
    (raw / "images.tar").write_bytes(archive_with(MEMBERS[how]))
    RawNote("tiny", "image_folder", "image_folder", {"images": describe_file(raw / "images.tar")}).write(raw)
    with pytest.raises(DataContractError, match=r"images\.tar is damaged .* Run: dvc repro -f download") as caught:
        preprocess(raw, tmp_path / "data/processed", preprocess_config(color="gray", test_fraction=0.2))

    assert repr(MEMBERS[how].name) in one_line(caught.value)
    assert sorted(tree(tmp_path)) == ["data/raw/images.tar", "data/raw/source.json"]


def zip_of(members: dict[str, bytes], link: str) -> bytes:
    """Members of any name, and ``link`` as a symbolic link to /etc/passwd."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        made = zipfile.ZipInfo(link)
        made.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(made, "/etc/passwd")
    return buffer.getvalue()


def test_a_link_where_a_published_file_should_be_is_refused(tmp_path: Path) -> None:
    """What a link leads to is not read, and no other member becomes a file anywhere."""
    others = {"../../evil": b"x", "/tmp/evil": b"x", "gzip/../../evil": b"x"}
    content = zip_of(others, "gzip/train-images-idx3-ubyte.gz")
    message = refused_archive(content, tmp_path)

    assert "no IDX file of uint8 values: its content starts with 2f 65 74 63" in message  # "/etc"
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name] == []


def test_an_archive_with_the_right_digest_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    """As of a .tar.gz that someone names in data.archive."""
    assert "not a zip that can be read" in refused_archive(b"no zip at all", tmp_path)


def refused_archive(content: bytes, tmp_path: Path) -> str:
    archive = {"file": "all.zip", "sha256": hashlib.sha256(content).hexdigest(), "folder": "gzip"}
    with mirror({"all.zip": content}) as bad:
        cfg = published_config(published_contents(tmp_path), [bad.url], archive=archive)
        with pytest.raises(DownloadError) as caught:
            download(cfg, tmp_path / "root", tmp_path / "root/data/raw", None)
    assert list((tmp_path / "root/data").iterdir()) == []
    return str(caught.value)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "a/b", "..", "", "a\0b"])
def test_a_note_about_data_names_only_files_beside_it(name: str, tmp_path: Path) -> None:
    raw = tmp_path / "data/raw"
    write_raw(raw, tiny_set())
    (tmp_path / "data/secret.csv").write_text("x,species\n1,a\n2,b\n")
    note = {"name": "tiny", "kind": "table", "format": "table"}
    (raw / "source.json").write_text(json.dumps(note | {"files": {"all": {"file": name, "bytes": 1, "sha256": ""}}}))
    with pytest.raises(DataContractError, match=r"source\.json is damaged .* is no name of a file beside it"):
        preprocess(raw, tmp_path / "data/processed", preprocess_config(label="species", test_fraction=0.2))
    assert not (tmp_path / "data/processed").exists()


def test_a_class_whose_name_no_text_can_hold_is_refused(tmp_path: Path) -> None:
    """A folder called in Latin-1 on a disk of UTF-8; the data card could not be written at the end."""
    for index, name in enumerate([b"caf\xe9", b"dog"]):
        folder = Path(str(tmp_path / "pets")) / name.decode(errors="surrogateescape")
        folder.mkdir(parents=True)
        for image in range(5):
            (folder / f"{image}.pgm").write_bytes(b"P5 4 5 255\n" + noise(1, seed=10 * index + image).tobytes())
    with pytest.raises(DataContractError, match=r"caf\\udce9.*: expected a name in UTF-8"):
        download(own_config(kind="image_folder", path="pets"), tmp_path, tmp_path / "data/raw", None)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    root = tmp_path / "project"
    root.mkdir()
    mark_as_project(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    return Store(root)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "../../../../evil", "/tmp/evil"])
def test_an_artifact_stays_in_its_run(name: str, store: Store, tmp_path: Path) -> None:
    """MLflow refuses it; ours is that no other way of writing is used. A long setting becomes a file too."""
    with store.run("hostile", "one") as run:
        with pytest.raises(Exception, match="Invalid artifact path"):
            run.text("x", name)
        with pytest.raises(Exception, match=r"Invalid (artifact path|value)"):
            run.params({f"..{name}" if name.startswith("/") else f"../{name}": "x" * 7_000})
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name] == []
    assert not Path("/tmp/evil").exists()


# ---------------------------------------------------------------- the UI


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.org", ""])
def test_the_ui_listens_to_no_other_machine_and_says_how_to_reach_it(host: str, store: Store) -> None:
    with pytest.raises(PipelineError) as caught:
        ui.main(arguments_of(ui, "--host", host, "--port", "5055"))
    message = one_line(caught.value)
    assert f"ssh -L 5055:127.0.0.1:5055 {socket.gethostname()}" in message
    assert "no passwords" in message


OUTSIDE = ["../../../mlflow.db", "..%2F..%2F..%2Fmlflow.db", "%252e%252e%252f%252e%252e/mlflow.db", "/etc/passwd"]


@pytest.mark.slow
def test_the_ui_answers_no_other_name_and_shows_no_file_outside_a_run(store: Store) -> None:
    """A page of another site that names itself 127.0.0.1 (DNS rebinding), and paths that climb out."""
    with store.run("hostile", "one") as run:
        run.text("hello", "a.txt")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ui", "--port", str(port)], cwd=store.root, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            wait_until_it_answers(port)
            artifact = f"http://127.0.0.1:{port}/get-artifact?run_uuid={run.id}&path="
            assert answer(f"{artifact}a.txt") == 200
            for path in OUTSIDE:
                assert answer(artifact + path) >= 400, path
            assert answer(f"{artifact}a.txt", "evil.example") == 403
        finally:
            server.terminate()


def answer(url: str, host: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
