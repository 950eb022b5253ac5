"""The project as it was when a run began: commit, uncommitted changes, settings, data, environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.runtime.origin import PROCESSED, THREADS_TAG
from pipeline.system.errors import PipelineError
from pipeline.system.files import parse_yaml, read_yaml, sha256_of, write_text
from pipeline.system.git import GitError, git, top_folder
from pipeline.tracking import PATCH_FILE, RunRow, Store, provenance

CONFIG_FILE = "config.yaml"  # artifact: the whole resolved configuration
LEFT_OUT = ("DVC_", "GIT_", "MLFLOW_", "PYTHON")  # variables that would lead the tree's commands back to this project


@dataclass(frozen=True)
class Tree:
    """A clone that shares git's objects and DVC's cache with the project, and is thrown away."""

    root: Path  # of the project in it
    row: RunRow

    def run(self, *command: str, missing_ok: bool = False, variables: Mapping[str, str] | None = None) -> str | None:
        """A command's output, with these environment variables too; None: it failed and that was to be expected.

        Raises:
            PipelineError: it failed; with the end of its output.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith(LEFT_OUT)}
        environment |= {"PYTHONPATH": str(self.root / "src"), **(variables or {})}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        if missing_ok:
            return None
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise PipelineError(f"in the rebuilt tree `{' '.join(command)}` ended with {done.returncode}:\n{output}")

    def python(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str | None:
        return self.run(sys.executable, *arguments, variables=variables)


def build(project: Path, store: Store, row: RunRow, folder: Path) -> Tree:
    """Everything but the data.

    Raises:
        PipelineError: the run did not begin in a commit of git; its changes, its settings or the source of its data
            were not kept.
    """
    commit, files = row.tags.get("git.commit", "none"), store.artifacts(row.run_id)
    if commit == "none":
        raise PipelineError(
            f"run {row.run_id[:8]} began in no commit of git ({row.tags.get('git.remark', 'no reason is known')}), so "
            "its code is not known. Expected a run of a project in git"
        )
    if "not in the patch" in (remark := row.tags.get("git.remark", "")):
        raise PipelineError(f"run {row.run_id[:8]} had changes that were too large to keep: {remark}")
    if not (files / CONFIG_FILE).exists():
        raise PipelineError(f"run {row.run_id[:8]} has no {CONFIG_FILE} among its artifacts: it trained nothing")
    config = read_yaml(files / CONFIG_FILE)
    data = config.get("data", {})
    if data.get("kind") in ("arrays", "image_folder", "table") and "path" not in data:  # as `import pipeline` leaves it
        raise PipelineError(
            f"run {row.run_id[:8]} was fitted in Python on data of your own ({data['kind']}), of which only "
            "digests are kept, so it cannot be made again. Expected a run of `pipeline train`, or one on a data set of "
            "conf/data"
        )
    top = top_folder(project)
    git(project, "clone", "--quiet", "--shared", "--no-checkout", str(top), str(folder), timeout_s=None)
    try:
        git(folder, "checkout", "--quiet", "--detach", commit, timeout_s=None)
    except GitError as error:
        raise PipelineError(
            f"commit {commit[:12]} of run {row.run_id[:8]} is not in this repository. Fetch it: git fetch --all"
        ) from error
    if row.tags.get("git.dirty") == "true":
        git(folder, "apply", "--whitespace=nowarn", str(files / PATCH_FILE))
    tree = Tree(folder / project.resolve().relative_to(top), row)
    write_config(tree.root, config)
    cache = subprocess.run(["dvc", "cache", "dir"], cwd=project, capture_output=True, text=True, check=True)
    tree.run("dvc", "cache", "dir", "--local", cache.stdout.strip())
    return tree


def write_config(root: Path, config: Mapping[str, Any]) -> None:
    """Make conf/ compose to these settings, whatever groups it had; where the run was recorded is no setting."""
    conf = root / "conf"
    kept = {
        name: read_yaml(conf / name / f"{choice}.yaml")
        for name, choice in (("tracking", "local"), ("sweep", "default"))
    }
    whole = {"defaults": ["_self_"], **config, **kept, "hydra": read_yaml(conf / CONFIG_FILE).get("hydra", {})}
    write_text(conf / CONFIG_FILE, yaml.safe_dump(whole, sort_keys=False))


def fetch_data(tree: Tree) -> str:
    """Put data/processed there: from DVC's cache, by the digest that the run noted, else made anew. Returns which."""
    noted, lock = tree.row.tags.get(f"dvc.{PROCESSED}"), tree.root / "dvc.lock"
    if noted and lock.exists():
        before = lock.read_text(encoding="utf-8")
        entry = parse_yaml(before)["stages"].get("preprocess", {})
        out = {"path": PROCESSED, "hash": "md5", "md5": noted}
        alone = {"schema": "2.0", "stages": {"preprocess": {**entry, "outs": [out]}}}  # not what download last fetched
        write_text(lock, yaml.safe_dump(alone, sort_keys=False))
        if tree.run("dvc", "checkout", "--quiet", PROCESSED, missing_ok=True) is not None:
            return "from DVC's cache"
        write_text(lock, before)
    tree.run("dvc", "repro", "--quiet", "preprocess")
    return "made anew"


def digest_of_data(tree: Tree) -> str:
    return sha256_of(tree.root / PROCESSED / "data_card.json")


def environment(row: RunRow, root: Path) -> tuple[bool, str]:
    """Versions, processor and threads, then and now: whether they are the same, and in words.

    Others need not give other bits.
    """
    now = provenance(root).tags
    names = [name for name in row.tags if name.startswith("version.") or name == "machine.cpu"]
    changed = [name for name in names if now.get(name) != row.tags[name]]
    other = [f"{name.partition('.')[2]} {row.tags[name]}, now {now.get(name)}" for name in changed]
    threads, cores = int(row.tags.get(THREADS_TAG, 1)), os.cpu_count() or 1
    if threads > cores:
        other.append(f"threads {threads}, now {cores}")
    return not other, "; ".join(other) or "the same versions and processor"


def thread_variables(row: RunRow) -> dict[str, str]:
    """Environment variables with which a training has as many threads as the run had."""
    return {"OMP_NUM_THREADS": row.tags[THREADS_TAG]} if THREADS_TAG in row.tags else {}
