"""A sweep's own run in MLflow, whose children are its jobs, and where its folder and its study are."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.config.overrides import shell_words
from pipeline.runtime.origin import FOLDER_TAG, WORDS_TAG, shown
from pipeline.sweeps.command_line import Command, sweep_id
from pipeline.sweeps.report.table import TRAIN
from pipeline.sweeps.search.storage import place_of, shown_place, storage_for_jobs
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.tracking import Run, RunRow, Store, locked
from pipeline.tracking.lookup import COMMAND_TAG, ID_TAG, PARENT, ROLE_TAG, Sweep, find, sweeps, when

LOCK = Path(".pipeline", "sweep.lock")
STUDY_TAG, STORAGE_TAG = "sweep.study", "sweep.storage"  # of the sweep's run


class ParentRun:
    """The sweep's own run: a new one, or that of an earlier start."""

    def __init__(self, store: Store, command: Command, resumed: RunRow | None, stack: ExitStack) -> None:
        """resumed: the run that the command names; stack: ends the run."""
        self.store, self.command, self._stack = store, command, stack
        self.identity = resumed.tags[ID_TAG] if resumed else sweep_id(command, store.root)
        self.earlier = resumed or (None if command.cfg.again else newest_sweep(store, self.identity))
        self.folder = sweep_folder(command, self.earlier, store.root)
        self.experiment = command.tracking.experiment
        if self.earlier:  # a sweep that goes on stays in its experiment
            self.experiment = store.experiment_name(self.earlier.experiment_id)
        self.run: Run | None = None
        self.study = None
        if command.search:
            tags, name = self.earlier.tags if self.earlier else {}, self.identity
            new_name = f"{name}-{self.folder.name}" if command.cfg.again else name
            self.study = StudyLocation.of(command.search.storage, tags, new_name, self.folder, store.root)

    @property
    def overrides(self) -> list[str]:
        """Where its jobs write and are recorded."""
        moved = self.experiment != self.command.tracking.experiment
        return [f"hydra.sweep.dir='{self.folder}'", *([f"tracking.experiment='{self.experiment}'"] if moved else [])]

    def open(self) -> str:
        """Open the run, unless that was done before. Returns its id.

        Raises:
            PipelineError: another process has the same sweep open.
        """
        if self.run is None:
            with locked(self.store.root / LOCK):  # of two at the same moment the second one sees the first
                if not (self.earlier or self.command.cfg.again) and (other := newest_sweep(self.store, self.identity)):
                    raise PipelineError(
                        f"the same sweep has just been started by another process, as run {other.run_id}. Wait for it "
                        "to end, or start another one beside it: sweep.again=true"
                    )
                self.run = self._stack.enter_context(self._opened())
            if self.earlier:
                began = f"sweep {self.identity} of {when(self.earlier)}"
                print(f"going on with {began}: jobs done with these settings, data and code are not done again")
            else:
                print(f"sweep {self.identity}, in {shown(self.folder, self.store.root)}")
            sys.stdout.flush()
        return self.run.id

    def _opened(self) -> AbstractContextManager[Run]:
        command = self.command
        tags = {
            ID_TAG: self.identity, WORDS_TAG: json.dumps(command.identifying_overrides), FOLDER_TAG: str(self.folder),
            ROLE_TAG: PARENT, COMMAND_TAG: f"{TRAIN} -m {shell_words(command.overrides)}",
            **(self.study.tags if self.study else {}),
        }  # fmt: skip
        name = command.tracking.run_name or f"sweep {' × '.join(command.keys) or self.identity}"
        resume = self.earlier.run_id if self.earlier else None
        return self.store.run(self.experiment, name, resume=resume, tags=tags, server=command.tracking.server)


def resumed_sweep(store: Store, command: Command) -> RunRow | None:
    """The sweep that `sweep.resume` names: by its id, its run's id, the beginning of either, or its name."""
    name = command.cfg.resume
    if name is None:
        return None
    target = find(store, name, ("sweep",), given=f"sweep.resume={name}")
    return target.row if isinstance(target, Sweep) else None


def newest_sweep(store: Store, identity: str) -> RunRow | None:
    return next(iter(sweeps(store, identity)), None)


def sweep_folder(command: Command, earlier: RunRow | None, root: Path) -> Path:
    """Where the jobs write: where the sweep began, the folder the user gave, or a new one."""
    if earlier:
        return Path(earlier.tags[FOLDER_TAG])
    given = [override.partition("=")[2] for override in command.overrides if override.startswith("hydra.sweep.dir=")]
    name = given[-1].strip("'\"") if given else f"multirun/train/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    return root / name


@dataclass(frozen=True)
class StudyLocation:
    """Where a search keeps its trials."""

    name: str
    place: str  # a URL or the path of a journal

    @classmethod
    def of(cls, storage: str | None, tags: Mapping[str, str], name: str, folder: Path, root: Path) -> StudyLocation:
        """The study of a sweep.

        Args:
            storage: hydra.sweeper.storage.
            tags: of the sweep's run, where it goes on.
            name: for a new study.

        Raises:
            ConfigError: the sweep began with another storage.
        """
        place = place_of(storage, folder, root)
        here = shown_place(place)
        if (before := tags.get(STORAGE_TAG, here)) != here:
            raise ConfigError(
                f"the study of this sweep is in {before}, not in {here}: give hydra.sweeper.storage, or the "
                "environment variable OPTUNA_STORAGE, as before; or start another sweep: sweep.again=true"
            )
        return cls(tags.get(STUDY_TAG, name), place)

    @property
    def tags(self) -> dict[str, str]:
        return {STUDY_TAG: self.name, STORAGE_TAG: shown_place(self.place)}

    def overrides(self) -> list[str]:
        """For the sweeper, and for each job."""
        return [f"sweep.study='{self.name}'", f"sweep.storage='{storage_for_jobs(self.place)}'"]
