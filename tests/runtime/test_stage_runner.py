"""How a stage is started: what it sees, where it writes, and the code that it ends with.

The stage of most tests is a small one in a process of its own, started as `pipeline download` is.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException

from config.config_makers import CONF, ROOT, clean_environment, default_yaml, settings
from pipeline.config.check import validate
from pipeline.config.schema import DownloadConfig, EvaluateConfig, PreprocessConfig, Section, TrainConfig
from pipeline.runtime.stage_runner import visible
from pipeline.system.errors import ConfigError, DataContractError, PipelineError
from pipeline.system.exit_codes import explained
from pipeline.system.resource_errors import NOT_WRITABLE

STAGE = """
import errno, os, signal, sys, time
from pathlib import Path
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.runtime.stage_runner import run_stage

def stage(cfg, places):
    print("data", cfg.data.name, "root", places.root, "in", places.inputs, "out", places.out, flush=True)
    match os.environ.get("ENDING"):
        case "failure":
            raise PipelineError("the mirror is gone")
        case "mistake":
            raise ConfigError("data.name: what is that")
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        case "full disk":
            raise OSError(errno.ENOSPC, "No space left on device", "data/raw/x.npy")
        case "fault":
            raise ZeroDivisionError("ours")
        case "wait":
            sys.stdin.readline()

run_stage("download", lambda: stage)
"""
NAMES = {"download": DownloadConfig, "preprocess": PreprocessConfig, "train": TrainConfig, "evaluate": EvaluateConfig}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """conf/, dvc.yaml and params.yaml; the current folder."""
    root = (tmp_path / "project").resolve()
    shutil.copytree(CONF, root / "conf")
    shutil.copy(ROOT / "dvc.yaml", root)
    (root / "params.yaml").write_text(default_yaml(), encoding="utf-8")
    (root / "stage.py").write_text(STAGE)
    monkeypatch.chdir(root)
    return root


def start(project: Path, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """The small stage, or with `-m` another one."""
    command = [sys.executable, *(words if "-m" in words else (str(project / "stage.py"), *words))]
    return subprocess.Popen(
        command, cwd=cwd or project, env=clean_environment() | environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not ignored, as it is in a background job
    )  # fmt: skip


def ended(project: Path, *words: str, **more: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a stage that has ended."""
    process = start(project, *words, **more)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


# ---------------------------------------------------------------- what a stage sees


