"""How a stage gets its configuration and where it writes, under DVC and by hand.

Under DVC   the configuration is params.yaml, the outputs are the paths in dvc.yaml.
By hand     an ordinary Hydra app (overrides, --multirun, --cfg job); outputs go to Hydra's folder.

Either way a stage sees only the keys that dvc.yaml lists under its `params:`, and those that change no result, so it
cannot use a setting that DVC does not watch.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.check import validate
from pipeline.config.compose import (
    CONFIG_NAME,
    compose_yaml,
    composed,
    initialized,
    parse,
    registered_options,
    suggested_keys,
)
from pipeline.config.overrides import job_section, unswept
from pipeline.config.schema import Config, DownloadConfig, EvaluateConfig, PreprocessConfig, Section, TrainConfig
from pipeline.data.card import DataCard
from pipeline.runtime.places import Places, project_root
from pipeline.system.errors import ConfigError
from pipeline.system.exit_codes import MULTIRUN, explained
from pipeline.system.files import read_yaml
from pipeline.system.fork_server import die_with_parent
from pipeline.system.locks import locked, locked_folder
from pipeline.system.processes import Rank, require_processes
from pipeline.system.signals import signals_as_failures
from pipeline.system.startup import settle

CONFIG_CLASSES: dict[str, type[Any]] = {
    "download": DownloadConfig,
    "preprocess": PreprocessConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
}
UNWATCHED = ("tracking", "sweep", "data.mirrors")  # seen by the stages that declare them, watched by DVC for none
READ_PROCESSED = ("train", "evaluate")
IN_PROCESSES = ("train",)  # what torchrun and SLURM may start several times

Settings = TypeVar("Settings", bound=Section)
Work = Callable[[], Callable[[Settings, Places], Any]]
Sweep = Callable[[Path, Sequence[str]], AbstractContextManager[list[str]]]


def run_stage(name: str, work: Work[Any], sweep: Sweep | None = None) -> None:
    """Run a stage as `pipeline NAME`, under DVC or by hand, and end the process with the right code.

    Args:
        work: imports what does the work and returns it; called once the settings are known to be right.
        sweep: (project, overrides) to a context that gives the overrides of its jobs; what `-m` runs in.
    """
    config_class = CONFIG_CLASSES[name]
    with explained(name):
        if os.environ.get("DVC_STAGE") == name:
            _under_dvc(name, config_class, work)
        elif sweep and {word for word in sys.argv if word.startswith("-")} in MULTIRUN:
            if rank := Rank.of(os.environ):
                _require_one_training(name, rank, single=False)
            os.chdir(project_root())
            with sweep(Path.cwd(), [word for word in sys.argv[1:] if not word.startswith("-")]) as words:
                sys.argv[1:] = ["-m", *words]
                _by_hand(name, config_class, work)
        else:
            if {word for word in sys.argv if word.startswith("-")} in MULTIRUN:
                sys.argv.append("hydra/launcher=basic")  # a few jobs of a cheap stage, in this process
            _by_hand(name, config_class, work)


def run_record(
    name: str,
    config_class: type[Settings],
    function: Callable[[Settings, Places], Any],
    record: Mapping[str, Any],
    out: Path,
) -> Any:
    """Run a stage by hand on a configuration that is composed already. Errors end the process, as above."""
    root = project_root()
    os.chdir(root)
    with explained(name, "; the sweep's command goes on with it"):
        check_record(name, record)
        return function(validate(config_class, visible(record, name, config_class)), Places(root, root, out, record))


def _under_dvc(name: str, config_class: type[Settings], work: Work[Settings]) -> None:
    with _stage_lock(name):
        record = parse(Path("params.yaml").read_text(encoding="utf-8"))
        here = Path.cwd()
        cfg = validate(config_class, visible(record, name, config_class))
        if name == "evaluate":
            _require_model(record["evaluate"]["model_folder"], under_dvc=True)
        _loaded(work)(cfg, Places(project_root(), here, here, record))


def _loaded(work: Work[Settings]) -> Callable[[Settings, Places], Any]:
    """What does the work, once all that it needs is imported."""
    function = work()
    settle()
    return function


def _by_hand(name: str, config_class: type[Settings], work: Work[Settings]) -> None:
    root = project_root()
    os.chdir(root)  # outputs/ and multirun/ lie at the root, from whichever folder the command came
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `explained` instead of Hydra's own printer
    logging.raiseExceptions = False  # no traceback for each line that Hydra's log file has no room for
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from hydra_plugins._pipeline import register

    overrides = sys.argv[1:]
    single = not any(word.startswith("-") for word in overrides)
    if rank := Rank.of(os.environ):
        if rank.by == "torchrun":
            die_with_parent(os.getppid(), signal.SIGTERM)
        _require_one_training(name, rank, single)
        if rank.rank > 0:  # the first process has Hydra's folder; this one leaves nothing
            record = parse(compose_yaml(root / "conf", overrides))
            check_record(name, record)
            cfg = validate(config_class, visible(record, name, config_class))
            _loaded(work)(cfg, Places(root, root, root, record))
            return
    failures: list[Exception] = []

    def task(config: Any) -> Any:
        try:
            record: Any = OmegaConf.to_container(config, resolve=True)
            if not single:  # a job of a multirun
                job = HydraConfig.get()
                own = job_section(job.overrides.task, record["sweep"]["varied"] or (), job.job.num)
                record["sweep"]["job"] = own
            check_record(name, record)
            places = Places(root, root, Path(HydraConfig.get().runtime.output_dir), record)
            with signals_as_failures(), _output_lock(places.out, Rank.of(os.environ)):
                return _loaded(work)(validate(config_class, visible(record, name, config_class)), places)
        except Exception as error:
            if not single:
                raise
            failures.append(error)  # past Hydra, which would print a line of its own about it

    if single and (of_sweeps := [word for word in overrides if word.lstrip("+").startswith("sweep.")]):
        raise ConfigError(f"{of_sweeps[0]}: without -m this is no sweep. Add -m, or leave {of_sweeps[0]} out")
    if single:  # a mistake leaves no output folder behind
        check_record(name, parse(compose_yaml(root / "conf", overrides)))
    else:  # before Hydra calls what its settings name
        with initialized(root / "conf"):
            composed(unswept(overrides))
    sys.argv.append(f"hydra.job.name={name}")
    register()
    with registered_options(), suggested_keys():
        hydra.main(version_base="1.3", config_path=str(root / "conf"), config_name=CONFIG_NAME)(task)()
    if failures:
        raise failures[0]


def _require_one_training(name: str, rank: Rank, single: bool) -> None:
    if name not in IN_PROCESSES:
        raise ConfigError(
            f"{rank.by} started {rank.world_size} processes, but this stage is one process: start it without"
        )
    if not single:
        raise ConfigError(
            f"{rank.by} starts the processes of one training. Leave out -m and the other switches, or leave out "
            f"{rank.by}: a sweep starts the processes of each of its trainings by itself"
        )


def check_record(name: str, record: Mapping[str, Any]) -> None:
    whole = validate(Config, record)
    if name == "train":
        require_processes(whole.trainer.devices, whole.trainer.num_nodes, Rank.of(os.environ))
    if name == "train" and whole.trainer.accelerator == "cpu":  # what a GPU can do is known once torch is there
        from pipeline.training.devices import require_device

        require_device(whole.trainer)
    if name in READ_PROCESSED:
        require_same_data(whole, Path("data/processed"))
    if name == "evaluate":
        _require_model(whole.evaluate.model_folder, under_dvc=False)


def _require_model(folder: str, under_dvc: bool) -> None:
    """What `evaluate` scores is there."""
    if under_dvc and folder != "models":
        raise ConfigError(
            f"evaluate.model_folder={folder}: DVC watches models/ alone and would not see that one change. Score "
            "another model by hand: pipeline evaluate evaluate.model_folder=…"
        )
    from pipeline.model import require_files

    require_files(Path.cwd() / folder)


def visible(record: Mapping[str, Any], stage: str, config_class: type[Section]) -> dict[str, Any]:
    """The part of the configuration that a stage may read: what dvc.yaml watches for it, and what changes no result."""
    declared = read_yaml(Path("dvc.yaml"))["stages"][stage].get("params", [])
    unwatched = [key for key in UNWATCHED if _declares(config_class, key.split("."))]
    part: dict[str, Any] = {}
    for key in (*declared, *unwatched):
        _copy(record, part, key.split("."))
    return part


def _declares(section: Any, path: list[str]) -> bool:
    field = getattr(section, "model_fields", {}).get(path[0])
    return field is not None and (len(path) == 1 or _declares(field.annotation, path[1:]))


def _copy(source: Any, target: dict[str, Any], path: list[str]) -> None:
    for key in path[:-1]:
        source = source.get(key, {})
        target = target.setdefault(key, {})
    if path[-1] in source:
        target[path[-1]] = source[path[-1]]


def _stage_lock(stage: str) -> AbstractContextManager[None]:
    """Let no second process write the same outputs: `kill -9` of dvc leaves its stage running, and dvc forgets it."""
    die_with_parent(os.getppid(), signal.SIGTERM)  # dvc; the run is then closed as KILLED
    return locked(
        Path(".pipeline/locks", stage),
        wait=False,
        busy=f"the stage {stage} of an earlier, killed `dvc` is still running in this folder and would overwrite what "
        f"this one writes. Wait for it, or end it: pkill -f pipeline.{stage}",
    )


def _output_lock(out: Path, rank: Rank | None) -> AbstractContextManager[None]:
    """The same for a folder that somebody named in two commands by hand; one training's processes share one."""
    if rank and rank.rank > 0:
        return nullcontext()
    return locked_folder(
        out,
        busy=f"another process is writing to {out}. Wait for it, or give this one its own folder: hydra.run.dir=…",
    )


