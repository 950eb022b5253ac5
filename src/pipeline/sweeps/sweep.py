"""A sweep from its command line to its summary: one parent run in MLflow, a child for each job.

It is known by what it is a function of (command, settings, data, code), so the same command goes on with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from pipeline.runtime.origin import WORDS_TAG
from pipeline.sweeps.command_line import Command
from pipeline.sweeps.jobs.cluster import slurm_jobs
from pipeline.sweeps.jobs.launcher import PARENT
from pipeline.sweeps.jobs.pool import SERVER, Server
from pipeline.sweeps.parent import Parent, folder_of, wanted_parent
from pipeline.system.errors import PipelineError
from pipeline.system.fork_server import TRAINING, import_available
from pipeline.tracking import Store, later_signals


@contextmanager
def tracked_sweep(root: Path, words: Sequence[str], command: Command) -> Iterator[list[str]]:
    """Yield the overrides to give to Hydra; run it inside the block. The parent run ends as the block does.

    Raises:
        ConfigError: the words contradict each other, or name a sweep that is not there.
        PipelineError: some jobs failed; the others are done, and the summary is written.
    """
    with _server(command):
        yield from _tracked(root, list(words), command)


def _tracked(root: Path, words: Sequence[str], command: Command) -> Iterator[list[str]]:
    store = Store(root)
    asked = wanted_parent(store, command)
    if asked and not command.own_words:
        given = json.loads(asked.tags[WORDS_TAG])
        command = Command.read(root / "conf", [*given, *words])
    if command.search:
        command.search.probe(root / "conf")
    varied = f"sweep.varied=[{','.join(command.keys)}]"
    if command.cfg.dry_run:
        folder = folder_of(command, None, root)
        with _no_folder_without_jobs(folder, root):
            words = [word for word in command.words if not word.startswith("hydra.launcher.")]  # of another, perhaps
            yield [*words, varied, f"hydra.sweep.dir='{folder}'", "hydra/launcher=process"]
        return
    with ExitStack() as stack:
        parent = Parent(store, command, asked, stack)
        token = PARENT.set(parent.begin)
        stack.callback(PARENT.reset, token)
        stack.enter_context(_no_folder_without_jobs(parent.folder, root))
        # Our launcher begins once it knows that all jobs can run; others are handed the run's id.
        begun_id = "" if command.by_processes else parent.begin()
        begun = [f"sweep.parent={begun_id}"] if begun_id else []
        search = parent.study.words() if parent.study else []
        failure: Exception | None = None
        failed = ""
        try:
            with slurm_jobs(command.words, begun_id) if command.by_slurm else nullcontext(list[str]()) as named:
                yield [*command.words, *parent.words, *begun, *search, varied, *named]
        except Exception as error:
            failure = error
        finally:  # also when it is interrupted: what is done is worth a table
            if parent.run:
                from pipeline.sweeps.report.summary import summarize  # draws; a dry run does without

                console = Console(highlight=False)
                log_keys = command.search.space.log_keys if command.search else []
                with later_signals():  # one that has come already waits too
                    failed = summarize(store, parent.run, command.base, command.keys, parent.folder, console, log_keys)
        if failed:
            raise PipelineError(failed) from failure
        if failure:
            raise failure


@contextmanager
def _no_folder_without_jobs(folder: Path, root: Path) -> Iterator[None]:
    """Hydra makes the folder and writes multirun.yaml before any job is checked: take it back if no job came of it."""
    try:
        yield
    finally:
        if folder.exists() and [file.name for file in folder.iterdir()] == ["multirun.yaml"]:
            (folder / "multirun.yaml").unlink()
            for made in (folder, *folder.parents):
                if made == root or any(made.iterdir()):
                    break
                made.rmdir()


def _prepare() -> None:
    """What a training imports and loads on its way."""
    from pipeline.model import kernels

    import_available(*TRAINING)
    kernels.load()


@contextmanager
def _server(command: Command) -> Iterator[None]:
    """What the process launcher forks its jobs from: made before this process opens the store."""
    if not command.by_processes or command.cfg.dry_run:
        yield
        return
    server = Server(_prepare)
    token = SERVER.set(server)
    try:
        yield
    finally:
        SERVER.reset(token)
        server.close()
