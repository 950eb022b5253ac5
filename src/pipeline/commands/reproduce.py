"""pipeline reproduce: reproduce a run and check that it is byte-identical.

The project as it was is rebuilt in a temporary folder from what MLflow remembers: commit, uncommitted changes,
settings, DVC's digests. The run is trained there, scored if it was, and compared byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from pipeline.runtime.origin import DATA_CARD, PROCESSED, THREADS_TAG, code_sha256
from pipeline.runtime.places import project_root
from pipeline.system.errors import PipelineError
from pipeline.system.files import parse_yaml, read_json, read_yaml, sha256_of, write_text
from pipeline.system.git import GitError, git, top_folder
from pipeline.system.startup import load
from pipeline.tracking import MODEL_TAG, PATCH_FILE, RunRow, Store, provenance
from pipeline.tracking.lookup import find_run


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    name: str
    same: bool
    text: str


def reproduce(store: Store, row: RunRow, tree: Tree) -> Iterator[Check]:
    """Compare step by step; each is yielded when it is known."""
    yield Check("environment", *environment(row, store.root))
    yield same_digest("code", row.tags.get("origin.code_sha256"), code_sha256(tree.root))
    how = fetch_data(tree)
    data = same_digest("data", row.tags.get("origin.data_sha256"), sha256_of(tree.root / DATA_CARD))
    yield Check(data.name, data.same, f"{data.text}; {how}")
    threads = {"OMP_NUM_THREADS": row.tags[THREADS_TAG]} if THREADS_TAG in row.tags else {}  # as many as the run had
    tree.python("-m", "pipeline.train", "hydra.run.dir=again", variables=threads)
    again, files = tree.root / "again", store.artifacts(row.run_id)
    weights = same_digest("weights", row.tags[MODEL_TAG], sha256_of(again / "models/model.safetensors"))
    yield weights
    yield same_history(files / "dvc/history.csv", again / "plots/history.csv")
    if (files / "predictions").exists():
        tree.python("-m", "pipeline.evaluate", "hydra.run.dir=scored", "evaluate.model_folder=again/models")
        yield same_scores(files / "predictions", row, tree.root / "scored")


def same_digest(name: str, then: str | None, now: str) -> Check:
    if then is None:
        return Check(name, False, "not noted by the run")
    return Check(name, then == now, f"sha256 {now[:12]}" if then == now else f"sha256 {then[:12]} then, {now[:12]} now")


def same_history(then: Path, now: Path) -> Check:
    """The metrics of each epoch; where they differ, the first one that does."""
    tables = []
    for path in (then, now):
        with open(path, newline="", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    for epoch, (a, b) in enumerate(zip_longest(*tables, fillvalue={}), start=1):
        for name in a | b:
            if a.get(name) != b.get(name):
                return Check("metrics", False, f"{name} of epoch {epoch}: {a.get(name)} then, {b.get(name)} now")
    return Check("metrics", True, f"{len(tables[0])} epochs")


def same_scores(then: Path, row: RunRow, scored: Path) -> Check:
    files = [folder / "log_probabilities.npy" for folder in (then, scored / "predictions")]
    if sha256_of(files[0]) != sha256_of(files[1]):
        return Check("predictions", False, "other probabilities of the test images")
    scores = read_json(scored / "metrics/evaluate.json")
    for name, value in scores.items():
        if row.metrics.get(name, value) != value:
            return Check("predictions", False, f"the same, but {name} was {row.metrics[name]} and is {value}")
    return Check("predictions", True, f"test accuracy {scores['test/accuracy']:.2%} of {scores['test/count']:,}")


def main(args: argparse.Namespace) -> None:
    root = project_root()
    load("reproduce", "MLflow")
    store, console = Store(root), Console(soft_wrap=True)
    row = find_run(store, args.run)
    changes = " and its uncommitted changes" if row.tags.get("git.dirty") == "true" else ""
    print(f"run {row.run_id[:8]} ({row.name}) at commit {row.tags.get('git.commit', 'none')[:8]}{changes}", flush=True)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        tree = build(root, store, row, Path(folder, "tree"))
        checks = []
        for check in reproduce(store, row, tree):
            checks.append(check)
            console.print(f"  {check.name:<13}{'same' if check.same else 'OTHER':<7}{check.text}", highlight=False)
    if print_verdict(console, checks):
        sys.exit(1)


def print_verdict(console: Console, checks: Sequence[Check]) -> bool:
    """Print how it ended. Returns whether anything but the environment differs."""
    first = next((check for check in checks if not check.same and check.name != "environment"), None)
    if first is None:
        console.print("The run was made again, byte for byte.", style="bold", highlight=False)
        return False
    console.print(f"Not the same. What differs first: {first.name} ({first.text})", style="bold", highlight=False)
    if not checks[0].same:
        console.print(f"The environment has changed: {checks[0].text}", highlight=False)
    return True


# ---------------------------------------------------------------- the project as it was when a run began


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