# ---------------------------------------------------------------- is data/processed what a configuration asks for?


def require_same_data(cfg: Config, processed: Path) -> None:
    """Stages by hand only read data/processed; refuse one that was made with other settings.

    Raises:
        DataContractError: there is none yet.
        ConfigError: it was made with other settings; the message names them.
    """
    made_with = _dotted(DataCard.read(processed / "data_card.json").made_with)
    made_with |= _downloaded(processed.parents[1] / "dvc.lock")
    wanted = _dotted(cfg.model_dump(mode="json", include={"data", "expand"}))
    differing = [key for key in wanted if key in made_with and wanted[key] != made_with[key]]
    if differing:
        settings = ", ".join(f"{key}={made_with[key]} (asked for: {wanted[key]})" for key in differing)
        raise ConfigError(
            f"{processed} was made with {settings}. Stages by hand only read it. To use it as it is, add to your "
            f"command: {_as_overrides(differing, made_with)}. To make it anew: `dvc exp run -S …` with the same "
            "overrides, or edit conf/ and run `dvc repro preprocess`"
        )


def _as_overrides(differing: Sequence[str], made_with: Mapping[str, Any]) -> str:
    """The overrides that ask for what is there."""
    if "data.name" not in differing:
        return shlex.join([f"{key}={_typed(made_with[key])}" for key in differing])
    given = [f"{key}={made_with[key]}" for key in ("data.path", "data.label") if made_with.get(key) is not None]
    return shlex.join([f"data={made_with['data.name']}", *given])


def _typed(value: Any) -> str:
    return "null" if value is None else json.dumps(value) if isinstance(value, (bool, list, dict)) else str(value)


def _dotted(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}


def _downloaded(lock: Path) -> dict[str, Any]:
    """Kind and path of what download fetched last, as DVC wrote it down; empty before it ran."""
    if not lock.exists():
        return {}
    stages = read_yaml(lock)["stages"]
    watched = stages.get("download", {}).get("params", {}).get("params.yaml", {})
    return {key: value for key, value in watched.items() if key in ("data.kind", "data.path")}
