"""git as the project uses it: commands in a folder, with one error, deaf to the variables of a git hook."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipeline.system.errors import PipelineError

TIMEOUT_S = 60
HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # they name the hook's repository


class GitError(PipelineError):
    """git is missing, or refused.

    Attributes:
        reason: the first line of what git wrote, without the command.
    """

    def __init__(self, command: str, text: str) -> None:
        super().__init__(f"git {command}: {text}")
        self.reason = text.partition("\n")[0]


def git_bytes(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = TIMEOUT_S,
) -> bytes:
    """What `git ARGUMENTS` in a folder writes to stdout. The user's index is not refreshed.

    Raises:
        GitError: git is not installed, took longer than the timeout, or ended with another code than 0.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in HOOK_VARIABLES}
    fixed = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}  # without it `git status` rewrites the user's index
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, env={**inherited, **fixed, **(env or {})}, input=stdin, capture_output=True, timeout=timeout_s
        )
    except FileNotFoundError as error:
        raise GitError(arguments[0], "git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(arguments[0], f"git {arguments[0]} took more than {timeout_s} s") from error
    if done.returncode:
        text = os.fsdecode(done.stderr).strip() or f"git {arguments[0]} gave exit code {done.returncode}"
        raise GitError(arguments[0], text)
    return done.stdout


def git(folder: Path, *arguments: str, timeout_s: float | None = TIMEOUT_S) -> str:
    """The same as text, without the newline at its end."""
    return os.fsdecode(git_bytes(folder, *arguments, timeout_s=timeout_s)).rstrip("\n")


def git_or_none(folder: Path, *arguments: str) -> str | None:
    """The same; None where git refuses or is missing."""
    try:
        return git(folder, *arguments)
    except GitError:
        return None


def top_folder(folder: Path) -> Path:
    """The root of the work tree that a folder is in. Raises GitError."""
    return Path(git(folder, "rev-parse", "--show-toplevel"))


def commit_of(folder: Path, revision: str) -> str | None:
    """The full hash of the commit that a revision names; None: it names none."""
    return git_or_none(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
