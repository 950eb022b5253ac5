"""Another Hydra application in this project's environment behaves as if the project were not there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lanes import long

ROOT = Path(__file__).parents[1]
CONFIG = """
defaults: [_self_]
lr: 0.1
model: {hidden: 3}
hydra:
  run: {dir: outputs}
  sweep: {dir: multirun}
"""
LOGGING = """
version: 1
formatters: {plain: {format: "%(levelname)s of another project: %(message)s"}}
handlers: {console: {class: app.Shouting, formatter: plain}}
root: {level: INFO, handlers: [console]}
disable_existing_loggers: false
"""
# It has a launcher and a sweeper of its own under our names where it is asked to, and composes our conf/ if it can:
# before Hydra starts, and within a job.
APP = """
import logging
import os
import sys
import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

if "OWN_OPTIONS" in os.environ:
    core = "hydra._internal.core_plugins"
    launcher = {"_target_": f"{core}.basic_launcher.BasicLauncher"}
    sweeper = {"_target_": f"{core}.basic_sweeper.BasicSweeper", "max_batch_size": 1, "params": {"lr": "7,8"}}
    ConfigStore.instance().store(group="hydra/launcher", name="process", node=launcher)
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=sweeper)

def compose_ours():
    if "COMPOSE_OURS" in os.environ:
        from pathlib import Path
        try:
            from pipeline.config.compose import compose_yaml
        except ImportError:
            return
        compose_yaml(Path(os.environ["COMPOSE_OURS"]))

class Mine(Callback):
    def on_job_start(self, config, **others):
        print("callback of another project ran")

class Shouting(logging.StreamHandler):
    def format(self, record):
        return super().format(record).upper()

@hydra.main(version_base="1.2", config_path="conf", config_name="config")
def main(cfg):
    compose_ours()
    hydra_cfg = HydraConfig.get()
    print(hydra_cfg.job.name, hydra_cfg.runtime.version_base, GlobalHydra.instance().is_initialized())
    logging.getLogger("job").info("it logs")
    print("job", cfg.lr)

compose_ours()
if __name__ == "__main__":
    main()
"""
# The first argument is the folder of the project's modules; where it is empty, no checkout of it can be imported.
START = """
import runpy, sys
from pathlib import Path
project, *sys.argv = sys.argv[1:]
sys.path[:] = [path for path in sys.path if not Path(path, "pipeline/cli.py").exists()] + ([project] if project else [])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "conf/hydra/job_logging").mkdir(parents=True)
    (tmp_path / "conf/config.yaml").write_text(CONFIG)
    (tmp_path / "conf/hydra/job_logging/shouting.yaml").write_text(LOGGING)
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def said(app: Path, project: str, words: Sequence[str], environment: dict[str, str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", START, project, "app.py", *words],
        cwd=app, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    stdout, stderr = (re.sub(r"\[\d{4}-[^]]*\]", "[time]", text) for text in (done.stdout, done.stderr))
    return done.returncode, stdout, stderr


@pytest.mark.parametrize(
    ("words", "variable", "exit_code", "expected"),
    [
        ([], "", 0, "job 0.1"),
        (["+hydra.callbacks.mine._target_=app.Mine"], "", 0, "callback of another project ran"),
        (["hydra/job_logging=shouting"], "", 0, "INFO OF ANOTHER PROJECT: IT LOGS"),
        (["learning_rate=3"], "", 1, "Could not override 'learning_rate'"),
        long(["model.hiden=3"], "", 1, "Key 'hiden' is not in struct"),
        (["-m", "lr=1,2"], "", 0, "Launching 2 jobs locally"),
        (["-m", "lr=1,2", "hydra/launcher=process"], "", 1, "Could not find 'hydra/launcher/process'"),
        (["-m", "lr=1,2", "hydra/launcher=process"], "OWN_OPTIONS", 0, "job 2"),
        (["-m", "hydra/sweeper=optuna", "hydra/launcher=process"], "OWN_OPTIONS", 0, "job 8"),
        long(["--cfg", "hydra", "-p", "hydra.sweeper"], "", 0, "basic_sweeper.BasicSweeper"),
        long(["--hydra-help"], "", 0, "hydra/sweeper: basic"),
        long(["learning_rate=3"], "COMPOSE_OURS", 1, "Could not override 'learning_rate'"),
        (["--hydra-help"], "COMPOSE_OURS", 0, "hydra/sweeper: basic"),
        (["-m", "lr=1,2", "+hydra.callbacks.mine._target_=app.Mine"], "COMPOSE_OURS", 0, "callback of another"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_foreign_application_is_as_without_the_project(
    words: list[str], variable: str, exit_code: int, expected: str, app: Path
) -> None:
    """Its callbacks, its keys, its logging, its launchers and sweepers: the same output and exit code."""
    environment = {"PATH": "/usr/bin:/bin", **({variable: str(ROOT / "conf")} if variable else {})}
    code, out, err = said(app, str(ROOT / "src"), words, environment)

    assert (code, out, err) == said(app, "", words, environment)
    assert code == exit_code
    assert expected in out + err
    assert "pipeline" not in out + err


# What a program that runs DVC on two projects does.
DVC_ON_TWO = """
import sys
from pathlib import Path
from dvc.utils.hydra import compose_and_dump
ours, theirs = sys.argv[1:]
compose_and_dump("ours.yaml", f"{ours}/conf", None, "config", f"{ours}/.dvc", [])
compose_and_dump("theirs.yaml", f"{theirs}/conf", None, "config", theirs, ["lr=3"])
from hydra.core.config_store import ConfigStore
print(ConfigStore.instance().list("hydra/launcher"))
compose_and_dump("theirs.yaml", f"{theirs}/conf", None, "config", theirs, ["learning_rate=3"])
"""


def test_dvc_has_what_is_ours_for_this_project_alone(app: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DVC_ON_TWO, str(ROOT), str(app)], cwd=app, capture_output=True, text=True, check=False
    )

    assert (app / "ours.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert "lr: 3" in (app / "theirs.yaml").read_text()
    assert "process.yaml" not in done.stdout
    assert "basic.yaml" in done.stdout
    assert "Could not override 'learning_rate'" in done.stderr
