"""A sweep from its command line to its summary: one parent run in MLflow, a child for each job.

It is identified by what it is a function of (command, settings, data, code), so the same command goes on with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from pipeline.runtime.origin import WORDS_TAG
from pipeline.sweeps.command_line import Command
from pipeline.sweeps.jobs.cluster import slurm_jobs
from pipeline.sweeps.jobs.launcher import SWEEP, SweepContext
from pipeline.sweeps.jobs.pool import ForkServer
from pipeline.sweeps.parent import ParentRun, resumed_sweep, sweep_folder
from pipeline.system.errors import PipelineError
from pipeline.system.fork_server import TRAINING, import_available
from pipeline.system.signals import deferred_stop
from pipeline.tracking import RunRow, Store


def tracked_sweep(root: Path, overrides: Sequence[str], command: Command) -> AbstractContextManager[list[str]]:
    """Gives the overrides for Hydra, which is to run inside the block. The parent run ends as the block does.

    Raises:
        ConfigError: the overrides contradict each other, or name a sweep that is not there.
        PipelineError: some jobs failed; the others are done, and the summary is written.
    """
    return (_dry_run if command.cfg.dry_run else _tracked_run)(root, overrides, command)


@contextmanager
def _dry_run(root: Path, overrides: Sequence[str], command: Command) -> Iterator[list[str]]:
    """Only our launcher can print the jobs without starting them."""
    command, _ = _resumed(Store(root), overrides, command)
    folder = sweep_folder(command, None, root)
    with _no_folder_without_jobs(folder, root):
        kept = [override for override in command.overrides if not override.startswith("hydra.launcher.")]
        yield [*kept, _varied(command), f"hydra.sweep.dir='{folder}'", "hydra/launcher=process"]


@contextmanager
def _tracked_run(root: Path, overrides: Sequence[str], command: Command) -> Iterator[list[str]]:
    with _fork_server(command) as server, ExitStack() as stack:
        store = Store(root)
        command, resumed = _resumed(store, overrides, command)
        parent = ParentRun(store, command, resumed, stack)
        stack.callback(SWEEP.reset, SWEEP.set(SweepContext(parent.open, server)))
        stack.enter_context(_no_folder_without_jobs(parent.folder, root))
        # Our launcher opens the run once it is certain that all jobs can run; others are given the run's id.
        run_id = "" if command.by_processes else parent.open()
        run = [f"sweep.parent={run_id}"] if run_id else []
        study = parent.study.overrides() if parent.study else []
        slurm = slurm_jobs(command.overrides, run_id) if command.by_slurm else nullcontext(list[str]())
        with _summarized(parent), slurm as name:
            yield [*command.overrides, *parent.overrides, *run, *study, _varied(command), *name]


def _resumed(store: Store, overrides: Sequence[str], command: Command) -> tuple[Command, RunRow | None]:
    """The command, with what the sweep that it resumes was begun with if it does not say that itself; and its run."""
    resumed = resumed_sweep(store, command)
    if resumed and not command.identifying_overrides:
        command = Command.read(store.root / "conf", [*json.loads(resumed.tags[WORDS_TAG]), *overrides])
    if command.search:
        command.search.probe(store.root / "conf")
    return command, resumed


def _varied(command: Command) -> str:
    return f"sweep.varied=[{','.join(command.keys)}]"


@contextmanager
def _summarized(parent: ParentRun) -> Iterator[None]:
    """However the block ends, also by an interruption: what is done is worth a table.

    Raises:
        PipelineError: some jobs failed.
    """
    failure: Exception | None = None
    failed_jobs = ""
    try:
        yield
    except Exception as error:
        failure = error
    finally:
        if parent.run:
            from pipeline.sweeps.report.summary import summarize  # draws; a dry run does without

            command = parent.command
            console = Console(highlight=False)
            log_keys = command.search.space.log_keys if command.search else []
            with deferred_stop():  # a signal that has come already waits too
                failed_jobs = summarize(
                    parent.store, parent.run, command.config, command.keys, parent.folder, console, log_keys
                )
    if failed_jobs:
        raise PipelineError(failed_jobs) from failure
    if failure:
        raise failure


@contextmanager
def _no_folder_without_jobs(folder: Path, root: Path) -> Iterator[None]:
    """Hydra makes the folder and writes multirun.yaml before any job is checked: remove it if no job came of it."""
    try:
        yield
    finally:
        if folder.exists() and [file.name for file in folder.iterdir()] == ["multirun.yaml"]:
            (folder / "multirun.yaml").unlink()
            for made in (folder, *folder.parents):
                if made == root or any(made.iterdir()):
                    break
                made.rmdir()


@contextmanager
def _fork_server(command: Command) -> Iterator[ForkServer | None]:
    """What our launcher's jobs are forked from: made before this process opens the store."""
    if not command.by_processes:
        yield None
        return
    server = ForkServer(_import_training)
    try:
        yield server
    finally:
        server.close()


def _import_training() -> None:
    """What a training imports and loads on its way."""
    from pipeline.model import kernels

    import_available(*TRAINING)
    kernels.load()
