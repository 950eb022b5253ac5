"""Where a run comes from: code, data, versions, machine and command, as tags that lead back to all of them."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import socket
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.system.files import read_yaml
from pipeline.system.git import GitError, git, git_bytes, git_or_none, top_folder
from pipeline.system.processes import usable_cores
from pipeline.system.startup import command_line

# Whose outputs in dvc.lock are recorded. The entry of the stage that runs, and any after it, describe the run before.
INPUT_STAGES = ("configure", "download", "preprocess")
PACKAGES = ("torch", "pytorch-lightning", "mlflow", "numpy", "dvc", "hydra-core")
SERVED_WITH = ("torch", "mlflow", "numpy")  # all that the logged model needs


@dataclass(frozen=True)
class Provenance:
    """Tags for a run, and the changes that were not committed (see ``CodeState``), empty if there were none."""

    tags: dict[str, str]
    patch: bytes


def provenance(root: Path, stages: Collection[str] = INPUT_STAGES) -> Provenance:
    """Read git, ``root/dvc.lock``, the installed versions and the machine. Seed and device are the caller's to add.

    stages: whose outputs dvc.lock has the digests of.
    """
    code = code_state(root, dvc_results(root / "dvc.yaml"))
    tags = {**_code_tags(code), **dvc_tags(root / "dvc.lock", stages), **_version_tags(), **_machine_tags()}
    tags["command"] = command_line()
    return Provenance(tags, code.patch)


def dvc_results(pipeline: Path) -> list[str]:
    """What the stages write, and dvc.lock: DVC removes or changes it while it runs, which is no change of the code.

    Not what configure writes: params.yaml may hold the overrides of an experiment.
    """
    if not pipeline.exists():
        return []
    stages = read_yaml(pipeline)["stages"]
    entries = [
        entry
        for name, stage in stages.items()
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind, [])
        if name != "configure"
    ]
    return ["dvc.lock", *(entry if isinstance(entry, str) else next(iter(entry)) for entry in entries)]


def dvc_tags(lock: Path, stages: Collection[str]) -> dict[str, str]:
    """``dvc.PATH`` -> md5 for each output of the stages, as dvc.lock has it. Empty without the file."""
    import yaml

    if not lock.exists():
        return {}
    try:
        entries = read_yaml(lock)["stages"]
        outputs = [output for stage in stages for output in entries.get(stage, {}).get("outs", [])]
        return {f"dvc.{output['path']}": str(output["md5"]) for output in outputs if "md5" in output}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        return {"dvc.problem": f"{lock} cannot be read: {type(error).__name__}: {error}"}


def model_requirements() -> list[str]:
    """What pip must install to load a logged model, without local suffixes: the index has torch 2.13.0, not +cpu."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in SERVED_WITH]


def source_tags() -> dict[str, str]:
    """What the UI shows as user and source."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return {
        "mlflow.user": user,
        "mlflow.source.name": _source_name(),
        "mlflow.source.type": "LOCAL",
    }


def _source_name() -> str:
    """`pipeline train`, or the name of another program's script."""
    words = shlex.split(command_line())
    return " ".join(words[:2]) if words[0] == "pipeline" else Path(sys.argv[0]).name or "python"


def _code_tags(code: CodeState) -> dict[str, str]:
    tags = {"git.commit": code.commit, "git.branch": code.branch, "git.dirty": str(code.dirty).lower()}
    if code.remark:
        tags["git.remark"] = code.remark
    if code.commit != "none":
        tags["mlflow.source.git.commit"] = code.commit  # the UI shows it beside the source
    return tags


def _version_tags() -> dict[str, str]:
    return {"version.python": platform.python_version(), **{f"version.{name}": _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _machine_tags() -> dict[str, str]:
    return {
        "machine.host": socket.gethostname(),
        "machine.cpu": _cpu_model(),
        "machine.cores": str(usable_cores()),
        "machine.os": platform.platform(),
    }


def _cpu_model() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


# ---------------------------------------------------------------- which code ran: the commit and a patch


PATCH_FILE = "code/uncommitted.patch"  # artifact: `git checkout COMMIT && git apply uncommitted.patch`
MAX_CHANGED_BYTES = 10 * 1024 * 1024  # of all changed files together; the largest are left out and named


@dataclass(frozen=True)
class CodeState:
    """The state of a git work tree.

    ``commit`` is "none" without a repository or before the first commit, and ``remark`` says why. ``patch`` holds every
    change that is not committed, untracked files included, ignored ones not; it applies to ``commit`` (to an empty
    folder if that is "none"). ``remark`` also names the files that were too large for it.
    """

    commit: str = "none"
    branch: str = "none"
    dirty: bool = False
    patch: bytes = b""
    remark: str = ""


def code_state(root: Path, leave_out: Collection[str] = ()) -> CodeState:
    """The state of the work tree around ``root``. Neither the user's index nor the object store is touched.

    Args:
        leave_out: files and folders, relative to ``root``, that are results and no code.
    """
    try:
        top = top_folder(root)
        branch = git_or_none(top, "symbolic-ref", "--quiet", "--short", "HEAD") or "detached"
        commit = git_or_none(top, "rev-parse", "--quiet", "--verify", "HEAD") or ""
        results = {os.path.relpath(root.resolve() / path, top.resolve()) for path in leave_out}
        changed = [path for path in _changed_files(top) if not _is_within(path, results)]
    except GitError as error:
        return CodeState(remark=error.reason)
    patch, remark = _changes(top, commit, changed) if changed else (b"", "")
    remarks = [text for text in ("" if commit else "no commit yet", remark) if text]
    return CodeState(commit or "none", branch, bool(changed), patch, "; ".join(remarks))


def _changes(top: Path, commit: str, changed: Sequence[str]) -> tuple[bytes, str]:
    """The patch, and what it lacks."""
    kept, left_out = _within_limit(top, changed)
    lacks = f"not in the patch, over {MAX_CHANGED_BYTES} bytes with them: {', '.join(left_out)}" if left_out else ""
    try:
        base = commit or git(top, "hash-object", "-t", "tree", "/dev/null")
        return _patch(top, base, kept), lacks
    except GitError as error:
        return b"", f"no patch: {error.reason}"


def _changed_files(top: Path) -> list[str]:
    """Paths, relative to ``top``, that differ from HEAD or are untracked and not ignored."""
    status = git_bytes(top, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    return [os.fsdecode(entry[3:]) for entry in status.split(b"\0") if entry]


def _is_within(path: str, folders: Collection[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _within_limit(top: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths whose files fit the limit together, smallest first, and the rest."""
    kept: list[str] = []
    left_out: list[str] = []
    total = 0
    for size, path in sorted((_size(top / path), path) for path in paths):
        total += size
        fits = total <= MAX_CHANGED_BYTES and not path.endswith("/")  # "/": a repository inside this one
        (kept if fits else left_out).append(path)
    return kept, left_out


def _size(path: Path) -> int:
    return path.lstat().st_size if os.path.lexists(path) else 0


def _patch(top: Path, base: str, paths: Sequence[str]) -> bytes:
    """What ``paths`` changed since the tree ``base``, worked out in an index and object folder of our own."""
    objects = git(top, "rev-parse", "--path-format=absolute", "--git-path", "objects")
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        git_bytes(top, "read-tree", base, env=env)
        names = b"".join(os.fsencode(path) + b"\0" for path in paths)
        git_bytes(top, "update-index", "--add", "--remove", "--replace", "-z", "--stdin", env=env, stdin=names)
        options = ("--cached", "--patch", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv")
        return git_bytes(top, "diff-index", *options, base, env=env)
