"""Where a run comes from: code, data, versions, machine and command, as tags that lead back to all of them."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import socket
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.system.files import read_yaml
from pipeline.system.startup import command_line
from pipeline.tracking.code_state import CodeState, code_state

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

    Args:
        stages: whose outputs in dvc.lock to record. Those before the one that runs: its own entry, and any after it,
            still describe the run before.
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
        "machine.cores": str(_usable_cores()),
        "machine.os": platform.platform(),
    }


def _usable_cores() -> int:
    """The cores that this process may run on, where the system says so (Linux)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
