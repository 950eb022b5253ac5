"""A run leads back to its code and data. On real git repositories."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.system.git import GitError
from pipeline.tracking import PATCH_FILE, Store, model_requirements, provenance
from pipeline.tracking.provenance import code_state, dvc_tags, source_tags


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def contents(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file below a folder outside .git: its bytes, and whether it is executable."""
    files = [file for file in folder.rglob("*") if file.is_file() and ".git" not in file.relative_to(folder).parts]
    return {str(file.relative_to(folder)): (file.read_bytes(), os.access(file, os.X_OK)) for file in files}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A work tree with one commit."""
    folder = tmp_path / "tree"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "train.py").write_text("lr = 0.001\n")
    (folder / "old.py").write_text("gone soon\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def make_dirty(tree: Path) -> None:
    (tree / "train.py").write_text("lr = 0.01\n")
    (tree / "old.py").unlink()
    (tree / "run me.sh").write_text("#!/bin/sh\n")
    (tree / "run me.sh").chmod(0o755)
    (tree / "sub").mkdir()
    (tree / "sub/wëights.bin").write_bytes(bytes(range(256)))
    (tree / "sub/latin.txt").write_bytes(b"caf\xe9\n")
    (tree / "staged.py").write_text("staged\n")
    git(tree, "add", "staged.py")
    (tree / "ignored.log").write_text("noise\n")


def test_a_clean_tree_is_its_commit_and_needs_no_patch(tree: Path) -> None:
    state = code_state(tree)
    assert (state.commit, state.branch) == (git(tree, "rev-parse", "HEAD"), "main")
    assert (state.dirty, state.patch, state.remark) == (False, b"", "")


def test_commit_and_patch_reproduce_a_dirty_tree(tree: Path, tmp_path: Path) -> None:
    make_dirty(tree)
    state = code_state(tree)
    assert state.dirty
    again = rebuild(tree, state.commit, state.patch, tmp_path / "again")
    (tree / "ignored.log").unlink()
    assert contents(again) == contents(tree)


def rebuild(tree: Path, commit: str, patch: bytes, where: Path) -> Path:
    git(tree.parent, "clone", "--quiet", str(tree), str(where))
    git(where, "checkout", "--quiet", commit)
    (where.parent / "a.patch").write_bytes(patch)
    git(where, "apply", str(where.parent / "a.patch"))
    return where


def test_the_index_and_the_objects_of_the_user_are_not_touched(tree: Path) -> None:
    make_dirty(tree)
    before = {file: file.read_bytes() for file in (tree / ".git").rglob("*") if file.is_file()}
    code_state(tree)
    assert {file: file.read_bytes() for file in (tree / ".git").rglob("*") if file.is_file()} == before


def test_a_run_inside_a_git_hook_sees_its_own_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert len(code_state(tree).commit) == 40


def test_the_patch_of_a_folder_inside_a_repository_covers_the_whole_repository(tree: Path) -> None:
    (tree / "sub").mkdir()
    (tree / "train.py").write_text("changed above\n")
    assert b"changed above" in code_state(tree / "sub").patch


def test_before_the_first_commit_everything_is_in_the_patch(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "new.py").write_text("new\n")
    state = code_state(tmp_path)
    assert (state.commit, state.branch, state.dirty, state.remark) == ("none", "main", True, "no commit yet")
    target = tmp_path / "target"
    target.mkdir()
    git(target, "init", "--quiet")
    (tmp_path / "a.patch").write_bytes(state.patch)
    git(target, "apply", str(tmp_path / "a.patch"))
    assert contents(target) == {"new.py": (b"new\n", False)}


def test_no_repository_is_no_crash(tmp_path: Path) -> None:
    state = code_state(tmp_path)
    assert (state.commit, state.patch) == ("none", b"")
    assert "not a git repository" in state.remark


def test_no_git_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state(tmp_path).remark == "git is not installed"


def test_files_too_large_for_the_patch_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[code_state.__module__], "MAX_CHANGED_BYTES", 1000)
    (tree / "big.bin").write_bytes(b"x" * 1001)
    (tree / "small.py").write_text("small\n")
    state = code_state(tree)
    assert b"small.py" in state.patch
    assert b"big.bin" not in state.patch
    assert state.remark == "not in the patch, over 1000 bytes with them: big.bin"


def test_a_file_that_git_cannot_read_costs_the_patch_not_the_commit(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "train.py").write_text("changed\n")

    def unreadable(*_: object) -> bytes:
        raise GitError("update-index", "error: open(train.py): Permission denied")

    monkeypatch.setattr(sys.modules[code_state.__module__], "_patch", unreadable)
    state = code_state(tree)
    assert (len(state.commit), state.dirty, state.patch) == (40, True, b"")
    assert state.remark == "no patch: error: open(train.py): Permission denied"


def test_data_digests_equal_those_in_dvc_lock_for_the_stages_before_training(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\n"
        "stages:\n"
        "  preprocess:\n"
        "    cmd: pipeline preprocess\n"
        "    outs:\n"
        "    - {path: data/processed, hash: md5, md5: 0123.dir, size: 1, nfiles: 7}\n"
        "    - {path: data/note.txt, size: 1}\n"
        "  train:\n"
        "    cmd: pipeline train\n"
        "    outs:\n"
        "    - {path: models, hash: md5, md5: of-the-run-before.dir}\n"
    )
    tags = provenance(tmp_path).tags
    assert {key: value for key, value in tags.items() if key.startswith("dvc.")} == {"dvc.data/processed": "0123.dir"}


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n", "stages: [1]\n", "{", ""])
def test_a_broken_dvc_lock_is_a_tag_not_a_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    assert "cannot be read" in dvc_tags(tmp_path / "dvc.lock", ["preprocess"])["dvc.problem"]


def test_versions_machine_and_command_are_recorded(tmp_path: Path) -> None:
    tags = provenance(tmp_path).tags
    assert tags["version.mlflow"] == "3.17.2"
    assert tags["version.torch"].startswith("2.13.0")
    assert all(tags[f"machine.{name}"] for name in ("host", "cpu", "cores", "os"))
    assert tags["command"].startswith("python ")
    assert all(isinstance(value, str) for value in tags.values())


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["python", "-m", "pipeline", "train", "optimizer=adam"], "pipeline train"),
        (["python", "-m", "pipeline.train", "-m", "seed=1,2"], "pipeline train"),
        (["python", "/opt/bin/pipeline", "evaluate"], "pipeline evaluate"),
        (["python", "mine.py", "train"], "mine.py"),
    ],
)
def test_a_runs_source_is_the_command_or_the_program(
    argv: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", argv)
    monkeypatch.setattr(sys, "argv", ["/src/pipeline/__main__.py" if "-m" in argv else argv[1], *argv[2:]])
    assert source_tags()["mlflow.source.name"] == name


def test_requirements_have_no_local_suffix() -> None:
    """torch 2.13.0+cpu is what is installed where there is no GPU; the public index only has 2.13.0."""
    assert [line.split("==")[0] for line in model_requirements()] == ["torch", "mlflow", "numpy"]
    assert not any("+" in line for line in model_requirements())


def test_a_run_keeps_its_provenance_and_patch(store: Store, tree: Path) -> None:
    make_dirty(tree)
    found = provenance(tree)
    with store.run("mnist", "one") as run:
        run.provenance(found)
    assert store.client.get_run(run.id).data.tags["git.commit"] == git(tree, "rev-parse", "HEAD")
    assert Path(store.client.download_artifacts(run.id, PATCH_FILE)).read_bytes() == found.patch
