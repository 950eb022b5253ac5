"""pipeline adopt: the best settings of a sweep become an experiment file of conf/, and `dvc repro` trains with them.

The pipeline's model is then the job's, byte for byte. If it is not, this says so and restores the project.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.commands.reproduce import environment
from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.overrides import as_settings
from pipeline.config.schema import TrainConfig
from pipeline.runtime.origin import JOB_TAG, THREADS_TAG, WORDS_TAG, origin_of
from pipeline.runtime.places import Places, project_root
from pipeline.runtime.stage_runner import visible
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.files import read_json, sha256_of, write_text
from pipeline.system.startup import load
from pipeline.tracking import MODEL_TAG, RunRow, Store
from pipeline.tracking.lookup import Sweep, find, run_of, sweeps, sweeps_text

CONFIG = Path("conf/config.yaml")
EXPERIMENT_LINE = re.compile(r"^(  - experiment: )(\S+)", re.MULTILINE)
TRAINED = ("params.yaml", "dvc.lock", "data/own.json", "models", "metrics", "plots")  # what `dvc repro train` changes
THREADS = "trainer.num_threads"
WHAT_DIFFERS = {"config": "the settings in conf/", "data": "data/processed", "code": "the code of the training"}


@dataclass(frozen=True)
class Winner:
    """The job whose configuration is adopted."""

    row: RunRow
    why: str  # a line for the file's head
    identity: str  # of the sweep, or the beginning of the run's id

    @property
    def overrides(self) -> list[str]:
        """Its overrides and the threads that it had, without where its run was recorded.

        The experiment of MLflow stays with a choice of data: its champion is judged on test samples of that data.
        """
        given: list[str] = json.loads(self.row.tags[WORDS_TAG])
        kept = [override for override in given if not override.startswith(("tracking.", "hydra"))]
        if any(override.lstrip("+").startswith("data") for override in kept):
            kept += [override for override in given if override.startswith("tracking.experiment=")]
        configured = self.row.params[THREADS]
        used = self.row.tags.get(THREADS_TAG, configured)  # fewer where a sweep shared the cores among its jobs
        return kept if used == configured else [*kept, f"{THREADS}={used}"]


def winner(store: Store, name: str) -> Winner:
    """The job that a name means: a run, or the best of a sweep.

    Raises:
        ConfigError: nothing is called so, or it was no job of a sweep.
    """
    target = find(store, name, ("run", "sweep"))
    row = run_of(store, target)
    if isinstance(target, Sweep):
        return Winner(row, f"the best of {target} ({target.row.name})", target.identity)
    if JOB_TAG not in row.tags:
        raise ConfigError(f"{name}: {target} was no job of a sweep. The newest sweeps: {sweeps_text(sweeps(store))}")
    return Winner(row, f"job {row.tags['sweep.number']} of a sweep, run {row.run_id}", row.run_id[:12])


def experiment_text(chosen: Winner, name: str, conf: Path) -> str:
    """The experiment file: the job's choices of groups, then its values."""
    choices, values = as_settings(chosen.overrides, conf)
    under = named_experiment(conf)  # which the job was composed on, unless it chose another
    if under not in (None, name):
        choices.setdefault("experiment", under)
    defaults: list[Any] = [choices["experiment"]] if choices.get("experiment") else []
    defaults += [{f"override /{group}": option} for group, option in choices.items() if group != "experiment"]
    kept = [key for key in ("kept_val_accuracy", "kept_val_loss", "kept_train_loss") if key in chosen.row.metrics]
    metrics = "  ".join(f"{key} {chosen.row.metrics[key]:.4f}" for key in kept)
    head = (
        "# @package _global_\n"
        f"# {chosen.row.name}: {chosen.why}\n"
        f"# {metrics}\n"
        f"# Use:  dvc repro  or  dvc exp run -S experiment={name}\n"
    )
    body: dict[str, Any] = {"defaults": [*defaults, "_self_"]} if defaults else {}
    return head + yaml.safe_dump({**body, **values}, sort_keys=False)


def named_experiment(conf: Path) -> str | None:
    """What conf/config.yaml names; None: none."""
    line = EXPERIMENT_LINE.search((conf / CONFIG.name).read_text(encoding="utf-8"))
    return line[2] if line and line[2] != "null" else None


