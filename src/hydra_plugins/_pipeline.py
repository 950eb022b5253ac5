"""Our launcher and sweepers. Hydra makes those of this package alone, by name: hydra_plugins._pipeline.ProcessLauncher.

The underscore keeps Hydra, which imports every other file of this package in every Hydra application of the
environment, from this one (docs/decisions/0017). `register` names the classes to Hydra in a process of ours.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from itertools import count, groupby, islice, product
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.config.allowed_targets import PROCESS, CheckedLoader
from pipeline.system.errors import ConfigError, PipelineError


def register() -> None:
    """Let Hydra find the classes, in this process."""
    for plugin in (ProcessLauncher, GridSweeper, OptunaSweeper):
        Plugins.instance().register(plugin)


# ---------------------------------------------------------------- hydra/launcher=process


class ProcessLauncher(Launcher):
    """A thin shell: Hydra's overrides become jobs, jobs go through pipeline.sweeps."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's interface: all jobs at once, all outcomes at the end."""
        from pipeline.sweeps.jobs.launcher import SWEEP
        from pipeline.system.files import write_json

        jobs = [self.job(number, words) for number, words in enumerate(job_overrides, initial_job_idx)]
        if self.config.sweep.dry_run:
            print(f"{len(jobs)} jobs; none is started (sweep.dry_run)")
            for job in jobs:
                print(f"  #{job.number}  {job.label}")
            return []
        SWEEP.get().open_run()  # the sweep may refuse: nothing is written before
        write_json(Path(self.config.hydra.sweep.dir, "planned.json"), [job.plan for job in jobs])
        returned = dict(self.stream(iter(jobs), len(jobs)))
        if failed := [job for job in jobs if returned[job.number].status == JobStatus.FAILED]:
            raise JobsFailed(f"{len(failed)} of {len(jobs)} jobs failed")
        return [returned[job.number] for job in jobs]

    def stream(self, jobs: Iterator[Any], count: int | None = None) -> Iterator[tuple[int, JobReturn]]:
        """(number, outcome) of each job as it ends; the next job is asked for when a slot is free."""
        from pipeline.runtime.places import project_root
        from pipeline.sweeps.jobs.launcher import Rules, run_jobs
        from pipeline.sweeps.jobs.pool import gpus_for, slots

        o = self.options
        sweep = self.config.sweep
        gpus = o["gpus"] if o["gpus"] is not None else gpus_for(self.config.trainer.accelerator)
        gpus_per_job = o["gpus_per_job"] or self.config.trainer.devices
        shares = slots(o["n_jobs"], o["threads"], gpus, gpus_per_job, count)
        rules = Rules(shares, o["timeout_s"], sweep.fail_fast, sweep.retry_failed)
        for outcome in run_jobs(project_root(), jobs, count, rules):
            returned = JobReturn(overrides=outcome.job.overrides)
            failed = outcome.value is None
            returned.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            returned.return_value = JobFailed(outcome.reason) if failed else outcome.value
            yield outcome.job.number, returned

    def job(self, number: int, words: Sequence[str]) -> Any:
        """Compose, resolve and check one job's configuration; what is wrong with it is said before any job starts."""
        from pipeline.sweeps.jobs.job import checked_job

        setup_globals()
        config = self.loader.load_sweep_config(self.config, list(words))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # ${hydra:…} and ${now:…} in it
        try:
            folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).resolve()
            own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
            record: Any = OmegaConf.to_container(own, resolve=True)
            return checked_job(config.hydra.job.name, number, list(config.hydra.overrides.task), record, folder)
        finally:
            HydraConfig.instance().cfg = before


class JobFailed(Exception):
    """A job of a sweep failed; the message says why."""


class JobsFailed(PipelineError):
    """All jobs were tried, and some failed. Hydra would print a line of its own about the first."""


# ---------------------------------------------------------------- hydra/sweeper=basic, the default


class CheckingSweeper(Sweeper):
    """A sweeper whose launcher, whichever it is, composes no job that names a foreign class in Hydra's settings."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.config, self.config_loader = config, hydra_context.config_loader
        loader: Any = CheckedLoader(hydra_context.config_loader)
        self.hydra_context = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task_function, config=config
        )

    def make_folder(self) -> None:
        """What Hydra's own sweeper leaves at first."""
        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")


class GridSweeper(CheckingSweeper):
    """All combinations of what is swept.

    Hydra's own composes the configuration of each job once more than the launcher, to see whether it can be: 0.2 s a
    job. Our launcher composes and checks all of them before it starts the first one.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        self.max_batch_size = max_batch_size
        self.params = params or {}

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = OverridesParser.create(self.config_loader).parse_overrides(words)
        choices = {override.get_key_element(): _choices(override) for override in overrides}
        jobs = [list(job) for job in product(*choices.values())]
        if not jobs:
            empty = next(override for override in reversed(overrides) if not choices[override.get_key_element()])
            raise ConfigError(f"{empty.input_line}: expected one value or more to sweep, found none")
        size = len(jobs) if self.max_batch_size is None else self.max_batch_size
        if size < 1:
            raise ConfigError(f"hydra.sweeper.max_batch_size: expected 1 or more, found {size}")
        self.make_folder()
        returned = []
        for first in range(0, len(jobs), size):
            batch = jobs[first : first + size]
            self.validate_batch_is_legal(batch)
            returned.append(self.launcher.launch(batch, initial_job_idx=first))
            for job in returned[-1]:
                _ = job.return_value  # raises what a job has raised
        return returned

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """The launcher's part, where the launcher is ours."""
        if self.config is not None and self.config.hydra.launcher._target_ != PROCESS:
            super().validate_batch_is_legal(batch)


