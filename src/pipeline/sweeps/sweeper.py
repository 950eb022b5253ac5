"""Which sweeper a multirun asks for. Knows nothing of Optuna, whose import costs a grid 0.3 s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.compose import CONFIG_NAME
from pipeline.errors import ConfigError
from pipeline.sweeps.storage import handed_on, place_of, refuse_a_password, shown_place

if TYPE_CHECKING:
    from pipeline.sweeps.search import Search

PROCESS = "hydra_plugins.pipeline_process_launcher.ProcessLauncher"
OPTUNA = "hydra_plugins.pipeline_optuna_sweeper.OptunaSweeper"
STUDY_TAG, STORAGE_TAG = "sweep.study", "sweep.storage"  # of the sweep's run


def composed_plugins(
    conf: Path, words: Sequence[str], fixed: Sequence[str], base: Mapping[str, Any]
) -> tuple[str, Search | None]:
    """The launcher's class, and the search that a multirun asks for; None if it asks for a grid.

    They may be named on the command line or in conf/.

    Args:
        words: of the whole command line, Hydra's own included.
        fixed: those of them that are no sweeps and not Hydra's.
        base: what they compose to.

    Raises:
        ConfigError: a setting that a grid would ignore.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    hydras = [word for word in words if word.lstrip("+").startswith(("hydra.", "hydra/"))]
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        hydra = compose(CONFIG_NAME, [*fixed, *hydras], return_hydra_config=True).hydra
        sweeper, launcher = hydra.sweeper, str(hydra.launcher._target_)
        if sweeper._target_ != OPTUNA:
            for key in ("params", "max_batch_size"):
                if sweeper.get(key):
                    raise ConfigError(
                        f"hydra.sweeper.{key} is for hydra/sweeper=optuna; a grid is what stands on the command line: "
                        "model.units=64,128"
                    )
            if base["sweep"]["fail_fast"] and launcher != PROCESS:
                raise ConfigError("sweep.fail_fast=true needs hydra/launcher=process: others start all jobs at once")
            return launcher, None
        from pipeline.sweeps.search import Search

        raw: Any = OmegaConf.to_container(sweeper, resolve=False)
        refuse_a_password(raw["storage"])  # but a ${oc.env:…} may stand for one
        options: Any = OmegaConf.to_container(sweeper, resolve=True)
        handed_on(options["storage"] or "")  # before the process that starts the jobs is forked
        return launcher, Search.read(options, words, base, GlobalHydra.instance().config_loader())


@dataclass(frozen=True)
class Study:
    """Where a search keeps what it knows."""

    name: str
    place: str  # a URL or the path of a journal

    @classmethod
    def of(cls, given: str | None, before: Mapping[str, str], name: str, folder: Path, root: Path) -> Study:
        """The study of a sweep.

        Args:
            given: hydra.sweeper.storage.
            before: tags of the sweep's run, where it goes on.
            name: for a new study.

        Raises:
            ConfigError: the sweep began with another storage.
        """
        place = place_of(given, folder, root)
        here = shown_place(place)
        if (known := before.get(STORAGE_TAG, here)) != here:
            raise ConfigError(
                f"the study of this sweep is in {known}, not in {here}: give hydra.sweeper.storage, or the environment "
                "variable OPTUNA_STORAGE, as before; or start another sweep: sweep.again=true"
            )
        return cls(before.get(STUDY_TAG, name), place)

    @property
    def tags(self) -> dict[str, str]:
        return {STUDY_TAG: self.name, STORAGE_TAG: shown_place(self.place)}

    def words(self) -> list[str]:
        """The overrides that tell the sweeper, and each job."""
        return [f"sweep.study='{self.name}'", f"sweep.storage='{handed_on(self.place)}'"]
