"""A full disk, a folder that cannot be written to, too little memory: one clear error, and nothing is half written.

The project lies on a small disk of its own (a tmpfs, so these tests need root), which is really filled and really
read-only.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lanes import long, number
from pipeline.config.schema import ModelConfig
from pipeline.model.dense import DenseNetwork
from pipeline.model.portable import load_model, save_model
from pipeline.system.files import sha256_of
from project_maker import Done, Project

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("starved_stage.py")
MB = 2**20
DISK_MB = 160
NOBODY = 65534
OUTPUTS = {
    "configure": ["params.yaml", "data/own.json"],
    "download": ["data/raw"],
    "preprocess": ["data/processed"],
    "train": ["models/model.safetensors", "models/model.json", "metrics/learning.json", "plots/history.csv"],
    "evaluate": ["predictions", "plots/confusion.csv", "plots/calibration.csv", "plots/robustness.csv",
                 "plots/label_errors.csv", "metrics/evaluate.json", "reports/figures", "reports/evaluation.html"],
}  # fmt: skip


@dataclass
class Starving:
    """A project that was run once, on a disk of its own; the seed has changed since."""

    project: Project
    forks: subprocess.Popen[str]

    @property
    def root(self) -> Path:
        return self.project.root

    def stage(
        self, stage: str, words: list[str] | None = None, memory_mb: int | None = None, user: int | None = None
    ) -> Done:
        memory_bytes = memory_mb and memory_mb * MB
        job = {"stage": stage, "words": words, "memory_bytes": memory_bytes, "user": user}
        assert self.forks.stdin is not None
        assert self.forks.stdout is not None
        self.forks.stdin.write(json.dumps(job) + "\n")
        self.forks.stdin.flush()
        return Done(*json.loads(self.forks.stdout.readline()))

    def leave(self, num_bytes: int | None) -> None:
        """Fill the disk until so much is free. None: give all back."""
        filler = self.root / ".filler"
        filler.unlink(missing_ok=True)
        if num_bytes is not None:
            disk = os.statvfs(self.root)
            with open(filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - num_bytes))

    def outputs(self, stage: str) -> dict[str, bytes]:
        places = [self.root / name for name in OUTPUTS[stage]]
        files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files if file.is_file()}

    def statuses(self) -> list[str]:
        """Of all runs, newest first; not by MLflow, which would keep the disk open."""
        with closing(sqlite3.connect(self.root / "mlflow.db")) as connection:
            return [str(row[0]) for row in connection.execute("SELECT status FROM runs ORDER BY start_time DESC")]


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that others may enter, and where the disk is mounted."""
    folder = tmp_path_factory.mktemp("disk")
    for above in (folder, *folder.parents[:3]):
        if above != Path("/tmp") and above.is_relative_to("/tmp"):
            above.chmod(0o755)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


