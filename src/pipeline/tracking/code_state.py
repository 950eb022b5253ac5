"""Which code ran: the commit, and a patch that turns the commit into the tree that was there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.system.git import GitError, git, git_bytes, git_or_none, top_folder

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
