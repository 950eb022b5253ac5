"""hydra/launcher=process: the jobs of a sweep in processes of their own, several at once. The default of `-m`.

Use:  pipeline train -m optimizer.lr=1e-3,1e-2 hydra.launcher.n_jobs=2
"""

# No `from __future__ import annotations`: Hydra runs this file before it is in sys.modules, where dataclasses look.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.system.errors import PipelineError


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


@dataclass
class ProcessLauncherConf:
    _target_: str = "hydra_plugins.pipeline_process_launcher.ProcessLauncher"
    n_jobs: int | None = None  # at once; null: one a core, or one for each share of the GPUs
    threads: int | None = None  # of each job; null: cores / n_jobs
    gpus: list[int] | None = None  # to give out; null: all that are there, where the jobs use GPUs
    gpus_per_job: int | None = None  # null: trainer.devices
    timeout_s: float | None = None  # after which a job is ended and counts as failed; null: never


ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="pipeline")