@pytest.fixture(scope="module")
def template(prepared: Project, disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run once at the place where it will lie, then put away."""
    shutil.copytree(prepared.root, disk, symlinks=True, dirs_exist_ok=True)
    project = Project(disk)
    project.edit("conf/model/dense.yaml", "units: 128", "units: 16")
    project.edit("conf/evaluate/default.yaml", "num_robustness_images: 100", "num_robustness_images: 20")
    project.repro()
    project.commit_all("run")
    project.edit("conf/config.yaml", "seed: 0", "seed: 1")
    project.edit("params.yaml", "\nseed: 0", "\nseed: 1")
    return project.copy(tmp_path_factory.mktemp("template") / "work")


@pytest.fixture(scope="module")
def forks(prepared: Project, disk: Path) -> Iterator[subprocess.Popen[str]]:
    environment = prepared.environment() | {"HYDRA_FULL_ERROR": "1"}
    with subprocess.Popen(
        [sys.executable, SCRIPT, disk], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def starving(template: Project, forks: subprocess.Popen[str], disk: Path) -> Iterator[Starving]:
    mount("-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=755", "tmpfs", disk)
    try:
        shutil.copytree(template.root, disk, symlinks=True, dirs_exist_ok=True)
        yield Starving(Project(disk), forks)
    finally:
        subprocess.run(["umount", disk], check=True)


def only_error(done: Done, stage: str) -> str:
    """What the one line says that the stage fails with."""
    assert done.returncode == 1, done.text
    assert "Traceback" not in done.text, done.text
    known = ("failed to reproduce", "may not have ended as FAILED")  # by DVC, and of a run that the next start ends
    errors = [line for line in done.text.splitlines() if "rror" in line and not any(word in line for word in known)]
    assert len(errors) == 1, done.text
    assert errors[0].startswith(f"{stage}: error: "), done.text
    return errors[0]


# ---------------------------------------------------------------- a full disk

STEPS = {"configure": 8192, "download": MB, "preprocess": MB, "train": 160 * 1024, "evaluate": 192 * 1024}
CHANGES = {  # after which a stage writes something else
    "configure": ("conf/config.yaml", "seed: 1", "seed: 2"),
    "preprocess": ("params.yaml", "split_seed: 0", "split_seed: 1"),
    "evaluate": ("params.yaml", "num_calibration_bins: 15", "num_calibration_bins: 5"),
}


@pytest.mark.parametrize("stage", OUTPUTS)
def test_with_little_room_a_stage_writes_all_or_nothing(stage: str, starving: Starving) -> None:
    """Started again with ever more room, until that is enough: what it then writes is what it writes with plenty."""
    if stage in CHANGES:
        starving.project.edit(*CHANGES[stage])
    before, free, seen = starving.outputs(stage), 0, []
    for _ in range(60):
        starving.leave(free)
        done = starving.stage(stage)
        if done.returncode == 0:
            break
        line = only_error(done, stage)
        assert re.search("expected .*, found .* MB free.* Make room there", line), line
        seen.append((line, starving.outputs(stage)))
        free += number(3, 1) * STEPS[stage]
    after = starving.outputs(stage)

    assert done.returncode == 0, done.text
    assert seen
    assert after != before or stage == "download"
    for line, found in seen:
        assert found in (before, after), line
    assert seen[0][1] == before
    assert list(starving.root.rglob(".*.new")) == []
    starving.leave(None)
    assert "RUNNING" not in starving.statuses()


def test_room_for_the_samples_alone_is_too_little(starving: Starving) -> None:
    """What preprocess asks for before it begins; NumPy then says how many it could not write, and not why."""
    before = starving.outputs("preprocess")
    starving.leave(5000 * (784 + 8) + 8192)
    line = only_error(starving.stage("preprocess"), "preprocess")

    assert f"the disk is full: {starving.root}/data/processed: expected to write there" in line
    assert starving.outputs("preprocess") == before


def test_a_training_that_ran_out_of_room_ends_with_the_weights_of_one_that_did_not(starving: Starving) -> None:
    """It goes on from the checkpoint that it could write."""
    for free in (700, 550, 400, 250):  # what the store's log has room for differs
        starving.leave(free * 1024)
        cut = starving.stage("train")
        if cut.returncode:
            break
    only_error(cut, "train")
    starving.leave(None)
    starving.stage("train")
    starved = starving.outputs("train")
    shutil.rmtree(starving.root / ".pipeline/checkpoints")
    assert starving.stage("train").returncode == 0

    assert starving.outputs("train") == starved


def test_dvc_repro_on_a_full_disk_can_be_repeated(starving: Starving) -> None:
    """DVC removes the outputs of a stage before it starts it: they come back by `dvc checkout`, as the error says."""
    project, before = starving.project, starving.outputs("train")
    starving.leave(200 * 1024)
    failed = project.run("dvc", "repro", "train", expect=None)
    line = only_error(Done(1, failed.text), "train")
    starving.leave(None)
    project.run("dvc", "checkout", "models/model.safetensors", "models/model.json")
    models = {name: found for name, found in starving.outputs("train").items() if name.startswith("models/")}

    assert failed.returncode != 0
    assert "the disk is full" in line
    assert "`dvc checkout` brings back the outputs of before" in line
    assert models == {name: found for name, found in before.items() if name.startswith("models/")}
    assert project.run("dvc", "repro", "train").ran == ["train"]
    assert "up to date" in project.run("dvc", "status", "train").text


def test_a_training_by_hand_on_a_full_disk_is_one_error(starving: Starving) -> None:
    before = starving.outputs("train")
    for free in (0, 100 * 1024):
        starving.leave(free)
        assert "the disk is full" in only_error(starving.stage("train", []), "train")

    assert starving.outputs("train") == before
    starving.leave(None)
    assert starving.stage("train", []).returncode == 0
    assert "RUNNING" not in starving.statuses()


# ---------------------------------------------------------------- a folder that cannot be written to


@pytest.mark.parametrize("stage", [long("configure"), "download", long("preprocess"), "train", "evaluate"])
def test_a_read_only_disk_is_one_error(stage: str, starving: Starving) -> None:
    before = starving.outputs(stage)
    mount("-o", "remount,ro", starving.root)
    line = only_error(starving.stage(stage), stage)
    assert starving.outputs(stage) == before
    mount("-o", "remount,rw", starving.root)

    assert re.search(r"the folder is read-only: \S+: expected to write there, found a read-only disk\. Make it", line)
    assert starving.stage(stage).returncode == 0


@pytest.mark.parametrize(
    ("stage", "folder"),
    [long("configure", "data"), ("download", "data"), long("preprocess", "data"), ("train", "models"),
     ("evaluate", "metrics"), long("evaluate", "reports")],
)  # fmt: skip
def test_a_read_only_folder_is_one_error(stage: str, folder: str, starving: Starving) -> None:
    """The others can be written to, and yet none of the outputs changes."""
    before, place = starving.outputs(stage), starving.root / folder
    mount("--bind", place, place)
    try:
        mount("-o", "remount,bind,ro", place)
        line = only_error(starving.stage(stage), stage)
        found = starving.outputs(stage)
    finally:
        subprocess.run(["umount", place], check=True)

    assert re.search(rf"the folder is read-only: \S*{folder}/\S+: expected", line)
    assert found == before


@pytest.mark.parametrize("stage", [long("configure"), "download", long("preprocess"), "train", long("evaluate")])
def test_a_folder_of_somebody_else_is_one_error(stage: str, starving: Starving) -> None:
    before = starving.outputs(stage)
    line = only_error(starving.stage(stage, user=NOBODY), stage)

    assert "no permission: " in line
    assert f"found that user {NOBODY} may not. Make it writable" in line
    assert starving.outputs(stage) == before


# ---------------------------------------------------------------- too little memory


def test_a_training_too_large_for_memory_says_what_to_lower(starving: Starving) -> None:
    """`ulimit -v` as a person sets it, and the whole command."""
    before, limit = starving.outputs("train"), 4 * 2**30
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.train", "model.units=[40000,40000]"],
        cwd=starving.root, env=starving.project.environment(), capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    line = only_error(Done(done.returncode, done.stdout + done.stderr), "train")

    assert "expected 6400000000 bytes more, found a limit of 4,295 MB for the process (ulimit -v)" in line
    assert "Lower model.units or trainer.batch_size" in line
    assert starving.outputs("train") == before
    assert starving.statuses()[0] == "FAILED"


CHECKPOINT = """
import resource, sys
from pathlib import Path
import torch
from pipeline.system.exit_codes import explained
from pipeline.training.checkpoints import AtomicCheckpointIO, discard_damaged
AtomicCheckpointIO().save_checkpoint({"history": [], "weights": torch.zeros(50_000_000)}, "last.ckpt")
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 100 * 2**20,) * 2)
with explained("train"):
    discard_damaged(Path.cwd(), False)
