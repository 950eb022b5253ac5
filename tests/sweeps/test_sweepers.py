"""All combinations, composed no more often than the launcher needs, none with a foreign class; what a job returned."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import OmegaConf

from hydra_plugins._pipeline import GridSweeper, _result, register
from pipeline.config.compose import composed, initialized, registered_options
from pipeline.sweeps.search.study import Result
from pipeline.system.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"


class CountingLoader:
    """What the sweeper asks to compose."""

    def __init__(self) -> None:
        self.composed: list[Sequence[str]] = []

    def load_sweep_config(self, master_config: object, sweep_overrides: Sequence[str]) -> Any:
        self.composed.append(sweep_overrides)
        return OmegaConf.create({"hydra": {}})


class NotingLauncher:
    """Runs nothing; says that all went well, or that a job failed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.launched: list[tuple[int, list[list[str]]]] = []
        self.error = error

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        self.launched.append((initial_job_idx, job_overrides))
        status = JobStatus.FAILED if self.error else JobStatus.COMPLETED
        returned = [JobReturn(overrides=job, status=status) for job in job_overrides]
        for job in returned:
            job.return_value = self.error
        return returned


def sweeper_for(conf: Path, folder: Path, *words: str, loader: Any = None) -> Any:
    """A sweeper as Hydra makes it, with its launcher."""
    register()
    with initialized(conf):
        config = composed([f"hydra.sweep.dir='{folder}'", *words])
        nothing: Any = None
        context = HydraContext(config_loader=loader or GlobalHydra.instance().config_loader(), callbacks=nothing)
        return Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=print)


@pytest.mark.parametrize(("launcher", "composed"), [("process", []), ("basic", [["seed=1"], ["seed=2"]])])
def test_jobs_are_composed_by_the_sweeper_only_where_the_launcher_does_not(
    launcher: str, composed: list[list[str]], tmp_path: Path
) -> None:
    loader = CountingLoader()
    sweeper = sweeper_for(CONF, tmp_path, f"hydra/launcher={launcher}", loader=loader)
    assert isinstance(sweeper, GridSweeper)

    sweeper.validate_batch_is_legal([["seed=1"], ["seed=2"]])

    assert loader.composed == composed


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=1,2", "model.units=[64],[32,16]", "tracking.run_name='a, b'"],
        ["optimizer=adam,sgd", "+optimizer.x=null", "optimizer.lr=choice(1e-3,0.1)", "seed=range(0,3)"],
        ["expand={name: none},{name: deform}", "seed=1", "seed=3,4"],
    ],
    ids=" ".join,
)
def test_jobs_and_their_order_are_those_of_hydras_own_sweeper(words: list[str], tmp_path: Path) -> None:
    sweeper = sweeper_for(CONF, tmp_path / "sweep", loader=CountingLoader())
    sweeper.launcher = NotingLauncher()
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)

    sweeper.sweep(words)

    assert sweeper.launcher.launched == [(0, batch)]
    assert (tmp_path / "sweep/multirun.yaml").exists()


def test_options_of_hydras_own_sweeper_are_there(tmp_path: Path) -> None:
    sweeper = sweeper_for(CONF, tmp_path, "hydra.sweeper.max_batch_size=2", loader=CountingLoader())
    sweeper.launcher, sweeper.params = NotingLauncher(), {"seed": "1,2,3"}

    sweeper.sweep([])

    assert sweeper.launcher.launched == [(0, [["seed=1"], ["seed=2"]]), (2, [["seed=3"]])]


@pytest.mark.parametrize("empty", ["optimizer=glob(zzz*)", "seed=range(0,0)"])
def test_a_sweep_of_nothing_is_refused(empty: str, tmp_path: Path) -> None:
    sweeper = sweeper_for(CONF, tmp_path / "sweep")
    with initialized(CONF), pytest.raises(ConfigError, match="expected one value or more to sweep, found none") as told:
        sweeper.sweep(["model.units=8,16", empty])

    assert str(told.value).startswith(f"{empty}: ")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_job_is_refused(size: int, tmp_path: Path) -> None:
    sweeper = sweeper_for(CONF, tmp_path / "sweep", f"hydra.sweeper.max_batch_size={size}", loader=CountingLoader())
    with pytest.raises(ConfigError, match=rf"^hydra\.sweeper\.max_batch_size: expected 1 or more, found {size}$"):
        sweeper.sweep(["seed=1,2"])

    assert not (tmp_path / "sweep").exists()


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    sweeper = sweeper_for(CONF, tmp_path, loader=CountingLoader())
    with pytest.raises(HydraException, match="does not support sweep type : INTERVAL"):
        sweeper.sweep(["optimizer.lr=interval(0.1,1)"])


def test_what_a_job_raises_ends_the_sweep(tmp_path: Path) -> None:
    sweeper = sweeper_for(CONF, tmp_path, loader=CountingLoader())
    sweeper.launcher = NotingLauncher(ZeroDivisionError("of a job"))
    with pytest.raises(ZeroDivisionError, match="of a job"):
        sweeper.sweep(["seed=1,2"])


def test_a_class_that_only_a_job_would_name_is_refused_before_any_starts(tmp_path: Path) -> None:
    """Which the settings without what is swept do not have."""
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf/experiment/hostile.yaml").write_text(
        "# @package _global_\nhydra: {job_logging: {handlers: {x: {class: os.system, command: 'false'}}}}\n"
    )
    sweeper = sweeper_for(tmp_path / "conf", tmp_path / "sweep", "hydra/launcher=basic")
    with (
        registered_options(),
        pytest.raises(ConfigError, match=r"^hydra\.job_logging\.handlers\.x\.class: expected a launcher"),
    ):
        sweeper.sweep(["experiment=fast,hostile"])

    assert [file.name for file in (tmp_path / "sweep").iterdir()] == ["multirun.yaml"]


@pytest.mark.parametrize(
    ("value", "status", "result"),
    [
        (0.5, JobStatus.COMPLETED, Result((0.5,))),
        ((0.5, 7), JobStatus.COMPLETED, Result((0.5, 7))),
        (ValueError("too large"), JobStatus.FAILED, Result(reason="too large")),
        (ZeroDivisionError(), JobStatus.FAILED, Result(reason="ZeroDivisionError")),
    ],
)
def test_a_search_learns_of_a_job_what_it_returned_or_why_not(
    value: Any, status: JobStatus, result: Result, capfd: pytest.CaptureFixture[str]
) -> None:
    returned = JobReturn(overrides=["seed=1"], status=status)
    returned.return_value = value

    assert _result(returned) == result
    assert capfd.readouterr().err == ""  # where Hydra prints a line of its own