def require_same_origin(chosen: Winner, resolved: Mapping[str, Any], root: Path) -> None:
    """Raise PipelineError if the pipeline would train something else than the job did."""
    cfg = validate(TrainConfig, visible(resolved, "train", TrainConfig))
    configured = int(chosen.row.params[THREADS])  # cfg says how many it used
    cfg = cfg.model_copy(update={"trainer": cfg.trainer.model_copy(update={"num_threads": configured})})
    now = origin_of(cfg, Places(root, root, root, resolved)).as_json()
    before = {key.removeprefix("origin."): value for key, value in chosen.row.tags.items() if key.startswith("origin.")}
    changed = [text for key, text in WHAT_DIFFERS.items() if before.get(f"{key}_sha256") != now[f"{key}_sha256"]]
    if changed:
        raise PipelineError(
            f"since run {chosen.row.run_id} this has changed: {', '.join(changed)}. Its metrics cannot be had again. "
            "Run the sweep again, or go back to what it used (its run in MLflow names commit and data)"
        )


@contextmanager
def restored_on_failure(root: Path, *places: str) -> Iterator[None]:
    """Put these files, and those in these folders, back as they were if the block fails."""
    before = {path: path.read_bytes() for path in _files(root, places)}
    try:
        yield
    except BaseException:
        for path in _files(root, places):
            if path.read_bytes() != before.get(path):
                path.unlink()  # not written over: DVC may have linked it to its cache
        for path, content in before.items():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        raise


def _files(root: Path, places: Sequence[str]) -> list[Path]:
    paths = [path for place in places for path in (root / place, *(root / place).rglob("*"))]
    return [path for path in paths if path.is_file() or path.is_symlink()]


def adopt(root: Path, source: str, name: str | None, *, repro: bool) -> None:
    """Write conf/experiment/NAME.yaml, name it in conf/config.yaml, train by DVC, compare the models, evaluate."""
    chosen = winner(Store(root), source)
    name = name or f"sweep-{chosen.identity}"
    file, config = root / f"conf/experiment/{name}.yaml", root / CONFIG
    text = experiment_text(chosen, name, root / "conf")
    if file.exists() and file.read_text(encoding="utf-8") != text and f": {chosen.why}\n" not in file.read_text():
        raise ConfigError(f"{file.relative_to(root)} is there already, and not from this sweep: give another --name")
    with restored_on_failure(root, str(file.relative_to(root)), str(CONFIG), *TRAINED):
        write_text(file, text)
        require_same_origin(chosen, parse(compose_yaml(root / "conf", [f"experiment={name}"])), root)
        settings, num_lines = EXPERIMENT_LINE.subn(rf"\g<1>{name}", config.read_text(encoding="utf-8"))
        if num_lines != 1:
            raise ConfigError(f"{CONFIG} has no line `  - experiment: …` in its defaults, to name {name} in")
        write_text(config, settings)
        print(
            f"adopt: {chosen.row.name} ({chosen.why})\n  written  {file.relative_to(root)}, named in {CONFIG}",
            flush=True,
        )
        if repro:
            dvc_repro(root, "train", otherwise="nothing is adopted, and all is as it was before")
            require_same_model(chosen, root)
    if repro:
        dvc_repro(
            root,
            otherwise="the model is adopted but not evaluated; `dvc repro` goes on from here",
        )


def dvc_repro(root: Path, *stages: str, otherwise: str) -> None:
    """Raise PipelineError, with what `otherwise` says, if it fails; Ctrl-C reaches DVC too, so wait for its end."""
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro", *stages], cwd=root) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
    if process.returncode:
        raise PipelineError(f"dvc repro failed (above): {otherwise}")


def require_same_model(chosen: Winner, root: Path) -> None:
    trained, expected = sha256_of(root / "models/model.safetensors"), chosen.row.tags[MODEL_TAG]
    if trained != expected:
        _, why = environment(chosen.row, root)
        raise PipelineError(
            f"dvc repro gave another model ({trained[:12]}) than the job had ({expected[:12]}): {why}. Nothing is "
            "adopted, and all is as it was before, but for this training's run in MLflow. To train with these "
            "settings all the same: --no-repro, then `dvc repro`"
        )
    learned = read_json(root / "metrics/learning.json")
    metrics = "  ".join(f"{key} {value:.4f}" for key, value in learned.items() if "/" in key)
    print(f"  the same model, byte for byte: sha256 {trained[:12]}\n  {metrics}", flush=True)


def main(args: argparse.Namespace) -> None:
    if args.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", args.name):
        raise ConfigError(f"--name {args.name!r}: letters, digits, - and _ only; it becomes a file's name")
    root = project_root()
    load("adopt", "MLflow")
    adopt(root, args.what, args.name, repro=not args.no_repro)