def _choices(override: Override) -> list[str]:
    """All that an override of a multirun stands for."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        kind = override.value_type.name if override.value_type else ""
        raise HydraException(f"BasicSweeper does not support sweep type : {kind}")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


# ---------------------------------------------------------------- hydra/sweeper=optuna


class OptunaSweeper(CheckingSweeper):
    """A thin shell: Hydra's words become a search, its trials go to a launcher and come back as results."""

    def __init__(self, **options: Any) -> None:
        pass  # `sweep` reads them, resolved and as plain values

    def sweep(self, arguments: list[str]) -> None:
        from pipeline.sweeps.jobs.launcher import SWEEP
        from pipeline.sweeps.search.options import Search
        from pipeline.sweeps.search.study import StudyRunner

        assert self.config is not None
        options: Any = OmegaConf.to_container(self.config.hydra.sweeper, resolve=True)
        own = OmegaConf.masked_copy(self.config, [str(key) for key in self.config if key != "hydra"])
        base: Any = OmegaConf.to_container(own, resolve=True)
        search = Search.read(options, arguments, base, self.config_loader)
        if base["sweep"]["dry_run"]:
            print(search.text())
            return
        study = StudyRunner(search, base["sweep"]["study"], base["sweep"]["storage"])
        study.begin(SWEEP.get().open_run())
        self.make_folder()
        if base["sweep"]["retry_failed"]:
            study.retry_failed()
        print(f"{study.num_done} of {study.num_trials} trials are done", flush=True)
        if hasattr(self.launcher, "stream"):
            study.run(self.launcher.job, self._stream)
        else:
            self._batch_size = search.num_jobs
            study.run(lambda number, overrides: (number, overrides), self._batches)

    def _stream(self, jobs: Iterator[Any], num_jobs: int) -> Iterator[tuple[int, Any]]:
        """Our launcher asks for a job when a slot is free."""
        for number, returned in self.launcher.stream(jobs, num_jobs):
            yield number, _result(returned)

    def _batches(self, jobs: Iterator[Any], num_jobs: int) -> Iterator[tuple[int, Any]]:
        """Any other takes several at once, numbered without a gap, and answers when all of them have ended."""
        while batch := list(islice(jobs, self._batch_size)):
            places = count()
            for _, group in groupby(batch, key=lambda job: job[0] - next(places)):
                yield from self._batch(list(group))

    def _batch(self, batch: list[tuple[int, list[str]]]) -> Iterator[tuple[int, Any]]:
        from pipeline.sweeps.search.study import Result

        try:
            returned = self.launcher.launch([words for _, words in batch], initial_job_idx=batch[0][0])
            results = [_result(one) for one in returned]
        except Exception as error:  # of a launcher whose worker died: it has lost what the others returned
            lost = Result(reason=f"{type(error).__name__}: {error}")
            results = [self._finished().get(number, lost) for number, _ in batch]
        yield from zip([number for number, _ in batch], results, strict=True)

    def _finished(self) -> dict[int, Any]:
        """The results of the jobs that have finished, as MLflow has them; the others have been awaited."""
        from pipeline.runtime.origin import NUMBER_TAG
        from pipeline.runtime.places import project_root
        from pipeline.sweeps.jobs.cluster import await_jobs
        from pipeline.sweeps.jobs.job import job_runs, values_of_job
        from pipeline.sweeps.jobs.launcher import SWEEP
        from pipeline.sweeps.search.study import Result
        from pipeline.tracking import Store

        assert self.config is not None
        if name := self.config.hydra.launcher.get("name"):
            await_jobs(name)
        record: Any = OmegaConf.to_container(OmegaConf.masked_copy(self.config, ["sweep", "trainer"]), resolve=True)
        results = {}
        for row in job_runs(Store(project_root()), SWEEP.get().open_run()).values():
            if row.status == "FINISHED":
                values = values_of_job(row, record)
                results[int(row.tags[NUMBER_TAG])] = Result(values if isinstance(values, tuple) else (values,))
        return results


def _result(returned: JobReturn) -> Any:
    from pipeline.sweeps.search.study import Result

    try:
        with redirect_stderr(io.StringIO()):  # where a line of Hydra's goes about the failure that it raises
            value = returned.return_value
    except Exception as error:
        return Result(reason=str(error) or type(error).__name__)
    return Result(tuple(value) if isinstance(value, tuple | list) else (float(value),))
