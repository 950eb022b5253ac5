"""hydra/sweeper=optuna: search where Hydra's own sweeper would try all. The trials are jobs of any launcher.

Use:  pipeline train -m hydra/sweeper=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-1))'
"""

# No `from __future__ import annotations`: Hydra runs this file before it is in sys.modules, where dataclasses look.

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    """A thin shell: Hydra's words become a search, its trials go to a launcher and come back as results."""

    def __init__(self, **options: Any) -> None:
        pass  # `sweep` reads them, resolved and as plain values

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.loader, self.settings = hydra_context.config_loader, config
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from pipeline.sweeps.jobs.launcher import SWEEP
        from pipeline.sweeps.search.options import Search
        from pipeline.sweeps.search.study import StudyRunner

        options: Any = OmegaConf.to_container(self.settings.hydra.sweeper, resolve=True)
        own = OmegaConf.masked_copy(self.settings, [str(key) for key in self.settings if key != "hydra"])
        base: Any = OmegaConf.to_container(own, resolve=True)
        search = Search.read(options, arguments, base, self.loader)
        if base["sweep"]["dry_run"]:
            print(search.text())
            return
        study = StudyRunner(search, base["sweep"]["study"], base["sweep"]["storage"])
        study.begin(SWEEP.get().open_run())
        folder = Path(self.settings.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.settings, folder / "multirun.yaml")
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
            results = [self._filed().get(number, lost) for number, _ in batch]
        yield from zip([number for number, _ in batch], results, strict=True)

    def _filed(self) -> dict[int, Any]:
        """The results of the jobs that have finished, as MLflow has them; the others have been awaited."""
        from pipeline.runtime.origin import NUMBER_TAG
        from pipeline.runtime.places import project_root
        from pipeline.sweeps.jobs.cluster import await_jobs
        from pipeline.sweeps.jobs.launcher import SWEEP
        from pipeline.sweeps.jobs.records import job_runs, objective_values
        from pipeline.sweeps.search.study import Result
        from pipeline.tracking import Store

        if name := self.settings.hydra.launcher.get("name"):
            await_jobs(name)
        record: Any = OmegaConf.to_container(OmegaConf.masked_copy(self.settings, ["sweep", "trainer"]), resolve=True)
        found = {}
        for row in job_runs(Store(project_root()), SWEEP.get().open_run()).values():
            if row.status == "FINISHED":
                values = objective_values(row, record)
                found[int(row.tags[NUMBER_TAG])] = Result(values if isinstance(values, tuple) else (values,))
        return found


def _result(returned: JobReturn) -> Any:
    from pipeline.sweeps.search.study import Result

    value = returned._return_value  # `return_value` would raise, and print a line of its own
    if returned.status != JobStatus.COMPLETED:
        return Result(reason=str(value) or type(value).__name__)
    return Result(tuple(value) if isinstance(value, tuple | list) else (float(value),))


@dataclass
class OptunaSweeperConf:
    _target_: str = "hydra_plugins.pipeline_optuna_sweeper.OptunaSweeper"
    _recursive_: bool = False
    n_trials: int | None = None  # in all, earlier starts included; null: as many as before, 20 for a new search
    sampler: str = "tpe"  # tpe, cmaes, random, grid, qmc, nsgaii
    sampler_options: dict[str, Any] = field(default_factory=dict)  # arguments of Optuna's class
    pruner: str = "none"  # none, median, hyperband
    pruner_options: dict[str, Any] = field(default_factory=dict)
    seed: int | None = 0  # of the sampler; null: another one each time
    storage: str | None = None  # a URL, or a journal's path; null: OPTUNA_STORAGE, else in the sweep's folder
    n_jobs: int = 1  # at once under other launchers than process, which has its own hydra.launcher.n_jobs
    max_failures_in_a_row: int = 5  # after which the search gives up
    params: dict[str, Any] = field(default_factory=dict)  # key -> what to sweep, as on the command line


conf = OmegaConf.structured(OptunaSweeperConf)
for open_ended in (conf.sampler_options, conf.pruner_options, conf.params):
    OmegaConf.set_struct(open_ended, False)  # hydra.sweeper.sampler_options.multivariate=true needs no + in front
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=conf, provider="pipeline")
