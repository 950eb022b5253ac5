"""A sweep's own run in MLflow, whose children are its jobs."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from pathlib import Path

from pipeline.config.overrides import shell_words
from pipeline.runtime.origin import FOLDER_TAG, WORDS_TAG, shown
from pipeline.sweeps.command_line import Command, Study, sweep_id
from pipeline.sweeps.report.wording import TRAIN
from pipeline.system.errors import PipelineError
from pipeline.tracking import Run, RunRow, Store, locked
from pipeline.tracking.lookup import COMMAND_TAG, ID_TAG, PARENT, ROLE_TAG, Sweep, find, sweeps, when

BEGINNING = Path(".pipeline", "sweep.lock")


class Parent:
    """The sweep's own run: a new one, or that of an earlier start."""

    def __init__(self, store: Store, command: Command, asked: RunRow | None, stack: ExitStack) -> None:
        self.store, self.command, self._stack = store, command, stack
        self.identity = asked.tags[ID_TAG] if asked else sweep_id(command, store.root)
        self.before = asked or (None if command.cfg.again else newest(store, self.identity))
        self.folder = folder_of(command, self.before, store.root)
        self.experiment = command.tracking.experiment
        if self.before:  # a sweep that goes on stays where it was filed
            self.experiment = store.experiment_name(self.before.experiment_id)
        self.run: Run | None = None
        self.study = None
        if command.search:
            tags, name = self.before.tags if self.before else {}, self.identity
            new_name = f"{name}-{self.folder.name}" if command.cfg.again else name
            self.study = Study.of(command.search.storage, tags, new_name, self.folder, store.root)

    @property
    def words(self) -> list[str]:
        """Where its jobs write and are filed."""
        filed = self.experiment != self.command.tracking.experiment
        return [f"hydra.sweep.dir='{self.folder}'", *([f"tracking.experiment='{self.experiment}'"] if filed else [])]

    def begin(self) -> str:
        """Open the run, which `stack` ends, where that was not done yet. Returns its id.

        Raises:
            PipelineError: another process has the same sweep open.
        """
        if self.run is None:
            with locked(self.store.root / BEGINNING):  # of two at the same moment the second one sees the first
                if not (self.before or self.command.cfg.again) and (other := newest(self.store, self.identity)):
                    raise PipelineError(
                        f"the same sweep has just been started by another process, as run {other.run_id}. Wait for it "
                        "to end, or start another one beside it: sweep.again=true"
                    )
                self.run = self._stack.enter_context(self._opened())
            if self.before:
                began = f"sweep {self.identity} of {when(self.before)}"
                print(f"going on with {began}: jobs done with these settings, data and code are not done again")
            else:
                print(f"sweep {self.identity}, in {shown(self.folder, self.store.root)}")
            sys.stdout.flush()
        return self.run.id

    def _opened(self) -> AbstractContextManager[Run]:
        command = self.command
        tags = {
            ID_TAG: self.identity, WORDS_TAG: json.dumps(command.own_words), FOLDER_TAG: str(self.folder),
            ROLE_TAG: PARENT, COMMAND_TAG: f"{TRAIN} -m {shell_words(command.words)}",
            **(self.study.tags if self.study else {}),
        }  # fmt: skip
        name = command.tracking.run_name or f"sweep {' × '.join(command.keys) or self.identity}"
        resume = self.before.run_id if self.before else None
        return self.store.run(self.experiment, name, resume=resume, tags=tags, server=command.tracking.server)


def wanted_parent(store: Store, command: Command) -> RunRow | None:
    """The sweep that `sweep.resume` names: by its id, or the beginning of its parent's run id."""
    name = command.cfg.resume
    if name is None:
        return None
    target = find(store, name, ("sweep",), given=f"sweep.resume={name}")
    return target.row if isinstance(target, Sweep) else None


def newest(store: Store, identity: str) -> RunRow | None:
    return next(iter(sweeps(store, identity)), None)


def folder_of(command: Command, parent: RunRow | None, root: Path) -> Path:
    """Where the jobs write: where the sweep began, the folder the user gave, or a new one."""
    if parent:
        return Path(parent.tags[FOLDER_TAG])
    given = [word.partition("=")[2] for word in command.words if word.startswith("hydra.sweep.dir=")]
    name = given[-1].strip("'\"") if given else f"multirun/train/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    return root / name