def leaves(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted keys down to the second level."""
    return {f"{key}.{inner}" for key, part in values.items() if isinstance(part, dict) for inner in part} | {
        key for key, part in values.items() if not isinstance(part, dict)
    }


def test_train_sees_its_groups_and_tracking(project: Path) -> None:
    """Neither data nor evaluate, though both are in params.yaml."""
    found = visible(settings(), "train", TrainConfig)

    groups = ("seed", "model", "optimizer", "scheduler", "loss", "trainer", "tracking", "sweep")
    assert found == {key: settings()[key] for key in groups}


def test_evaluate_sees_its_group_and_tracking(project: Path) -> None:
    """Not the seed, not the trainer."""
    assert visible(settings(), "evaluate", EvaluateConfig) == {key: settings()[key] for key in ("evaluate", "tracking")}


def test_download_and_preprocess_share_only_the_name(project: Path) -> None:
    """Each sees its own keys of the group data; the mirrors, unwatched, are for download alone."""
    download = leaves(visible(settings(), "download", DownloadConfig))
    preprocess = leaves(visible(settings(), "preprocess", PreprocessConfig))

    assert download & preprocess == {"data.name"}
    assert "data.mirrors" in download
    assert "data.split_seed" in preprocess


@pytest.mark.parametrize("stage", NAMES)
def test_what_a_stage_sees_is_what_it_needs(stage: str, project: Path) -> None:
    """Its typed view is complete."""
    config_class: type[Section] = NAMES[stage]

    assert validate(config_class, visible(settings(), stage, config_class))


def test_a_setting_that_dvc_does_not_watch_cannot_be_used(project: Path) -> None:
    """Taken out of dvc.yaml, a key is missing, rather than stale in silence."""
    text = (project / "dvc.yaml").read_text(encoding="utf-8")
    (project / "dvc.yaml").write_text(text.replace("scheduler, loss, trainer]", "scheduler, loss]"), encoding="utf-8")

    with pytest.raises(ConfigError, match=r"^trainer: is missing"):
        validate(TrainConfig, visible(settings(), "train", TrainConfig))


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PipelineError("gone"), 1, "gone"),
        (DataContractError("odd"), 1, "odd"),
        (ConfigError("wrong"), 2, "wrong"),
        (ConfigCompositionException("no such key"), 2, "no such key"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_user_can_cause_is_a_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`STAGE: error: …` on standard error, nothing on standard output."""
    with pytest.raises(SystemExit) as caught, explained("train"):
        raise error

    assert caught.value.code == code
    assert capsys.readouterr() == ("", f"train: error: {said}\n")


ROOM = r"expected to write there, found [\d,.]+ MB free\. Make room there, then start the same command again"
WRITABLE = r"Make it writable, then start the same command again; what was there before is intact"
MORE_MEMORY = r"Lower model\.units or trainer\.batch_size, or start the same command again with more memory"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x", "a.npy"), rf"the disk is full: a\.npy: {ROOM}; what was there before is intact"),
        (OSError(errno.EDQUOT, "x", "a.npy"), rf"the disk quota is used up: a\.npy: {ROOM}; .*"),
        (OSError(errno.EFBIG, "x", "a.npy"), rf"the largest file size is reached: a\.npy: {ROOM}; .*"),
        (OSError(errno.ENOSPC, "x"), rf"the disk is full: /.*: {ROOM}; .*"),
        (OSError(errno.ENOSPC, "x", "a", None, "b"), rf"the disk is full: b: {ROOM}; .*"),
        (OSError(errno.EROFS, "x", "a.npy"),
         rf"the folder is read-only: a\.npy: expected to write there, found a read-only disk\. {WRITABLE}"),
        (PermissionError(errno.EACCES, "x", "a.npy"),
         rf"no permission: a\.npy: expected to write there, found that user \d+ may not\. {WRITABLE}"),
        (MemoryError("Unable to allocate 3.5 GiB for an array"),
         rf"the memory is used up: expected 3\.5 GiB more, found too little of [\d,]+ MB\. {MORE_MEMORY}"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes. Error code 12"),
         rf"the memory is used up: expected 64 bytes more, found .*\. {MORE_MEMORY}"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79 GiB"),
         rf"the memory is used up: expected 20\.00 MiB more, found less than that free on the GPU\. {MORE_MEMORY}"),
        (OSError(errno.ENOMEM, "x"), rf"the memory is used up: expected some more, found .*\. {MORE_MEMORY}"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_the_machine_is_short_of_is_a_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand; also where a library has wrapped it."""
    wrapped = RuntimeError("in a library")
    wrapped.__cause__ = error
    for raised in [error] if getattr(error, "errno", None) in NOT_WRITABLE else [error, wrapped]:
        with pytest.raises(SystemExit) as caught, explained("train"):
            raise raised

        assert caught.value.code == 1
        assert re.fullmatch(f"train: error: {said}\n", capsys.readouterr().err)


def test_a_file_that_asks_for_too_much_memory_may_be_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    """What was said of it stays."""
    error = DataContractError("a.parquet cannot be read")
    error.__cause__ = MemoryError()
    with pytest.raises(SystemExit), explained("preprocess"):
        raise error

    said = r"a\.parquet cannot be read\. If it is whole: the memory is used up: .* Give data with fewer .*"
    assert re.fullmatch(f"preprocess: error: {said}\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("ours"), OSError(errno.EIO, "x"), FileNotFoundError("f")], ids=repr
)
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    """What no user can have caused goes through as it is."""
    with pytest.raises(type(error)) as caught, explained("train"):
        raise error

    assert caught.value is error


FULL = rf"the disk is full: data/raw/x\.npy: {ROOM}; `dvc checkout` brings back the outputs of before"


@pytest.mark.parametrize(
    ("by", "ending", "code", "said"),
    [
        ("hand", "failure", 1, "the mirror is gone"),
        ("hand", "mistake", 2, "data.name: what is that"),
        ("hand", "interrupt", 130, "interrupted"),
        ("dvc", "failure", 1, "the mirror is gone"),
        ("dvc", "interrupt", 130, "interrupted"),
        ("dvc", "full disk", 1, FULL),
    ],
)
def test_a_stages_process_ends_with_its_code(by: str, ending: str, code: int, said: str, project: Path) -> None:
    """By hand, where Hydra stands in between (and adds a line of its own), and under DVC."""
    under_dvc = {"DVC_STAGE": "download"} if by == "dvc" else {}
    found, _, err = ended(project, ENDING=ending, **under_dvc)

    assert found == code
    assert re.fullmatch(f"(Error executing job with overrides: \\[\\]\n)?download: error: {said}\n", err)


def test_a_faults_traceback_is_shown(project: Path) -> None:
    """By hand too, where Hydra would shorten it to its own taste."""
    code, _, err = ended(project, ENDING="fault")

    assert code == 1
    assert re.search(r"Traceback [\s\S]*, in stage\n[\s\S]*ZeroDivisionError: ours\n$", err)


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.num_epoch=3"], r"trainer\.num_epoch: there is no such key\. Did you mean trainer\.num_epochs\?\n"),
        (["+lr=0.1"], r"lr: there is no such key\. Did you mean optimizer\.lr\?\n"),
        (["data.validation_fraction=0"], r"trainer\.keep=best needs a validation split.*\n"),
        (["--config-dir=conf"], r"--config-dir: there is no such switch\. There is: -m, .*read from conf/ alone\n"),
        (["--multirun", "trainer.num_epoch=3", "seed=1,2"], r"trainer\.num_epoch: there is no such key\..*\n"),
        (
            ["--multirun", "+hydra.callbacks.x._target_=os.system"],
            r"hydra\.callbacks\.x\._target_: expected a launcher.*\n",
        ),
        (
            ["--cfg", "job", "hydra/hydra_logging=none", "+hydra.hydra_logging.formatters.x.class=os.system"],
            r"hydra\.hydra_logging\.formatters\.x\.class: expected a launcher.*\n",
        ),
    ],
    ids=str,
)
def test_a_mistake_by_hand_leaves_no_folder(overrides: list[str], said: str, project: Path) -> None:
    """Exit code 2, the explanation and nothing more, before Hydra makes outputs/."""
    code, out, err = ended(project, *overrides)

    assert (code, out) == (2, "")
    assert re.fullmatch(f"download: error: {said}", err)
    assert "Traceback" not in err
    assert not (project / "outputs").exists()


@pytest.mark.slow
def test_a_mistake_of_the_real_train_is_one_line(project: Path) -> None:
    """`pipeline train` with a misspelt key, as a person would type it."""
    code, out, err = ended(project, "-m", "pipeline.train", "trainer.num_epoch=3")

    assert (code, out) == (2, "")
    assert err == ("train: error: trainer.num_epoch: there is no such key. Did you mean trainer.num_epochs?\n")
    assert not (project / "outputs").exists()


def test_a_stage_by_hand_writes_to_a_folder_of_its_own(project: Path) -> None:
    """Below outputs/ at the project's root, though started in a folder below; inputs are the project's."""
    (project / "notebooks").mkdir()
    code, out, _ = ended(project, "data=mnist", cwd=project / "notebooks")

    assert code == 0
    match = re.fullmatch(r"data mnist root (\S+) in (\S+) out (\S+)\n", out)
    assert match
    assert match.group(1) == match.group(2) == str(project)
    assert Path(match.group(3)).parent == project / "outputs/download"
    assert (Path(match.group(3)) / ".hydra/overrides.yaml").read_text() == "- data=mnist\n"


def test_a_search_by_hand_runs_each_job(project: Path) -> None:
    """--multirun is Hydra's own; each job has its folder below multirun/."""
    code, out, _ = ended(project, "--multirun", "data=mnist,kmnist")

    assert code == 0
    assert re.findall(r"data (\w+) root", out) == ["mnist", "kmnist"]
    assert sorted(path.name for path in project.glob("multirun/download/*/[01]")) == ["0", "1"]


def test_outside_a_project_a_stage_says_so(project: Path, tmp_path: Path) -> None:
    """Another DVC repository with a conf/ is none either, even where DVC runs a stage of it."""
    outside = tmp_path / "elsewhere"
    (outside / "conf").mkdir(parents=True)
    (outside / "dvc.yaml").write_text("stages: {train: {cmd: python src/train.py, deps: [src/train.py]}}\n")
    for variables in ({}, {"DVC_ROOT": str(outside)}):
        code, _, err = ended(project, cwd=outside, **variables)

        assert code == 1
        assert err.startswith(f"download: error: {outside.resolve()} is in no project")


# ---------------------------------------------------------------- under DVC


def test_under_dvc_the_configuration_is_params_yaml(project: Path) -> None:
    """Not conf/; inputs and outputs lie in the current folder, the root is DVC's."""
    text = (project / "params.yaml").read_text(encoding="utf-8").replace("name: mnist_5k", "name: mine")
    copy = project / ".dvc/tmp/exps/one"
    copy.mkdir(parents=True)
    (copy / "params.yaml").write_text(text, encoding="utf-8")
    shutil.copy(project / "dvc.yaml", copy)

    code, out, _ = ended(project, cwd=copy, DVC_STAGE="download", DVC_ROOT=str(project))
    assert (code, out) == (0, f"data mine root {project} in {copy} out {copy}\n")


def test_the_stage_that_dvc_runs_must_be_this_one(project: Path) -> None:
    """Started by a script that itself runs as another stage, it is by hand."""
    _, out, _ = ended(project, DVC_STAGE="train")

    assert f"out {project}/outputs/download/" in out


def test_a_second_process_of_a_stage_is_refused(project: Path) -> None:
    """While the first is writing; afterwards it may."""
    first = start(project, ENDING="wait", DVC_STAGE="download")
    try:
        assert first.stdout
        assert first.stdout.readline().startswith("data mnist_5k")  # it is inside the stage now
        code, out, err = ended(project, DVC_STAGE="download")
        assert (code, out) == (1, "")
        assert err.startswith("download: error: the stage download of an earlier, killed `dvc` is still running")
        first.communicate("\n", timeout=60)
    finally:
        first.kill()
        first.communicate()

    assert first.returncode == 0
    assert ended(project, DVC_STAGE="download")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_stage_ends_with_a_killed_dvc(project: Path) -> None:
    """`kill -9` of dvc would otherwise leave its stage writing; seen by its lock, which is free again."""
    starts_it = "import subprocess, sys; subprocess.Popen([sys.executable, 'stage.py']).wait()"
    dvc = start(project, "-m", "timeit", "-n1", "-r1", starts_it, ENDING="wait", DVC_STAGE="download")
    try:
        assert dvc.stdout
        assert dvc.stdout.readline().startswith("data mnist_5k")
        assert ended(project, DVC_STAGE="download")[0] == 1  # locked
    finally:
        os.kill(dvc.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 20
    while ended(project, DVC_STAGE="download")[0] != 0:
        assert time.monotonic() < deadline_s, "the orphan still holds the lock"
    dvc.communicate(timeout=20)