"""


def test_a_checkpoint_that_does_not_fit_into_memory_is_kept(prepared: Project, tmp_path: Path) -> None:
    """It is whole: with more memory the training goes on from it."""
    done = prepared.run(sys.executable, "-c", CHECKPOINT, cwd=tmp_path, expect=1)

    assert "expected 200000000 bytes more" in only_error(done, "train")
    assert (tmp_path / "last.ckpt").exists()


def test_a_batch_too_large_for_memory_says_what_to_lower(starving: Starving) -> None:
    """The network fits, its activations do not."""
    before = starving.outputs("train")
    done = starving.stage("train", ["model.units=20000", "trainer.batch_size=3600"], memory_mb=250)

    assert "Lower model.units or trainer.batch_size" in only_error(done, "train")
    assert starving.outputs("train") == before


def test_an_evaluation_too_large_for_memory_says_what_to_lower(starving: Starving) -> None:
    before, root = starving.outputs("evaluate"), starving.root
    small = load_model(root / "models")
    torch.manual_seed(0)
    cfg, spec = ModelConfig.model_validate({**_architecture(root), "units": [20000]}), small.input
    network = DenseNetwork(cfg, spec, len(small.classes))
    origin = {**small.training, "data_sha256": sha256_of(root / "data/processed/data_card.json")}
    save_model(root / "models", network, cfg, spec, small.classes, origin)
    done = starving.stage("evaluate", memory_mb=190)

    assert "Evaluate a model with smaller model.units" in only_error(done, "evaluate")
    assert starving.outputs("evaluate") == before
    assert starving.stage("evaluate").returncode == 0


def _architecture(root: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((root / "models/model.json").read_text())["architecture"]
    return found


def test_a_download_too_large_for_memory_says_so(starving: Starving) -> None:
    """The package parses its table in memory."""
    before = starving.outputs("download")
    line = only_error(starving.stage("download", memory_mb=100), "download")

    assert "the memory is used up" in line
    assert "Choose smaller data" in line
    assert starving.outputs("download") == before
    assert starving.stage("download").returncode == 0


def test_a_table_too_large_for_memory_says_so(starving: Starving) -> None:
    rows = np.random.default_rng(0).random((60_000, 100), dtype=np.float32)
    columns = {f"f{column}": rows[:, column] for column in range(100)}
    table = pa.table({**columns, "label": np.arange(len(rows)) % 3})
    pq.write_table(table, starving.root / "mine.parquet")
    project, before = starving.project, starving.outputs("preprocess")
    project.edit("conf/config.yaml", "data: mnist_5k", "data: table")
    project.edit("conf/data/table.yaml", "path: null", "path: mine.parquet")
    project.edit("conf/data/table.yaml", "label: null", "label: label")
    for stage in ("configure", "download"):
        assert starving.stage(stage).returncode == 0
    done = starving.stage("preprocess", memory_mb=30)

    assert "Give data with fewer or smaller samples" in only_error(done, "preprocess")
    assert starving.outputs("preprocess") == before
